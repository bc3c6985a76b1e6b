package api

import (
	"time"

	"tagalong.org/tagalong/app/volumes"
)

// Version of the local API. A client whose major number differs is refused.
const Version = 1

// Status is everything a face (tray, command line, script) needs to draw itself.
// It is a snapshot: complete, and never patched by events.
type Status struct {
	API     int      `json:"api"`
	Version string   `json:"version"`
	Seq     uint64   `json:"seq"`
	Device  Device   `json:"device"`
	Devices []Device `json:"devices"`
	VMs     []VM     `json:"vms"`
	Jobs    []Job    `json:"jobs"`
	Pairing *Pairing `json:"pairing,omitempty"`
	Offline Offline  `json:"offline"`
	// Sync is how things are with what goes to other sites; nil if nobody says.
	Sync       *Sync      `json:"sync,omitempty"`
	Hypervisor Hypervisor `json:"hypervisor"`
	// Leaving is set while something that follows from this device's removal from the fleet couldn't be done. It is tried again
	// every few seconds, and after a restart.
	Leaving *Leaving `json:"leaving,omitempty"`
	// Problem is set while this device as a whole needs the person: a full disk.
	Problem *Error `json:"problem,omitempty"`
	DataDir string `json:"data_dir"`
}

// Leaving says what couldn't be done of what follows for a device that isn't in its fleet any more.
type Leaving struct {
	// By is the device that removed it, or it itself if it has left; ByName is its name.
	By     string `json:"by"`
	ByName string `json:"by_name"`
	// Wipe says that everything of the fleet's is to be deleted here. Some of it is still there.
	Wipe bool `json:"wipe"`
	// Cause is technical. Text says all of this in English.
	Cause string `json:"cause"`
	Text  string `json:"text"`
}

// Hypervisor says what this device can run VMs with.
type Hypervisor struct {
	Found   bool   `json:"found"`
	Path    string `json:"path,omitempty"`
	Version string `json:"version,omitempty"`
	// Accel is "kvm" or "tcg" (software emulation).
	Accel string `json:"accel,omitempty"`
	// Note is a sentence for the person when something is less than good.
	Note string `json:"note,omitempty"`
	// Bridge is the network bridge that VMs can be on here; NoBridge is why there is none, in a few words.
	Bridge   string `json:"bridge,omitempty"`
	NoBridge string `json:"no_bridge,omitempty"`
}

// Device is one of the person's PCs.
type Device struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Self      bool      `json:"self"`
	Connected bool      `json:"connected"`
	RTTMicros int64     `json:"rtt_us,omitempty"`
	Addrs     []string  `json:"addrs,omitempty"`
	LastSeen  time.Time `json:"last_seen,omitzero"`
	// Offline says that it told before it went on a journey.
	Offline bool `json:"offline,omitempty"`
	// Site is where it is; nil if that isn't known.
	Site *DeviceSite `json:"site,omitempty"`
	// Removed devices are shown only until they were told (and have wiped what they had, if Wipe).
	Removed bool `json:"removed,omitempty"`
	Wipe    bool `json:"wipe,omitempty"`
}

// DeviceSite is where a device is: with which others on a local network.
type DeviceSite struct {
	// ID is the same for those that are together, in one snapshot. It changes with who is there: don't keep it.
	ID string `json:"id"`
	// Name is what the person called the site; Pinned says that this device was put there by that name. "" is where it is seen.
	Name   string `json:"name,omitempty"`
	Pinned bool   `json:"pinned,omitempty"`
	// Here says that it is together with the device that tells this.
	Here bool `json:"here"`
	// Devices are the IDs of all that are together, this one too, in order.
	Devices []string `json:"devices"`
	// Postmaster is the device through which the site's traffic to other sites goes; "" while there is none.
	Postmaster string `json:"postmaster,omitempty"`
}

// VMState is what a VM is doing, as far as this device knows.
type VMState string

// The states of a VM.
const (
	VMStopped   VMState = "stopped"
	VMStarting  VMState = "starting"
	VMRunning   VMState = "running"
	VMStopping  VMState = "stopping" // asked to shut itself down
	VMPaused    VMState = "paused"   // by the hypervisor: a full disk, or a switch in its last moments
	VMSuspended VMState = "suspended"
	VMSwitching VMState = "switching"
	VMUnknown   VMState = "unknown" // its owner hasn't been heard of lately
)

// VM is one virtual machine that tags along.
type VM struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	State     VMState   `json:"state"`
	Here      bool      `json:"here"` // this device is its owner
	Owner     string    `json:"owner"`
	OwnerName string    `json:"owner_name"`
	Term      uint64    `json:"term"`
	Position  Position  `json:"position"`
	Spec      Spec      `json:"spec"`
	Replicas  []Replica `json:"replicas"`
	Switch    *Switch   `json:"switch,omitempty"`
	// Recorded is how many bytes of its disk, on the device that says so, have hashes that damage is found by. It counts up again when the disk is opened.
	Recorded int64 `json:"recorded_bytes,omitempty"`
	// Verifying is how far its background verification is, only of a VM that is here. Damage is what verifications found, if there is any.
	Verifying *Verifying `json:"verifying,omitempty"`
	Damage    *Damage    `json:"damage,omitempty"`
	// Second says what becomes of the promise of SyncTwo; only of a VM that is here and has it.
	Second *SecondCopy `json:"second,omitempty"`
	// Hydration is set on the owner while its disk isn't whole, Lending on a device that another one fetches the rest from.
	Hydration *Hydration `json:"hydration,omitempty"`
	Lending   *Lending   `json:"lending,omitempty"`
	// Trailing is set on the owner while some of the memory of its guest is still to come.
	Trailing *Trailing `json:"trailing,omitempty"`
	// Problem is set while something needs the person: a full disk, a lost hypervisor.
	Problem *Error `json:"problem,omitempty"`
	// Unopened says that its disk here couldn't be opened; Problem says why. Of its state only what its record says is known.
	Unopened bool `json:"unopened,omitempty"`
	// Conflict is set while there are two histories of it.
	Conflict *Conflict `json:"conflict,omitempty"`
	// Orphan says that its owner was removed from the fleet: it can only be taken over.
	Orphan bool `json:"orphan,omitempty"`
	// Offline says that its owner went on a journey with it, OfflineSince when.
	Offline      bool      `json:"offline,omitempty"`
	OfflineSince time.Time `json:"offline_since,omitzero"`
	// RestorePoints are those on this device.
	RestorePoints []RestorePoint `json:"restore_points,omitempty"`
	// Unfit are the devices that it couldn't move to while it runs, as far as they say what they can do.
	Unfit []Unfit `json:"unfit,omitempty"`
	// Agent is what is known of the agent inside it, while it runs on the device that says so.
	Agent AgentState `json:"agent,omitempty"`
	// Screen and Console are Unix sockets on the device that runs the VM.
	Screen  string `json:"screen,omitempty"`
	Console string `json:"console,omitempty"`
}

// Spec is what a VM is made of. It is the same on every device. SetVM changes some of it; the rest is fixed when the VM is created.
type Spec struct {
	CPUs      int    `json:"cpus"`
	MemoryKiB int64  `json:"memory_kib"`
	DiskBytes int64  `json:"disk_bytes"` // of the first disk
	Machine   string `json:"machine"`    // versioned QEMU machine type
	CPU       string `json:"cpu"`        // named QEMU CPU model
	Screen    bool   `json:"screen"`
	Network   bool   `json:"network"`
	// Sync is SyncOne or SyncTwo; "" is SyncOne, what a later version may put here counts as SyncTwo.
	Sync string `json:"sync,omitempty"`
	// Hardware is the generation of its virtual hardware; 0, of VMs made before there were several, is 1.
	Hardware int `json:"hardware,omitempty"`
	// Firmware is FirmwareBIOS or FirmwareUEFI; "" is FirmwareBIOS.
	Firmware string `json:"firmware,omitempty"`
	// Bridged says that it is on the local network itself, where the device that it runs on has a bridge.
	Bridged bool `json:"bridged,omitempty"`
	// Pause is for how long the guest may stand still in a switch; 0 is the usual 300 ms.
	Pause time.Duration `json:"pause_ns,omitempty"`
	// Volumes is how the VM's one store is cut into disks. VMs made before there were several have none: see Table.
	Volumes volumes.Table `json:"volumes,omitzero"`
}

// What a VM starts with.
const (
	FirmwareBIOS = "bios"
	FirmwareUEFI = "uefi"
)

// Table is how the VM's store is cut. Errors: volumes.ErrInvalid, volumes.ErrVersion.
func (s Spec) Table() (volumes.Table, error) {
	table := s.Volumes
	if table.IsZero() {
		table = volumes.One(s.DiskBytes)
	}
	return table, table.Check()
}

// Position says how far a replica has come: a barrier of a term.
type Position struct {
	Term    uint64 `json:"term"`
	Barrier uint64 `json:"barrier"`
}

// ReplicaState is how a device's copy of the disk stands to the owner's.
type ReplicaState string

// The states of a replica.
const (
	ReplicaOwner   ReplicaState = "owner"   // the owner's own
	ReplicaLive    ReplicaState = "live"    // every write arrives as it happens
	ReplicaCopying ReplicaState = "copying" // first copy under way: can't run the VM yet
	ReplicaBehind  ReplicaState = "behind"  // catching up from its last position
	ReplicaAway    ReplicaState = "away"    // not connected
	ReplicaPushing ReplicaState = "pushing" // at another site, and a cut is on its way there
	ReplicaWaiting ReplicaState = "waiting" // at another site, and gets the next cut when it is due
)

// SilentAfter is for how long a device's word holds: "up to date", and how fast it gets on, are said of none that was silent for longer.
const SilentAfter = 30 * time.Second

// Replica is one device's copy of a VM's disk, as its owner last knew it.
type Replica struct {
	Device     string       `json:"device"`
	DeviceName string       `json:"device_name"`
	State      ReplicaState `json:"state"`
	Position   Position     `json:"position"`
	// Remaining is how many bytes of blocks the device lacks, at most; Blocks is their number.
	Remaining int64 `json:"remaining"`
	Blocks    int64 `json:"blocks"`
	// Since bounds how old what it lacks is: it was written then or later. Zero if it lacks nothing, or if that isn't known.
	Since time.Time `json:"since,omitzero"`
	// Overrun is when the device, which is behind, couldn't keep up with the VM's writes; zero otherwise. Each time that this happens has its own.
	Overrun time.Time `json:"overrun,omitzero"`
	// Copied counts the bytes sent since this connection began; Rate is in bytes a second.
	Copied int64 `json:"copied"`
	Rate   int64 `json:"rate"`
	// ETA is zero when unknown.
	ETA time.Duration `json:"eta_ns,omitempty"`
	// Heard is when the device itself last said so.
	Heard time.Time `json:"heard,omitzero"`
	// At is when all of this was so; zero is now. A device that doesn't own the VM has it from the owner, which writes it seldom.
	At time.Time `json:"at,omitzero"`
	// Silent says that nobody knows how it stands now: the device is connected but was silent for SilentAfter, or the owner, from
	// which these figures come, can't be heard. They were so At; Rate and ETA are zero.
	Silent bool `json:"silent,omitempty"`
	// Verified is when a comparison of all of it with the VM's disk last began that found it equal, or made it so. Only its owner knows.
	Verified time.Time `json:"verified,omitzero"`
}

// SwitchPhase is a step of a switch that a person can follow.
type SwitchPhase string

// The phases of a switch, in order; the last three end it.
const (
	PhasePreflight SwitchPhase = "preflight" // asking the owner, checking what stands in the way
	PhaseCatchUp   SwitchPhase = "catch-up"  // the disk's last differences
	PhaseMemory    SwitchPhase = "memory"    // memory flows, the VM goes on running there
	PhaseHandOff   SwitchPhase = "hand-off"  // the VM stands still
	// Of the way suspend, in place of the two before.
	PhaseSuspend SwitchPhase = "suspend" // the VM stands still, its memory is being saved where it was
	PhaseSend    SwitchPhase = "send"    // the VM is suspended, its memory goes to the other device with its disk
	PhaseResume  SwitchPhase = "resume"  // it is handed over, and its memory is being loaded there

	PhaseDone      SwitchPhase = "done"
	PhaseCancelled SwitchPhase = "cancelled"
	PhaseFailed    SwitchPhase = "failed"
)

// Ended says whether the phase is a last one.
func (p SwitchPhase) Ended() bool {
	return p == PhaseDone || p == PhaseCancelled || p == PhaseFailed
}

// Switch is one move of a VM, under way or just ended.
type Switch struct {
	ID       string `json:"id"`
	VM       string `json:"vm"`
	VMName   string `json:"vm_name"`
	From     string `json:"from"`
	FromName string `json:"from_name"`
	To       string `json:"to"`
	ToName   string `json:"to_name"`
	Kind     string `json:"kind"` // "teleport" with memory, "baton" without, "suspend" with its saved memory
	// Way is how it moves, as far as the person has asked for one.
	Way Way `json:"way,omitempty"`
	// Chosen says that nobody asked for Way: by what was seen of the guest and the connection a teleport would come to nothing.
	Chosen  bool          `json:"way_chosen,omitempty"`
	Phase   SwitchPhase   `json:"phase"`
	Started time.Time     `json:"started"`
	Ended   time.Time     `json:"ended,omitzero"`
	Bytes   int64         `json:"bytes"` // moved so far, memory and disk
	Total   int64         `json:"total"` // best estimate; 0 when unknown
	Rate    int64         `json:"rate"`  // bytes a second
	ETA     time.Duration `json:"eta_ns,omitempty"`
	Memory  int64         `json:"memory_bytes"` // of them, memory
	// Trailing is how much of the memory is still to come after the guest; 0 if it came before.
	Trailing int64 `json:"trailing_bytes,omitempty"`
	Disk     int64 `json:"disk_bytes"` // of them, disk
	// Pause is from the guest's stop to its going on, by the host's clock; 0 until known.
	Pause  time.Duration `json:"pause_ns,omitempty"`
	Error  *Error        `json:"error,omitempty"`
	CanEnd bool          `json:"can_cancel"`
	// Step is the last thing that was done about a guest that writes memory about as fast as it leaves, and Why says that in a sentence.
	Step SwitchStep `json:"step,omitempty"`
	Why  string     `json:"why,omitempty"`
	// Slowed is by how many percent the guest is slowed down.
	Slowed int `json:"slowed_percent,omitempty"`
	// AllowedPause is for how long the guest may stand still, Estimate what would be, were it stopped now. Both are zero before its memory moves.
	AllowedPause time.Duration  `json:"allowed_pause_ns,omitempty"`
	Estimate     SwitchEstimate `json:"estimate,omitzero"`
	// OfferPause is the AllowedPause with which a switch that failed could have gone on; 0 where that wasn't what failed.
	OfferPause time.Duration `json:"offer_pause_ns,omitempty"`
	// Offers are the ways that are left for a switch that failed, the best first; none where another way is of no use.
	Offers []Way `json:"offers,omitempty"`
}

// SwitchStep is a step that a switch takes where memory doesn't get less.
type SwitchStep string

// The steps of a switch.
const (
	StepUsual  SwitchStep = ""
	StepSlowed SwitchStep = "slowed" // the guest is slowed down
	StepLonger SwitchStep = "longer" // it may stand still for longer than usual
)

// SwitchEstimate is what would be, were the guest stopped now. What isn't known is 0.
type SwitchEstimate struct {
	Memory    int64         `json:"memory_bytes"`         // that is left
	Rate      int64         `json:"rate"`                 // bytes of memory that leave a second
	DirtyRate int64         `json:"dirty_rate"`           // bytes that the guest writes anew a second
	Pause     time.Duration `json:"pause_ns"`             // for how long it would stand still
	ToFull    time.Duration `json:"to_full_ns,omitempty"` // until all of its disk is at its new place
}

// Job is long work that isn't a switch: creating, importing, exporting.
type Job struct {
	ID      string        `json:"id"`
	Kind    string        `json:"kind"` // "create", "import", "export", "check", "offline", "resolve", "seed", "verify"
	VM      string        `json:"vm"`
	VMName  string        `json:"vm_name"`
	Phase   string        `json:"phase"`
	Started time.Time     `json:"started"`
	Bytes   int64         `json:"bytes"`
	Total   int64         `json:"total"`
	Rate    int64         `json:"rate"`
	ETA     time.Duration `json:"eta_ns,omitempty"`
	Done    bool          `json:"done"`
	Error   *Error        `json:"error,omitempty"`
	// Export, Check and Seed are the results of such jobs, once they have ended well; Verification is what one has found, also if it was cut short.
	Export       *DiskExport   `json:"export,omitempty"`
	Check        *DiskCheck    `json:"check,omitempty"`
	Seed         *DiskSeed     `json:"seed,omitempty"`
	Verification *Verification `json:"verification,omitempty"`
}

// Pairing is a pairing window that is open on this device, or the last one's end.
type Pairing struct {
	Code    string    `json:"code,omitempty"`
	Expires time.Time `json:"expires"`
	// Addrs are where this device waits for the other one, each host:port, for a PairJoin there that doesn't find it by itself.
	Addrs []string `json:"addrs,omitempty"`
	// Peer and Words are set when the other device has proved that it knows the code.
	Peer  *Device  `json:"peer,omitempty"`
	Words []string `json:"words,omitempty"`
	Done  bool     `json:"done"`
	Error *Error   `json:"error,omitempty"`
}

// HistoryEntry is one link of a VM's chain of owners.
type HistoryEntry struct {
	VM        string    `json:"vm"`
	Term      uint64    `json:"term"`
	Owner     string    `json:"owner"`
	OwnerName string    `json:"owner_name"`
	From      string    `json:"from,omitempty"`
	FromName  string    `json:"from_name,omitempty"`
	Position  Position  `json:"position"`
	At        time.Time `json:"at"`
	Kind      string    `json:"kind"` // "created", "switch", "returned", "takeover", "kept", "resolved"
	Hash      string    `json:"hash"`
	Prev      string    `json:"prev,omitempty"` // the hash of the entry that it follows
	// Over are the hashes of the entries that a resolution gave up; Lost says that this entry is on such a side.
	Over []string `json:"over,omitempty"`
	Lost bool     `json:"lost,omitempty"`
	// How the VM came: "teleport", "suspend", "start" (stopped there), "takeover", or nothing for what isn't a move or isn't known.
	How string `json:"how,omitempty"`
	// Pause is how long the guest stood still; Bytes what moved for it. Zero is unknown.
	Pause  time.Duration `json:"pause_ns,omitempty"`
	Memory int64         `json:"memory_bytes,omitempty"`
	Disk   int64         `json:"disk_bytes,omitempty"`
}

// Event tells that something happened. Clients that draw state re-read Status;
// the text is for people and logs.
type Event struct {
	Seq    uint64    `json:"seq"`
	Time   time.Time `json:"time"`
	Kind   string    `json:"kind"` // dotted, e.g. "switch.done", "device.connected"
	VM     string    `json:"vm,omitempty"`
	Device string    `json:"device,omitempty"`
	Text   string    `json:"text"`
	Switch *Switch   `json:"switch,omitempty"`
	Job    *Job      `json:"job,omitempty"`
	// Sync is set with "sync.begun" and its like: what to notify the person of, once. There is none of what it isn't for.
	Sync *SyncNews `json:"sync,omitempty"`
	// Damage is set with "vm.damage": what a verification in the background found.
	Damage *Verification `json:"damage,omitempty"`
}

// CreateVM asks for a new VM with an empty disk, or with a copy of a raw image when Image is set.
type CreateVM struct {
	Name      string `json:"name"`
	CPUs      int    `json:"cpus"`
	MemoryMiB int64  `json:"memory_mib"`
	DiskBytes int64  `json:"disk_bytes"`
	// Image is an absolute path on this device; Format is raw, qcow2, vdi, vmdk or vhdx ("" = found out).
	Image   string `json:"image,omitempty"`
	Format  string `json:"format,omitempty"`
	Screen  bool   `json:"screen"`
	Network bool   `json:"network"`
	// Firmware is FirmwareBIOS or FirmwareUEFI; "" is FirmwareBIOS. An installed system starts only under the one that it was installed under.
	Firmware string `json:"firmware,omitempty"`
	// CPU is a named QEMU CPU model; "" is the newest that all devices of the fleet can be.
	CPU string `json:"cpu,omitempty"`
	// Bridged has the VM be on the local network itself, where a device has a bridge, instead of behind the device.
	Bridged bool `json:"bridged,omitempty"`
	// Disks are further ones, after the first.
	Disks []NewDisk `json:"disks,omitempty"`
}

// SeedVM asks to fill this device's copy of a VM, which was never whole, from a file: what is equal needn't be fetched.
type SeedVM struct {
	VM string `json:"vm"`
	// File is an absolute path on this device, of a file or a drive; Format is raw, qcow2, vdi, vmdk or vhdx ("" = found out).
	File   string `json:"file"`
	Format string `json:"format,omitempty"`
}

// SwitchVM asks to move a VM. To is a device's ID or name; empty means this one.
type SwitchVM struct {
	VM string `json:"vm"`
	To string `json:"to,omitempty"`
	// Pause is for how long the guest may stand still, this once; 0 is what the VM's settings say.
	Pause time.Duration `json:"pause_ns,omitempty"`
	// Way is how it moves if it runs, one of those that can be Asked for.
	Way Way `json:"way,omitempty"`
}

// PairStart opens a pairing window. PairJoin answers one with the code shown there.
type PairStart struct {
	Seconds int `json:"seconds,omitempty"`
}

// PairJoin enters the code that another device shows. Addr ("host:port") is only needed where
// discovery can't find it.
type PairJoin struct {
	Code string `json:"code"`
	Addr string `json:"addr,omitempty"`
}
