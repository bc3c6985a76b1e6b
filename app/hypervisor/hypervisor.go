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
	// ErrConverged says that memory was all sent before the guest was stopped: cancel and begin again.
	ErrConverged = errors.New("hypervisor: memory was complete before the guest was stopped")
	// ErrNotDetached says that the guest didn't let go of a disk: it is still there.
	ErrNotDetached = errors.New("hypervisor: the guest didn't let go of the disk")
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
	Machine   string // versioned machine type
	CPU       string // named CPU model
	Screen    bool
	Network   bool
	DiskBytes int64  // for the disk's geometry
	Disk      string // Unix socket of the disk's NBD server
	Dir       string // a private directory for the process's sockets, log and process ID
	// Extra are further disks, read-only. A VM that has some can't teleport.
	Extra []ExtraDisk
	// CheckFileSystems has the guest check its file systems at this start, as far as it knows how to be asked: the file
	// opt/org.tagalong/fsck of fw_cfg says "force", and SMBIOS has the strings that systemd reads.
	CheckFileSystems bool
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
	// Find takes hold of a VM's process that an earlier engine started, or ErrNotRunning.
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
	// Kill ends the process at once, as pulling the plug would, and returns when it is gone.
	Kill(ctx context.Context) error
	// Exited is closed when the process is gone.
	Exited() <-chan struct{}
	// Changed wakes (1-buffered) when the State may have changed.
	Changed() <-chan struct{}
	// Screen and Console are the Unix sockets of the guest's display and serial line; Screen may be "".
	Screen() string
	Console() string
	// Attach gives the guest a further disk while it runs.
	Attach(ctx context.Context, d ExtraDisk) error
	// Detach takes one away again. It takes the guest's help; without it, it fails with ErrNotDetached.
	Detach(ctx context.Context, id string) error
	// Settle ends a teleport that an earlier engine began and nobody carries on; harmless without one.
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
	// Restore reads memory that Save wrote; only after StartIncoming. The guest stays paused.
	Restore(ctx context.Context, r io.Reader) error
	// Close lets go of the process; it goes on.
	Close() error
}

// Outgoing is a guest's memory on its way.
type Outgoing interface {
	// Stream carries the memory; bytes flow both ways.
	Stream() io.ReadWriteCloser
	// Progress asks how far it is. It fails with ErrConverged or ErrTeleport.
	Progress(ctx context.Context) (Progress, error)
	// AtSwitchover waits until all memory is out and only Finish is missing. Call it after the guest was paused.
	AtSwitchover(ctx context.Context) error
	// Finish sends the last part: the devices' state.
	Finish(ctx context.Context) error
	// Cancel gives the teleport up. The guest keeps its memory, and stays paused if it was.
	Cancel(ctx context.Context) error
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
