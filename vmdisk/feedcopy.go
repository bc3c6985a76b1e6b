package vmdisk

import (
	"fmt"
	"time"

	"tagalong.org/tagalong/vmdisk/blockset"
)

// fewBlocks in a row are read faster than it is asked whether they are a hole.
const fewBlocks = 16

// blockRun are the blocks [a, b), and their content; nil is zeros.
type blockRun struct {
	a, b int64
	data []byte
}

// copyRun reads what comes next of what the peer lacks, under a claim: a hole, or what of it is in the next copyBlocks. While writes are queued it
// goes to the queue, else it is returned, what doesn't fit one operation ahead of what Next decides on.
func (f *Feed) copyRun() (*Op, error) {
	d, p := f.d, f.p
	d.mu.Lock()
	a, b, ok := p.todo.Run(f.cursor, maxRunBlocks)
	var runs []blockRun
	if ok {
		runs = runsNear(p.todo, a, d.o.checkpointEvery-f.unsaved)
	}
	d.mu.Unlock()
	if !ok {
		return nil, nil
	}
	hole := false
	if b-a > fewBlocks {
		if end := d.holeEnd(a, b); end > a {
			hole, runs = true, []blockRun{{a: a, b: end}}
		}
	}
	c := d.claims.take(a, runs[len(runs)-1].b)
	defer c.release()
	if hole && d.holeEnd(a, runs[0].b) != runs[0].b {
		hole, runs[0].b = false, min(runs[0].b, a+copyBlocks)
	}
	var buf *buffer
	if !hole {
		var err error
		if buf, err = d.readRuns(runs); err != nil {
			return nil, fmt.Errorf("copy to %s: %w", p.name, err)
		}
	}
	return f.copied(runs, buf)
}

// runsNear are the runs of s in the copyBlocks from a on, which is in s: the first, and more until they come to so many bytes.
func runsNear(s *blockset.Set, a, most int64) []blockRun {
	var runs []blockRun
	end := min(a+copyBlocks, s.Blocks())
	for x := a; x < end && (x == a || most > 0); {
		y := min(s.Next(x, false), end)
		runs = append(runs, blockRun{a: x, b: y})
		most -= (y-x)*Block + opCost
		x = s.Next(y, true)
	}
	return runs
}

// readRuns fills in what the disk has there, in a buffer with one reference for each run with content; nil if none has. The caller holds the claim.
func (d *Store) readRuns(runs []blockRun) (*buffer, error) {
	var sum int64
	for _, r := range runs {
		sum += r.b - r.a
	}
	first, span := runs[0].a, runs[len(runs)-1].b-runs[0].a
	whole := 2*sum >= span // what lies between is read too, which is faster
	if whole {
		sum = span
	}
	buf, began := newBuffer(int(sum*Block)), time.Now()
	d.rd.RLock()
	var err error
	if whole {
		err = d.stack.readAt(buf.data, first*Block)
	}
	at := int64(0)
	for i := range runs {
		r := &runs[i]
		if whole {
			at = (r.a - first) * Block
		}
		n := (r.b - r.a) * Block
		r.data = buf.data[at : at+n]
		at += n
		if !whole && err == nil {
			err = d.stack.readAt(r.data, r.a*Block)
		}
	}
	d.rd.RUnlock()
	d.took(sum*Block, began)
	if err != nil {
		buf.release()
		return nil, err
	}
	refs := int32(0)
	for i := range runs {
		if isZero(runs[i].data) {
			runs[i].data = nil
		} else {
			refs++
		}
	}
	if refs == 0 {
		buf.release()
		return nil, nil
	}
	buf.refs.Store(refs)
	return buf, nil
}

// copied makes operations of what was read, and notes that they leave. The caller holds the claim.
func (f *Feed) copied(runs []blockRun, buf *buffer) (*Op, error) {
	ops := make([]Op, len(runs))
	for i, r := range runs {
		ops[i] = Op{Kind: OpZero, Off: r.a * Block, Len: (r.b - r.a) * Block}
		if r.data != nil {
			ops[i].Kind, ops[i].Data, ops[i].buf = OpWrite, r.data, buf
		}
	}
	d, p := f.d, f.p
	d.mu.Lock()
	defer d.mu.Unlock()
	if f.closed {
		for i := range ops {
			ops[i].Release()
		}
		return nil, fmt.Errorf("feed of %s: %w", p.name, ErrClosed)
	}
	f.cursor = runs[len(runs)-1].b
	p.changed = true
	for i, r := range runs {
		op := &ops[i]
		p.todo.Remove(r.a, r.b)
		if f.queueing {
			f.push(op)
			continue
		}
		p.cur.Add(r.a, r.b)
		f.unsaved += op.cost()
		f.pass.left -= op.Len
		if i > 0 {
			f.ahead.ops = append(f.ahead.ops, op)
		}
	}
	if f.queueing {
		return nil, nil
	}
	f.needBarrier, f.sent = true, true
	return &ops[0], nil
}
