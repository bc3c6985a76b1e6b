package fleetsim

import (
	"testing"
	"testing/synctest"
	"time"

	"tagalong.org/tagalong/vmdisk"
)

// threeSites lives a fleet of three sites of two devices in good luck, up to when all have the owner's disk, and then lets its guest write n
// times. It returns which blocks it wrote.
func threeSites(w *world, n int) (owner *device, changed map[int64]bool) {
	owner = w.devices[0]
	w.start(owner)
	w.guestFlushes(owner)
	w.everywhere(owner)
	changed = map[int64]bool{}
	for range n {
		r := w.newRequest(owner)
		for i := r.from; i < r.to; i++ {
			changed[offset(i)/vmdisk.Block] = true
		}
		w.guestWrites(owner, r)
	}
	w.guestFlushes(owner)
	w.look(owner)
	clear(w.crossed)
	return owner, changed
}

// inSites runs fn in a fleet of six devices at three sites, in which nothing goes wrong by itself.
func inSites(t *testing.T, seed uint64, fn func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := barrenWorld(seed, "", true)
		w.calm, w.sites = 1, 3
		defer w.close()
		w.populate(6)
		w.settle()
		w.pass(20 * time.Second)
		fn(w)
		if w.err != nil {
			t.Fatal(w.err)
		}
	})
}

// TestEachBlockCrossesOnce: if nothing fails, what was changed goes to each other site once, whoever sends it, and to all devices there.
func TestEachBlockCrossesOnce(t *testing.T) {
	for seed := uint64(1); seed <= 6; seed++ {
		inSites(t, seed, func(w *world) {
			owner, changed := threeSites(w, 12)
			w.everywhere(owner)
			if n := w.apart(owner); n > 0 {
				t.Fatalf("seed %d: %d replicas aren't whole: %s", seed, n, w.gist())
			}
			for to := range 3 {
				for b := range changed {
					if n, want := w.crossed[crossing{to, b}], min(to, 1); n != want {
						t.Errorf("seed %d: block %d went to site %d %d times", seed, b, to, n)
					}
				}
			}
			for c := range w.crossed {
				if !changed[c.block] {
					t.Errorf("seed %d: block %d went to site %d, and wasn't changed", seed, c.block, c.to)
				}
			}
		})
	}
}

// TestAPostmasterDiesMidPush: the engine of the device that pushes, or of the one that it pushes to, ends in the middle. The next one of the
// site goes on, the dead device gets everything when it is back, and only what was on its way goes twice where the receiver lived on.
func TestAPostmasterDiesMidPush(t *testing.T) {
	for _, receiver := range []bool{false, true} {
		for seed := uint64(1); seed <= 6; seed++ {
			inSites(t, seed, func(w *world) {
				owner, changed := threeSites(w, 40)
				f := w.midPush(owner)
				if f == nil {
					t.Fatalf("seed %d: nothing is pushed", seed)
				}
				dies, site := f.owner, w.site(f.replica)
				if receiver {
					dies = f.replica
				}
				if dies == owner {
					owner.guest = nil // it left its disk to its neighbour by the mirror
				}
				w.note("%s dies in the middle of its push", dies.id)
				w.crash(dies, true)
				for range 600 {
					if w.goOnWithout(); w.missing(owner) == 0 {
						break
					}
				}
				if n := w.missing(owner); n > 0 {
					t.Fatalf("seed %d: %d replicas aren't whole while %s is dead: %s", seed, n, dies.id, w.log)
				}
				twice := 0
				for b := range changed {
					twice += max(w.crossed[crossing{site, b}]-1, 0)
				}
				if !receiver && twice > 32 {
					t.Errorf("seed %d: of %d blocks %d went to site %d twice", seed, len(changed), twice, site)
				}
				w.powerUp(dies)
				for range 600 {
					if w.goOnWithout(); w.missing(owner) == 0 {
						return
					}
				}
				t.Fatalf("seed %d: %s is back, and isn't whole", seed, dies.id)
			})
		}
	}
}

// midPush goes on until a push into another site has brought some blocks.
func (w *world) midPush(owner *device) *mirror {
	for range 100_000 {
		for _, d := range w.devices {
			for _, f := range d.e.pushes {
				if f.src != nil && w.far(d, f.replica) && w.atSite(w.site(f.replica)) >= 4 {
					return f
				}
			}
		}
		if !w.once() {
			w.pass(time.Second)
		}
		if w.apart(owner) == 0 {
			return nil
		}
	}
	return nil
}

// atSite is how many blocks went into a site.
func (w *world) atSite(to int) (n int) {
	for c, k := range w.crossed {
		if c.to == to {
			n += k
		}
	}
	return n
}

// once lets everybody who runs do one thing; false if there was nothing to do.
func (w *world) once() (moved bool) {
	for _, d := range w.devices {
		if d.e == nil {
			continue
		}
		for w.ordinary(d) {
			moved = true
		}
		for _, p := range w.others(d) {
			moved = w.bring(d, p) || moved
			if p.e != nil {
				moved = w.receive(p) || w.report(p) || moved
			}
		}
		moved = w.tickPost(d) || moved
		w.after()
	}
	return moved
}

// goOnWithout lets everybody who runs go on until there is nothing to do, with who is dead noticed as such, and a second go by.
func (w *world) goOnWithout() {
	for _, d := range w.devices {
		for _, p := range w.others(d) {
			w.notice(d, p)
		}
		if d.e != nil && d.e.owner() {
			w.tellReplicas(d)
		}
		w.tell(d)
	}
	for range 1000 {
		if !w.once() {
			break
		}
	}
	w.pass(time.Second)
}

// missing says how many of the devices that run haven't what the owner's disk was last.
func (w *world) missing(owner *device) (n int) {
	for _, d := range w.devices {
		if d == owner || d.e == nil {
			continue
		}
		if c := w.truth.contents[d.holds()]; c == nil || *c != owner.now {
			n++
		}
	}
	return n
}
