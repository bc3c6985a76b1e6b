package fleetsim

import (
	"context"
	"errors"
	"slices"

	"tagalong.org/tagalong/app/custody"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// What happens when a history branches: takeovers, what they leave behind, and choices.

// point is a restore point: a disk that was set aside.
type point struct {
	pos     vmdisk.Position
	content content
}

// promise is what a guest was told to be durable.
type promise struct {
	device string
	pos    vmdisk.Position
}

// aside is the work behind setting a disk aside.
type aside struct{ term uint64 }

// performForced carries out an action about a history that branched; false if it is none.
func (e *engine) performForced(a baton.Action) bool {
	d, w := e.d, e.d.w
	switch a.Kind {
	case baton.ActPersistTakeover:
		e.persisted(a.Term, w.saboteur.tookOver(e, a))
	case baton.ActPersistKept:
		term, err := w.saboteur.kept(e, a)
		if errors.Is(err, directory.ErrChain) {
			e.look = true
			err = errors.New("somebody has chosen meanwhile")
		} else if err == nil {
			w.note("%s keeps what it has, as term %d", d.id, term)
			w.acts.kept++
		}
		e.persisted(a.Term, err)
	case baton.ActPauseGuest:
		e.endOutgoing()
		if d.guest != nil && d.guest.kind == running && w.saboteur != runsOn {
			call := w.linear.now()
			d.guest.kind = standing
			w.linear.hears(call, d.id, d.guest.term)
		}
		for _, f := range e.feeds {
			f.closeOwner()
		}
	case baton.ActJudge:
		newer, known := w.saboteur.judge(e, e.machine.State() == baton.Ousted && d.guest != nil)
		w.note("%s judges: newer=%v, known=%v (%s)", d.id, newer, known, e.custody().Stand())
		if known {
			e.follow = append(e.follow, baton.Event{Kind: baton.EvJudged, Term: a.Term, Newer: newer})
			w.acts.judged++
		}
	case baton.ActSetAside:
		if e.aside == nil {
			e.aside = &aside{term: a.Term}
		}
	case baton.ActYieldDisk:
		if err := w.saboteur.yield(e, a.Term); err != nil {
			w.trouble(d, "yield", err)
		}
	case baton.ActRenewTerm:
		if err := e.custody().Renew(a.Term); err != nil {
			w.trouble(d, "renew", err)
		}
		e.due = true
		w.activated(d)
	default:
		return false
	}
	return true
}

// followHistory tells the machine what the history says that it doesn't know; false if that is nothing.
func (e *engine) followHistory() bool {
	e.look = false
	if f := e.applying; f != nil && e.d.w.saboteur != keepsForeign {
		if term, owner, _ := e.dir.Owner(vmID); !f.push && owner != f.owner.id || f.push && term != f.term || !e.d.w.saboteur.mayReceive(e) {
			f.closeReplica()
		}
	}
	switch signed, err := e.d.w.saboteur.repeat(e); {
	case err != nil:
		e.look = true // it is tried again
		e.d.w.note("%s can't repeat a choice: %v", e.d.id, err)
		if !e.d.burnt() && !passing(err) {
			e.d.w.fail("%s can't repeat a choice: %v", e.d.id, err)
		}
		return false
	case signed:
		e.d.w.note("%s repeats a choice that was overtaken", e.d.id)
		e.d.w.acts.repeated++
	}
	ev, news := e.custody().News(e.machine)
	if !news {
		return false
	}
	state, before := e.machine.State(), string(e.machine.Encode())
	e.step(ev)
	// What it does now may bring more.
	e.look = e.machine.State() != state || string(e.machine.Encode()) != before
	return e.look || len(e.queue) > 0
}

// setAside makes what this device holds a restore point, and a replica of it in its place.
func (e *engine) setAside() {
	d, w := e.d, e.d.w
	if e.disk == nil || e.custody().Stand() == custody.Behind || w.saboteur == setsNothing {
		w.note("%s has nothing to set aside", d.id)
		e.aside = nil
		e.events = append(e.events, baton.Event{Kind: baton.EvSetAside})
		return
	}
	if e.applying != nil {
		e.applying.closeReplica()
	}
	lacked := e.disk.Info().Hydrating
	c, pos := &d.now, e.disk.Position()
	var mem *vfs.Mem
	var err error
	if err := e.disk.Close(); err != nil {
		w.trouble(d, "close the disk", err)
	}
	e.disk = nil
	if d.burnt() {
		return
	}
	if lacked {
		// It is kept as it is, and the replica is made anew.
		w.note("%s sets aside what it has, at %s, and lacks some of that", d.id, pos)
		d.points = append(d.points, point{pos, *c})
		d.mem, d.calls, d.touched, d.owned, d.last = vfs.NewMem(), 0, true, false, vmdisk.Position{}
		w.truth.at(d, pos, c)
		w.acts.points++
		e.aside = nil
		e.events = append(e.events, baton.Event{Kind: baton.EvSetAside})
		return
	}
	c, pos, mem, err = d.cloned()
	if err != nil {
		w.trouble(d, "set aside", err)
		if e.disk, err = vmdisk.Open("", d.diskOptions()); err != nil {
			w.trouble(d, "open the disk again", err)
		}
		return
	}
	if d.owned && *c != d.now {
		w.fail("%s sets another disk aside than it had: %s", d.id, c.differ(&d.now))
	}
	w.note("%s sets aside what it has, at %s", d.id, pos)
	d.points = append(d.points, point{pos, *c})
	d.mem, d.calls, d.touched = mem, 0, true
	d.owned, d.last = false, pos
	w.truth.at(d, pos, c)
	if e.disk, err = vmdisk.Open("", d.diskOptions()); err != nil {
		w.fail("%s: open the clone: %v", d.id, err)
	}
	w.acts.points++
	e.aside = nil
	e.events = append(e.events, baton.Event{Kind: baton.EvSetAside})
}

// cloned copies a closed disk.
func (d *device) cloned() (c *content, pos vmdisk.Position, mem *vfs.Mem, err error) {
	src, err := vmdisk.Open("", d.diskOptions())
	if err != nil {
		return nil, pos, nil, err
	}
	mem, pos = vfs.NewMem(), src.Position()
	if c, err = read(src); err == nil {
		err = src.Clone(context.Background(), "", vmdisk.CloneOptions{FS: mem}, nil)
	}
	return c, pos, mem, errors.Join(err, src.Close())
}

// takeOver is the person's: this device becomes the owner without the other's consent.
func (w *world) takeOver(d *device) {
	e := d.e
	heads := e.dir.Heads(vmID)
	state := e.machine.State()
	if len(heads) != 1 || e.disk == nil || e.busy() || state != baton.Replica && state != baton.Given || d.sees[heads[0].To] {
		return
	}
	info := e.disk.Info()
	if !info.Complete {
		return
	}
	e.seal()
	pos := directory.Position(info.Position)
	term, err := e.dir.NextForced(directory.KindTakeover, vmID, heads[0].Hash(), nil, pos)
	if err != nil {
		w.fail("%s can't number a takeover: %v", d.id, err)
		return
	}
	w.note("%s takes over from %s at %d/%d, term %d", d.id, heads[0].To, pos.Term, pos.Barrier, term)
	w.foresee(d, heads[0].To)
	e.step(baton.Event{Kind: baton.EvTakeOver, Peer: heads[0].To, Term: term, Position: baton.Position(pos)})
	e.sealed = false
	w.acts.takeovers++
}

// choose is the person's: one of the sides goes on.
func (w *world) choose(d *device) bool {
	e := d.e
	heads := e.dir.Heads(vmID)
	if len(heads) < 2 || e.busy() {
		return false
	}
	mine := false
	for _, h := range heads {
		mine = mine || h.To == d.id
	}
	if !mine {
		return false
	}
	keep := heads[w.rng.IntN(len(heads))]
	if i := slices.IndexFunc(heads, w.held); w.healing && !w.held(keep) && i >= 0 {
		keep = heads[i] // one that was set aside goes on only by another takeover
	}
	var over []directory.Hash
	for _, h := range heads {
		if h.Hash() != keep.Hash() {
			over = append(over, h.Hash())
		}
	}
	pos := keep.Position
	if keep.To == d.id && e.disk != nil {
		pos = directory.Position(e.disk.Position())
	}
	t, err := e.dir.Resolve(vmID, keep.Hash(), over, pos, "keep", "")
	if err != nil {
		w.note("%s can't choose: %v", d.id, err)
		if !d.burnt() && !passing(err) {
			w.fail("%s can't choose: %v", d.id, err)
		}
		return true
	}
	w.note("the person chooses on %s: %s goes on, term %d", d.id, keep.To, t.Term)
	e.look = true
	w.acts.choices++
	return true
}

// compare finds out what a replica has of the owner's disk, as package p2p/compare does over a stream.
func (w *world) compare(d, p *device, st vmdisk.ReplicaState) bool {
	w.note("%s compares with %s at %s, complete=%v", d.id, p.id, st.Position, st.Complete)
	var there vmdisk.Reader = p.e.disk
	if !st.Complete {
		o, err := p.e.disk.Offer()
		if err != nil {
			w.trouble(p, "offer", err)
			return false
		}
		defer func() {
			if err := o.Close(); err != nil {
				w.trouble(p, "close what was offered", err)
			}
		}()
		there, st = o, o.State()
	}
	c, err := d.e.disk.Compare(p.id, st)
	if err != nil {
		w.note("…which can't be done: %v", err)
		if !errors.Is(err, vmdisk.ErrDiverged) && !errors.Is(err, vmdisk.ErrHydrating) {
			w.trouble(d, "compare", err)
		}
		return false
	}
	defer c.Close()
	const piece = 64 << 10
	ours, theirs := make([]byte, piece), make([]byte, piece)
	for off := int64(0); ; {
		from, n := c.Next(off)
		if n == 0 {
			break
		}
		n = min(n, piece)
		if w.chance(400) {
			return false // the stream breaks
		}
		if err := c.ReadAt(ours[:n], from); err != nil {
			w.trouble(d, "compare", err)
			return false
		}
		if err := there.ReadAt(theirs[:n], from); err != nil {
			w.trouble(p, "compare", err)
			return false
		}
		for at := int64(0); at < n; at += vmdisk.Block {
			if string(ours[at:at+vmdisk.Block]) != string(theirs[at:at+vmdisk.Block]) && w.saboteur != comparesNothing {
				continue
			}
			if err := c.Equal(from+at, vmdisk.Block); err != nil {
				w.trouble(d, "compare", err)
				return false
			}
		}
		off = from + n
	}
	if err := c.Finish(); err != nil {
		w.trouble(d, "compare", err)
		return false
	}
	w.acts.compared++
	return true
}

// kept says whether what was at a position is still to be had: by itself, or as a part of what came after.
func (w *world) kept(pos vmdisk.Position, but *device) (where string, ok bool) {
	for _, d := range w.devices {
		for _, p := range d.points {
			if w.truth.within(pos, p.pos) {
				return "a restore point of " + d.id, true
			}
		}
		if d != but && w.truth.within(pos, d.holds()) {
			return d.id, true
		}
	}
	return "", false
}

// holds is what the device's disk is known to be at.
func (d *device) holds() vmdisk.Position {
	if d.e != nil && d.e.disk != nil {
		if st := d.e.disk.ReplicaState(); st.Complete {
			return st.Position
		}
		return vmdisk.Position{}
	}
	return d.last
}
