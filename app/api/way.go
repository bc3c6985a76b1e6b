package api

import "time"

// Way is how a VM gets to another device.
type Way string

// The ways that a person can ask for. Without one the engine chooses.
const (
	WayChosen   Way = ""         // the engine chooses
	WayTeleport Way = "teleport" // it runs on, its memory comes first
	WayPostCopy Way = "postcopy" // it runs on, its memory comes after it: should the device that it left die meanwhile, the memory is lost
	WaySuspend  Way = "suspend"  // it is suspended, its memory comes with its disk, and it goes on there
)

// The ways that are left where none of those is possible, or none is needed.
const (
	WayRestart  Way = "restart"  // shut it down, switch it, start it there
	WayHandOver Way = "handover" // it doesn't run: it is only handed over
	WayNone     Way = "none"     // not before something has changed
)

// Asked says whether a person can ask for w.
func (w Way) Asked() bool {
	return w == WayChosen || w == WayTeleport || w == WayPostCopy || w == WaySuspend
}

// WayBasis is what estimates go by.
type WayBasis struct {
	// Rate is how many bytes of memory a second the connection carries: of a Trip compressed as memory is, else as the connection is. DirtyRate is how many the
	// guest writes anew.
	Rate      int64 `json:"rate"`
	DirtyRate int64 `json:"dirty_rate"`
	// RoundTrip is the connection's; 0 is unknown.
	RoundTrip time.Duration `json:"round_trip_ns,omitempty"`
	// At is when that was seen: when the VM's memory was last on its way there (Trip), or a few bytes were sent to find it out.
	At   time.Time `json:"at"`
	Trip bool      `json:"trip,omitempty"`
}

// WayEstimate is what a way would take. What isn't known is 0: of a connection of which nothing is known, no times are.
type WayEstimate struct {
	Way Way `json:"way"`
	// Possible says that it would work, as far as is known.
	Possible bool `json:"possible"`
	// Bytes is what would be moved, of memory and disk, before it is compressed.
	Bytes int64 `json:"bytes"`
	// There is how long until the VM runs there, Pause for how long of that it stands still, Full how long until it is as fast as it was.
	There time.Duration `json:"there_ns,omitempty"`
	Pause time.Duration `json:"pause_ns,omitempty"`
	Full  time.Duration `json:"full_ns,omitempty"`
}
