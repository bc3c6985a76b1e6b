package api

import "time"

// Takeover is what a person reads before a VM is taken over without its owner's consent.
type Takeover struct {
	VM     string `json:"vm"`
	VMName string `json:"vm_name"`
	// Owner is the device it would be taken from. Seen is when it was last heard, zero if never; Offline says that it had told
	// that it goes on a journey with the VM, since Since.
	Owner     string    `json:"owner"`
	OwnerName string    `json:"owner_name"`
	Connected bool      `json:"connected"`
	Seen      time.Time `json:"seen,omitzero"`
	Offline   bool      `json:"offline"`
	Since     time.Time `json:"since,omitzero"`
	// State is the owner's last word of the VM.
	State VMState `json:"state"`
	// Position is where this device's copy stands, At when that was. Latest is the newest position that anybody has told of, LatestAt when.
	Position Position  `json:"position"`
	At       time.Time `json:"at,omitzero"`
	Latest   Position  `json:"latest"`
	LatestAt time.Time `json:"latest_at,omitzero"`
	// Missing is how many bytes this copy lacked when the owner last told (a multiple of 4096): at least so much may be lost. nil is
	// unknown. Certain says that it can't be more: the owner stopped the VM and told so afterwards.
	Missing *int64 `json:"missing_bytes"`
	Certain bool   `json:"certain"`
	// Better is another device whose copy is newer than this one's, if there is one.
	Better *Replica `json:"better,omitempty"`
	// Warnings are to be read too, the gravest first.
	Warnings []Warning `json:"warnings"`
	// Token stands for all that was told: TakeOver refuses with CodeConflict if it isn't true any more.
	Token string `json:"token"`
}

// Warning is one thing to read before a takeover. Whatever it speaks of by name, time or size is in the Takeover.
type Warning struct {
	Code WarningCode `json:"code"`
	Text string      `json:"text"` // a sentence in English
}

// WarningCode says what a Warning is about.
type WarningCode string

// The warnings of a takeover.
const (
	WarnRemoved     WarningCode = "removed"      // the owner was removed from the fleet: what only it had is lost
	WarnJourney     WarningCode = "journey"      // the owner went on a journey with it, Since, and may be working in it
	WarnTwoVersions WarningCode = "two-versions" // if the owner still works in it, there will be two versions
	WarnRunning     WarningCode = "running"      // it was running there: it starts here as after a power cut
	WarnSuspended   WarningCode = "suspended"    // it is suspended there, and its memory has not come here: its open windows stay there
	WarnUnknown     WarningCode = "unknown"      // nobody knows what the copy lacks
	WarnLacks       WarningCode = "lacks"        // the copy lacks Missing
	WarnLacksMore   WarningCode = "lacks-more"   // the copy lacked Missing when the owner last told, and may lack more
	WarnLacksSince  WarningCode = "lacks-since"  // the copy had everything when the owner last told
	WarnBetter      WarningCode = "better"       // Better has a newer copy
	WarnSecond      WarningCode = "second"       // it waits for a second copy, and no device that could have one is connected: it would stand still
)

// TakeOverVM takes a VM over after the person has read a Takeover. The VM isn't started.
type TakeOverVM struct {
	VM    string `json:"vm"`
	Token string `json:"token"`
}

// Conflict is a VM with two histories, of which the person has to choose.
type Conflict struct {
	// Since is the last position that all sides have in common.
	Since Position       `json:"since"`
	Found time.Time      `json:"found,omitzero"`
	Sides []ConflictSide `json:"sides"` // two or more
}

// ConflictSide is one of the histories.
type ConflictSide struct {
	// Branch names it in a Resolve: the hash of its newest transfer.
	Branch    string   `json:"branch"`
	Owner     string   `json:"owner"`
	OwnerName string   `json:"owner_name"`
	Here      bool     `json:"here"`
	Connected bool     `json:"connected"`
	Term      uint64   `json:"term"`
	Position  Position `json:"position"`
	// Changed is how many bytes of blocks it has written since; nil is unknown.
	Changed *int64 `json:"changed_bytes"`
	// At is when it was last written, as far as is known. Kind is how it began: a transfer's kind.
	At   time.Time `json:"at,omitzero"`
	Kind string    `json:"kind"`
	// State is the VM's on that side: running, paused (its open windows wait for the choice), stopped, unknown.
	State VMState `json:"state"`
}

// Resolution is a way out of a conflict.
type Resolution string

// The resolutions. All but ResolveBoth keep the other side as a restore point on its device.
const (
	ResolveKeep   Resolution = "keep"   // go on with one side
	ResolveBoth   Resolution = "both"   // the other side becomes a VM of its own
	ResolveOpen   Resolution = "open"   // go on with one side, and see the other's disk in it, read-only
	ResolveRepair Resolution = "repair" // go on with one side, check every block, mend from the other copies, and have the guest check its file systems
)

// ResolveConflict is the person's choice.
type ResolveConflict struct {
	VM  string     `json:"vm"`
	How Resolution `json:"how"`
	// Keep is the branch to go on with.
	Keep string `json:"keep"`
	// Name is what the other VM is called ("both"); "" lets Tagalong choose.
	Name string `json:"name,omitempty"`
}

// RestorePoint is an earlier or lost state of a VM's disk on this device, kept until the person deletes it.
type RestorePoint struct {
	ID         string    `json:"id"`
	VM         string    `json:"vm"`
	VMName     string    `json:"vm_name"`
	Device     string    `json:"device"`
	DeviceName string    `json:"device_name"`
	Position   Position  `json:"position"`
	At         time.Time `json:"at"`
	// Bytes is the space that it takes. Why is a sentence in English. Chosen is the name of the device whose version was preferred
	// to this one, "" if that isn't known.
	Bytes  int64  `json:"bytes"`
	Why    string `json:"why"`
	Chosen string `json:"chosen,omitempty"`
	// Open says that the VM sees it as a read-only disk.
	Open bool `json:"open"`
}

// RestorePointRef names one.
type RestorePointRef struct {
	VM string `json:"vm"`
	ID string `json:"id"`
}

// Offline is this device's disconnected mode.
type Offline struct {
	On    bool      `json:"on"`
	Since time.Time `json:"since,omitzero"`
	// Job is the preparation under way, if any (Job.Kind "offline").
	Job string `json:"job,omitempty"`
	// Unaware are the names of the devices that haven't heard of it (yet).
	Unaware []string `json:"unaware,omitempty"`
	// VMs tell what this device has of each VM; while the mode is off, what going at once would mean.
	VMs []OfflineVM `json:"vms"`
}

// OfflineVM is what this device has of one VM on the journey.
type OfflineVM struct {
	VM     string `json:"vm"`
	VMName string `json:"vm_name"`
	// Taken says that it came along. Otherwise this device only has a copy, which must not be started.
	Taken     bool   `json:"taken"`
	OwnerName string `json:"owner_name"`
	// Missing is how many bytes of it aren't here; nil is unknown. Position and At are the copy's.
	Missing  *int64    `json:"missing_bytes"`
	Position Position  `json:"position"`
	At       time.Time `json:"at,omitzero"`
}

// GoOffline asks to prepare for a journey.
type GoOffline struct {
	// VMs are to come along; none means all that there are.
	VMs []string `json:"vms,omitempty"`
	// CopyOnly leaves them where they are.
	CopyOnly bool `json:"copy_only,omitempty"`
	// Now goes without what isn't here yet. A GoOffline with Now during a preparation ends the waiting.
	Now bool `json:"now,omitempty"`
}

// RemoveDevice takes a device out of the fleet.
type RemoveDevice struct {
	Device string `json:"device"`
	// Wipe has it delete everything of the fleet's as soon as it is reached.
	Wipe bool `json:"wipe,omitempty"`
	// Anyway removes it although it owns VMs; they can be taken over afterwards.
	Anyway bool `json:"anyway,omitempty"`
}

// PinDevice puts a device into a site by name, with all others that were put there; "auto" or "" leaves it where it is seen.
type PinDevice struct {
	Device string `json:"device"`
	Site   string `json:"site"`
}

// LeaveFleet takes this device out of the fleet.
type LeaveFleet struct {
	// Delete deletes the copies of VMs that this device doesn't own. Otherwise they stay as disks that nothing updates.
	Delete bool `json:"delete,omitempty"`
}
