package app

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/app/switching"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/p2p"
	"tagalong.org/tagalong/p2p/handoff"
)

// What package switching needs of the engine to take a VM.

// incomingRun is one attempt to take the VM: all that a switching.Taker needs.
type incomingRun struct {
	*switching.Taker
	v             *vm
	attempt, peer string
	arrivals      chan switching.Arrival // the giver's memory stream: once, or again for a guest that has gone ahead of its memory
	wasApart      atomic.Bool            // the guest has gone ahead of its memory

	// guarded by mu
	mu      sync.Mutex
	failWhy error
	guest   hypervisor.Guest
}

// startIncoming begins an attempt to take the VM. It is for the loop.
func (v *vm) startIncoming(ctx context.Context, a baton.Action) {
	v.mu.Lock()
	apart := v.offeredApart
	v.mu.Unlock()
	r := v.newIncoming(a.Attempt, a.Peer)
	r.Taker = switching.NewTaker(ctx, r.taking(apart))
	v.expect(r)
	v.e.spawn(func() { r.run(ctx, r.Run) })
}

// newIncoming makes an attempt that lacks its Taker.
func (v *vm) newIncoming(attempt, peer string) *incomingRun {
	return &incomingRun{v: v, attempt: attempt, peer: peer, arrivals: make(chan switching.Arrival, 1)}
}

// taking is what its Taker is made of.
func (r *incomingRun) taking(apart bool) switching.Taking {
	return switching.Taking{Attempt: r.attempt, PostCopy: apart, Rule: switching.Usual, Host: r, Clock: wallClock{}, Log: r.v.log}
}

// expect makes it the attempt under way. It is for the loop.
func (v *vm) expect(r *incomingRun) {
	v.incoming = r
	v.mu.Lock()
	v.expecting, v.trailing = r, nil
	v.mu.Unlock()
}

// Complete implements switching.Host.
func (r *incomingRun) Complete() (ok bool, applied int64) {
	disk := r.v.currentDisk()
	return disk != nil && disk.Info().Complete, r.v.appliedBytes()
}

// Start implements switching.Host.
func (r *incomingRun) Start(ctx context.Context) (switching.Incoming, error) {
	v := r.v
	rec, ok := v.record()
	if !ok {
		return nil, errors.New("the VM's record is missing")
	}
	config, err := v.e.guestConfig(v.id, rec)
	if err != nil {
		return nil, err
	}
	if err := v.sameHardware(config); err != nil {
		return nil, err
	}
	if err := errors.Join(v.admit(config.MemoryKiB<<10), v.e.roomToTake()); err != nil {
		return nil, err
	}
	defer v.admitted() // from then on the guest counts by itself
	if err := v.startExport(); err != nil {
		return nil, err
	}
	guest, err := v.e.opt.Hypervisor.StartIncoming(ctx, config)
	if err != nil {
		return nil, err
	}
	r.of(guest)
	v.setGuest(guest)
	return guest, nil
}

// Memory implements switching.Host.
func (r *incomingRun) Memory() <-chan switching.Arrival { return r.arrivals }

// Moved implements switching.Host.
func (r *incomingRun) Moved(ctx context.Context) { r.v.post(ctx, baton.Event{Kind: baton.EvProgress}) }

// Ready implements switching.Host.
func (r *incomingRun) Ready(ctx context.Context) {
	r.v.post(ctx, baton.Event{Kind: baton.EvIncomingReady, Attempt: r.attempt})
}

// Loaded implements switching.Host. After it the giver lets go for good, so that this device must be able to write down that it has the VM.
func (r *incomingRun) Loaded(ctx context.Context) {
	if err := r.v.e.roomToTake(); err != nil {
		r.Failed(ctx, err)
		return
	}
	r.apart()
	r.v.post(ctx, baton.Event{Kind: baton.EvLoadedLocal, Attempt: r.attempt})
}

// roomToTake fails if this device couldn't write down that it is a VM's owner.
func (e *Engine) roomToTake() error {
	if err := e.dir.Room(); err != nil {
		e.log.Warn("There is no room to take a VM", "error", err)
		return errNoRoom
	}
	return nil
}

// Seal implements switching.Host.
func (r *incomingRun) Seal() { r.v.seal() }

// Failed implements switching.Host.
func (r *incomingRun) Failed(ctx context.Context, err error) {
	r.mu.Lock()
	r.failWhy = err
	r.mu.Unlock()
	r.v.post(ctx, baton.Event{Kind: baton.EvLocalFailed, Attempt: r.attempt, Reason: giveReason(err)})
}

// of notes whose memory it is.
func (r *incomingRun) of(g hypervisor.Guest) {
	r.mu.Lock()
	r.guest = g
	r.mu.Unlock()
}

// outcome is whose memory it was, and why it came to nothing, or nil.
func (r *incomingRun) outcome() (hypervisor.Guest, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.guest, r.failWhy
}

// end gives the attempt up and waits for its goroutines; the hypervisor is killed by the caller.
func (r *incomingRun) end() {
	r.Cancel()
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
	<-r.Done()
	r.v.unseal()
}

// memoryArrival is a giver's memory stream; it implements switching.Arrival.
type memoryArrival struct {
	v      *vm
	stream *handoff.Memory
	stop   context.CancelFunc
	piped  chan struct{} // closed when it has ended to be carried
	closed chan struct{} // closed by Close
}

func (a *memoryArrival) Carry(ctx context.Context, memory io.ReadWriteCloser) {
	ctx, a.stop = context.WithCancel(ctx)
	gate := handoff.NewGate(nil)
	gate.Release()
	a.v.e.spawn(func() {
		defer close(a.piped)
		// Its error says less than the hypervisor's.
		_ = handoff.Pipe(ctx, a.stream, memory, gate, nil)
	})
}

// Ended implements switching.ArrivalApart.
func (a *memoryArrival) Ended() <-chan struct{} { return a.piped }

// Close is called once.
func (a *memoryArrival) Close() {
	if a.stop != nil {
		a.stop()
		<-a.piped
	}
	close(a.closed)
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

// handleMemory takes a giver's memory stream and hands it to the attempt that waits for it.
func (e *Engine) handleMemory(ctx context.Context, s p2p.Stream) {
	header, memory, err := handoff.AcceptMemory(ctx, s)
	if err != nil {
		e.log.Warn("A memory stream was refused", "device", s.Peer(), "error", err)
		return
	}
	defer memory.Reset()
	v := e.vm(header.VM)
	if v == nil {
		return
	}
	v.mu.Lock()
	r := v.expecting
	v.mu.Unlock()
	if r == nil || r.attempt != header.Attempt || r.peer != s.Peer() {
		e.log.Warn("A memory stream belongs to no attempt", "device", s.Peer(), "vm", header.VM)
		return
	}
	arrival := &memoryArrival{v: v, stream: memory, piped: make(chan struct{}), closed: make(chan struct{})}
	select {
	case r.arrivals <- arrival:
		// The stream lives as long as its handler.
		select {
		case <-r.Done():
		case <-arrival.closed:
		}
	default:
	}
}
