package fleetsim

import (
	"context"
	"errors"
	"slices"
	"testing/synctest"

	"tagalong.org/tagalong/app/postal"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/vmdisk"
)

// mirror is one stream of an owner's writes to a replica: in order, and it may break at any operation. Each end notices for
// itself: what is under way when the owner closes may still arrive.
type mirror struct {
	w              *world
	owner, replica *device
	feed           *vmdisk.Feed // nil when the owner has closed, and of a push
	src            *source      // of a push that its sender hasn't closed
	applier        *vmdisk.Applier
	ops            []op
	acks           []vmdisk.Position
	term           uint64
	// Of a push:
	push, onward bool
	committed    bool          // the replica is the cut
	result       postal.Result // how it ends, if it ends now
}

// op is an operation under way, as bytes on a wire.
type op struct {
	kind     vmdisk.OpKind
	off, len int64
	data     []byte
	pos      vmdisk.Position
	copy     [16]byte
}

func (f *mirror) closeOwner() {
	if f.feed != nil {
		f.feed.Close()
		f.feed, f.acks = nil, nil
	}
	if f.src != nil {
		if err := f.src.cut.Close(); err != nil {
			f.w.trouble(f.owner, "close a cut", err)
		}
		f.src, f.acks = nil, nil
		f.pushEnded()
	}
}

func (f *mirror) closeReplica() {
	if f.applier == nil {
		return
	}
	a, d := f.applier, f.replica
	f.applier, f.ops = nil, nil
	d.touched = true
	if d.e != nil {
		if d.e.applying == f {
			d.e.applying = nil
		}
		if err := a.Close(); err != nil {
			f.w.trouble(d, "close the applier", err)
		}
	}
}

// mirrorTo moves the replica of p on; false if there is nothing to do.
func (w *world) mirrorTo(d, p *device) bool {
	e := d.e
	if !e.owner() || e.disk == nil {
		return false
	}
	f := e.feeds[p.id]
	if f == nil || f.feed == nil {
		return w.connect(d, p)
	}
	if f.applier == nil && len(f.acks) == 0 && (w.healing || w.rng.IntN(4) == 0) {
		w.note("%s notices that the mirror %s→%s has ended", d.id, d.id, p.id)
		f.closeOwner()
		return true
	}
	moved := false
	for range 1 + w.rng.IntN(12) {
		if w.chance(120) {
			w.note("the mirror %s→%s breaks for %s", d.id, p.id, d.id)
			f.closeOwner()
			return true
		}
		if f.feed == nil || !f.next() && !f.takeAck() {
			break
		}
		moved = true
	}
	return moved
}

// connect opens a stream: the replica checks who wants to write it, as the engine does.
func (w *world) connect(d, p *device) bool {
	info := d.e.disk.Info()
	if !info.Active || info.Hydrating || !w.net.linked(d.id, p.id) || p.e == nil || !d.sees[p.id] {
		return false
	}
	pe := p.e
	term, owner, ok := pe.dir.Owner(vmID)
	switch {
	case !ok, pe.owner(), pe.sealed:
		return false
	case (info.Term != term || owner != d.id) && w.saboteur != ignoresTerm:
		return false
	}
	switch pe.machine.State() {
	case baton.Replica, baton.Accepting, baton.Loaded:
	default:
		if w.saboteur != receivesAll {
			return false
		}
	}
	if !w.saboteur.mayReceive(pe) {
		w.note("%s holds something that the history of %s lacks: %s", p.id, d.id, pe.custody().Stand())
		pe.look = true
		return false
	}
	size := d.e.disk.Size()
	if !w.tellsSize(d, size) || !w.makesReplica(p, size) || !w.dropsStale(p) {
		return false
	}
	if info.Term <= pe.disk.Info().Given && w.saboteur != ignoresTerm {
		w.note("%s waits until %s has a term above what was given up", p.id, d.id)
		return false
	}
	if pe.applying != nil {
		pe.applying.closeReplica()
	}
	if p.burnt() {
		return false
	}
	a, err := pe.disk.Apply()
	if err != nil {
		w.note("%s can't apply: %v", p.id, err)
		if !errors.Is(err, vmdisk.ErrActive) {
			w.trouble(p, "apply", err)
		}
		return false
	}
	a.Within(size)
	if r := a.State(); d.e.disk.WorthComparing(p.id, r) {
		if err := a.Close(); err != nil {
			w.trouble(p, "close the applier", err)
		}
		return w.compare(d, p, r)
	}
	f := &mirror{w: w, owner: d, replica: p, applier: a, term: info.Term}
	st := a.State()
	if st.Complete && st.Position.Term > info.Term && w.saboteur != ignoresTerm {
		w.fail("%s is at %s and is mirrored to by the owner of term %d", p.id, st.Position, info.Term)
	}
	pe.applying = f
	f.feed, err = d.e.disk.Attach(p.id, st)
	if err != nil {
		f.closeReplica()
		w.note("%s doesn't attach %s at %s: %v", d.id, p.id, st.Position, err)
		if !errors.Is(err, vmdisk.ErrDiverged) {
			w.trouble(d, "attach", err)
		}
		return false
	}
	w.note("the mirror %s→%s begins at %s, complete=%v", d.id, p.id, st.Position, st.Complete)
	d.e.feeds[p.id] = f
	return true
}

// makesReplica has p make an empty replica if it has none, and one of that size at least; false if it can't yet.
func (w *world) makesReplica(p *device, size int64) bool {
	e := p.e
	if e.disk == nil {
		if vm, ok := e.dir.VM(vmID); !ok || vm.DiskBytes < size {
			return false
		}
		disk, err := vmdisk.CreateReplica("", diskID, size, p.diskOptions())
		if err != nil {
			w.trouble(p, "create a replica", err)
			return false
		}
		e.disk = disk
	}
	p.touched = true
	return w.fits(p, size)
}

// dropsStale has p, which doesn't own the disk any more, go back to what it had; false if it can't be written now.
func (w *world) dropsStale(p *device) bool {
	before := p.e.disk.Info()
	if !before.Hydrating {
		return true
	}
	if p.e.machine.State() != baton.Replica {
		return false
	}
	if err := p.e.custody().DropStale(); err != nil {
		w.trouble(p, "drop what is stale", err)
		return false
	}
	p.wentBack(before)
	return true
}

// next takes one operation of the feed, without waiting.
func (f *mirror) next() bool {
	if len(f.ops) > 24 || !f.w.net.reaches(f.owner.id, f.replica.id) {
		return false
	}
	type result struct {
		op  *vmdisk.Op
		err error
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	feed, ch := f.feed, make(chan result, 1)
	go func() {
		o, err := feed.Next(ctx)
		ch <- result{o, err}
	}()
	synctest.Wait()
	var r result
	select {
	case r = <-ch:
	default:
		cancel()
		r = <-ch
	}
	f.w.look(f.owner)
	if r.err != nil {
		if !errors.Is(r.err, context.Canceled) {
			f.w.note("the feed %s→%s ends: %v", f.owner.id, f.replica.id, r.err)
			if !errors.Is(r.err, vmdisk.ErrClosed) {
				f.w.trouble(f.owner, "next", r.err)
			}
			f.closeOwner()
		}
		return false
	}
	o := r.op
	if f.w.verbose {
		f.w.note("%s→%s: operation %d at %d+%d, %s", f.owner.id, f.replica.id, o.Kind, o.Off/vmdisk.Block, o.Len/vmdisk.Block, o.Pos)
	}
	f.ops = append(f.ops, op{o.Kind, o.Off, o.Len, slices.Clone(o.Data), o.Pos, o.Copy})
	if o.Kind == vmdisk.OpBarrier || o.Kind == vmdisk.OpCheckpoint {
		f.w.saboteur.sent(f, o.Pos)
	}
	o.Release()
	return true
}

// takeAck hands one acknowledgement to the owner.
func (f *mirror) takeAck() bool {
	if len(f.acks) == 0 || !f.w.net.reaches(f.replica.id, f.owner.id) {
		return false
	}
	f.w.note("%s hears that %s is at %s", f.owner.id, f.replica.id, f.acks[0])
	if f.src != nil {
		// The push has its own end: only of the last word anything follows.
		if f.acks[0] == f.src.cut.Position() && f.src.stage == 2 && len(f.acks) == 1 && f.committed {
			f.w.notes(f.owner, f.replica, vmdisk.ReplicaState{Disk: diskID, Complete: true, Position: f.acks[0]})
			f.result = postal.Result{Reached: postal.Position(f.acks[0])}
			f.closeOwner()
			return true
		}
	} else {
		f.feed.Acked(f.acks[0])
	}
	f.acks = f.acks[1:]
	return true
}

// receive applies operations that have arrived at d; false if there were none.
func (w *world) receive(d *device) bool {
	f := d.e.applying
	if f == nil {
		return false
	}
	if w.chance(100) || f.feed == nil && f.src == nil && len(f.ops) == 0 {
		w.note("the mirror %s→%s breaks for %s", f.owner.id, d.id, d.id)
		f.closeReplica()
		return true
	}
	moved := false
	for range 1 + w.rng.IntN(12) {
		if len(f.ops) == 0 || !w.net.reaches(f.owner.id, d.id) {
			break
		}
		o := f.ops[0]
		f.ops = f.ops[1:]
		moved = true
		if err := f.apply(o); err != nil {
			w.trouble(d, "apply an operation", err)
			f.closeReplica()
			break
		}
		w.look(d)
	}
	return moved
}

func (f *mirror) apply(o op) error {
	f.w.note("%s applies %d %s", f.replica.id, o.kind, o.pos)
	if e := f.replica.e; !e.looks() && f.w.saboteur != ignoresTerm {
		if term, owner, ok := e.dir.Owner(vmID); ok && (owner != f.owner.id && !f.push || f.push && term != f.term) {
			f.w.fail("%s applies what %s writes, and has heard that %s is the owner", f.replica.id, f.owner.id, owner)
		}
	}
	f.replica.touched = true
	switch o.kind {
	case vmdisk.OpBegin:
		return f.applier.Begin(o.copy)
	case vmdisk.OpWrite:
		return f.applier.Write(o.off, o.data)
	case vmdisk.OpZero:
		return f.applier.Zero(o.off, o.len)
	case vmdisk.OpCheckpoint:
		if err := f.applier.Checkpoint(o.pos); err != nil {
			return err
		}
	default:
		if f.push && !f.mayCommit(o.pos) {
			f.w.note("what was pushed isn't taken by %s", f.replica.id)
			f.closeReplica()
			return nil
		}
		f.replica.owned = false
		if f.w.saboteur == acksUnapplied && f.feed != nil {
			f.feed.Acked(o.pos)
			if f.w.rng.IntN(40) == 0 && !f.w.healing {
				f.replica.light(1, true) // the power fails just then
			}
		}
		if err := f.applier.Barrier(o.pos); err != nil {
			return err
		}
		f.replica.mirrored = !f.push
		if f.committed = f.push; f.push {
			f.w.acts.pushed++
		}
	}
	f.acks = append(f.acks, o.pos)
	return nil
}

// resting says that nothing is under way.
func (e *engine) resting() bool {
	s := e.machine.State()
	return (s == baton.Owned || s == baton.Replica) && !e.busy() && len(e.events) == 0 && !e.looks()
}
