package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/p2p/handoff"
	"tagalong.org/tagalong/vmdisk"
)

const (
	// parkBelow is how little memory may be left before the guest is stopped, in bytes. At a LAN's
	// 100 MB/s it takes 40 ms.
	parkBelow = 4 << 20
	// minPasses is how often the whole memory is gone through at least.
	minPasses = 2
	// maxPasses ends the wait for a guest that writes memory faster than it leaves: it is stopped
	// with what is left.
	maxPasses = 30
	// minPortion and maxPortion bound how many bytes the stream may advance before the progress is
	// looked at again.
	minPortion = 64 << 10
	maxPortion = 1 << 20
	// zeroShare is how much more memory than bytes a stream can hold at most: an empty page of 4 KiB
	// takes 9 bytes. A portion of this share of what remains can't reach the end of a pass.
	zeroShare = 1024
	// earlyStop is how much may be left, in bytes, when a guest is stopped within the first pass
	// because it was too idle to be caught in a later one.
	earlyStop = 16 << 20
	// lookEvery is how long a portion may take before the progress is looked at again.
	lookEvery = 2 * time.Millisecond
	// catchUpPoll is how often the replica's progress is looked at.
	catchUpPoll = 20 * time.Millisecond
)

// reasonConverged is told to the taker when QEMU was faster than us; it asks again.
const reasonConverged = "converged early"

// outgoingRun is one attempt to give the VM away, on the giver's side.
type outgoingRun struct {
	v       *vm
	attempt string
	peer    string
	live    bool
	early   bool // stop the guest within the first pass
	begun   time.Time
	cancel  context.CancelFunc
	done    chan struct{}

	gate     *handoff.Gate
	memory   atomic.Int64 // bytes that left
	proceedc chan struct{}

	// guarded by mu
	mu  sync.Mutex
	out hypervisor.Outgoing
	// piped is closed when the pipe to the taker has ended.
	piped    chan struct{}
	finished bool
	told     bool // the taker knows what it lacks
}

func (v *vm) startOutgoing(ctx context.Context, a baton.Action) {
	ctx, cancel := context.WithCancel(ctx)
	r := &outgoingRun{v: v, attempt: a.Attempt, peer: a.Peer, live: a.Live, begun: time.Now(), cancel: cancel, done: make(chan struct{}), proceedc: make(chan struct{}, 1), gate: handoff.NewGate()}
	v.outgoing = r
	v.mu.Lock()
	r.early, v.converged = v.converged, false
	v.mu.Unlock()
	v.e.spawn(func() {
		defer close(r.done)
		pos, err := r.prepare(ctx)
		if err == nil {
			v.post(ctx, baton.Event{Kind: baton.EvPrepared, Attempt: r.attempt, Position: baton.Position{Term: pos.Term, Barrier: pos.Barrier}})
			err = r.finish(ctx)
		}
		if errors.Is(err, hypervisor.ErrConverged) {
			v.mu.Lock()
			v.converged = true
			v.mu.Unlock()
		}
		if err != nil && ctx.Err() == nil {
			v.log.Warn("Giving the VM away failed", "attempt", r.attempt, "error", err)
			v.post(ctx, baton.Event{Kind: baton.EvLocalFailed, Attempt: r.attempt, Reason: giveReason(err)})
		}
	})
}

func giveReason(err error) string {
	if errors.Is(err, hypervisor.ErrConverged) {
		return reasonConverged
	}
	s := err.Error()
	return s[:min(len(s), 200)]
}

// prepare brings the taker to where only the last words are missing: its replica is complete at the
// returned position, or it knows durably what it lacks of that; this disk is fenced, the guest stands still.
func (r *outgoingRun) prepare(ctx context.Context) (vmdisk.Position, error) {
	v := r.v
	defer v.wantFeed(r.peer)()
	if err := r.catchUp(ctx); err != nil {
		return vmdisk.Position{}, fmt.Errorf("bring the other device's copy up to date: %w", err)
	}
	if !r.live {
		return r.seal(ctx)
	}
	guest := v.currentGuest()
	if guest == nil {
		return vmdisk.Position{}, hypervisor.ErrNotRunning
	}
	if err := r.sendMemory(ctx, guest); err != nil {
		return vmdisk.Position{}, err
	}
	v.switchPhase(phaseHandOff)
	stopped := time.Now()
	v.switchStopped(stopped)
	if err := v.halt(ctx, guest); err != nil {
		return vmdisk.Position{}, fmt.Errorf("stop the guest: %w", err)
	}
	paused := time.Since(stopped)
	// From here on the guest can't write memory: all of it leaves while the disk is sealed.
	r.gate.Release()
	pos, err := r.seal(ctx)
	if err != nil {
		return pos, err
	}
	sealed := time.Since(stopped)
	if err := r.out.AtSwitchover(ctx); err != nil {
		return pos, err
	}
	v.log.Info("The guest stands still, all but its last state is there", "paused", paused, "sealed", sealed, "switchover", time.Since(stopped))
	return pos, nil
}

// sendMemory carries memory away while the guest runs, until little enough is left, and parks there.
func (r *outgoingRun) sendMemory(ctx context.Context, guest hypervisor.Guest) error {
	v := r.v
	v.switchPhase(phaseMemory)
	stream, err := v.e.host.Open(ctx, r.peer, handoff.MemoryProtocol)
	if err != nil {
		return fmt.Errorf("open the memory stream: %w", err)
	}
	if err := handoff.OpenMemory(ctx, stream, handoff.MemHeader{VM: v.id, Attempt: r.attempt}); err != nil {
		_ = stream.Reset()
		return fmt.Errorf("open the memory stream: %w", err)
	}
	out, err := guest.Teleport(ctx)
	if err != nil {
		_ = stream.Reset()
		return err
	}
	piped := make(chan struct{})
	r.mu.Lock()
	r.out, r.piped = out, piped
	r.mu.Unlock()
	v.e.spawn(func() {
		defer close(piped)
		err := handoff.Pipe(ctx, out.Stream(), stream, r.gate, func(n int) { r.memory.Add(int64(n)) })
		if err != nil && ctx.Err() == nil && !errors.Is(err, io.EOF) {
			v.log.Warn("The memory stream ended", "error", err)
		}
	})
	return r.converge(ctx, out)
}

// converge lets memory out in portions, so that QEMU never finishes by itself, until the rest is small.
func (r *outgoingRun) converge(ctx context.Context, out hypervisor.Outgoing) error {
	v := r.v
	var told time.Time
	for {
		p, err := out.Progress(ctx)
		if err != nil {
			return err
		}
		if p.Passes >= minPasses && p.Remaining <= parkBelow || p.Passes >= maxPasses || r.early && p.Remaining <= earlyStop {
			return nil
		}
		if now := time.Now(); now.Sub(told) > batonTick {
			told = now
			v.post(ctx, baton.Event{Kind: baton.EvProgress})
			v.switchBytes(r.memory.Load(), v.feedCopied(r.peer), p.Remaining)
		}
		r.gate.Allow(min(max(p.Remaining/zeroShare, minPortion), maxPortion))
		r.awaitSpent(ctx)
	}
}

// awaitSpent waits until the portion has left, or for a moment: a stream that never stands still
// while it is looked at is faster.
func (r *outgoingRun) awaitSpent(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookEvery)
	defer cancel()
	r.gate.Spent(ctx)
}

// proceed lets the last part through; called by the loop when the machine is in Sending.
func (r *outgoingRun) proceed() {
	if r == nil {
		return
	}
	select {
	case r.proceedc <- struct{}{}:
	default:
	}
}

// finish waits for the machine's word and sends the devices' state.
func (r *outgoingRun) finish(ctx context.Context) error {
	if !r.live {
		return nil
	}
	select {
	case <-r.proceedc:
	case <-ctx.Done():
		return ctx.Err()
	}
	r.mu.Lock()
	r.finished = true
	r.mu.Unlock()
	return r.out.Finish(ctx)
}

// end gives the attempt up: the memory stream is closed, the hypervisor forgets the teleport. The
// guest stays as it is: stopped, if it was.
func (r *outgoingRun) end(ctx context.Context) {
	r.cancel()
	<-r.done
	r.mu.Lock()
	out, piped := r.out, r.piped
	r.mu.Unlock()
	if out == nil {
		return
	}
	r.gate.Release()
	if err := out.Cancel(ctx); err != nil {
		r.v.log.Warn("Cancelling the teleport failed", "error", err)
	}
	<-piped
}

// abandon lets go without a word to a hypervisor that is about to be killed.
func (r *outgoingRun) abandon() {
	r.cancel()
	<-r.done
	r.mu.Lock()
	out, piped := r.out, r.piped
	r.mu.Unlock()
	if out != nil {
		out.Stream().Close()
		<-piped
	}
}
