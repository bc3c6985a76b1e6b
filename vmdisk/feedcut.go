package vmdisk

import (
	"errors"
	"fmt"
	"time"
)

// A feed that copies the disk as it is gets nowhere while a guest writes more, and in more places, than the peer takes: there is always something that changed
// since, and no moment at which the replica could say that it is the disk. So what is left after a pass (as much copied as there was) comes from a cut.
// A cut ends: at its barrier the replica is the disk, bootable, as old as the pass took. While much is left the next cut follows, and when little is left the
// queue begins, at a barrier (Feed). The first pass does without, since most end well, and a cut costs the guest reading and keeping what it overwrites.
//
// What is left is in peer.kept instead of peer.todo from the cut on. What is written meanwhile is in todo. To give the cut up, at any time, is to put kept
// into todo.

// copyPass is the rule by which a feed takes to cuts. The zero copyPass is that of one of which little was left.
type copyPass struct {
	under bool
	left  int64 // bytes until it is over
}

// look tells how much is left, and whether that is much.
func (p *copyPass) look(left int64, much bool) {
	switch {
	case !much:
		*p = copyPass{}
	case !p.under:
		*p = copyPass{under: true, left: left}
	}
}

// over says that as much was copied as there was, and much is left.
func (p *copyPass) over() bool { return p.under && p.left <= 0 }

// mayCut says whether the feed may be given a cut now. The caller holds d.mu.
func (f *Feed) mayCut() bool { return !f.closed && !f.d.fenced && f.draining == 0 }

// beginCut says what Next does when a pass is over: return op, do something, or wait. The caller holds d.mu.
func (f *Feed) beginCut(left int64, begun bool) (op *Op, do func() (*Op, error)) {
	switch {
	case !begun && left+f.unsaved > f.d.o.checkpointEvery:
		return f.beginCopy(), nil
	case begun && f.firstBarrier != (Position{}):
		// Until the peer has the end of the copy before, no other begins: what were sent meanwhile would have to be sent again.
		f.asleep = true
		return nil, nil
	}
	return nil, f.takeCut
}

// spare is how many barrier numbers the checkpoints on the way to the barrier may need.
func (r *round) spare() uint64 {
	if r.cut == nil || r.cut.feed == nil {
		return 0
	}
	return r.cut.spare
}

// cutFor is addCut; a feed's cut becomes its feed's. The caller holds d.mu, and keeps all changes away.
func (d *Store) cutFor(c *Cut, pos Position) error {
	f := c.feed
	if f != nil && !f.mayCut() {
		return ErrFenced
	}
	if err := d.addCut(c, pos); err != nil || f == nil {
		return err
	}
	p := f.p
	p.todo, p.kept = p.kept, p.todo
	f.cut, f.spare = c, [2]uint64{pos.Barrier - c.spare, pos.Barrier}
	p.age.pass(pos, d.o.now())
	p.changed = true
	return nil
}

// takeCut has what is left come from a cut.
func (f *Feed) takeCut() (*Op, error) {
	d, p := f.d, f.p
	c := d.newCut()
	c.feed = f
	d.mu.Lock()
	// What is written before the cut is taken may add some; then what is behind the last checkpoint is longer.
	c.spare = uint64(p.todo.Count()*Block/d.o.checkpointEvery) + 2
	d.mu.Unlock()
	_, err := d.cutOwned(c)
	d.mu.Lock()
	ours := f.cut == c
	if ours && err != nil {
		f.dropCut()
	}
	want := p.kept.Clone()
	d.mu.Unlock()
	defer want.Reset()
	if err != nil || !ours {
		_ = c.Close()
		if err == nil || errors.Is(err, ErrFenced) {
			return nil, nil // Next finds out how it goes on
		}
		return nil, fmt.Errorf("cut for %s: %w", p.name, err)
	}
	c.Want(want)
	return nil, nil
}

// cutUp says what Next does while what is sent comes from a cut: return op, or do something. The caller holds d.mu.
func (f *Feed) cutUp() (op *Op, do func() (*Op, error)) {
	switch {
	case f.p.kept.Empty():
		return nil, f.endCut
	case f.p.copy != [16]byte{} && f.unsaved >= f.d.o.checkpointEvery && f.spare[0] < f.spare[1]:
		f.spare[0]++
		return f.checkpoint(f.spare[0] - 1), nil
	}
	return nil, f.toCopy(f.cutRun)
}

// cutRun returns the next run of what the cut has for the peer.
func (f *Feed) cutRun() (*Op, error) {
	d, p := f.d, f.p
	d.mu.Lock()
	c := f.cut
	a, b, ok := p.kept.Run(f.cursor, maxRunBlocks)
	d.mu.Unlock()
	if c == nil || !ok {
		return nil, nil
	}
	op, err := c.op(a, b)
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case err != nil && (f.cut != c || errors.Is(err, ErrCutLost)):
		f.dropCut()
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("copy to %s: %w", p.name, err)
	case f.cut != c:
		op.Release()
		return nil, nil
	}
	b = a + op.Len/Block
	f.cursor = b
	p.kept.Remove(a, b)
	p.cur.Add(a, b)
	p.changed = true
	f.needBarrier, f.sent = true, true
	f.unsaved += op.cost()
	return op, nil
}

// op is the first of the cut's blocks [a, b), as an operation.
func (c *Cut) op(a, b int64) (*Op, error) {
	hole, err := a, error(nil)
	if b-a > fewBlocks {
		hole, err = c.holeEnd(a, b)
	}
	if err != nil {
		return nil, err
	}
	if hole > a {
		c.Release(a*Block, (hole-a)*Block)
		return &Op{Kind: OpZero, Off: a * Block, Len: (hole - a) * Block}, nil
	}
	b = min(b, a+copyBlocks)
	buf := newBuffer(int((b - a) * Block))
	began := time.Now()
	if err := c.ReadAt(buf.data, a*Block); err != nil {
		buf.release()
		return nil, err
	}
	c.d.took(int64(len(buf.data)), began)
	c.Release(a*Block, (b-a)*Block)
	if isZero(buf.data) {
		buf.release()
		return &Op{Kind: OpZero, Off: a * Block, Len: (b - a) * Block}, nil
	}
	return buf.write(a * Block), nil
}

// holeEnd is where the hole that begins at block a ends, at most b; it is a if there is none.
func (c *Cut) holeEnd(a, b int64) (int64, error) {
	c.mu.Lock()
	w, end, err := c.find(a, b)
	c.mu.Unlock()
	switch {
	case err != nil:
		return a, err
	case w == nowhere:
		return end, nil
	case w != onDisk:
		return a, nil
	}
	end = c.d.holeEnd(a, end)
	// What is still on the disk was a hole when that was asked.
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return a, c.err
	}
	return within(c.left, a, end, false), nil
}

// endCut returns the barrier at which the peer is the cut.
func (f *Feed) endCut() (*Op, error) {
	f.d.mu.Lock()
	c := f.cut
	if c == nil || !f.p.kept.Empty() {
		f.d.mu.Unlock()
		return nil, nil
	}
	f.cut = nil
	f.p.flip(c.pos)
	f.emitted, f.lastBarrier, f.floor = c.pos, c.pos, c.pos
	if f.firstBarrier == (Position{}) {
		f.firstBarrier = c.pos
	}
	f.needBarrier, f.sent, f.unsaved = false, false, 0
	f.d.mu.Unlock()
	_ = c.Close()
	return &Op{Kind: OpBarrier, Pos: c.pos}, nil
}

// dropCut gives the cut up, if there is one. The caller holds d.mu.
func (f *Feed) dropCut() {
	c := f.cut
	if c == nil {
		return
	}
	f.cut = nil
	f.p.todo.Or(f.p.kept)
	f.p.kept.Reset()
	c.stop(ErrClosed)
	f.d.wg.Go(func() { _ = c.Close() }) // which uses files, and d.mu
}
