package api

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
