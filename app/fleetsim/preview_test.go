package fleetsim

import (
	"errors"
	"maps"
	"math"

	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/vmdisk"
)

// What an owner tells of the others' replicas, and what a person reads of that before a takeover.

// blocks counts the blocks in which two contents differ.
func (c *content) blocks(other *content) (n int64) {
	const per = vmdisk.Block / sector
	for i := 0; i < sectors; i += per {
		if [per]uint32(c[i:i+per]) != [per]uint32(other[i:i+per]) {
			n++
		}
	}
	return n
}

// lacking are the blocks of the disk, by number, in which two contents differ.
func (c *content) lacking(other *content) map[uint64]bool {
	m := map[uint64]bool{}
	for i := range c {
		if c[i] != other[i] {
			m[uint64(offset(i)/vmdisk.Block)] = true
		}
	}
	return m
}

// quiet says that nothing writes the owner's disk, and nothing will unless uncertain is called first.
func (e *engine) quiet() bool {
	return e.machine.State() == baton.Owned && e.d.guest == nil && e.outgoing == nil && !e.busy()
}

// tellReplicas tells what each device's replica lacks, as package app does now and then, and whether that is certain.
func (w *world) tellReplicas(d *device) bool {
	e := d.e
	if !e.owner() || e.disk == nil {
		return false
	}
	w.look(d)
	for _, p := range w.others(d) {
		if !w.tellReplica(d, p) {
			return true
		}
	}
	var of vmdisk.Position
	if e.quiet() && e.disk.Info().Active {
		settled, err := e.disk.Settle()
		if err != nil {
			w.trouble(d, "settle", err)
			return true
		}
		if info := e.disk.Info(); settled && !info.Unflushed && info.Active {
			of = info.Position
		}
	}
	if info := e.disk.Info(); w.saboteur == alwaysCertain {
		of = info.Position
	}
	err := e.dir.SetCertain(vmID, directory.Position(of))
	w.told(d, "say what is certain", err)
	if err == nil {
		d.sure = of
	}
	w.look(d)
	return true
}

// tellReplica tells what one replica lacks; false if that can't be told now.
func (w *world) tellReplica(d, p *device) bool {
	e := d.e
	lag, ok := e.disk.Lag(p.id)
	if !ok {
		return true
	}
	defer lag.Release()
	if !w.tellsSize(d, e.disk.Size()) {
		return true
	}
	info := directory.ReplicaInfo{Position: directory.Position(lag.Acked), Of: directory.Position(lag.Of), Complete: lag.Acked != vmdisk.Position{}}
	for _, peer := range e.disk.Peers() {
		info.Complete = info.Complete && (peer.Peer != p.id || peer.Phase != vmdisk.Copying)
	}
	err := e.dir.PutReplica(vmID, p.id, info, lag)
	w.told(d, "tell of a replica", err)
	if err != nil {
		return false
	}
	w.acts.tellings++
	w.note("%s tells that %s is at %s, of %s", d.id, p.id, lag.Acked, lag.Of)
	// What is told must be so: the replica lacks these blocks at most.
	at, of := w.truth.contents[lag.Acked], w.truth.contents[lag.Of]
	if at == nil || of == nil {
		w.fail("%s tells of positions %s and %s, one of which never was", d.id, lag.Acked, lag.Of)
		return false
	}
	lacks := at.lacking(of)
	runs, err := e.dir.StaleSet(vmID, p.id)
	if err != nil {
		w.fail("%s can't read what it has told of %s: %v", d.id, p.id, err)
		return false
	}
	for first, n := range runs {
		for b := first; b < first+n; b++ {
			delete(lacks, b)
		}
	}
	if !w.truth.within(lag.Acked, lag.Of) {
		// It was compared as far as the owner's disk goes. What a side that lost has beyond that is in no set: whoever gives the disk to such a replica makes
		// zeros of it (Applier.Within, StaleIn, widen), and nobody else goes by what is told of one that is outside of the history.
		end := uint64(e.disk.Size() / vmdisk.Block)
		maps.DeleteFunc(lacks, func(b uint64, _ bool) bool { return b >= end })
	}
	if len(lacks) > 0 {
		w.fail("%s tells that %s at %s lacks %d blocks of %s, and forgets %v", d.id, p.id, lag.Acked, e.dir.Replicas(vmID)[p.id].StaleBlocks, lag.Of, lacks)
	}
	return true
}

// told checks an error of telling.
func (w *world) told(d *device, what string, err error) {
	if err == nil {
		return
	}
	w.note("%s can't %s: %v", d.id, what, err)
	if !d.burnt() && !passing(err) && !onItsWayOut(err) {
		w.fail("%s can't %s: %v", d.id, what, err)
	}
}

// uncertain takes back what was certain, before a guest may write; false if that can't be done now.
func (w *world) uncertain(d *device) bool {
	if w.saboteur != staysCertain {
		if err := d.e.dir.SetCertain(vmID, directory.Position{}); err != nil {
			w.told(d, "take back what was certain", err)
			return false
		}
	}
	d.sure = vmdisk.Position{}
	return true
}

// isUncertain checks that a device whose guest writes doesn't say that nothing does.
func (w *world) isUncertain(d *device) {
	term, owner, _ := d.e.dir.Owner(vmID)
	if owner != d.id || term != d.e.machine.Term() {
		return
	}
	for device, info := range d.e.dir.Replicas(vmID) {
		if info.Certain {
			w.fail("%s's guest writes, and it says that it is certain what %s lacks", d.id, device)
		}
	}
}

// reads is the person's, who wonders what a takeover would mean.
func (w *world) reads(d *device) bool {
	heads, state := d.e.dir.Heads(vmID), d.e.machine.State()
	if len(heads) != 1 || d.e.busy() || state != baton.Replica && state != baton.Given || d.e.disk == nil || !d.e.disk.Info().Complete {
		return false
	}
	w.look(d)
	w.foresee(d, heads[0].To)
	return true
}

// foresee holds what the person reads before a takeover by d against what is so.
func (w *world) foresee(d *device, owner string) {
	p, err := d.e.custody().Preview()
	if err != nil {
		w.fail("%s can't say what a takeover would be: %v", d.id, err)
		return
	}
	at := w.truth.contents[vmdisk.Position(p.Position)]
	switch {
	case at == nil:
		w.fail("%s would take over at %v, which never was", d.id, p.Position)
		return
	case w.truth.contents[vmdisk.Position(p.Latest)] == nil:
		w.fail("%s says that there was %v, which never was", d.id, p.Latest)
	}
	replicas := d.e.dir.Replicas(vmID)
	if p.Better != "" {
		b, head := vmdisk.Position(replicas[p.Better].Position), vmdisk.Position{Term: d.e.dir.Heads(vmID)[0].Term, Barrier: math.MaxUint64}
		foreign := !w.truth.within(vmdisk.Position(p.Position), head)
		if !w.truth.within(b, head) || !foreign && !w.truth.within(vmdisk.Position(p.Position), b) {
			w.fail("%s at %v says that %s's copy at %s is better, which isn't of the same history", d.id, p.Position, p.Better, b)
		}
	}
	if p.Missing == nil {
		return
	}
	w.acts.previews++
	told := vmdisk.Position(replicas[d.id].Of)
	w.note("%s reads: at %v, %d blocks of %s missing, certain=%v", d.id, p.Position, *p.Missing, told, p.Certain)
	if of := w.truth.contents[told]; of == nil || !w.truth.within(told, vmdisk.Position(p.Position)) && at.blocks(of) > *p.Missing {
		w.fail("%s at %v says that %d blocks of %s are missing, and more are", d.id, p.Position, *p.Missing, told)
	}
	o := w.dev(owner)
	if !p.Certain || o.sure != told || !o.owned || owner == d.id {
		return // it may be more: the person reads that too
	}
	w.acts.certain++
	if n := at.blocks(&o.now); n > *p.Missing {
		w.fail("%s at %v says that certainly %d blocks are missing, and %s's disk differs in %d", d.id, p.Position, *p.Missing, owner, n)
	}
}

// onItsWayOut says that an owner can't tell of replicas for a good reason.
func onItsWayOut(err error) bool {
	return errors.Is(err, directory.ErrNotOwner) || errors.Is(err, directory.ErrNotFound) || errors.Is(err, directory.ErrUnknownDevice)
}

// stays checks that an owner's disk, of which it was certain that nothing writes it, is still what it was after a crash. It may have got a new name for that
// in the middle of which it crashed: for a peer that is to tell it from what it has.
func (w *world) stays(d *device) {
	if d.e.disk == nil || d.sure == (vmdisk.Position{}) || !d.owned {
		return
	}
	c, err := d.read()
	if err != nil {
		w.trouble(d, "read", err)
		return
	}
	if was := w.truth.contents[d.sure]; was == nil || *c != *was {
		w.fail("%s was certain that its disk stays at %s, and it is another at %s after a crash", d.id, d.sure, d.e.disk.Position())
	}
}
