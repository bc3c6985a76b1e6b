package fleetsim

import (
	"maps"
	"slices"

	"tagalong.org/tagalong/app/custody"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/vmdisk"
)

// A VM that was handed on to a copy which isn't whole can be rolled back to what that was before, by the person's word.

// rollBack is the person's, as app's Rollback and RollBack: they read what goes, and go on with what this device had; false if that can't be.
func (w *world) rollBack(d *device) bool {
	e := d.e
	if e.machine.State() != baton.Owned || e.disk == nil || !e.resting() || len(e.dir.Heads(vmID)) != 1 {
		return false
	}
	info := e.disk.Info()
	if !info.Hydrating || !info.Active || info.Fenced {
		return false
	}
	w.look(d)
	w.foregoes(d, info)
	if d.guest != nil {
		w.die(d)
		for e.run() { // the engine has ended it, and goes on only then
		}
		if d.burnt() || e.machine.State() != baton.Owned || !e.disk.Info().Hydrating {
			return true
		}
	}
	head := e.dir.Heads(vmID)[0]
	pos := directory.Position(info.Before)
	for _, f := range e.feeds {
		f.closeOwner()
	}
	e.disk.EndWaiting()
	term, err := e.dir.NextForced(directory.KindTakeover, vmID, head.Hash(), nil, pos)
	if err != nil {
		w.fail("%s can't number a rollback: %v", d.id, err)
		return true
	}
	w.note("%s rolls back from %s to %s, term %d", d.id, info.Position, info.Before, term)
	d.goesBack = true
	e.step(baton.Event{Kind: baton.EvTakeOver, Peer: d.id, Term: term, Position: baton.Position(pos), Mine: true})
	w.acts.rollbacks++
	return true
}

// foregoes checks what the person is told of what goes, and notes that it does: what only this device has of what it was given or wrote.
func (w *world) foregoes(d *device, info vmdisk.Info) {
	at, _ := d.e.custody().HandedAt(info.Term)
	was := w.truth.contents[at]
	switch {
	case was == nil || w.truth.contents[info.Before] == nil:
		w.fail("%s was given %s and would be rolled back to %s, one of which never was", d.id, at, info.Before)
		return
	case !w.truth.within(info.Before, at):
		w.fail("%s would be rolled back to %s, which isn't in the history of %s", d.id, info.Before, at)
	}
	if n := was.blocks(&d.now) * vmdisk.Block; n > info.Written {
		w.fail("%s says that a rollback loses %d bytes that were written here, and it loses %d", d.id, info.Written, n)
	}
	for _, term := range slices.Sorted(maps.Keys(w.truth.promised)) {
		p := w.truth.promised[term].pos
		if !w.truth.within(p, info.Position) || w.truth.within(p, info.Before) {
			continue
		}
		if _, ok := w.kept(p, d); !ok {
			w.note("what was promised at %s goes with that", p)
			delete(w.truth.promised, term)
		}
	}
}

// wentBackInCrash says that a disk was rolled back before its engine could say so.
func (d *device) wentBackInCrash() bool {
	asked := d.goesBack
	d.goesBack = false
	if info := d.e.disk.Info(); !asked || info.Hydrating || d.durableAt(info.Position) {
		return false
	}
	d.w.note("%s's disk is again what it was at %s", d.id, d.e.disk.Position())
	d.owned, d.last, d.touched = false, d.e.disk.Position(), true
	return true
}

// durableAt says that what was written here is what the disk was at a position: it went on, and wasn't rolled back.
func (d *device) durableAt(pos vmdisk.Position) bool {
	c := d.w.truth.contents[pos]
	return c == nil || *c == d.durable
}

// waits checks that an owner which still lacks blocks when everything has healed does so because nobody has all of them: then the person rolls
// it back.
func (w *world) waits(d *device) {
	info := d.e.disk.Info()
	at, ok := d.e.custody().HandedAt(info.Term)
	if !ok {
		w.fail("at rest %s lacks %d bytes, and doesn't know of which position", d.id, info.Stale)
	}
	for _, p := range w.others(d) {
		there := p.e.disk.Info()
		if there.Complete && !there.Hydrating && p.e.custody().Stand() == custody.Behind && w.truth.within(at, there.Position) {
			w.fail("at rest %s lacks %d bytes of %s, and %s has all of them at %s", d.id, info.Stale, at, p.id, there.Position)
		}
	}
	if w.err == nil && !w.rollBack(d) {
		w.fail("at rest %s lacks %d bytes of %s that nobody has, and can't be rolled back", d.id, info.Stale, at)
	}
}
