package fleetsim

import (
	"flag"
	"testing"
	"testing/synctest"
	"time"
)

var (
	flagSeed  = flag.Uint64("fleet.seed", 0, "replay one seed, with its log")
	flagSeeds = flag.Uint64("fleet.seeds", 500, "how many seeds are tried")
	flagFrom  = flag.Uint64("fleet.from", 1, "the first seed")
)

const (
	events    = 400
	maxFailed = 12
)

// live runs one fleet's life and returns it, ended.
func live(t *testing.T, seed uint64, sab saboteur, verbose bool) *world {
	return liveBy(t, seed, sab, verbose, func(w *world, _ int) { w.event() })
}

// liveBy is live with something else as its n-th event.
func liveBy(t *testing.T, seed uint64, sab saboteur, verbose bool, event func(w *world, n int)) *world {
	var w *world
	synctest.Test(t, func(t *testing.T) {
		w = newWorld(seed, sab, verbose)
		w.tb = t
		defer w.close()
		for n := range events {
			event(w, n)
			w.after()
			if w.err != nil {
				return
			}
		}
		w.heal()
	})
	return w
}

// replayed tells a life that was lived with its log.
func (w *world) replayed(t *testing.T) {
	t.Helper()
	for _, l := range w.log {
		t.Log(l)
	}
	if w.err != nil {
		t.Fatalf("seed %d: %v", w.seed, w.err)
	}
}

func TestFleet(t *testing.T) {
	if *flagSeed != 0 {
		live(t, *flagSeed, "", true).replayed(t)
		return
	}
	var all acts
	failed := 0
	began := time.Now()
	for seed := *flagFrom; seed < *flagFrom+*flagSeeds; seed++ {
		w := live(t, seed, "", false)
		if w.err != nil {
			t.Errorf("seed %d: %v\nreplay: go test ./app/fleetsim -run TestFleet -v -fleet.seed %d", seed, w.err, seed)
			if failed++; failed == maxFailed {
				break
			}
		}
		all.add(w.acts)
	}
	t.Logf("%d seeds in %s: %+v", *flagSeeds, time.Since(began).Round(time.Second), all)
	if n := int(*flagSeeds); n >= 100 && (all.handoffs < n/2 || all.takeovers < n/20 || all.choices < n/50 || all.points < n/50 || all.grown < n/20 || all.followed < n/20) {
		t.Error("hardly anything happens in these lives")
	}
}

// TestSeedsReplay lives two lives twice.
func TestSeedsReplay(t *testing.T) {
	for seed := uint64(1); seed <= 12; seed++ {
		a, b := live(t, seed, "", true), live(t, seed, "", true)
		for i := range min(len(a.log), len(b.log)) {
			if a.log[i] != b.log[i] {
				t.Errorf("seed %d: line %d was %q, and is %q", seed, i, a.log[i], b.log[i])
				break
			}
		}
		if len(a.log) != len(b.log) {
			t.Errorf("seed %d: %d lines, then %d", seed, len(a.log), len(b.log))
		}
	}
}
