package switching

import (
	"context"
	"errors"
	"fmt"
	"io"

	"tagalong.org/tagalong/app/hypervisor"
)

// NewFollower makes a Taker of which only Follow is called. From now on it counts as Apart.
func NewFollower(ctx context.Context, a Taking) *Taker {
	t := NewTaker(ctx, a)
	t.apart.Store(true)
	return t
}

// Follow takes in what is missing of the memory of a guest that is here already: one that an earlier engine has taken. It is called in place of Run, once.
// It says how that goes to the Host.
func (t *Taker) Follow(guest IncomingApart) {
	defer close(t.done)
	t.ended(t.follow(t.ctx, guest, nil, nil))
}

// Apart says that the guest may be ahead of its memory: from before Host.Loaded is told on, until Run or Follow ends.
func (t *Taker) Apart() bool {
	select {
	case <-t.done:
		return false
	default:
		return t.apart.Load()
	}
}

// Whole says that all of the memory has come that the guest was ahead of. It isn't so of one that has ended before.
func (t *Taker) Whole() bool { return t.whole.Load() }

// loadedApart waits until the guest could go on, and says whether memory is missing. A line that ends before doesn't come back.
func (t *Taker) loadedApart(ctx context.Context, guest IncomingApart, arrival ArrivalApart) (bool, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-arrival.Ended():
			_ = t.Clock.Wait(ctx, wordTimeout) // it may have been the last of it
			cancel(errLineEnded)
		case <-guest.Exited():
			cancel(hypervisor.ErrNotRunning)
		case <-ctx.Done():
		}
	}()
	apart, err := guest.LoadedApart(ctx)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("load the memory: %w", context.Cause(ctx))
	}
	return apart, err
}

// follow keeps a stream of the giver's at the hypervisor until all of the memory is there.
func (t *Taker) follow(ctx context.Context, guest IncomingApart, memory io.Closer, arrival ArrivalApart) error {
	whole := make(chan error, 1)
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	missing, found := context.WithCancel(ctx) // ends when nothing is missing any more
	go func() {
		defer found()
		whole <- guest.AwaitWhole(waiting)
	}()
	end := func() {
		if arrival == nil {
			return
		}
		_ = memory.Close() // its hypervisor hears by that that it must wait for another
		arrival.Close()
		arrival = nil
	}
	defer end()
	for {
		t.Host.Rest(ctx, Rest{Linked: arrival != nil})
		var ended <-chan struct{}
		if arrival != nil {
			ended = arrival.Ended()
		}
		select {
		case err := <-whole:
			t.whole.Store(err == nil)
			return err
		case <-ended:
			t.Log.Warn("The line was lost over which memory comes", "attempt", t.Attempt)
			end()
		case next := <-t.Host.Memory():
			end()
			memory, arrival = t.takeUp(missing, guest, next)
		case <-guest.Exited():
			return hypervisor.ErrNotRunning
		case <-ctx.Done():
			cancel()
			<-whole
			return ctx.Err()
		}
	}
}

// takeUp gives a new stream to the hypervisor.
func (t *Taker) takeUp(ctx context.Context, guest IncomingApart, next Arrival) (io.Closer, ArrivalApart) {
	bound, cancel := context.WithTimeout(ctx, mendTimeout)
	defer cancel()
	arrival, ok := next.(ArrivalApart)
	if !ok {
		next.Close()
		return nil, nil
	}
	memory, err := guest.TakeRest(bound)
	if ctx.Err() != nil {
		arrival.Close()
		if err == nil {
			_ = memory.Close()
		}
		return nil, nil
	}
	if err != nil {
		t.Log.Warn("The rest of the memory can't be taken up, it is tried again", "attempt", t.Attempt, "error", err)
		arrival.Close()
		return nil, nil
	}
	arrival.Carry(ctx, memory)
	t.Log.Info("The rest of the memory goes on", "attempt", t.Attempt)
	return memory, arrival
}

// ended says how it ended.
func (t *Taker) ended(err error) {
	switch {
	case t.ctx.Err() != nil, errors.Is(err, hypervisor.ErrNotRunning) && t.apart.Load():
		// Who ended it, or follows the guest, knows.
	case err != nil:
		t.Log.Warn("Taking the VM failed", "attempt", t.Attempt, "error", err)
		t.Host.Failed(t.ctx, err)
	}
}
