package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/p2p"
	"tagalong.org/tagalong/p2p/handoff"
)

// incomingRun is one attempt to take the VM, on the taker's side.
type incomingRun struct {
	v       *vm
	attempt string
	peer    string
	cancel  context.CancelFunc
	done    chan struct{}
	streams chan handoff.Stream // the giver's memory stream, once
}

func (v *vm) startIncoming(ctx context.Context, a baton.Action) {
	ctx, cancel := context.WithCancel(ctx)
	r := &incomingRun{v: v, attempt: a.Attempt, peer: a.Peer, cancel: cancel, done: make(chan struct{}), streams: make(chan handoff.Stream, 1)}
	v.incoming = r
	v.mu.Lock()
	v.expecting = r
	v.mu.Unlock()
	v.e.spawn(func() {
		defer close(r.done)
		if err := r.take(ctx); err != nil && ctx.Err() == nil {
			v.log.Warn("Taking the VM failed", "attempt", r.attempt, "error", err)
			v.post(ctx, baton.Event{Kind: baton.EvLocalFailed, Attempt: r.attempt, Reason: giveReason(err)})
		}
	})
}

// take starts the hypervisor, paused, and loads the memory into it. It touches neither the
// disk's content nor who owns it.
func (r *incomingRun) take(ctx context.Context) error {
	v := r.v
	if err := r.awaitReplica(ctx); err != nil {
		return fmt.Errorf("wait for this device's copy of the disk: %w", err)
	}
	rec, ok := v.record()
	if !ok {
		return errors.New("the VM's record is missing")
	}
	config, err := v.e.guestConfig(v.id, rec)
	if err != nil {
		return err
	}
	if err := enoughMemory(config.MemoryKiB << 10); err != nil {
		return err
	}
	if err := v.startExport(); err != nil {
		return err
	}
	guest, err := v.e.opt.Hypervisor.StartIncoming(ctx, config)
	if err != nil {
		return err
	}
	v.setGuest(guest)
	memory, err := guest.Incoming(ctx)
	if err != nil {
		return err
	}
	defer memory.Close()
	v.post(ctx, baton.Event{Kind: baton.EvIncomingReady, Attempt: r.attempt})
	var stream handoff.Stream
	select {
	case stream = <-r.streams:
	case <-guest.Exited():
		return hypervisor.ErrNotRunning
	case <-ctx.Done():
		return ctx.Err()
	}
	return r.load(ctx, guest, stream, memory)
}

// load pipes the memory in and reports the hypervisor's own proof that it can run.
func (r *incomingRun) load(ctx context.Context, guest hypervisor.Guest, stream handoff.Stream, memory io.ReadWriteCloser) error {
	v := r.v
	pipeCtx, stop := context.WithCancel(ctx)
	piped := make(chan error, 1)
	gate := handoff.NewGate()
	gate.Release()
	v.e.spawn(func() { piped <- handoff.Pipe(pipeCtx, stream, memory, gate, nil) })
	defer func() {
		stop()
		<-piped
	}()
	loaded := make(chan error, 1)
	v.e.spawn(func() { loaded <- guest.Loaded(ctx) })
	if err := <-loaded; err != nil {
		// The giver's word, which ends ctx, says more than a broken stream does.
		select {
		case <-ctx.Done():
		case <-time.After(wordTimeout):
		}
		return err
	}
	v.post(ctx, baton.Event{Kind: baton.EvLoadedLocal, Attempt: r.attempt})
	// The giver has fenced its disk and seen our acknowledgement of its last write, or it
	// wouldn't have let the memory's end through: closing the replica overlaps with its answer.
	v.seal()
	return nil
}

// wordTimeout is how long the giver's reason for a broken stream is waited for.
const wordTimeout = time.Second

// awaitReplica waits until this device's copy can stand for the disk.
func (r *incomingRun) awaitReplica(ctx context.Context) error {
	v := r.v
	var last int64
	for {
		if disk := v.currentDisk(); disk != nil {
			if info := disk.Info(); info.Complete {
				return nil
			}
		}
		if n := v.appliedBytes(); n != last {
			last = n
			v.post(ctx, baton.Event{Kind: baton.EvProgress})
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(catchUpPoll):
		}
	}
}

// seal closes the replica for the owner's writes, until the attempt ends or the disk is active.
func (v *vm) seal() {
	v.mu.Lock()
	v.sealed = true
	v.mu.Unlock()
	v.stopApplying()
}

func (v *vm) unseal() {
	v.mu.Lock()
	v.sealed = false
	v.mu.Unlock()
}

// end gives the attempt up and waits for its goroutines; the hypervisor is killed by the caller.
func (r *incomingRun) end() {
	r.cancel()
	r.v.mu.Lock()
	if r.v.expecting == r {
		r.v.expecting = nil
	}
	r.v.mu.Unlock()
	if g := r.v.currentGuest(); g != nil {
		// Loading hangs in the hypervisor until it is gone.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.v.e.ctx), actionTimeout)
		defer cancel()
		if err := g.Kill(ctx); err != nil {
			r.v.log.Error("The hypervisor doesn't end", "error", err)
		}
	}
	<-r.done
	r.v.unseal()
}

// handleMemory takes a giver's memory stream and hands it to the attempt that waits for it.
func (e *Engine) handleMemory(ctx context.Context, s p2p.Stream) {
	header, err := handoff.AcceptMemory(ctx, s)
	if err != nil {
		e.log.Warn("A memory stream was refused", "device", s.Peer(), "error", err)
		_ = s.Reset()
		return
	}
	v := e.vm(header.VM)
	if v == nil {
		_ = s.Reset()
		return
	}
	v.mu.Lock()
	r := v.expecting
	v.mu.Unlock()
	if r == nil || r.attempt != header.Attempt || r.peer != s.Peer() {
		e.log.Warn("A memory stream belongs to no attempt", "device", s.Peer(), "vm", header.VM)
		_ = s.Reset()
		return
	}
	select {
	case r.streams <- s:
		// The stream lives as long as its handler.
		<-r.done
	default:
	}
	_ = s.Reset()
}
