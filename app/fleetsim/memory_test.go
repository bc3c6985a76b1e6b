package fleetsim

import (
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/vmdisk"
)

// Suspended VMs: a guest's memory is a header in the disk itself, in one order of writes with all else. The last block of the windows is
// the volume that the engine has for it; guests don't write there. What the header names is the number of the write that made it.

// headerAt is the first sector of that block.
const headerAt = sectors - vmdisk.Block/sector

// header is the write that saves a memory, or uses it up (number 0). A power failure may leave half of a write: the first sector is all that
// counts, as a real header is no longer than that.
func header(number uint32) *request {
	return &request{from: headerAt, to: headerAt + 2, number: number}
}

// suspended says whether the disk of an owner has a memory to go on with.
func (d *device) suspended() bool { return d.now[headerAt] != 0 }

// suspend is the person's: the guest's memory is written, and its hypervisor ends.
func (w *world) suspend(d *device) {
	g, e := d.guest, d.e
	if g == nil || g.kind != running || g.flight != nil || g.flushing != nil || !e.owner() || !e.resting() || len(e.dir.Heads(vmID)) != 1 {
		return
	}
	if info := e.disk.Info(); !info.Active || info.Fenced {
		return
	}
	number := uint32(len(w.truth.writes))
	w.truth.writes = append(w.truth.writes, write{})
	w.note("%s suspends its VM as %d", d.id, number)
	g.kind = standing
	image := *g
	image.view[headerAt] = number
	w.truth.memories[number] = &image
	if !w.atOnce(d, header(number)) {
		if w.err == nil && !d.burnt() && d.e.disk.Info().Active {
			w.goOn(d) // after all: nothing of it was written
		}
		return
	}
	if w.saboteur == writesBeside {
		w.guestWrites(d, &request{from: 0, to: 2, number: number})
		_ = e.disk.Flush()
	}
	if w.chance(12) {
		w.crash(d, w.rng.IntN(2) == 0) // before the hypervisor has ended
		return
	}
	d.guest = nil
	w.acts.suspended++
	e.events = append(e.events, baton.Event{Kind: baton.EvHypervisorDied})
}

// atOnce is the engine's write, durably, before anything else happens; false says that this failed: by an injected fault, or because its block isn't here
// yet. It isn't a request of the hypervisor's, which nobody sends again: an engine that ended in it looks at what is there.
func (w *world) atOnce(d *device, r *request) bool {
	w.guestWrites(d, r)
	if d.guest != nil && d.guest.flight == r {
		d.guest.flight = nil
		return false
	}
	if d.burnt() || d.guest == nil || d.guest.flight != nil {
		return false
	}
	if err := d.e.disk.Flush(); err != nil {
		w.trouble(d, "flush", err)
		return false
	}
	w.flushed(d)
	w.look(d)
	w.truth.promise(d.id, d.e.disk.Position())
	return !d.burnt()
}

// restore lets a suspended VM go on with its memory, which is used up before.
func (w *world) restore(d *device) {
	number := d.now[headerAt]
	w.truth.fits(d, d.e.disk.Position(), &d.now)
	if w.err != nil || !w.uncertain(d) {
		return
	}
	w.note("%s's VM goes on with its memory %d", d.id, number)
	image := *w.truth.memories[number]
	image.view = d.now
	d.guest = &image
	d.guest.kind, d.guest.term = standing, d.e.disk.Info().Term
	if w.chance(12) {
		w.crash(d, w.rng.IntN(2) == 0) // before it is used up
		return
	}
	if !w.atOnce(d, header(0)) {
		if !d.burnt() {
			d.guest = nil // it stays suspended
		}
		return
	}
	if w.chance(12) {
		w.crash(d, w.rng.IntN(2) == 0) // and before it goes on
		return
	}
	w.acts.resumed++
	w.goOn(d)
}

// fits checks that a disk that has a saved memory is what that memory belongs to.
func (u *truth) fits(d *device, pos vmdisk.Position, c *content) {
	number := c[headerAt]
	if number == 0 {
		return
	}
	image := u.memories[number]
	if image == nil {
		u.w.fail("%s's disk at %s has the memory %d, which never was", d.id, pos, number)
		return
	}
	want := image.view
	want[headerAt+1] = c[headerAt+1]
	if want != *c {
		u.w.fail("%s's disk at %s has the memory %d, which belongs to another: %s", d.id, pos, number, c.differ(&want))
	}
}
