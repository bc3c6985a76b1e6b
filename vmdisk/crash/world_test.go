package crash

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"testing"

	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/vfs"
)

const (
	diskSize = 48 << 20 // so much to be sent is a copy, also to a whole replica
	peerName = "peer"
)

var diskID = vmdisk.ID{1}

func options(fsys vfs.FS) vmdisk.Options {
	return vmdisk.Options{FS: fsys, BarrierEvery: -1, MirrorEvery: -1, SaveEvery: -1, QueueBytes: 1 << 20, EpochLogBytes: 32 << 10}
}

// world is an owner and a replica, and what the guest was told.
type world struct {
	om, rm         *vfs.Mem
	owner, replica *vmdisk.Store
	feed           *vmdisk.Feed
	applier        *vmdisk.Applier
	acks           []vmdisk.Position
	stamp          uint64
	m              *told

	points []point
	last   [2]*vfs.Mem // what both were at the last point

	cut  *vmdisk.Cut
	then values // what the disk was at the cut
}

// point is a moment between two calls to the file layer of the owner (0) or the replica (1).
type point struct {
	mems [2]*vfs.Mem
	who  int
	m    *told
}

// errNothing ends a workload whose last operation does nothing where it is.
var errNothing = errors.New("nothing to do")

// newWorld opens copies of two disks, of which the owner's was active under m.term.
func newWorld(om, rm *vfs.Mem, m *told) (*world, error) {
	w := &world{om: om, rm: rm, m: m, stamp: 100}
	var err error
	if w.owner, err = vmdisk.Open("", options(om)); err != nil {
		return nil, err
	}
	if w.replica, err = vmdisk.Open("", options(rm)); err != nil {
		return nil, err
	}
	if m.given == m.term {
		return w, nil
	}
	if err := w.owner.Activate(m.term); err != nil {
		return nil, err
	}
	w.m = w.m.but(func(m *told) { m.active = true })
	return w, w.record()
}

// trace makes every call from now on a crash point.
func (w *world) trace() {
	w.last = [2]*vfs.Mem{w.om.After(vfs.LoseNothing, 0), w.rm.After(vfs.LoseNothing, 0)}
	for who, m := range []*vfs.Mem{w.om, w.rm} {
		m.Trace(func(s *vfs.Mem) {
			w.last[who] = s
			w.points = append(w.points, point{w.last, who, w.m})
		})
	}
}

// told makes the model's next state count, and that is a crash point too: right after the last call of what device who did,
// with the caller knowing that it was done.
func (w *world) told(who int, m *told) {
	w.m = m
	if w.last[0] == nil {
		return
	}
	p := point{w.last, who, m}
	if n := len(w.points); n > 0 && w.points[n-1].mems == p.mems && w.points[n-1].who == who {
		w.points[n-1] = p // and no weaker
		return
	}
	w.points = append(w.points, p)
}

func (w *world) close() error {
	w.om.Trace(nil)
	w.rm.Trace(nil)
	if w.feed != nil {
		w.feed.Close()
	}
	if w.cut != nil {
		_ = w.cut.Close() // nobody reads it any more
	}
	return errors.Join(w.replica.Close(), w.owner.Close())
}

// record notes what the disk is at the owner's position.
func (w *world) record() error {
	i := w.owner.Info()
	if i.Err != nil || i.Unflushed || !i.Active {
		return nil
	}
	m, err := w.m.at(i.Position, w.m.now())
	if err != nil {
		return err
	}
	w.m = m
	return nil
}

// change is one write of the guest.
func (w *world) change(off, n int64, fua bool, stamp uint64, do func() error) error {
	if !w.m.active || w.m.fenced {
		want := vmdisk.ErrInactive
		if w.m.active {
			want = vmdisk.ErrFenced
		}
		if err := do(); !errors.Is(err, want) {
			return fmt.Errorf("a write where none is possible: %v instead of %v", err, want)
		}
		return errNothing
	}
	w.m = w.m.begin(off, n, stamp)
	if err := do(); err != nil {
		return err
	}
	m := w.m.end()
	if fua {
		m = m.flushed()
	}
	w.told(0, m)
	return w.record()
}

func (w *world) write(off, n int64, fua bool) error {
	w.stamp++
	p := fill(make([]byte, n), off, w.stamp)
	return w.change(off, n, fua, w.stamp, func() error { return w.owner.WriteAt(p, off, fua) })
}

func (w *world) zero(off, n int64, trim, fua bool) error {
	return w.change(off, n, fua, 0, func() error { return w.owner.Zero(off, n, trim, fua) })
}

func (w *world) trim(off, n int64, fua bool) error {
	return w.change(off, n, fua, 0, func() error { return w.owner.Trim(off, n, fua) })
}

// durable does something that makes everything durable.
func (w *world) durable(do func() error) error {
	if !w.m.active {
		return errNothing
	}
	if err := do(); err != nil {
		return err
	}
	w.told(0, w.m.flushed())
	return w.record()
}

func (w *world) flush() error { return w.durable(func() error { return w.owner.Flush() }) }
func (w *world) save() error  { return w.durable(func() error { return w.owner.Save() }) }

// hash records the hashes of both disks, where they have none.
func (w *world) hash() error {
	for _, d := range []*vmdisk.Store{w.owner, w.replica} {
		if !d.Info().Complete {
			continue
		}
		if err := errors.Join(d.Record(context.Background()), healthy(d)); err != nil {
			return err
		}
	}
	return nil
}

// takeCut takes a cut of the owner's disk, or reads and closes the one that there is.
func (w *world) takeCut() (err error) {
	if w.cut != nil {
		return w.closeCut()
	}
	if w.cut, err = w.owner.Cut(context.Background()); err != nil {
		return err
	}
	w.then = w.m.now()
	if !w.m.active {
		return nil
	}
	w.told(0, w.m.flushed())
	return w.record()
}

// closeCut checks that the cut is still what the disk was.
func (w *world) closeCut() error {
	v, err := scan(w.cut)
	if err == nil && !maps.Equal(v, w.then) {
		err = fmt.Errorf("the cut has changed: %s", differ(v, w.then))
	}
	err = errors.Join(err, w.cut.Close())
	w.cut = nil
	return err
}

// healthy compares a disk with its recorded hashes.
func healthy(d *vmdisk.Store) error {
	s, err := d.Scrub(context.Background(), vmdisk.ScrubOptions{})
	if err == nil && len(s.Damaged) > 0 {
		err = fmt.Errorf("undamaged, and yet not as it was recorded: %+v", s)
	}
	return errors.Join(err, s.Unrecorded)
}

// growStep is no multiple of a region, so that most regions at the end are cut by it.
const growStep = 5 << 20

// grow makes the owner's disk larger. Nothing else changes, and what is attached isn't any more.
func (w *world) grow() error {
	if w.cut != nil && w.cut.Size() > w.m.size {
		return fmt.Errorf("a cut of %d bytes of a disk of %d", w.cut.Size(), w.m.size)
	}
	w.m = w.m.but(func(m *told) { m.growing += growStep })
	if err := w.owner.Resize(w.m.growing); err != nil {
		return err
	}
	if w.feed != nil {
		if _, err := poll(w.feed); !errors.Is(err, vmdisk.ErrClosed) {
			return fmt.Errorf("the feed of a disk that grew: %v", err)
		}
	}
	w.feed, w.acks = nil, nil
	w.told(0, w.m.but(func(m *told) { m.size = m.growing }))
	return w.record()
}

// fence fences, or ends that.
func (w *world) fence() error {
	if !w.m.active {
		return errNothing
	}
	if w.m.fenced {
		w.m = w.m.but(func(m *told) { m.fenced = false })
		return w.owner.Unfence()
	}
	w.m = w.m.but(func(m *told) { m.fenced = true })
	return w.owner.Fence()
}

// give gives the term away, or takes the next.
func (w *world) give() error {
	switch {
	case w.m.term == w.m.given:
		w.m = w.m.but(func(m *told) { m.term++ })
		if err := w.owner.Activate(w.m.term); err != nil {
			return err
		}
		w.told(0, w.m.but(func(m *told) { m.active, m.fenced = true, false }))
		return w.record()
	case !w.m.fenced:
		if err := w.owner.Give(w.m.term); !errors.Is(err, vmdisk.ErrNotFenced) {
			return fmt.Errorf("given away without a fence: %v", err)
		}
		return errNothing
	}
	w.m = w.m.but(func(m *told) { m.giving = true })
	if err := w.owner.Give(w.m.term); err != nil {
		return err
	}
	w.feed, w.acks = nil, nil
	// Its last barrier is where others go on from.
	m, err := w.m.flushed().at(w.owner.Position(), w.m.now())
	if err != nil {
		return err
	}
	w.told(0, m.but(func(m *told) { m.giving, m.given, m.active, m.fenced = false, m.term, false, false }))
	return nil
}

// restart closes the owner's disk in good order and opens it again.
func (w *world) restart() error {
	if w.cut != nil {
		if err := w.closeCut(); err != nil {
			return err
		}
	}
	w.feed, w.acks = nil, nil
	if err := w.owner.Close(); err != nil {
		return err
	}
	m := w.m
	if m.active {
		m = m.flushed()
	}
	w.told(0, m.but(func(m *told) { m.active, m.fenced = false, false }))
	d, err := vmdisk.Open("", options(w.om))
	if err != nil {
		return err
	}
	w.owner = d
	if w.m.given == w.m.term {
		return nil
	}
	if err := d.Activate(w.m.term); err != nil {
		return err
	}
	w.told(0, w.m.but(func(m *told) { m.active = true }))
	return w.record()
}

// attach connects the replica, or ends that.
func (w *world) attach() error {
	if w.feed != nil || w.applier != nil {
		if w.feed != nil {
			w.feed.Close()
		}
		a := w.applier
		w.feed, w.applier, w.acks = nil, nil, nil
		if a == nil {
			return nil
		}
		return a.Close()
	}
	if !w.m.active {
		return errNothing
	}
	if err := w.replica.Reach(w.owner.Size()); err != nil {
		return err
	}
	a, err := w.replica.Apply()
	if err != nil {
		return err
	}
	w.applier = a
	w.feed, err = w.owner.Attach(peerName, a.State())
	return err
}

// deliver moves what there is to the replica, and keeps its acknowledgements.
func (w *world) deliver() error {
	if w.feed == nil || w.applier == nil {
		return errNothing
	}
	for n := 0; ; n++ {
		op, err := poll(w.feed)
		if err != nil {
			return err
		}
		if err := w.record(); err != nil {
			return err
		}
		if op == nil {
			if n == 0 {
				return errNothing
			}
			return nil
		}
		if err := w.apply(op); err != nil {
			return err
		}
	}
}

func (w *world) apply(op *vmdisk.Op) error {
	defer op.Release()
	switch op.Kind {
	case vmdisk.OpBegin:
		w.m = w.m.but(func(m *told) { m.copying, m.partial = op.Copy, values{} })
	case vmdisk.OpWrite, vmdisk.OpZero:
		if !w.m.complete {
			one := written{op.Off, op.Len, values{}}
			if err := parse(one.cells, op.Data, op.Off); err != nil {
				return err
			}
			w.m = w.m.but(func(m *told) { m.partial = m.partial.after(one) })
		}
	default:
		w.m = w.m.but(func(m *told) { m.ending = op.Pos })
	}
	ack, err := feedTo(w.applier, op)
	if err != nil {
		return err
	}
	if ack != (vmdisk.Position{}) {
		w.acks = append(w.acks, ack)
		w.told(1, w.m.but(func(m *told) {
			if !m.complete || op.Kind == vmdisk.OpBarrier {
				m.held, m.complete = ack, op.Kind == vmdisk.OpBarrier
			}
		}))
	}
	return nil
}

// ack tells the owner what the replica has.
func (w *world) ack() error {
	if w.feed == nil || len(w.acks) == 0 {
		return errNothing
	}
	for _, p := range w.acks {
		w.feed.Acked(p)
	}
	w.acks = nil
	return nil
}

// applier is a replica's end of a feed.
type applier interface {
	Begin(copy [16]byte) error
	Write(off int64, p []byte) error
	Zero(off, n int64) error
	Checkpoint(vmdisk.Position) error
	Barrier(vmdisk.Position) error
}

func feedTo(a applier, op *vmdisk.Op) (ack vmdisk.Position, err error) {
	switch op.Kind {
	case vmdisk.OpBegin:
		return ack, a.Begin(op.Copy)
	case vmdisk.OpWrite:
		return ack, a.Write(op.Off, op.Data)
	case vmdisk.OpZero:
		return ack, a.Zero(op.Off, op.Len)
	case vmdisk.OpCheckpoint:
		return op.Pos, a.Checkpoint(op.Pos)
	}
	return op.Pos, a.Barrier(op.Pos)
}

// atOnce is a context that ends when Feed.Next begins to wait. Next asks for Done once on its way in.
type atOnce struct {
	context.Context
	asked int
}

var ended = func() <-chan struct{} { c := make(chan struct{}); close(c); return c }()

func (c *atOnce) Done() <-chan struct{} {
	if c.asked++; c.asked > 1 {
		return ended
	}
	return nil
}

func (c *atOnce) Err() error {
	if c.asked > 1 {
		return context.Canceled
	}
	return nil
}

// poll is Next that doesn't wait: nil says that there is nothing now.
func poll(f *vmdisk.Feed) (*vmdisk.Op, error) {
	op, err := f.Next(&atOnce{Context: context.Background()})
	if errors.Is(err, context.Canceled) {
		return nil, nil
	}
	return op, err
}

// written is an operation of which only the cells are kept.
type written struct {
	off, n int64
	cells  values
}

// after is v with a write or zeros done.
func (v values) after(ws ...written) values {
	out := maps.Clone(v)
	for _, w := range ws {
		maps.DeleteFunc(out, func(i int64, _ uint64) bool { return i >= w.off/cell && i < (w.off+w.n)/cell })
		maps.Copy(out, w.cells)
	}
	return out
}

// counting is a peer that keeps what it gets in a map.
type counting struct {
	state   vmdisk.ReplicaState
	v       values
	pending []written
}

func (c *counting) Begin(copy [16]byte) error {
	c.state.Copy, c.pending = copy, nil
	if !c.state.Complete {
		c.v = values{}
	}
	return nil
}

func (c *counting) Write(off int64, p []byte) error {
	w := written{off, int64(len(p)), values{}}
	c.pending = append(c.pending, w)
	return parse(w.cells, p, off)
}

func (c *counting) Zero(off, n int64) error {
	c.pending = append(c.pending, written{off, n, nil})
	return nil
}

func (c *counting) Checkpoint(pos vmdisk.Position) error { return c.end(pos, false) }
func (c *counting) Barrier(pos vmdisk.Position) error    { return c.end(pos, true) }

func (c *counting) end(pos vmdisk.Position, complete bool) error {
	if cmp := pos.Compare(c.state.Position); cmp < 0 || cmp == 0 && len(c.pending) > 0 {
		return fmt.Errorf("%s after %s: %w", pos, c.state.Position, vmdisk.ErrOldPosition)
	}
	c.v, c.pending = c.v.after(c.pending...), nil
	c.state.Position = pos
	if complete {
		c.state.Complete, c.state.Copy = true, [16]byte{}
	}
	return nil
}

// catchUp sends all that the peer lacks.
func catchUp(d *vmdisk.Store, name string, st vmdisk.ReplicaState, a applier) error {
	f, err := d.Attach(name, st)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := d.Flush(); err != nil {
		return err
	}
	for {
		op, err := poll(f)
		if err != nil {
			return err
		}
		if op == nil {
			break
		}
		ack, err := feedTo(a, op)
		op.Release()
		if err != nil {
			return fmt.Errorf("peer: %w", err)
		}
		f.Acked(ack)
	}
	if g := f.Progress(); !g.Complete {
		return fmt.Errorf("all was sent, and the peer isn't complete: %+v", g)
	}
	return nil
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
