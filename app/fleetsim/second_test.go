package fleetsim

import (
	"errors"

	"tagalong.org/tagalong/app/second"
	"tagalong.org/tagalong/vmdisk"
)

// Some VMs have `sync = "two"`: a flush is answered when another device has it too. The gate (app/second) is real.

// flushing is a guest's flush that isn't answered.
type flushing struct {
	done chan error
	pos  vmdisk.Position
}

// newGate makes an engine's gate, as package app does.
func newGate(e *engine) *second.Gate {
	g := second.New(e.whyNoSecond, func() {})
	g.Set(e.d.w.two)
	return g
}

// whyNoSecond is as package app's. It is called from goroutines: nothing random happens here.
func (e *engine) whyNoSecond(there vmdisk.Elsewhere) second.Why {
	whole := there.Whole
	for device, r := range e.dir.Replicas(vmID) {
		whole = whole || device != e.d.id && r.Complete
	}
	if !whole {
		return second.Uncopied
	}
	return second.Held
}

// flushTwice begins a flush that waits for a second copy.
func (w *world) flushTwice(d *device) {
	e, f := d.e, &flushing{done: make(chan error, 1)}
	gate, disk := e.gate.On(e.disk, e.ended), e.disk
	err := disk.Flush()
	if err != nil {
		w.note("%s's guest flushes: %v", d.id, err)
		if !d.excused(err) {
			w.fail("%s's guest can't flush: %v", d.id, err)
		}
		return
	}
	w.flushed(d)
	w.look(d)
	f.pos = disk.Position()
	d.guest.flushing = f
	go func() {
		if w.saboteur == answersAlone {
			f.done <- nil
			return
		}
		f.done <- gate.Flushed(disk.Flush)
	}()
}

// answered looks whether the flush of d's guest was.
func (w *world) answered(d *device) {
	if d.guest == nil || d.guest.flushing == nil {
		return
	}
	f := d.guest.flushing
	select {
	case err := <-f.done:
		d.guest.flushing = nil
		if err != nil {
			w.note("%s's guest's flush of %s isn't answered: %v", d.id, f.pos, err)
			if !errors.Is(err, second.ErrNoSecond) && !errors.Is(err, vmdisk.ErrInactive) && !d.excused(err) {
				w.fail("%s's guest's flush fails: %v", d.id, err)
			}
			return
		}
		w.note("%s's guest has flushed %s", d.id, f.pos)
		w.truth.promise(d.id, f.pos)
		w.heldTwice(d, f.pos)
	default:
	}
}

// heldTwice checks that what a running guest was just told to be durable survives the loss of this device's disk, unless the person is told why not.
func (w *world) heldTwice(d *device, pos vmdisk.Position) {
	if d.guest.kind != running || d.e == nil || d.e.disk == nil || !d.e.disk.Info().Active || d.e.gate.State(d.e.disk).Why != second.Held {
		return
	}
	for _, p := range w.others(d) {
		w.look(p)
		if w.truth.within(pos, p.holds()) {
			w.acts.twice++
			return
		}
	}
	w.fail("%s's guest was told that %s is durable on two devices, and no other has it", d.id, pos)
}

// someoneNear says that another device of d's site is connected.
func (w *world) someoneNear(d *device) bool {
	for _, p := range w.others(d) {
		if d.sees[p.id] && !w.far(d, p) {
			return true
		}
	}
	return false
}
