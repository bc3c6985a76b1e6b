package switching

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"tagalong.org/tagalong/app/hypervisor"
)

// wordTimeout is how long the giver's reason for a broken stream is waited for.
const wordTimeout = time.Second

// Taking is one attempt to take a VM. All fields are needed.
type Taking struct {
	Attempt string
	// PostCopy says that the guest may go ahead of its memory.
	PostCopy bool
	Rule     Rule
	Host     Host
	Clock    Clock
	Log      *slog.Logger
}

// Taker carries an attempt out. Run is called once; the other methods may be called from anywhere.
type Taker struct {
	Taking
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{}
	apart  atomic.Bool
	whole  atomic.Bool
}

// NewTaker makes a Taker; the caller calls Run in a goroutine of its own. When ctx ends, so does it.
func NewTaker(ctx context.Context, a Taking) *Taker {
	ctx, cancel := context.WithCancel(ctx)
	return &Taker{Taking: a, ctx: ctx, cancel: cancel, done: make(chan struct{})}
}

// Run starts the hypervisor, paused, and loads the memory into it. It touches neither the
// disk's content nor who owns it. It says how that goes to the Host.
func (t *Taker) Run() {
	defer close(t.done)
	t.ended(t.take(t.ctx))
}

// Done is closed when Run has ended.
func (t *Taker) Done() <-chan struct{} { return t.done }

// Cancel has Run end. It may hang in its hypervisor until that is gone.
func (t *Taker) Cancel() { t.cancel() }

func (t *Taker) take(ctx context.Context) error {
	if err := t.awaitReplica(ctx); err != nil {
		return fmt.Errorf("wait for this device's copy of the disk: %w", err)
	}
	guest, err := t.Host.Start(ctx)
	if err != nil {
		return err
	}
	ahead, canGoAhead := guest.(IncomingApart)
	if t.PostCopy && !canGoAhead {
		return hypervisor.ErrNoPostCopy
	}
	open := guest.Incoming
	if t.PostCopy {
		open = ahead.IncomingApart
	}
	memory, err := open(ctx)
	if err != nil {
		return err
	}
	defer memory.Close()
	t.Host.Ready(ctx)
	var arrival Arrival
	select {
	case arrival = <-t.Host.Memory():
	case <-guest.Exited():
		return hypervisor.ErrNotRunning
	case <-ctx.Done():
		return ctx.Err()
	}
	arrival.Carry(ctx, memory)
	if t.PostCopy {
		return t.takeApart(ctx, ahead, memory, arrival)
	}
	defer arrival.Close()
	if err := guest.Loaded(ctx); err != nil {
		// The giver's word, which ends ctx, says more than a broken stream does.
		_ = t.Clock.Wait(ctx, wordTimeout)
		return err
	}
	t.Host.Loaded(ctx)
	// The giver has fenced its disk and seen our acknowledgement of its last write, or it
	// wouldn't have let the memory's end through: closing the replica overlaps with its answer.
	t.Host.Seal()
	return nil
}

// takeApart is the end of take for a guest that may go ahead of its memory.
func (t *Taker) takeApart(ctx context.Context, guest IncomingApart, memory io.Closer, arrived Arrival) error {
	arrival, ok := arrived.(ArrivalApart)
	if !ok {
		arrived.Close()
		return hypervisor.ErrNoPostCopy
	}
	apart, err := t.loadedApart(ctx, guest, arrival)
	if err != nil {
		arrival.Close()
		_ = t.Clock.Wait(ctx, wordTimeout)
		return err
	}
	t.apart.Store(apart)
	t.Host.Loaded(ctx)
	t.Host.Seal()
	if !apart {
		arrival.Close()
		return nil
	}
	return t.follow(ctx, guest, memory, arrival)
}

// awaitReplica waits until this device's copy can stand for the disk.
func (t *Taker) awaitReplica(ctx context.Context) error {
	var last int64
	for {
		ok, applied := t.Host.Complete()
		if ok {
			return nil
		}
		if applied != last {
			last = applied
			t.Host.Moved(ctx)
		}
		if err := t.Clock.Wait(ctx, t.Rule.CatchUpPoll); err != nil {
			return err
		}
	}
}
