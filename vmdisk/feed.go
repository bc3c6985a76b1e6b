package vmdisk

import (
	"context"
	"fmt"
	"time"
)

const (
	copyBlocks   = (256 << 10) / Block
	maxRunBlocks = (4 << 30) / Block
	wakeBytes    = 512 << 10
	wakeAfter    = time.Millisecond
)

// Feed is the stream of operations for one peer. Next is for one goroutine at a time; the others may be called
// from anywhere.
//
// While much is left to be copied, Next reads the dirty blocks itself and writes only set bits. If much is left still when it has copied as much as
// there was, the guest may be the faster one: what is left then comes from a cut, at whose barrier the replica is, and so on with cuts
// (feedcut.go). When little is left
// (4 MiB), writes are queued and what is left goes through the same queue, so that the order of
// operations on a block is that of the disk. A barrier is queued only when nothing is left to
// be copied: then the peer is live. If the queue overflows, all of it becomes dirty bits again, and the peer is behind: what
// is written only sets bits, also when little is left, until it has kept up for a while (standing). Then it gets a barrier
// now and then: writes are queued up to that barrier, and no further.
//
// What a live peer gets leaves the queue in bursts (burst).
type Feed struct {
	d     *Store
	p     *peer
	turn  chan struct{} // held by Next
	ahead ahead         // Next's
	wake  chan struct{}
	done  chan struct{}
	soon  *time.Timer // wakes Next

	// Guarded by d.mu.
	queue    opQueue
	queued   int64
	queueing bool
	live     bool
	touching bool // the next barrier ends the queue
	asleep   bool // Next waits for something to copy, or for time to pass
	draining int  // how many wait until the peer has everything
	burst    burst
	closed   bool
	begin    bool
	// needBarrier: something was sent or queued since the last barrier, or there was none.
	needBarrier bool
	// sent: something was sent or queued since floor, the newest position that the peer has or was sent.
	sent         bool
	floor        Position
	lastBarrier  Position // queued
	firstBarrier Position // emitted, since the copy began
	begun        Position // what was emitted before that
	emitted      Position // newest barrier or checkpoint that Next returned
	cursor       int64
	unsaved      int64 // bytes copied since the last barrier or checkpoint
	pass         copyPass
	cut          *Cut      // what is sent comes from
	bulk         bool      // what Next does now is to read a part of much, that nobody waits for
	spare        [2]uint64 // barrier numbers for checkpoints before that cut's barrier: the next, and the first that isn't
}

// signal wakes Next and all watchers of the peer. The caller holds d.mu.
func (f *Feed) signal() {
	f.rouse()
	f.d.notify(f.p.name)
}

// rouse wakes Next.
func (f *Feed) rouse() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// written sees to it that Next is woken after a write: at once if there is much to take, else a little later, since to wake a
// goroutine for each write costs more than the write. A barrier wakes it anyway. idle says that the queue was empty before.
// The caller holds d.mu.
func (f *Feed) written(idle bool) {
	switch {
	case f.asleep:
		f.asleep = false
		f.soon.Reset(wakeAfter)
	case f.queued >= wakeBytes || !f.queueing:
		f.rouse()
	case idle:
		f.soon.Reset(max(wakeAfter, f.rest()))
	}
}

// push appends op to the queue. The caller holds d.mu.
func (f *Feed) push(op *Op) {
	f.queue.push(op)
	f.queued += op.cost()
	if op.Kind != OpBarrier {
		f.p.cur.Add(op.Off/Block, (op.Off+op.Len)/Block)
		f.needBarrier, f.sent = true, true
	}
}

// pushWrite queues a write of the blocks [a, b). It is false if there is no room: then
// the queue is no more. The caller holds d.mu and the claim.
func (f *Feed) pushWrite(a, b int64, bufs []*buffer) bool {
	cost := int64(opCost)
	for _, buf := range bufs {
		cost += opCost + int64(len(buf.data))
	}
	if f.queued+cost > f.d.o.QueueBytes {
		f.overflow()
		return false
	}
	f.p.todo.Remove(a, b)
	for _, buf := range bufs {
		buf.retain()
		f.push(&buf.op)
	}
	return true
}

// pushBarrier queues the barrier that round r makes, cut at that time. The caller holds d.mu.
func (f *Feed) pushBarrier(pos Position, r *round, at time.Time) {
	f.push(&Op{Kind: OpBarrier, Pos: pos, round: r})
	f.burst.barriers = append(f.burst.barriers, pos)
	f.p.flip(pos)
	f.p.age.pass(pos, at)
	f.lastBarrier, f.floor = pos, pos
	f.needBarrier, f.sent, f.live, f.unsaved = false, false, true, 0
	if f.touching {
		f.noQueueing() // but what is in the queue still leaves
	}
	f.d.notify(f.p.name)
	if rest := f.rest(); rest > 0 {
		f.soon.Reset(rest)
	} else {
		f.rouse()
	}
}

// ready says that barriers may be queued: the peer lacks nothing but what is in the queue. The caller holds d.mu.
func (f *Feed) ready() bool {
	return f.queueing && f.p.todo.Empty() && f.p.kept.Empty() && (!f.d.fenced || f.draining > 0)
}

// overflow makes the whole queue dirty bits again. The caller holds d.mu.
func (f *Feed) overflow() {
	if !f.p.standing.behind {
		f.d.log.Info("Peer can't keep up, its queue is dropped", "disk", f.d.id, "peer", f.p.name, "bytes", f.queued)
	}
	f.p.standing.fall(f.d.o.now())
	f.dropQueue()
}

func (f *Feed) dropQueue() {
	for _, op := range f.queue.all() {
		if op.Kind != OpBarrier {
			f.p.todo.Add(op.Off/Block, (op.Off+op.Len)/Block)
		}
		op.Release()
	}
	f.stopQueueing()
	f.needBarrier, f.sent = true, true
}

func (f *Feed) stopQueueing() {
	f.noQueueing()
	f.queue, f.queued, f.burst = opQueue{}, 0, burst{}
}

// beginQueueing has writes queued from now on. The caller holds d.mu.
func (f *Feed) beginQueueing() {
	if !f.queueing {
		f.queueing = true
		f.d.queueing.Add(1)
	}
}

// noQueueing has writes set bits from now on; the queue stays as it is. The caller holds d.mu.
func (f *Feed) noQueueing() {
	if f.queueing {
		f.d.queueing.Add(-1)
	}
	f.queueing, f.live, f.touching = false, false, false
}

// Next returns the next operation, waiting for it until ctx ends. Errors: ErrClosed after Close, ErrFailed, what
// reading the disk says. The caller releases the operation.
func (f *Feed) Next(ctx context.Context) (*Op, error) {
	select {
	case f.turn <- struct{}{}:
		defer func() { <-f.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	copied := false
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		op, do, wait, err := f.decide(copied)
		switch {
		case err != nil || op != nil:
			return op, err
		case do != nil && !f.yield(ctx):
			continue
		case do != nil:
			if op, err := do(); err != nil || op != nil {
				return op, err
			}
			copied = true
			continue
		}
		select {
		case <-ctx.Done():
		case <-f.done:
		case <-f.wake:
		case <-wait:
		}
	}
}

// decide says what Next does now: return op, do something outside of the lock, or wait (also for wait, if not nil).
func (f *Feed) decide(copied bool) (op *Op, do func() (*Op, error), wait <-chan struct{}, err error) {
	if op := f.ahead.next(f.done); op != nil {
		return op, nil, nil, nil
	}
	d, p := f.d, f.p
	d.mu.Lock()
	defer d.mu.Unlock()
	f.bulk = false
	switch {
	case f.closed:
		return nil, nil, nil, fmt.Errorf("feed of %s: %w", p.name, ErrClosed)
	case d.err != nil:
		return nil, nil, nil, d.err
	case f.begin:
		f.begin = false
		return &Op{Kind: OpBegin, Copy: p.copy}, nil, nil, nil
	}
	if !f.queueing && f.queue.n == 0 {
		if op, do = f.catchUp(); !f.queueing {
			return op, do, nil, nil
		}
	}
	if f.ready() && !f.live && f.needBarrier {
		return nil, func() (*Op, error) { return nil, d.barrier() }, nil, nil
	}
	room := f.queue.n == 0 || f.queued+copyBlocks*(Block+opCost) <= d.o.QueueBytes
	if head := f.queue.head(); head != nil {
		if head.round != nil {
			select {
			case <-head.round.done:
				head.round = nil
			default:
				wait = head.round.done
			}
		}
		if rest := f.rest(); rest > 0 {
			f.soon.Reset(rest)
			return nil, nil, nil, nil
		}
		if wait == nil && (copied || p.todo.Empty() || !room || !f.queueing) {
			op = f.pop()
			f.popAhead()
			return op, nil, nil, nil
		}
	}
	if f.queueing && !p.todo.Empty() && room { // what follows a queue that ended is newer than what is in it
		return nil, f.copyRun, nil, nil
	}
	return nil, nil, wait, nil
}

// catchUp says what Next does while writes only set bits: return op, do something, or wait. If little is left, and the peer isn't behind,
// it begins queueing instead. The caller holds d.mu.
func (f *Feed) catchUp() (op *Op, do func() (*Op, error)) {
	d, p := f.d, f.p
	f.asleep = false
	if f.cut != nil {
		if f.draining == 0 {
			return f.cutUp()
		}
		f.dropCut() // nothing is written any more: the disk itself is sooner there
	}
	left, begun := p.todo.Count()*Block, p.copy != [16]byte{}
	switch {
	case !begun && max(left, f.unsaved) > d.o.checkpointEvery:
		return f.beginCopy(), nil
	case begun && f.firstBarrier == (Position{}) && f.unsaved >= d.o.checkpointEvery:
		if d.counter >= d.reserved {
			return nil, func() (*Op, error) { return nil, d.reserveNumbers(0) }
		}
		d.counter++
		return f.checkpoint(d.counter), nil
	}
	much, now := left > d.o.attachBelow, d.o.now()
	p.standing.look(now, much)
	f.pass.look(left, much)
	switch {
	case f.pass.over() && f.mayCut():
		return f.beginCut(left, begun)
	case !much && f.mayQueue(now, left):
		f.beginQueueing()
		if left == 0 && !f.needBarrier { // after a cut that nothing was written since
			f.live = true
			d.notify(p.name)
		}
		return nil, nil
	case left > 0:
		return nil, f.toCopy(f.copyRun)
	}
	f.asleep = true
	f.soon.Reset(p.standing.wait(now, f.needBarrier))
	return nil, nil
}

// mayQueue says whether writes may be queued from now on, or only up to the next barrier (touching), of a peer that lacks no more than
// left, which is little. The caller holds d.mu.
func (f *Feed) mayQueue(now time.Time, left int64) bool {
	if left == 0 && f.floor.Compare(f.d.position) < 0 {
		f.needBarrier = true // the disk has a new position for what the peer has
	}
	s := &f.p.standing
	switch {
	case !s.behind:
	case s.rested(now) || f.draining > 0:
		f.comeBack(now)
	case (left > 0 || f.needBarrier) && s.touch(now):
		f.touching = true
	default:
		return false
	}
	return true
}

func (f *Feed) pop() *Op {
	op := f.queue.pop()
	f.queued -= op.cost()
	for f.popped(op) {
		op = f.queue.pop()
		f.queued -= op.cost()
	}
	if op.Kind == OpBarrier {
		f.emitted = op.Pos
		if f.firstBarrier == (Position{}) {
			f.firstBarrier = op.Pos
		}
	}
	return op
}

// beginCopy turns what is to be sent into a copy. The caller holds d.mu.
func (f *Feed) beginCopy() *Op {
	f.p.beginCopy()
	f.begun, f.firstBarrier, f.unsaved = f.emitted, Position{}, 0
	f.needBarrier, f.sent = true, true
	return &Op{Kind: OpBegin, Copy: f.p.copy}
}

// checkpoint lets a copy be resumed from here; number is a reserved one. The caller holds d.mu.
func (f *Feed) checkpoint(number uint64) *Op {
	pos := Position{f.d.term, number}
	f.p.flip(pos)
	f.emitted, f.floor, f.sent, f.unsaved = pos, pos, false, 0
	return &Op{Kind: OpCheckpoint, Pos: pos}
}

// Acked tells that the peer has everything up to pos durably. Positions that were not sent are ignored.
func (f *Feed) Acked(pos Position) {
	d, p := f.d, f.p
	d.mu.Lock()
	defer d.mu.Unlock()
	if f.closed || pos.Compare(f.emitted) > 0 {
		return
	}
	copying := p.copy != [16]byte{}
	if copying && f.firstBarrier != (Position{}) && pos.Compare(f.firstBarrier) >= 0 {
		p.noCopy()
		copying = false
	}
	// What was sent before the copy began isn't of it.
	copying = copying && pos.Compare(f.begun) > 0
	if copying {
		p.mark = maxPosition(p.mark, pos)
	} else {
		p.acked = maxPosition(p.acked, pos)
	}
	p.changed = true
	if !p.out.Empty() && pos.Compare(p.tag) >= 0 {
		if copying {
			p.ticked.Or(p.out)
		}
		p.out.Reset()
	}
	if p.out.Empty() && !f.needBarrier && pos.Compare(f.lastBarrier) >= 0 {
		p.cur.Reset()
	}
	all := p.clean() && !f.needBarrier && !copying
	if !copying {
		p.age.reach(pos, all)
	}
	if p.standing.behind && all && !d.unflushed() && p.acked == d.position {
		f.comeBack(d.o.now())
	}
	f.signal()
}

// Progress says how far the peer is.
func (f *Feed) Progress() Progress {
	f.d.mu.Lock()
	g := Progress{Acked: f.p.acked, Since: f.p.age.since}
	if !f.closed {
		g = f.d.progress(f.p)
	}
	count := f.p.lacks()
	f.d.mu.Unlock()
	g.Remaining = count()
	return g
}

// Close ends the feed; what the peer has not acknowledged counts as dirty again. It may be called more than once.
func (f *Feed) Close() {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	f.close()
}

// close is Close for who holds d.mu.
func (f *Feed) close() {
	if f.closed {
		return
	}
	f.closed = true
	f.soon.Stop() // should it be running, it finds nobody
	close(f.done)
	for _, op := range f.queue.all() {
		op.Release()
	}
	f.stopQueueing()
	f.dropCut()
	f.p.recall()
	f.p.age.passed = nil
	f.p.feed, f.p.changed = nil, true
	f.d.notify(f.p.name)
}
