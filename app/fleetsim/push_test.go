package fleetsim

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"tagalong.org/tagalong/app/diskpush"
	"tagalong.org/tagalong/app/postal"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/blockset"
)

// Some lives have two or three sites. Between them nothing is mirrored, but to who is about to get the VM; instead cuts are pushed, when post_test.go's
// schedulers say so.

// source is the sender's end of a push: the operations of a mirror come from a cut.
type source struct {
	cut   *vmdisk.Cut
	todo  *blockset.Set // what is still to be made sure of
	exact *blockset.Set // what of it is sent without asking
	st    vmdisk.ReplicaState
	stage int
	copy  [16]byte
}

// far says that two devices are at different sites.
func (w *world) far(a, b *device) bool { return w.site(a) != w.site(b) }

// mirrors says whether d, if it is the owner, mirrors to p.
func (w *world) mirrors(d, p *device) bool {
	wanted := d.e.outgoing != nil && d.e.outgoing.peer == p.id
	return !w.far(d, p) || wanted || w.two && !w.someoneNear(d)
}

// bring moves the replica of p on, by a mirror or a push; false if there is nothing to do.
func (w *world) bring(d, p *device) bool {
	if d.e == nil {
		return false
	}
	if w.mirrors(d, p) && d.e.owner() {
		return w.mirrorTo(d, p)
	}
	if f := d.e.feeds[p.id]; f != nil && f.feed != nil {
		w.note("the mirror %s→%s ends, they are far apart", d.id, p.id)
		f.closeOwner()
		return true
	}
	return w.pushTo(d, p)
}

// pushTo goes on with a push.
func (w *world) pushTo(d, p *device) bool {
	f := d.e.pushes[p.id]
	if f == nil || f.src == nil {
		return false
	}
	if f.applier == nil && len(f.acks) == 0 {
		w.note("%s notices that the push %s→%s has ended", d.id, d.id, p.id)
		f.closeOwner()
		return true
	}
	moved := false
	for range 1 + w.rng.IntN(12) {
		if w.chance(120) {
			w.note("the push %s→%s breaks for %s", d.id, p.id, d.id)
			f.closeOwner()
			return true
		}
		if f.src == nil || !f.nextOfCut() && !f.takeAck() {
			break
		}
		moved = true
	}
	return moved
}

// history says whether there is one history of the VM, and the position is in it.
func (e *engine) history(pos vmdisk.Position) bool {
	heads := e.dir.Heads(vmID)
	return len(heads) == 1 && e.dir.Relation(heads[0].Hash(), directory.Position(pos)) == directory.RelationBehind
}

// beginPush opens a stream: each end checks what the engine does. If there is nothing to do now it says why.
func (w *world) beginPush(d, p *device) (*mirror, postal.Result) {
	e, pe := d.e, p.e
	busy := postal.Result{Busy: true}
	if e.disk == nil || pe == nil || d.burnt() || p.burnt() || !w.net.linked(d.id, p.id) || !d.sees[p.id] {
		return nil, busy
	}
	term, _, ok := e.dir.Owner(vmID)
	info := e.disk.Info()
	owner := e.owner()
	switch {
	case !ok, !info.Complete, info.Hydrating:
		return nil, busy
	case owner && (!info.Active || info.Term != term), !owner && e.machine.State() != baton.Replica:
		return nil, busy
	}
	d.touched = true
	if owner && w.saboteur.unnamed(e) {
		if err := e.custody().Name(); err != nil {
			w.trouble(d, "name the disk's position", err)
			return nil, busy
		}
	}
	if owner && !w.tellsSize(d, e.disk.Size()) {
		return nil, busy
	}
	cut, err := e.disk.Cut(context.Background())
	w.look(d)
	if err != nil {
		w.trouble(d, "cut", err)
		return nil, busy
	}
	f := &mirror{w: w, owner: d, replica: p, term: term, push: true, src: &source{cut: cut}, result: postal.Result{Failed: true}}
	if cut.Position() == (vmdisk.Position{}) || !e.history(cut.Position()) {
		f.closeOwner()
		return nil, busy
	}
	if !f.accepted() {
		f.closeOwner()
		return nil, f.result
	}
	w.note("the push %s→%s of %s begins at %s, complete=%v", d.id, p.id, cut.Position(), f.src.st.Position, f.src.st.Complete)
	e.pushes[p.id] = f
	w.acts.pushes++
	return f, postal.Result{}
}

// accepted opens the receiver's end, and finds out what it lacks. If it is refused, f.result says how.
func (f *mirror) accepted() bool {
	w, d, p, cut := f.w, f.owner, f.replica, f.src.cut
	pe := p.e
	busy := func() bool { f.result = postal.Result{Busy: true}; return false }
	size := cut.Size()
	if vm, ok := d.e.dir.VM(vmID); ok {
		var err error
		if size, err = diskpush.Within(cut, vm.DiskBytes); err != nil {
			w.note("%s doesn't push %s: %v", d.id, cut.Position(), err)
			return busy()
		}
	}
	term, _, ok := pe.dir.Owner(vmID)
	switch {
	case !ok, f.term > term, len(pe.dir.Heads(vmID)) != 1, p.paused && w.far(d, p):
		return busy()
	case f.term < term, !pe.history(cut.Position()):
		return false
	case pe.owner(), pe.sealed:
		return busy()
	}
	switch pe.machine.State() {
	case baton.Replica, baton.Accepting, baton.Loaded:
	default:
		return busy()
	}
	if !w.saboteur.mayReceive(pe) {
		pe.look = true
		return busy()
	}
	if !w.makesReplica(p, size) || !w.dropsStale(p) || cut.Position().Term <= pe.disk.Info().Given {
		return busy()
	}
	if g := pe.applying; g != nil {
		under := g.feed != nil || g.src != nil || len(g.ops) > 0
		if under && (!g.push || g.owner != d && (w.healing || w.rng.IntN(4) != 0)) {
			return busy() // the owner's mirror is better; another push gives way when it stalls
		}
		g.closeReplica()
	}
	if p.burnt() {
		return false
	}
	a, err := pe.disk.Apply()
	if err != nil {
		w.trouble(p, "apply", err)
		return false
	}
	a.Within(size)
	st := a.State()
	f.applier = a
	if newer := st.Complete && st.Position.Compare(cut.Position()) >= 0; newer || st.Position.Term > f.term {
		if newer {
			f.result = postal.Result{Reached: postal.Position(cut.Position())}
		}
		w.notes(d, p, st)
		f.closeReplica()
		return false
	}
	pe.applying = f
	w.notes(d, p, st)
	if d.burnt() {
		f.closeReplica()
		return false
	}
	set, exact := diskpush.Lacks(d.e.disk, cut, p.id, st, told{d.e})
	if set == nil && w.saboteur == guessesEqual && st.Complete {
		set = blockset.New(blockset.Most)
	}
	held, err := a.Copied()
	if err != nil {
		w.trouble(p, "tell what a copy has brought", err)
		f.closeReplica()
		return false
	}
	s := f.src
	s.st, s.copy = st, st.Copy
	at := st.Checkpoint
	if !st.Complete {
		at = st.Position
	}
	if string(st.Copy[:4]) != "push" || at.Compare(cut.Position()) > 0 {
		copy(s.copy[:], fmt.Sprintf("push%012d", w.rng.IntN(1e12)))
		held = blockset.New(blockset.Most)
	}
	s.todo, s.exact = blockset.New(blockset.Most), blockset.New(blockset.Most)
	switch {
	case set == nil:
		s.todo.Add(0, size/vmdisk.Block)
	case exact:
		s.exact.Or(set)
		fallthrough
	default:
		s.todo.Or(set)
		s.todo.Or(held)
		s.todo.Remove(size/vmdisk.Block, blockset.Most) // beyond the cut
		cut.Want(s.todo.Clone())
	}
	return true
}

// told is what a device's directory says of the VM.
type told struct{ e *engine }

func (t told) Has(pos vmdisk.Position) bool { return t.e.history(pos) }

func (t told) Told(device string) (diskpush.Told, bool) {
	e := t.e
	r := e.dir.Replicas(vmID)[device]
	runs, err := e.dir.StaleSet(vmID, device)
	if err != nil || !r.Complete || !e.history(vmdisk.Position(r.Of)) {
		return diskpush.Told{}, false
	}
	return diskpush.Told{Position: vmdisk.Position(r.Position), Of: vmdisk.Position(r.Of), Runs: runs}, true
}

// notes tells d's disk, if it is the owner's, where the replica of p is.
func (w *world) notes(d, p *device, st vmdisk.ReplicaState) bool {
	if !d.e.owner() || !st.Complete || d.e.disk == nil {
		return false
	}
	d.touched = true
	err := d.e.disk.Reached(p.id, st)
	w.note("%s hears that %s is at %s: %v", d.id, p.id, st.Position, err)
	if errors.Is(err, vmdisk.ErrFailed) {
		w.trouble(d, "note where a replica is", err)
	}
	return err == nil
}

// report has p tell the owner where it is, or that it has nothing; false if there is nothing new.
func (w *world) report(p *device) bool {
	pe := p.e
	if w.sites < 2 || pe == nil || pe.owner() || pe.applying != nil && pe.applying.src == nil {
		return false
	}
	_, owner, ok := pe.dir.Owner(vmID)
	if !ok {
		return false
	}
	var st vmdisk.ReplicaState
	if pe.disk != nil {
		st = pe.disk.ReplicaState()
	}
	if !st.Complete {
		return w.reportNone(p, w.dev(owner))
	}
	if st.Position == (vmdisk.Position{}) || !pe.history(st.Position) || pe.reported == st.Position || !w.hears(p, w.dev(owner)) || !w.notes(w.dev(owner), p, st) {
		return false
	}
	pe.reported, pe.reportedNone = st.Position, false
	return true
}

// hears says that a report gets through to the owner o, as p believes.
func (w *world) hears(p, o *device) bool {
	if o == p || o.e == nil || !w.net.linked(p.id, o.id) || !p.sees[o.id] || w.chance(4) {
		return false
	}
	term, _, _ := p.e.dir.Owner(vmID)
	at, _, _ := o.e.dir.Owner(vmID)
	return term <= at
}

// reportNone has p, which is far from the owner o and has no whole copy, tell it so, if it believes otherwise.
func (w *world) reportNone(p, o *device) bool {
	pe := p.e
	if !w.far(p, o) || pe.machine.State() != baton.Replica || pe.applying != nil || pe.aside != nil || pe.reportedNone ||
		!pe.dir.Replicas(vmID)[p.id].Complete || !w.hears(p, o) || !o.e.owner() || o.e.disk == nil {
		return false
	}
	o.touched = true
	err := o.e.disk.Lost(p.id)
	w.note("%s hears that %s has no copy: %v", o.id, p.id, err)
	if errors.Is(err, vmdisk.ErrFailed) {
		w.trouble(o, "note that a replica is lost", err)
	}
	if err != nil && !errors.Is(err, vmdisk.ErrAttached) {
		return false
	}
	pe.reported, pe.reportedNone = vmdisk.Position{}, true
	return true
}

// nextOfCut sends the next operation; false if there is none, or no way.
func (f *mirror) nextOfCut() bool {
	s, w := f.src, f.w
	if len(f.ops) > 24 || f.applier == nil || !w.net.reaches(f.owner.id, f.replica.id) {
		return false
	}
	pos := s.cut.Position()
	switch {
	case s.stage == 0:
		f.ops = append(f.ops, op{kind: vmdisk.OpBegin, copy: s.copy})
		s.stage = 1
	case s.stage == 1 && (s.todo.Empty() || w.saboteur == commitsHalf && w.rng.IntN(8) == 0):
		f.ops = append(f.ops, op{kind: vmdisk.OpBarrier, pos: pos})
		s.stage = 2
	case s.stage == 1 && w.rng.IntN(8) == 0:
		f.ops = append(f.ops, op{kind: vmdisk.OpCheckpoint, pos: pos})
	case s.stage == 1:
		return f.sendBlock()
	default:
		return false
	}
	return true
}

// askAtOnce is of how many blocks a push asks at a time whether they differ.
const askAtOnce = 64

// sendBlock makes sure of the next block that is sent: what isn't known to be lacking is if it differs.
func (f *mirror) sendBlock() bool {
	s, w := f.src, f.w
	p := make([]byte, vmdisk.Block)
	f.owner.touched = true
	for range askAtOnce {
		b := s.todo.Next(0, true)
		if b == blockset.Most {
			break
		}
		if !s.exact.Has(b) && f.begins() {
			return false // the answer to a question comes after the copy has begun
		}
		s.todo.Remove(b, b+1)
		if err := s.cut.ReadAt(p, b*vmdisk.Block); err != nil {
			w.note("the push %s→%s lost its cut: %v", f.owner.id, f.replica.id, err)
			if !errors.Is(err, vmdisk.ErrClosed) && !errors.Is(err, vmdisk.ErrCutLost) {
				w.trouble(f.owner, "read a cut", err)
			}
			f.closeOwner()
			return true
		}
		if !s.exact.Has(b) {
			same, err := f.same(b, p)
			if err != nil {
				w.trouble(f.replica, "read what a copy has brought", err)
				f.closeReplica()
				return true
			}
			if same || w.saboteur == leavesOut && w.rng.IntN(8) == 0 {
				continue
			}
		}
		if found, ok := f.elsewhere(p); ok {
			f.ops = append(f.ops, op{kind: vmdisk.OpWrite, off: b * vmdisk.Block, len: vmdisk.Block, data: found})
			break
		}
		o := op{kind: vmdisk.OpWrite, off: b * vmdisk.Block, len: vmdisk.Block, data: p}
		if string(p) == string(make([]byte, vmdisk.Block)) {
			o = op{kind: vmdisk.OpZero, off: b * vmdisk.Block, len: vmdisk.Block}
		}
		w.crosses(f.owner, f.replica, b)
		for next := b + 1; o.kind == vmdisk.OpZero && next-b < askAtOnce && s.exact.Has(next) && s.todo.Has(next); next++ {
			// Zeros cross as runs.
			if err := s.cut.ReadAt(p, next*vmdisk.Block); err != nil || string(p) != string(make([]byte, vmdisk.Block)) {
				break
			}
			s.todo.Remove(next, next+1)
			o.len += vmdisk.Block
			w.crosses(f.owner, f.replica, next)
		}
		f.ops = append(f.ops, o)
		break
	}
	return true
}

// begins says that the word that a copy begins hasn't arrived.
func (f *mirror) begins() bool {
	return slices.ContainsFunc(f.ops, func(o op) bool { return o.kind == vmdisk.OpBegin })
}

// same asks the replica whether it has the block already.
func (f *mirror) same(b int64, p []byte) (bool, error) {
	f.replica.touched = true
	have := make([]byte, vmdisk.Block)
	err := f.applier.ReadAt(have, b*vmdisk.Block)
	return err == nil && string(have) == string(p), err
}

// mayCommit says whether what was pushed may still become the disk.
func (f *mirror) mayCommit(pos vmdisk.Position) bool {
	e := f.replica.e
	term, _, ok := e.dir.Owner(vmID)
	return ok && term == f.term && e.history(pos) && f.w.saboteur.mayReceive(e)
}
