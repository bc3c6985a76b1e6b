package fleetsim

import (
	"flag"
	"testing"
	"testing/synctest"
	"time"
)

var (
	flagSeed  = flag.Uint64("fleet.seed", 0, "replay one seed, with its log")
	flagSeeds = flag.Uint64("fleet.seeds", 2000, "how many seeds are tried")
	flagFrom  = flag.Uint64("fleet.from", 1, "the first seed")
)

const events = 400

// live runs one fleet's life and returns it, ended.
func live(t *testing.T, seed uint64, sab saboteur, verbose bool) *world {
	var w *world
	synctest.Test(t, func(t *testing.T) {
		w = newWorld(seed, sab, verbose)
		defer w.close()
		for range events {
			w.event()
			w.after()
			if w.err != nil {
				return
			}
		}
		w.heal()
	})
	return w
}

func TestFleet(t *testing.T) {
	if *flagSeed != 0 {
		w := live(t, *flagSeed, "", true)
		for _, l := range w.log {
			t.Log(l)
		}
		if w.err != nil {
			t.Fatalf("seed %d: %v", *flagSeed, w.err)
		}
		return
	}
	var all acts
	began := time.Now()
	for seed := *flagFrom; seed < *flagFrom+*flagSeeds; seed++ {
		w := live(t, seed, "", false)
		if w.err != nil {
			t.Errorf("seed %d: %v\nreplay: go test ./app/fleetsim -run TestFleet -v -fleet.seed %d", seed, w.err, seed)
			if t.Failed() && all.steps > 0 && seed > *flagFrom+200 {
				break
			}
		}
		all.add(w.acts)
	}
	t.Logf("%d seeds in %s: %+v", *flagSeeds, time.Since(began).Round(time.Second), all)
}
