package baton

import (
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"
)

var flagPairs = flag.Bool("pairs", false, "try every pair of faults (minutes), not a sample")

// A fault is one piece of bad luck at one moment of a hand-off.
type fault struct {
	name string
	do   func(w *world)
}

func faults() []fault {
	list := []fault{
		{"lose", func(w *world) { w.net = nil }},
		{"double", func(w *world) { w.net = append(w.net, w.net...) }},
		{"cut", func(w *world) {
			if !w.cut["ab"] {
				w.flip2()
			}
		}},
		{"mend", func(w *world) {
			if w.cut["ab"] {
				w.flip2()
			}
		}},
		{"wait", func(w *world) {
			w.now = w.now.Add(3 * time.Minute)
			for _, d := range w.devices {
				if d.m != nil && len(d.queue) == 0 {
					w.step(d, Event{Kind: EvTick, Now: w.now})
				}
			}
		}},
	}
	for i, id := range []string{"a", "b"} {
		list = append(list,
			fault{"engine " + id, func(w *world) { w.reboot(i, false) }},
			fault{"host " + id, func(w *world) { w.reboot(i, true) }},
			fault{"hypervisor " + id, func(w *world) {
				if d := w.devices[i]; d.hyper.kind != hyperNone {
					w.die(d)
					d.local = append(d.local, Event{Kind: EvHypervisorDied})
				}
			}},
			fault{"cancel " + id, func(w *world) {
				if d := w.devices[i]; len(d.queue) == 0 {
					w.step(d, Event{Kind: EvCancel})
				}
			}})
	}
	return list
}

func (w *world) reboot(i int, host bool) {
	w.crash(w.devices[i], host)
	w.restart(w.devices[i])
}

func (w *world) flip2() {
	w.cut["ab"] = !w.cut["ab"]
	kind := EvLinkUp
	if w.cut["ab"] {
		kind = EvLinkLost
	}
	for i, d := range w.devices {
		d.local = append(d.local, Event{Kind: kind, Peer: w.devices[1-i].id})
	}
}

// play runs one switch from a to b with faults at the given steps and returns
// the number of steps that it took before everything came to rest.
func play(seed uint64, cold bool, at map[int]fault) (*world, int) {
	w := newWorld(seed, 2, nil)
	w.healing = true // no other bad luck
	for range 7 {
		w.write(w.devices[0])
	}
	if cold {
		w.devices[0].hyper = hyper{kind: hyperNone}
		w.lost = true
	}
	w.step(w.devices[1], Event{Kind: EvWant, Peer: "a", Ask: w.name()})
	idle, n := 0, 0
	for n = 0; idle < 8 && n < 1000 && w.err == nil; n++ {
		if f, ok := at[n]; ok {
			w.logf("fault %s", f.name)
			f.do(w)
			w.check()
		}
		idle++
		if w.ordinary(w.devices[n%2]) {
			idle = 0
		}
		w.check()
	}
	if w.err == nil {
		w.heal()
	}
	return w, n
}

// TestPairsOfFaults tries every fault at every step of a hand-off, and a sample
// (with -pairs, all) of every two faults at every two steps.
func TestPairsOfFaults(t *testing.T) {
	for _, cold := range []bool{false, true} {
		for seed := uint64(1); seed <= 2; seed++ {
			clean, steps := play(seed, cold, nil)
			if clean.err != nil || clean.devices[0].heads[0].to != "b" || clean.devices[0].heads[0].term != 2 {
				t.Fatalf("an undisturbed switch, cold %v: %v", cold, clean.err)
			}
			runs, nth := 0, 0
			list := faults()
			for i := range steps {
				for j := i; j < steps; j++ {
					for k, f := range list {
						for l, g := range list {
							if i == j && k != l {
								continue
							}
							single := i == j && l == (k+1)%len(list) && g.name == "mend"
							if nth++; !*flagPairs && !single && nth%(331*slower) != 0 {
								continue
							}
							runs++
							at := map[int]fault{i: f, j: g}
							if w, _ := play(seed, cold, at); w.err != nil {
								for _, line := range w.log {
									t.Log(line)
								}
								t.Fatalf("seed %d cold %v, %s at %d, %s at %d: %v", seed, cold, f.name, i, g.name, j, w.err)
							}
						}
					}
				}
			}
			t.Logf("cold %v, seed %d: %d steps, %d runs", cold, seed, steps, runs)
		}
	}
}

// TestCleanSwitchKeepsTheGuest pins what the explorer's own world must show.
func TestCleanSwitchKeepsTheGuest(t *testing.T) {
	w, _ := play(1, false, nil)
	a, b := w.devices[0], w.devices[1]
	if b.hyper.kind != hyperRunning || b.content != 7 || a.hyper.kind != hyperNone {
		t.Fatalf("after the switch: %+v, %+v", a.hyper, b.hyper)
	}
	if !slices.ContainsFunc(w.log, func(l string) bool { return l == fmt.Sprintf("b does %s term=2 (write 7)", ActRunGuest) }) {
		t.Fatal("b was never told to run the guest")
	}
}
