package baton

import (
	"flag"
	"slices"
	"testing"
	"time"
)

var (
	flagSeed  = flag.Uint64("seed", 0, "replay one seed of the explorer, with its log")
	flagSeeds = flag.Uint64("seeds", 2000/slower, "seeds that the explorer tries")
)

// shake does one random thing.
func (w *world) shake() {
	d := w.devices[w.rng.IntN(len(w.devices))]
	n := w.rng.IntN(100)
	if n < 7 && w.rng.IntN(w.calm) != 0 {
		n = 99
	}
	switch {
	case d.m == nil:
		if n < 30 {
			w.restart(d)
		}
	case n < 2:
		w.crash(d, n == 0)
	case len(d.queue) > 0:
		w.act(d)
	case n < 4:
		w.flip(d)
	case n < 5:
		if d.hyper.kind != hyperNone {
			w.die(d)
			d.tasks = nil
			d.local = append(d.local, Event{Kind: EvHypervisorDied})
		}
	case n < 7:
		w.step(d, Event{Kind: EvCancel})
	case n < 14:
		// The directory may be behind: now and then the wrong one is asked.
		p := w.owner()
		if w.rng.IntN(6) == 0 {
			p = w.devices[w.rng.IntN(len(w.devices))].id
		}
		if p != d.id {
			w.step(d, Event{Kind: EvWant, Peer: p, Ask: w.name()})
		}
	case n < 18:
		w.now = w.now.Add(time.Duration(w.rng.IntN(20000)) * time.Millisecond)
		w.step(d, Event{Kind: EvTick, Now: w.now})
	case n < 20:
		w.power(d)
	case n < 26:
		w.write(d)
	case n < 27:
		if l := w.chain[len(w.chain)-1]; l.from != "" {
			w.step(w.devOr(l.to, d), Event{Kind: EvLearned, Peer: l.from, Term: l.term, Attempt: l.attempt})
		}
	default:
		w.ordinary(d)
	}
}

// devOr returns the device id if it can take an event now, else a tick's worth
// of nothing on d.
func (w *world) devOr(id string, d *device) *device {
	if p := w.dev(id); p.m != nil && len(p.queue) == 0 {
		return p
	}
	return d
}

// ordinary does something that needs no bad luck, and tells if there was any.
func (w *world) ordinary(d *device) bool {
	if d.m == nil {
		return false
	}
	if len(d.queue) > 0 {
		w.act(d)
		return true
	}
	mine := slices.IndexFunc(w.net, func(l letter) bool { return l.to == d.id })
	pick := w.rng.IntN(3)
	switch {
	case len(d.tasks) > 0 && pick == 0:
		w.work(d)
	case len(d.local) > 0 && pick <= 1:
		ev := d.local[0]
		d.local = d.local[1:]
		w.step(d, ev)
	case mine >= 0:
		// Any letter to d, not the oldest: they overtake each other.
		var all []int
		for i, l := range w.net {
			if l.to == d.id {
				all = append(all, i)
			}
		}
		i := all[w.rng.IntN(len(all))]
		l := w.net[i]
		if !w.chance(10) { // else it will come once more
			w.net = slices.Delete(w.net, i, i+1)
		}
		if !w.chance(15) {
			w.deliver(l)
		}
	default:
		return len(d.tasks) > 0 || len(d.local) > 0
	}
	return true
}

func (w *world) flip(d *device) {
	p := w.devices[w.rng.IntN(len(w.devices))]
	if p == d {
		return
	}
	key := pair(d.id, p.id)
	w.cut[key] = !w.cut[key]
	kind := EvLinkUp
	if w.cut[key] {
		kind = EvLinkLost
	}
	w.logf("link %s: %s", key, kind)
	for _, e := range [][2]*device{{d, p}, {p, d}} {
		if e[0].m != nil {
			e[0].local = append(e[0].local, Event{Kind: kind, Peer: e[1].id})
		}
	}
}

// power is the person's: boot or shut down, outside of a hand-off.
func (w *world) power(d *device) {
	if d.m.State() != Owned || !d.active || len(d.local) > 0 {
		return
	}
	if d.hyper.kind == hyperNone {
		d.hyper = hyper{kind: hyperRunning, mem: d.content}
		w.lost = false
	} else if w.rng.IntN(4) == 0 && d.hyper.kind == hyperRunning {
		d.hyper = hyper{kind: hyperNone}
		w.lost = true
	}
}

func (w *world) write(d *device) {
	if d.hyper.kind != hyperRunning || !d.active {
		return
	}
	w.writes++
	d.content = w.writes
	d.hyper.mem = w.writes
}

// heal ends all bad luck and waits until nothing moves any more.
func (w *world) heal() {
	w.healing = true
	clear(w.cut)
	for _, d := range w.devices {
		if d.m == nil {
			w.restart(d)
		}
		for _, p := range w.devices {
			if p != d {
				d.local = append(d.local, Event{Kind: EvLinkUp, Peer: p.id})
			}
		}
	}
	ticks := 0
	for range 20000 {
		busy := false
		for _, d := range w.devices {
			busy = w.ordinary(d) || busy
			w.check()
		}
		if w.err != nil {
			return
		}
		if busy || len(w.net) > 0 {
			continue
		}
		if ticks++; ticks > 200 {
			break
		}
		w.now = w.now.Add(2 * time.Second)
		for _, d := range w.devices {
			w.step(d, Event{Kind: EvTick, Now: w.now})
		}
	}
	for _, d := range w.devices {
		want := Replica
		if w.owner() == d.id {
			want = Owned
		}
		if d.m.State() != want {
			w.fail("at rest %s is %s, should be %s", d.id, d.m.State(), want)
		}
		if d.active != (want == Owned) {
			w.fail("at rest %s's disk is active: %v", d.id, d.active)
		}
		if want == Replica && d.hyper.kind != hyperNone {
			w.fail("at rest %s still has a hypervisor: %s", d.id, d.hyper.kind)
		}
		if want == Owned && !w.lost && d.hyper.kind != hyperRunning {
			w.fail("at rest nothing runs, but no memory was lost")
		}
		if want == Owned && d.hyper.kind != hyperRunning && d.hyper.kind != hyperNone {
			w.fail("at rest the owner's guest is %s", d.hyper.kind)
		}
	}
}

func explore(seed uint64, sab sabotage) *world {
	w := newWorld(seed, 2+int(seed%2), sab)
	for range 800 {
		w.shake()
		w.check()
		if w.err != nil {
			return w
		}
	}
	w.heal()
	return w
}

func TestExplore(t *testing.T) {
	if *flagSeed != 0 {
		w := explore(*flagSeed, nil)
		for _, l := range w.log {
			t.Log(l)
		}
		if w.err != nil {
			t.Fatalf("seed %d: %v", *flagSeed, w.err)
		}
		return
	}
	handoffs, returns := 0, 0
	for seed := uint64(1); seed <= *flagSeeds; seed++ {
		w := explore(seed, nil)
		if w.err != nil {
			t.Fatalf("seed %d: %v\nreplay: go test ./directory/baton -run TestExplore -v -seed %d", seed, w.err, seed)
		}
		handoffs += w.handoffs
		returns += w.returns
	}
	t.Logf("%d seeds, %d hand-offs, %d of them returned", *flagSeeds, handoffs, returns)
	if handoffs < int(*flagSeeds) || returns < int(*flagSeeds)/100 {
		t.Fatalf("the explorer hardly hands over: %d, %d returned", handoffs, returns)
	}
}

// TestExplorerNotices breaks one rule at a time: a defect of that kind must be
// found, or the explorer proves nothing.
func TestExplorerNotices(t *testing.T) {
	drop := func(kind ActionKind) sabotage {
		return func(_ *world, _ *device, _ Event, acts []Action) []Action {
			return slices.DeleteFunc(slices.Clone(acts), func(a Action) bool { return a.Kind == kind })
		}
	}
	for name, sab := range map[string]sabotage{
		"giver resumes from given": func(_ *world, d *device, ev Event, acts []Action) []Action {
			if d.m.State() == Given && ev.Kind == EvLinkLost {
				return append(acts, Action{Kind: ActResume, Term: d.m.d.Term - 1, Guest: true})
			}
			return acts
		},
		"giver forgets given": func(_ *world, d *device, ev Event, acts []Action) []Action {
			for i := range acts {
				if acts[i].Kind == ActPersistGiven {
					acts[i].State = d.m.Encode()
				}
			}
			return acts
		},
		"taker runs before the transfer": func(_ *world, d *device, ev Event, acts []Action) []Action {
			if ev.Kind == EvLoadedLocal && d.m.State() == Loaded {
				return append(acts, Action{Kind: ActActivateDisk, Term: d.m.try.term + 1}, Action{Kind: ActRunGuest})
			}
			return acts
		},
		"attempts are not named freshly": func(w *world, d *device, ev Event, acts []Action) []Action {
			w.reuse = true
			d.m.d.Aborted = nil
			return acts
		},
		"active before it is durable": func(_ *world, _ *device, ev Event, acts []Action) []Action {
			if len(acts) > 0 && acts[len(acts)-1].Kind == ActPersistOwned {
				a := acts[len(acts)-1]
				return append(acts[:len(acts)-1:len(acts)-1], Action{Kind: ActSendActive, Peer: a.Peer, Term: a.Term}, a)
			}
			return acts
		},
		"the transfer leaves before it is durable": func(_ *world, _ *device, ev Event, acts []Action) []Action {
			if len(acts) == 1 && acts[0].Kind == ActPersistGiven {
				a := acts[0]
				return []Action{{Kind: ActSendTransfer, Peer: a.Peer, Term: a.Term, Attempt: a.Attempt, Live: a.Live, GuestHeld: true}, a}
			}
			return acts
		},
		"an aborted attempt keeps its hypervisor": drop(ActKillHypervisor),
		"the transfer is not sent again": func(_ *world, d *device, ev Event, acts []Action) []Action {
			if ev.Kind == EvTick || ev.Kind == EvLinkUp || ev.Kind == EvRestart {
				return slices.DeleteFunc(slices.Clone(acts), func(a Action) bool { return a.Kind == ActSendTransfer })
			}
			return acts
		},
		"a failure to store is believed after a doubtful one": func(_ *world, d *device, ev Event, acts []Action) []Action {
			d.m.unsure = false
			return acts
		},
		"aborts do not resume": drop(ActResume),
	} {
		t.Run(name, func(t *testing.T) {
			for seed := uint64(1); seed <= 4000; seed++ {
				if w := explore(seed, sab); w.err != nil {
					t.Logf("seed %d: %v", seed, w.err)
					return
				}
			}
			t.Fatal("not noticed in 4000 seeds")
		})
	}
}
