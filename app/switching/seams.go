package switching

import (
	"context"
	"errors"
	"io"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/handover"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/vmdisk"
)

// ErrClosed says that the VM is being closed on this device.
var ErrClosed = errors.New("switching: the VM is being closed")

// Place is the VM on the giver's device.
type Place interface {
	// Disk is nil when the VM is being closed.
	Disk() Disk
	// Guest is nil when there is none (any more).
	Guest() Guest
}

// Disk is the giver's disk; *vmdisk.Store is one.
type Disk interface {
	// Fence refuses writes from now on.
	Fence() error
	// Drain waits until the device has the fenced disk's last write durably.
	Drain(ctx context.Context, device string) (vmdisk.Position, error)
	// Name gives what the disk holds a position of the present term.
	Name() (vmdisk.Position, error)
	// Seal makes the fence durable.
	Seal() error
	// ExportDirty describes what each replica lacks.
	ExportDirty() ([]byte, error)
	Position() vmdisk.Position
}

// Replica is the taker's copy of the disk, as the giver sees it.
type Replica interface {
	// Want has every write go to it, however far it is, until release is called.
	Want() (release func())
	// Copy is how it stands, but for Waited, and how many bytes it was sent since its connection began.
	Copy() (c handover.Copy, copied int64)
	// HoldBack ends what it is being fed, and returns when that has ended.
	HoldBack()
	// Tell tells the taker what it lacks of the disk at pos, and returns when the taker has that durably. moved is called when some
	// of it has moved.
	Tell(ctx context.Context, pos vmdisk.Position, sets []byte, moved func()) error
}

// Guest is the running guest of a giver.
type Guest interface {
	// Teleport begins to carry its memory away; see hypervisor.Guest.
	Teleport(ctx context.Context) (hypervisor.Outgoing, error)
	// Stop stops its CPUs for good and returns when its disk has drained. It may stand still already, for a moment.
	Stop(ctx context.Context) error
}

// Streams open the way to the taker.
type Streams interface {
	// Memory opens a stream for a guest's memory.
	Memory(ctx context.Context) (Line, error)
}

// Line carries a guest's memory to the taker, and what the taker's hypervisor answers back. Nothing passes before it is allowed.
type Line interface {
	// Carry carries the bytes of a hypervisor, in a goroutine of its own, until memory is closed, the line breaks, or ctx ends. It is called
	// once, and may be left out.
	Carry(ctx context.Context, memory io.ReadWriteCloser)
	// Allow lets what stands for n bytes of the guest's memory leave from now on, in place of what was allowed before and hasn't left.
	Allow(n int64)
	// Spent waits until all that was allowed has left, for limit, or until ctx ends.
	Spent(ctx context.Context, limit time.Duration)
	// Release lets everything leave from now on.
	Release()
	// Sent is how many bytes of the hypervisor's have left, and Arrived how many of those the taker's hypervisor was given, as the taker says.
	Sent() int64
	Arrived() int64
	// Wire is how many bytes were sent for them.
	Wire() int64
	// Speed is how many of the hypervisor's bytes a second it carries at present; 0 is unknown.
	Speed() int64
	// Close drops what Carry doesn't carry, or waits until that has ended, after memory was closed.
	Close()
}

// Teller is told by a Giver how it gets on. Its methods are called from Run's goroutine, one at a time; those that have a context may wait, until
// that ends.
type Teller interface {
	Phase(p api.SwitchPhase)
	// Moved says that something has moved: nothing hangs.
	Moved(ctx context.Context)
	// Report says how far it is.
	Report(r Report)
	// Stopped says since when the guest stands still.
	Stopped(at time.Time)
	// Prepared says that the guest stands still, the disk is fenced, and the taker has all of it at pos or knows what it lacks: only the last of the
	// memory is missing.
	Prepared(ctx context.Context, pos vmdisk.Position)
	// Failed says that this side can't go on. It isn't told when the attempt was ended.
	Failed(ctx context.Context, err error)
}

// Clock is the time.
type Clock interface {
	Now() time.Time
	// Wait returns after d, or with the error of a ctx that ends before.
	Wait(ctx context.Context, d time.Duration) error
}

// Host is the taker's device. Its methods are called from Run's goroutine, one at a time; those that have a context may wait, until that ends.
type Host interface {
	// Complete says that its copy can stand for the disk, and how many bytes of it have come in on the present connection.
	Complete() (ok bool, applied int64)
	// Start starts the VM's hypervisor, paused and waiting for memory. It stays when Run ends: the caller's.
	Start(ctx context.Context) (Incoming, error)
	// Memory brings the giver's stream, once.
	Memory() <-chan Arrival
	// Moved says that something has moved.
	Moved(ctx context.Context)
	// Ready says that the hypervisor waits for memory.
	Ready(ctx context.Context)
	// Loaded says that it has proved that it can run.
	Loaded(ctx context.Context)
	// Seal closes the copy of the disk for the giver's writes.
	Seal()
	// Rest says how the memory stands of a guest that has gone ahead of it, whenever that changes.
	Rest(ctx context.Context, r Rest)
	// Failed says that this side can't go on. It isn't told when the attempt was ended.
	Failed(ctx context.Context, err error)
}

// Incoming is a hypervisor that takes memory in; hypervisor.Guest is one.
type Incoming interface {
	Incoming(ctx context.Context) (io.ReadWriteCloser, error)
	Loaded(ctx context.Context) error
	Exited() <-chan struct{}
}

// Arrival is the other end of a Line.
type Arrival interface {
	// Carry carries to the hypervisor, in a goroutine of its own, until either end is closed.
	Carry(ctx context.Context, memory io.ReadWriteCloser)
	// Close ends that, and waits for it.
	Close()
}
