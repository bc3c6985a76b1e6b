package fleetsim

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/vmdisk"
)

// event lets one random thing happen.
func (w *world) event() {
	d := w.pick(w.devices)
	n := w.rng.IntN(1000)
	if n < 50 && w.rng.IntN(w.calm) != 0 {
		n += 50
	}
	switch {
	case n < 10:
		if d.e != nil {
			w.crash(d, n < 4)
		}
	case n < 22:
		if d.e != nil && !d.fuse.lit {
			d.light(1+w.rng.IntN(8), n < 15)
			w.note("%s's fuse is lit: %d calls, host=%v", d.id, d.fuse.left, d.fuse.host)
		}
	case n < 34:
		w.flip(d, w.pick(w.others(d)))
	case n < 38:
		w.die(d)
	case n < 100:
		if d.e == nil {
			w.powerUp(d)
		} else {
			w.act(d)
		}
	case n < 150:
		w.notice(d, w.pick(w.others(d)))
	case n < 180:
		w.tell(d)
	case n < 210:
		w.pass(time.Duration(w.rng.IntN([]int{4000, 15000}[min(w.sites/2, 1)])) * time.Millisecond)
		w.tick()
	case n < 222:
		w.some(w.tellReplicas)
	case n < 230:
		w.some(w.reads)
	case n < 400:
		w.some(w.guestActs)
	case n < 415 && w.sites > 1:
		w.some(w.tickPost)
	case n < 560:
		w.some(func(d *device) bool { return w.bring(d, w.pick(w.others(d))) })
	case n < 680:
		w.some(func(d *device) bool { return w.receive(d) || w.report(d) })
	default:
		for range 1 + w.rng.IntN(6) {
			if !w.some(w.ordinary) {
				break
			}
			w.after()
		}
	}
}

// some lets one of the devices do something, of those that can.
func (w *world) some(do func(*device) bool) bool {
	at := w.rng.IntN(len(w.devices))
	for i := range w.devices {
		if d := w.devices[(at+i)%len(w.devices)]; d.e != nil && do(d) {
			return true
		}
	}
	return false
}

// powerUp starts what doesn't run.
func (w *world) powerUp(d *device) {
	d.powered = true
	d.boot()
}

// ordinary goes on with what is under way on d; false if that is nothing.
func (w *world) ordinary(d *device) bool {
	if d.e == nil {
		return false
	}
	if d.e.busy() {
		return d.e.run()
	}
	switch w.rng.IntN(3) {
	case 0:
		return d.e.work() || w.deliver(d) || d.e.run()
	case 1:
		return w.deliver(d) || d.e.run() || d.e.work()
	default:
		return d.e.run() || d.e.work() || w.deliver(d)
	}
}

// act is what a person does.
func (w *world) act(d *device) {
	e := d.e
	if e.busy() {
		e.run()
		return
	}
	switch n := w.rng.IntN(100); {
	case n < 10:
		e.step(baton.Event{Kind: baton.EvCancel})
	case n < 45:
		// The directory may be behind: now and then the wrong one is asked.
		_, owner, _ := e.dir.Owner(vmID)
		if w.rng.IntN(8) == 0 {
			owner = w.pick(w.others(d)).id
		}
		if owner != d.id && owner != "" && d.sees[owner] && len(e.dir.Heads(vmID)) == 1 {
			e.step(baton.Event{Kind: baton.EvWant, Peer: owner, Ask: w.name()})
		}
	case n < 65:
		w.takeOver(d)
	case n < 70:
		w.choose(d)
	case n < 87:
		w.start(d)
	case n < 90:
		w.shutDown(d)
	case n < 93:
		w.suspend(d)
	case n < 94 && w.sites > 1:
		d.paused = !d.paused
	case n < 95 && w.sites > 1:
		d.asked = true
	case n < 96:
		if e.owner() && e.disk != nil {
			if err := e.disk.Save(); err != nil {
				w.trouble(d, "save", err)
			}
		}
	case n < 98:
		w.grow(d)
	default:
		w.putRecord(d)
	}
}

// start is the person's: the VM boots where it is owned and stopped.
func (w *world) start(d *device) {
	e := d.e
	if e.machine.State() != baton.Owned || d.guest != nil || e.disk == nil || !e.resting() || len(e.dir.Heads(vmID)) != 1 {
		return
	}
	info := e.disk.Info()
	if !info.Active || info.Fenced {
		return
	}
	if d.suspended() {
		w.restore(d)
		return
	}
	if !w.uncertain(d) {
		return
	}
	w.note("%s's VM starts", d.id)
	e.gate.Runs()
	d.guest = &guest{kind: running, view: d.now, term: info.Term}
}

// shutDown ends the guest in good order: it flushes first.
func (w *world) shutDown(d *device) {
	if d.guest == nil || d.guest.kind != running || !d.e.resting() || d.guest.flight != nil {
		return
	}
	w.note("%s's VM shuts down", d.id)
	w.guestFlushes(d)
	if !d.burnt() {
		d.guest = nil
		d.e.events = append(d.e.events, baton.Event{Kind: baton.EvHypervisorDied})
	}
}

// die ends the hypervisor by itself.
func (w *world) die(d *device) {
	if d.guest == nil || d.e == nil {
		return
	}
	w.note("%s's hypervisor dies, %s", d.id, d.guest.kind)
	d.guest.exits()
	d.guest = nil
	d.e.events = append(d.e.events, baton.Event{Kind: baton.EvHypervisorDied})
}

// guestActs lets a running guest do something. It doesn't wait for the engine's loop, only for the disk.
func (w *world) guestActs(d *device) bool {
	if d.guest == nil || d.guest.kind != running || d.e.disk == nil {
		return false
	}
	if info := d.e.disk.Info(); !info.Active || info.Fenced || d.guest.flushing != nil {
		return false
	}
	if w.rng.IntN(4) == 0 {
		w.guestFlushes(d)
	} else {
		w.guestWrites(d, w.newRequest(d))
	}
	return true
}

// putRecord is what the owner tells of its VM now and then.
func (w *world) putRecord(d *device) {
	vm, ok := d.e.dir.VM(vmID)
	if _, owner, _ := d.e.dir.Owner(vmID); !ok || !d.e.owner() || owner != d.id {
		return // the machine may have yet to hear that it isn't the owner any more
	}
	vm.State = w.name()
	if err := d.e.dir.PutVM(vm); err != nil {
		w.note("%s can't write the VM's record: %v", d.id, err)
		if !d.burnt() && !passing(err) {
			w.fail("%s can't write the VM's record: %v", d.id, err)
		}
	}
}

// tell begins an exchange with another device, if something has changed or by chance.
func (w *world) tell(d *device) {
	if d.e == nil {
		return
	}
	for _, p := range w.others(d) {
		if d.sees[p.id] {
			d.e.exchange(p.id)
		}
	}
}

// tick tells the time to all machines.
func (w *world) tick() {
	for _, d := range w.devices {
		if d.e != nil {
			d.e.events = append(d.e.events, baton.Event{Kind: baton.EvTick, Now: time.Now()})
			d.e.due = true
		}
	}
}

// heal ends all bad luck and waits until nothing moves any more.
func (w *world) heal() {
	w.note("everything heals")
	w.healing = true
	clear(w.net.cut)
	for _, d := range w.devices {
		d.paused = false
	}
	for _, d := range w.devices {
		if d.e != nil && d.fuse.lit {
			w.crash(d, false)
		}
	}
	for _, d := range w.devices {
		if d.e == nil {
			w.powerUp(d)
		}
	}
	for same, before := 0, ""; same < 3 && w.err == nil; {
		w.pass(3 * time.Second)
		w.tick()
		for _, d := range w.devices {
			for _, p := range w.others(d) {
				w.notice(d, p)
			}
			w.tellReplicas(d)
			w.tell(d)
		}
		w.settle()
		if now := w.gist(); now == before && w.resting() {
			same++
		} else {
			same, before = 0, now
		}
		if w.rounds++; w.rounds > 200 {
			w.fail("it never comes to rest: %s", before)
		}
	}
	if w.err != nil {
		return
	}
	if heads := w.devices[0].e.dir.Heads(vmID); len(heads) > 1 {
		w.undecided(heads)
		if w.choose(w.dev(heads[w.rng.IntN(len(heads))].To)) {
			w.heal()
		} else {
			w.fail("at rest the person can't choose")
		}
		return
	}
	if _, id, ok := w.devices[0].e.dir.Owner(vmID); ok {
		if d := w.dev(id); d.e.disk != nil && d.e.disk.Info().Hydrating {
			if w.waits(d); w.err == nil {
				w.heal()
			}
			return
		}
	}
	w.firstCopies()
	w.rest()
}

// undecided checks what must be while the person has to choose.
func (w *world) undecided(heads []directory.SignedTransfer) {
	for _, d := range w.devices {
		own := d.e.dir.Heads(vmID)
		same := len(own) == len(heads)
		for i := range own {
			same = same && own[i].Hash() == heads[i].Hash()
		}
		if !same {
			w.fail("at rest %s sees %d sides, %s sees %d, or others", d.id, len(own), w.devices[0].id, len(heads))
		}
		if d.guest != nil && d.guest.kind == running && d.id != heads[0].To {
			w.fail("at rest %s's guest runs, but %s is preferred", d.id, heads[0].To)
		}
	}
	for _, h := range heads {
		if !w.held(h) {
			w.fail("at rest %s is a side of the conflict, but its disk is at %s", h.To, w.dev(h.To).holds())
		}
	}
}

// held says that a side is on the disk of its device.
func (w *world) held(h directory.SignedTransfer) bool {
	return w.truth.within(w.dev(h.To).holds(), vmdisk.Position{Term: h.Term, Barrier: math.MaxUint64})
}

// settle lets everything happen that happens by itself and takes no time.
func (w *world) settle() {
	rounds := 0
	for moved := true; moved && w.err == nil; {
		if rounds++; rounds > 500 {
			w.fail("it never comes to rest: %s", w.gist())
		}
		moved = false
		for _, d := range w.devices {
			for w.err == nil && w.ordinary(d) {
				moved = true
			}
			for _, p := range w.others(d) {
				moved = w.bring(d, p) || moved
				moved = w.receive(p) || moved
				moved = w.report(p) || moved
			}
			if d.e.news {
				d.e.news = false
				w.tell(d)
				moved = true
			}
			if w.sites > 1 && w.tickPost(d) {
				moved = true
			}
			w.after()
		}
	}
}

// resting says that no hand-off is under way.
func (w *world) resting() bool {
	for _, d := range w.devices {
		switch d.e.machine.State() {
		case baton.Owned, baton.Replica:
		case baton.Ousted:
			if len(d.e.dir.Heads(vmID)) == 1 {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// gist is what must not change any more at rest.
func (w *world) gist() string {
	s := ""
	for _, d := range w.devices {
		s += fmt.Sprint(d.id, " ", d.e.machine.State(), d.e.machine.Term(), d.guest != nil, len(d.e.dir.Digest()))
		if d.e.disk != nil {
			s += fmt.Sprint(d.e.disk.Position(), d.e.disk.ReplicaState().Complete)
		}
		s += "; "
	}
	return s
}

// rest checks what must be when everything has healed.
func (w *world) rest() {
	first := w.devices[0].e.dir
	term, owner, _ := first.Owner(vmID)
	for _, d := range w.devices {
		dir := d.e.dir
		if t, o, _ := dir.Owner(vmID); t != term || o != owner {
			w.fail("at rest %s says that %s owns term %d, %s that %s owns %d", d.id, o, t, w.devices[0].id, owner, term)
		}
		w.equal(d.id, dir, first)
		want := baton.Replica
		if owner == d.id {
			want = baton.Owned
		}
		if s := d.e.machine.State(); s != want {
			w.fail("at rest %s is %s, should be %s", d.id, s, want)
			continue
		}
		if d.e.disk == nil || !d.e.disk.ReplicaState().Complete {
			w.fail("at rest %s has no replica", d.id)
			continue
		}
		info := d.e.disk.Info()
		if info.Active != (want == baton.Owned) || info.Fenced {
			w.fail("at rest %s's disk is active=%v, fenced=%v", d.id, info.Active, info.Fenced)
		}
		if want == baton.Replica && d.guest != nil {
			w.fail("at rest %s has a hypervisor that is %s", d.id, d.guest.kind)
		}
		if want == baton.Owned && d.guest != nil && d.guest.kind != running {
			w.fail("at rest %s's guest is %s", d.id, d.guest.kind)
		}
	}
	if w.err != nil {
		return
	}
	w.alike(w.dev(owner))
	w.lastWrite(w.dev(owner))
	// Whatever a guest was told to be durable is in the VM, or in what was set aside.
	for _, term := range slices.Sorted(maps.Keys(w.truth.promised)) {
		p := w.truth.promised[term]
		if where, ok := w.kept(p.pos, nil); !ok {
			w.fail("at rest what %s's guest was told to be durable at %s is nowhere", p.device, p.pos)
		} else if w.verbose {
			w.note("%s is in %s", p.pos, where)
		}
	}
}

// lastWrite lets the VM run without force, and its writes reach everybody.
func (w *world) lastWrite(d *device) {
	w.start(d)
	if d.guest == nil {
		w.fail("at rest %s's VM doesn't start", d.id)
		return
	}
	for range 3 {
		w.guestWrites(d, w.newRequest(d))
	}
	w.guestFlushes(d)
	w.look(d)
	for range 4 {
		w.settle()
		w.pass(time.Second) // a feed may wait for a barrier that is due
	}
	w.everywhere(d)
	if w.err != nil {
		return
	}
	for _, p := range w.others(d) {
		if p.e.disk == nil {
			w.fail("at rest %s has no replica of what %s writes", p.id, d.id)
		} else if c, err := read(p.e.disk); err != nil || *c != d.now {
			w.fail("at rest %s doesn't get what %s writes: %v", p.id, d.id, err)
		}
	}
}

// equal checks that two directories hold the same.
func (w *world) equal(id string, a, b *directory.Directory) {
	da, db := a.Digest(), b.Digest()
	for k, v := range db {
		if da[k] != v {
			w.fail("at rest %s has version %d of %s, the first device %d", id, da[k], k, v)
			return
		}
	}
	if len(da) != len(db) {
		w.fail("at rest %s has %d records, the first device %d", id, len(da), len(db))
	}
}
