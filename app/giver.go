package app

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync/atomic"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/handover"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/app/switching"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/p2p/flow"
	"tagalong.org/tagalong/p2p/handoff"
	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/vmdisk"
)

// What package switching needs of the engine to give a VM away.

// reasonConverged is told to the taker when QEMU was faster than us; it asks again.
const reasonConverged = "converged early"

// startOutgoing begins an attempt to give the VM away. It is for the loop.
func (v *vm) startOutgoing(ctx context.Context, a baton.Action) {
	o := &outgoingRun{v: v, attempt: a.Attempt, peer: a.Peer}
	v.mu.Lock()
	early := v.converged
	v.converged = false
	v.mu.Unlock()
	v.outgoing = switching.NewGiver(ctx, switching.Giving{
		Attempt: a.Attempt, Taker: a.Peer, Live: a.Live, Early: early, PostCopy: v.wished(a.Peer).way == api.WayPostCopy, Pause: v.allowedPause(a.Peer), Rule: switching.Usual, Copy: v.e.handover,
		Place: o, Replica: o, Streams: o, Tell: o, Clock: wallClock{}, Log: v.log,
	})
	v.e.spawn(v.outgoing.Run)
}

func giveReason(err error) string {
	var busy *switching.TooBusyError
	switch {
	case errors.Is(err, hypervisor.ErrConverged):
		return reasonConverged
	case errors.As(err, &busy):
		return reasonTooBusy
	case errors.Is(err, hypervisor.ErrNoPostCopy):
		return reasonNoPostCopy
	}
	s := err.Error()
	return s[:min(len(s), 200)]
}

// outgoingRun is one attempt to give the VM away: all that a switching.Giver needs.
type outgoingRun struct {
	v             *vm
	attempt, peer string
}

// Disk implements switching.Place.
func (r *outgoingRun) Disk() switching.Disk {
	if disk := r.v.currentDisk(); disk != nil {
		return disk
	}
	return nil
}

// Guest implements switching.Place.
func (r *outgoingRun) Guest() switching.Guest {
	if g := r.v.currentGuest(); g != nil {
		return givenGuest{r.v, g}
	}
	return nil
}

// givenGuest is the VM's guest, whose flushes may wait for a second copy.
type givenGuest struct {
	v *vm
	hypervisor.Guest
}

// Stop implements switching.Guest.
func (g givenGuest) Stop(ctx context.Context) error {
	return g.v.halt(ctx, g.Guest)
}

// Want implements switching.Replica.
func (r *outgoingRun) Want() (release func()) { return r.v.wantFeed(r.peer) }

// Copy implements switching.Replica.
func (r *outgoingRun) Copy() (c handover.Copy, copied int64) {
	if disk := r.v.currentDisk(); disk != nil {
		c = switching.CopyOf(disk.Peers(), r.peer)
	}
	if feed := r.v.feed(r.peer); feed != nil {
		p := feed.progress()
		c.Rate, copied = p.rate, p.copied
	}
	return c, copied
}

// HoldBack implements switching.Replica.
func (r *outgoingRun) HoldBack() { r.v.holdBack(r.peer) }

// Tell implements switching.Replica.
func (r *outgoingRun) Tell(ctx context.Context, pos vmdisk.Position, sets []byte, moved func()) error {
	s, err := r.v.e.host.Open(ctx, r.peer, handoff.SetsProtocol)
	if err != nil {
		return err
	}
	err = handoff.SendSets(ctx, s, handoff.Sets{VM: r.v.id, Attempt: r.attempt, Position: replica.Position(pos), Sets: sets}, moved)
	if err == nil {
		r.v.mu.Lock()
		r.v.halfGiven = r.attempt
		r.v.mu.Unlock()
	}
	return err
}

// Memory implements switching.Streams.
func (r *outgoingRun) Memory(ctx context.Context) (switching.Line, error) {
	stream, err := r.v.e.host.Open(ctx, r.peer, handoff.MemoryProtocol)
	if err != nil {
		return nil, err
	}
	r.v.mu.Lock()
	version := r.v.takes
	r.v.mu.Unlock()
	lanes := flow.Lanes(runtime.GOMAXPROCS(0), r.v.e.processorsServed())
	memory, err := handoff.OpenMemory(ctx, stream, handoff.MemHeader{Version: version, VM: r.v.id, Attempt: r.attempt}, lanes)
	if err != nil {
		return nil, err
	}
	l := &memoryLine{v: r.v, stream: memory, weigh: func(p []byte) int64 { return int64(len(p)) }}
	l.gate = handoff.NewGate(func(p []byte) int64 { return l.weigh(p) })
	return l, nil
}

// Phase implements switching.Teller.
func (r *outgoingRun) Phase(p api.SwitchPhase) { r.v.switchPhase(p) }

// Moved implements switching.Teller.
func (r *outgoingRun) Moved(ctx context.Context) { r.v.post(ctx, baton.Event{Kind: baton.EvProgress}) }

// Report implements switching.Teller.
func (r *outgoingRun) Report(report switching.Report) {
	if report.Slow > 0 {
		r.v.mu.Lock()
		r.v.slowed = true // until it runs here again for good
		r.v.mu.Unlock()
	}
	r.v.switchReport(report)
}

// Stopped implements switching.Teller.
func (r *outgoingRun) Stopped(at time.Time) { r.v.switchStopped(at) }

// Prepared implements switching.Teller. What comes next has to be written down: a device that can't goes on with the VM.
func (r *outgoingRun) Prepared(ctx context.Context, pos vmdisk.Position) {
	if err := r.v.e.dir.Room(); err != nil {
		r.v.log.Warn("There is no room to give the VM away", "error", err)
		r.v.post(ctx, baton.Event{Kind: baton.EvLocalFailed, Attempt: r.attempt, Reason: baton.ReasonNotStored})
		return
	}
	r.v.post(ctx, baton.Event{Kind: baton.EvPrepared, Attempt: r.attempt, Position: baton.Position{Term: pos.Term, Barrier: pos.Barrier}})
}

// Failed implements switching.Teller.
func (r *outgoingRun) Failed(ctx context.Context, err error) {
	if errors.Is(err, hypervisor.ErrConverged) {
		r.v.mu.Lock()
		r.v.converged = true
		r.v.mu.Unlock()
	}
	r.v.post(ctx, baton.Event{Kind: baton.EvLocalFailed, Attempt: r.attempt, Reason: giveReason(err)})
}

// memoryLine is a memory stream to the taker; it implements switching.Line.
type memoryLine struct {
	v      *vm
	stream *handoff.Memory
	gate   *handoff.Gate
	weigh  func(p []byte) int64 // the pipe's, from when there is one
	sent   atomic.Int64
	piped  chan struct{} // closed when the pipe has ended; nil without one
}

func (l *memoryLine) Carry(ctx context.Context, memory io.ReadWriteCloser) {
	if w, ok := memory.(hypervisor.Weigher); ok {
		l.weigh = w.Weigh
	}
	l.piped = make(chan struct{})
	l.v.e.spawn(func() {
		defer close(l.piped)
		err := handoff.Pipe(ctx, memory, l.stream, l.gate, func(n int) { l.sent.Add(int64(n)) })
		if err != nil && ctx.Err() == nil && !errors.Is(err, io.EOF) {
			l.v.log.Warn("The memory stream ended", "error", err)
		}
	})
}

func (l *memoryLine) Allow(n int64) { l.gate.Allow(n) }

func (l *memoryLine) Spent(ctx context.Context, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	l.gate.Spent(ctx)
}

func (l *memoryLine) Release() { l.gate.Release() }

func (l *memoryLine) Sent() int64 { return l.sent.Load() }

func (l *memoryLine) Arrived() int64 { return l.stream.Arrived() }

func (l *memoryLine) Wire() int64 { return l.stream.Wire() }

func (l *memoryLine) Speed() int64 { return int64(l.stream.Speed()) }

// Ended implements switching.LineApart. It is for who has let it carry.
func (l *memoryLine) Ended() <-chan struct{} { return l.piped }

func (l *memoryLine) Close() {
	if l.piped == nil {
		_ = l.stream.Reset()
		return
	}
	<-l.piped
}

// wallClock implements switching.Clock.
type wallClock struct{}

func (wallClock) Now() time.Time { return time.Now() }

func (wallClock) Wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
