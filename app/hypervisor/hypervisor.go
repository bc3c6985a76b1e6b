// Package hypervisor says what Tagalong needs of a hypervisor: start a VM on a disk
// socket, pause it and let it go on, carry its memory away and take it in, and find
// it again after the engine was restarted. Package qemu is the one that does it.
//
// A [Guest] outlives the engine: closing it lets go of the process, it doesn't end it.
// Nothing here decides who may run a VM; that is the directory's and the disk's.
package hypervisor

import (
	"context"
	"errors"
	"io"
	"time"
)

var (
	// ErrMissing says that no usable hypervisor is installed.
	ErrMissing = errors.New("hypervisor: none installed")
	// ErrTooOld says that the installed one lacks what a teleport needs.
	ErrTooOld = errors.New("hypervisor: too old")
	// ErrNotRunning says that the VM's process isn't there.
	ErrNotRunning = errors.New("hypervisor: the VM isn't running")
	// ErrRunsAlready says that the VM's process is there already, though perhaps it has only begun: see Hypervisor.Find.
	ErrRunsAlready = errors.New("hypervisor: the VM's process runs already")
	// ErrConverged says that memory was all sent before the guest was stopped: cancel and begin again.
	ErrConverged = errors.New("hypervisor: memory was complete before the guest was stopped")
	// ErrNotDetached says that the guest didn't let go of a disk: it is still there.
	ErrNotDetached = errors.New("hypervisor: the guest didn't let go of the disk")
	// ErrNoScreen says that the VM was started without a display.
	ErrNoScreen = errors.New("hypervisor: the VM has no screen")
	// ErrHardware says that a VM has virtual hardware that this program doesn't know, or that contradicts itself.
	ErrHardware = errors.New("hypervisor: unknown virtual hardware")
	// ErrNoFirmware says that the UEFI that a VM needs isn't installed.
	ErrNoFirmware = errors.New("hypervisor: no UEFI installed")
	// ErrNoBridge says that a guest can't be made a part of the bridge that it is to be on.
	ErrNoBridge = errors.New("hypervisor: the bridge can't be used")
	// ErrTeleport says that carrying the memory failed; the guest is where it was.
	ErrTeleport = errors.New("hypervisor: carrying the memory failed")
)

// Config is all that makes a VM's process. Two devices that start the same Config get
// virtual hardware so alike that memory can move between them.
type Config struct {
	VM        string // the VM's ID; becomes its UUID
	Name      string
	CPUs      int
	MemoryKiB int64
	// Hardware is the generation of the virtual hardware; 0 is 1. A VM keeps the one it was made with: its guest would take
	// another one for another PC. What the guest sees is a function of this, of the fields above and below but Bridge and Dir.
	Hardware int
	Machine  string // versioned machine type
	CPU      string // named CPU model
	// Firmware is FirmwareBIOS or FirmwareUEFI; "" is FirmwareBIOS. One of the Disks holds the variables of an UEFI.
	Firmware string
	// Fork names the point from which the VM's history is no longer the one it once had: after a rollback, or another choice of a
	// person's. A guest that cares is told (vmgenid). "" is none.
	Fork    string
	Screen  bool
	Network bool
	// Bridge is the bridge of this device that the guest's network is a part of; "" hides the guest behind this device's own address.
	// The guest sees the same card.
	Bridge string
	// Disks are the VM's own: the first is the one it boots from. Their order is the order in which the guest finds them.
	Disks []Disk
	Dir   string // a private directory for the process's sockets, log and process ID
	// Extra are further disks, read-only. A VM that has some can't teleport.
	Extra []ExtraDisk
	// CheckFileSystems has the guest check its file systems at this start, as far as it knows how to be asked: the file
	// opt/org.tagalong/fsck of fw_cfg says "force", and SMBIOS has the strings that systemd reads.
	CheckFileSystems bool
}

// Generations of virtual hardware. A later one is added when guests are to see something new; none is ever changed.
const (
	HardwareFirst = 1 // a screen, a tablet, a network card, up to 8 disks, under a BIOS
	HardwareNow   = 2 // what new VMs get: also UEFI, sound, a balloon, and ports for what runs in the guest for its host
)

// Firmware that a guest can start with.
const (
	FirmwareBIOS = "bios"
	FirmwareUEFI = "uefi"
)

// DiskKind is what a disk is to the guest.
type DiskKind string

// The kinds.
const (
	DiskDrive DiskKind = "disk" // a drive
	DiskVars  DiskKind = "vars" // where its firmware keeps its variables
)

// Disk is one of a VM's own disks, to read and to write.
type Disk struct {
	// ID names it within the VM, for good: up to 20 letters and digits. Of every drive but the first the guest sees it as the serial number.
	ID     string
	Kind   DiskKind
	Bytes  int64  // its size; of a drive it makes the geometry
	Socket string // Unix socket of its NBD server
}

// ExtraDisk is a read-only disk beside the VM's own.
type ExtraDisk struct {
	// ID names it within the VM: up to 20 letters and digits. The guest sees it as the disk's serial number.
	ID     string
	Socket string // Unix socket of its NBD server
}

// Facts is what a probe found out.
type Facts struct {
	Path    string
	Version string
	Major   int
	Minor   int
	Accel   string // "kvm" or "tcg"
	Note    string // a sentence when Accel is less than good
	// Stamp is another one when another program was installed in its place, also of the same version.
	Stamp string
}

// State is what a guest's hypervisor is doing.
type State string

// The states that matter to the engine; others of the hypervisor are StatePaused.
const (
	StateRunning  State = "running"
	StatePaused   State = "paused"
	StateIncoming State = "incoming"  // waiting for, or taking in, memory
	StateIOError  State = "io-error"  // paused by itself: the disk refused
	StateShutdown State = "shutdown"  // the guest has powered itself off
	StateFailed   State = "failed"    // the guest crashed beyond repair
	StateMoving   State = "switching" // at the last step of a teleport
)

// Hypervisor makes and finds guests.
type Hypervisor interface {
	// Probe finds the hypervisor and what it can do here. It takes up to some seconds.
	Probe(ctx context.Context) (Facts, error)
	// Start starts the VM from its disk, running.
	Start(ctx context.Context, c Config) (Guest, error)
	// StartIncoming starts the VM's hypervisor with no memory of its own: it waits,
	// paused, for a teleport or a saved memory.
	StartIncoming(ctx context.Context, c Config) (Guest, error)
	// Find takes hold of a VM's process that an earlier engine started, or ErrNotRunning. It doesn't wait for the process to answer, which may
	// wait for its disk: what is asked of the guest afterwards does.
	Find(ctx context.Context, c Config) (Guest, error)
}

// Guest is one VM's hypervisor process.
type Guest interface {
	// State asks; it fails with ErrNotRunning when the process is gone.
	State(ctx context.Context) (State, error)
	// Pause stops the guest's CPUs and returns when its disk has drained and flushed.
	Pause(ctx context.Context) error
	// Continue lets the guest go on.
	Continue(ctx context.Context) error
	// PowerDown presses the guest's power button; the guest may ignore it.
	PowerDown(ctx context.Context) error
	// Reset presses the guest's reset button: it starts anew at once, and what it hadn't written is lost. A guest that has crashed, or has
	// powered itself off, runs again.
	Reset(ctx context.Context) error
	// Kill ends the process at once, as pulling the plug would, and returns when it is gone.
	Kill(ctx context.Context) error
	// Resident is how many bytes of the device's memory the process has; 0 if nobody knows.
	Resident() int64
	// DirtyRate looks for about a second how much of its memory the guest writes anew, in bytes a second. It goes on meanwhile.
	DirtyRate(ctx context.Context) (int64, error)
	// Exited is closed when the process is gone.
	Exited() <-chan struct{}
	// Fell waits for the process's end, and says that nobody had asked for it: neither the guest, which powers itself off, nor Kill.
	Fell() bool
	// Changed wakes (1-buffered) when the State may have changed.
	Changed() <-chan struct{}
	// Screen and Console are the Unix sockets of the guest's display and serial line; Screen may be "".
	Screen() string
	Console() string
	// OpenScreen issues a ticket to the display, which holds for a short time; an earlier one is worthless then. It fails with ErrNoScreen.
	OpenScreen(ctx context.Context) (Ticket, error)
	// Agent is the Unix socket of the agent that may run in the guest (see package guestagent); "" if the guest has no port for one.
	Agent() string
	// Attach gives the guest a further disk while it runs.
	Attach(ctx context.Context, d ExtraDisk) error
	// Detach takes one away again. It takes the guest's help; without it, it fails with ErrNotDetached.
	Detach(ctx context.Context, id string) error
	// Settle ends a teleport that an earlier engine began and nobody carries on; harmless without one, and of a guest that went ahead of its memory. It
	// fails with ErrApart where the guest may have gone ahead of this one.
	Settle(ctx context.Context) error
	// Teleport begins to carry the running guest's memory away.
	Teleport(ctx context.Context) (Outgoing, error)
	// Incoming opens the stream that takes memory in; only after StartIncoming.
	Incoming(ctx context.Context) (io.ReadWriteCloser, error)
	// Loaded waits until memory and devices are in: the only proof that this guest can
	// go on here. It fails with ErrTeleport when the stream was bad.
	Loaded(ctx context.Context) error
	// Save writes the paused guest's memory to w. The guest stays paused.
	Save(ctx context.Context, w io.Writer) error
	// Unsaved is about how many bytes Save, which is under way, still has to write.
	Unsaved(ctx context.Context) (int64, error)
	// Restore reads memory that Save wrote; only after StartIncoming. The guest stays paused.
	Restore(ctx context.Context, r io.Reader) error
	// Close lets go of the process; it goes on.
	Close() error
}

// Ticket opens a guest's display.
type Ticket struct {
	// Protocol is "spice" or "vnc".
	Protocol string
	Socket   string
	// Password is secret; "" if the socket asks for none.
	Password string
}

// Outgoing is a guest's memory on its way.
type Outgoing interface {
	// Stream carries the memory; bytes flow both ways.
	Stream() io.ReadWriteCloser
	// Progress asks how far it is. It fails with ErrConverged or ErrTeleport.
	Progress(ctx context.Context) (Progress, error)
	// Rest stops the guest's CPUs for a moment in the middle of the teleport, when its requests are answered, and GoOn lets them go on as if
	// nothing had been.
	Rest(ctx context.Context) error
	GoOn(ctx context.Context) error
	// AtSwitchover waits until all memory is out and only Finish is missing. Call it after the guest was paused.
	AtSwitchover(ctx context.Context) error
	// Finish sends the last part: the devices' state.
	Finish(ctx context.Context) error
	// Cancel gives the teleport up. The guest keeps its memory, and stays paused if it was.
	Cancel(ctx context.Context) error
}

// Weigher is a Stream that knows what its bytes stand for: a hypervisor sends an empty page in a few bytes.
type Weigher interface {
	// Weigh is about how many bytes of the guest's memory a piece of the stream stands for, at least its own length less what begins or ends outside
	// of it. It is called for the pieces in order.
	Weigh(p []byte) int64
}

// Progress is how far memory has come.
type Progress struct {
	Passes    int           // how often the whole memory was looked through
	Remaining int64         // bytes
	Total     int64         // bytes of guest memory
	Sent      int64         // bytes
	DirtyRate int64         // bytes a second that the guest writes anew
	Elapsed   time.Duration // since Teleport
}
