package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/app/hypervisor/qmp"
)

// capPostCopy lets a guest run before all of its memory is there. A QEMU that is to take one in refuses it if its system can't.
const capPostCopy = "postcopy-ram"

var _ hypervisor.PostCopier = (*guest)(nil)

// lookAgain is how often QEMU is asked where it sends no event.
const lookAgain = 5 * time.Millisecond

// outgoingApart is one teleport on the giver's side of a guest that may go ahead.
type outgoingApart struct {
	*outgoing
	held     *heldStream
	finished atomic.Bool
}

// TeleportApart implements hypervisor.PostCopier.
func (g *guest) TeleportApart(ctx context.Context) (hypervisor.OutgoingApart, error) {
	o, err := g.teleport(ctx, capEvents, capReturnPath, capPause, capLate, capPostCopy)
	if err != nil {
		return nil, err
	}
	held := &heldStream{weighed: weighed{o.stream.(weighed).Conn}}
	o.stream = held
	return &outgoingApart{outgoing: o, held: held}, nil
}

// GoAhead implements hypervisor.OutgoingApart.
func (o *outgoingApart) GoAhead(ctx context.Context) error {
	if err := o.g.qmp.Do(ctx, "migrate-start-postcopy", nil, nil); err != nil {
		return fmt.Errorf("qemu: let the guest go ahead: %w", err)
	}
	return nil
}

// Sever implements hypervisor.OutgoingApart.
func (o *outgoingApart) Sever() {
	o.held.sever()
	o.sub.Close()
}

// Finish implements hypervisor.Outgoing.
func (o *outgoingApart) Finish(ctx context.Context) error {
	o.finished.Store(true)
	return o.outgoing.Finish(ctx)
}

// Cancel implements hypervisor.Outgoing. A QEMU whose guest could have gone ahead never comes to an end by migrate_cancel, nor when its stream ends: it
// is told that all of its memory has arrived, and has it still.
func (o *outgoingApart) Cancel(ctx context.Context) error {
	_ = o.held.Close()
	var drained sync.WaitGroup
	drained.Go(o.held.drain)
	err := o.end(ctx)
	o.held.sever()
	drained.Wait()
	o.sub.Close()
	return err
}

func (o *outgoingApart) end(ctx context.Context) error {
	if !o.finished.Load() {
		return o.g.cancelMigration(ctx)
	}
	err := o.g.complete(ctx, o.held)
	if errors.Is(err, hypervisor.ErrApart) {
		return o.g.CallBack(ctx) // it knows that its stream has ended
	}
	if err != nil {
		return fmt.Errorf("qemu: call back a guest that could go ahead: %w", err)
	}
	return nil
}

// IncomingApart implements hypervisor.PostCopier.
func (g *guest) IncomingApart(ctx context.Context) (io.ReadWriteCloser, error) {
	conn, err := g.takeIn(ctx, capEvents, capReturnPath, capLate, capPostCopy)
	var refused *qmp.CommandError
	if errors.As(err, &refused) && refused.Command == "migrate-set-capabilities" {
		return nil, fmt.Errorf("%w: %w", hypervisor.ErrNoPostCopy, err)
	}
	return conn, err
}

// LoadedApart implements hypervisor.PostCopier.
func (g *guest) LoadedApart(ctx context.Context) (apart bool, err error) {
	for {
		// A QEMU that waits for memory while it loads answers late; the stream is watched by who carries it.
		s, err := g.State(ctx)
		switch {
		case ctx.Err() != nil:
			return false, ctx.Err()
		case errors.Is(err, hypervisor.ErrNotRunning):
			return false, fmt.Errorf("%w: QEMU ended: %s", hypervisor.ErrTeleport, lastWords(g.cfg.Dir))
		case err != nil && !errors.Is(err, context.DeadlineExceeded):
			return false, err
		case err == nil && (s == hypervisor.StatePaused || s == hypervisor.StateIOError):
			m, err := g.migration(ctx)
			return err == nil && m.Status != "completed", err
		case err == nil && s != hypervisor.StateIncoming:
			return false, fmt.Errorf("%w: the loaded guest is %s, not paused", hypervisor.ErrTeleport, s)
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(lookAgain):
		}
	}
}

// Apart implements hypervisor.PostCopier.
func (g *guest) Apart(ctx context.Context) (hypervisor.Apart, error) {
	m, err := g.migration(ctx)
	if err != nil {
		return hypervisor.Apart{}, fmt.Errorf("qemu: ask where the memory is: %w", err)
	}
	return m.apart(), nil
}

// apart is how the memory stands. Only a QEMU that sends counts it.
func (m migration) apart() hypervisor.Apart {
	a := hypervisor.Apart{Side: hypervisor.Left, Remaining: m.RAM.Remaining}
	if m.RAM.Total == 0 {
		a = hypervisor.Apart{Side: hypervisor.Ahead}
	}
	switch m.Status {
	case "postcopy-active":
	case "postcopy-paused", "postcopy-recover":
		a.Broken = true
	case "failed", "cancelled", "cancelling":
		return hypervisor.Apart{Failed: true}
	default:
		return hypervisor.Apart{}
	}
	return a
}

// AwaitWhole implements hypervisor.PostCopier.
func (g *guest) AwaitWhole(ctx context.Context) error {
	sub := g.qmp.Subscribe()
	defer sub.Close()
	for {
		a, err := g.Apart(ctx)
		switch {
		case err == nil && a.Side != hypervisor.Ahead:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case g.gone(), errors.Is(err, qmp.ErrClosed):
			return fmt.Errorf("%w: %s", hypervisor.ErrNotRunning, lastWords(g.cfg.Dir))
		case err != nil && !errors.Is(err, context.DeadlineExceeded): // else it waits for a page
			return err
		}
		soon, cancel := context.WithTimeout(ctx, time.Second)
		_, err = await(soon, sub, "completed")
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, hypervisor.ErrTeleport) && !errors.Is(err, qmp.ErrClosed) {
			return err
		}
	}
}

// notices is how long a QEMU may take to notice that its stream has ended. One that has sent all there is only waits for the taker's word, and
// doesn't.
const notices = 10 * time.Second

// SendRest implements hypervisor.PostCopier.
func (g *guest) SendRest(ctx context.Context) (_ io.ReadWriteCloser, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("qemu: send the rest of the memory: %w", err)
		}
	}()
	if err := g.broken(ctx); err != nil {
		return nil, err
	}
	ours, theirs, err := socketPair(sendBuffer)
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	if err := g.qmp.DoFile(ctx, "getfd", map[string]any{"fdname": "memory"}, theirs); err != nil {
		ours.Close()
		return nil, err
	}
	if err := g.qmp.Do(ctx, "migrate", map[string]any{"uri": "fd:memory", "resume": true}, nil); err != nil {
		ours.Close()
		return nil, err
	}
	return weighed{ours}, nil
}

// broken waits until QEMU knows that its stream has ended.
func (g *guest) broken(ctx context.Context) error {
	for began := time.Now(); ; {
		m, err := g.migration(ctx)
		switch {
		case err != nil:
			return err
		case m.Status == "postcopy-paused":
			return nil
		case m.apart().Side != hypervisor.Left || time.Since(began) > notices && m.Status == "postcopy-active":
			return fmt.Errorf("%w: it is %q", hypervisor.ErrApart, m.Status)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookAgain):
		}
	}
}

// TakeRest implements hypervisor.PostCopier. A QEMU whose stream has ended may wait for a page, and runs only what is urgent.
func (g *guest) TakeRest(ctx context.Context) (_ io.ReadWriteCloser, err error) {
	path := memorySocket(g.cfg.Dir)
	for {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("qemu: take the rest of the memory: %w", err)
		}
		err := g.doUrgent(ctx, "migrate-recover", map[string]any{"uri": "unix:" + path})
		if err == nil {
			break
		}
		var refused *qmp.CommandError
		if !errors.As(err, &refused) { // else it hasn't noticed yet
			return nil, fmt.Errorf("qemu: take the rest of the memory: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("qemu: take the rest of the memory: %w: %w", err, ctx.Err())
		case <-time.After(lookAgain):
		}
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("qemu: connect to the memory socket: %w", err)
	}
	return conn, nil
}
