package fleetsim

import (
	"testing"
	"testing/synctest"
	"time"

	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
)

// part cuts the cables between a device and others; join mends them.
func (w *world) part(d *device, others ...*device) { w.wire(true, d, others) }
func (w *world) join(d *device, others ...*device) { w.wire(false, d, others) }

func (w *world) wire(cut bool, d *device, others []*device) {
	for _, p := range others {
		for _, way := range [][2]string{{d.id, p.id}, {p.id, d.id}} {
			if cut {
				w.net.cut[way] = true
			} else {
				delete(w.net.cut, way)
			}
		}
		w.notice(d, p)
		w.notice(p, d)
	}
	w.settle()
}

// crossedWorld makes a fleet of four in which a choice has crossed a hand-off: b took the VM over from a, and gave it to d, while a, which heard of the
// takeover from c only, kept its side and gave it up for b's. Nobody knows of both yet: a and c are alone. Which numbers that makes follows from the seed, and
// whether the VM runs, and where the sites are.
func crossedWorld(seed uint64, sab saboteur, verbose bool) *world {
	w := barrenWorld(seed, sab, verbose)
	w.two = false
	w.populate(4)
	w.settle()
	if w.sites > 1 {
		w.pass(20 * time.Second)
	}
	a, b, c, d := w.devices[0], w.devices[1], w.devices[2], w.devices[3]
	writes := func(d *device) {
		w.start(d)
		w.guestWrites(d, w.newRequest(d))
		w.guestFlushes(d)
		w.look(d)
	}
	writes(a)
	w.everywhere(a)
	w.part(a, b, c, d)
	writes(a)
	w.takeOver(b)
	w.settle()
	if seed%2 == 0 {
		writes(b)
	}
	w.everywhere(b) // but for a
	w.part(c, b, d)
	w.join(a, c)
	w.part(a, c)
	heads := a.e.dir.Heads(vmID)
	if len(heads) != 2 || heads[0].To != b.id || heads[1].To != a.id {
		w.fail("a knows of %d sides", len(heads))
		return w
	}
	_, err := a.e.dir.Resolve(vmID, heads[0].Hash(), []directory.Hash{heads[1].Hash()}, heads[0].Position, "keep", "")
	w.must(a, err)
	a.e.look = true
	w.settle()
	d.e.step(baton.Event{Kind: baton.EvWant, Peer: b.id, Ask: w.name()})
	w.settle()
	if !d.e.owner() || d.e.machine.Term() > a.e.dir.Heads(vmID)[0].Term {
		w.fail("the hand-off and the choice haven't crossed: d is %s of term %d", d.e.machine.State(), d.e.machine.Term())
	}
	w.healing = false
	return w
}

// overtaken lives on from there, for n events.
func overtaken(t *testing.T, seed uint64, sab saboteur, n int, verbose bool) *world {
	var w *world
	synctest.Test(t, func(*testing.T) {
		w = crossedWorld(seed, sab, verbose)
		defer w.close()
		for i := 0; i < n && w.err == nil; i++ {
			w.event()
			w.after()
		}
		if w.err == nil {
			w.heal()
		}
	})
	return w
}

// TestAChoiceIsOvertaken: whatever happens while the devices hear of it, the owner comes to be above all that was given up.
func TestAChoiceIsOvertaken(t *testing.T) {
	repeated := 0
	seeds := 12 + *flagSeeds/100
	for seed := *flagFrom; seed < *flagFrom+seeds; seed++ {
		w := overtaken(t, seed, "", int(seed%4)*40, *flagSeed != 0)
		repeated += w.acts.repeated
		if w.err != nil {
			t.Errorf("seed %d: %v", seed, w.err)
		}
	}
	if uint64(repeated) < seeds/2 {
		t.Errorf("%d choices were repeated in %d lives", repeated, seeds)
	}
}

// TestAnOvertakenChoiceIsMissed: without that, it would be seen.
func TestAnOvertakenChoiceIsMissed(t *testing.T) {
	if w := overtaken(t, 1, staysBelow, 0, false); w.err == nil {
		t.Error("an owner below what was given up isn't noticed")
	} else {
		t.Log(w.err)
	}
}
