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
		p := d.heads[0].to
		if w.rng.IntN(6) == 0 {
			p = w.devices[w.rng.IntN(len(w.devices))].id
		}
		if p != d.id && len(d.heads) == 1 {
			w.step(d, Event{Kind: EvWant, Peer: p, Ask: w.name()})
		}
	case n < 18:
		w.now = w.now.Add(time.Duration(w.rng.IntN(20000)) * time.Millisecond)
		w.tick(d)
	case n < 20:
		w.power(d)
	case n < 26:
		w.write(d)
	case n < 27:
		if t := d.heads[0]; t.consented() && t.to == d.id {
			d.local = append(d.local, Event{Kind: EvLearned, Peer: t.from, Term: t.term, Attempt: t.attempt})
		}
	case n < 31:
		p := w.devices[w.rng.IntN(len(w.devices))]
		if p.m != nil && w.linked(d.id, p.id) {
			w.meet(d, p)
		}
	case n < 33:
		if w.rng.IntN(3) == 0 {
			w.takeOver(d)
		}
	case n < 34:
		w.resolve(d)
	default:
		w.ordinary(d)
	}
}

// tick lets time pass on d; the engine also tells again what may have come in
// the middle of something.
func (w *world) tick(d *device) {
	w.step(d, Event{Kind: EvTick, Now: w.now})
	w.tell(d)
}

// takeOver is the person's word, where the engine lets them say it.
func (w *world) takeOver(d *device) {
	head := d.heads[0]
	if !w.force || len(d.heads) > 1 || w.unheard(d) || !w.within(d.content, head) {
		return
	}
	switch d.m.State() {
	case Replica, Accepting, Loaded, Given, Ousted:
	default:
		return
	}
	term := d.forcedTerm(kindTakeover, head.term)
	w.said[term] = true
	w.lost = true
	w.logf("%s's person takes the VM over from %s", d.id, head.to)
	w.step(d, Event{Kind: EvTakeOver, Peer: head.to, Term: term, Position: Position{Term: head.term, Barrier: uint64(d.content)}})
}

// holds tells whether the device that owns the head t could go on from there.
func (w *world) holds(t *transfer) bool {
	d := w.dev(t.to)
	if d.m == nil || d.m.d.Chosen != 0 {
		return false
	}
	return d.m.State() == Owned && d.m.Term() == t.term || d.m.State() == Ousted && w.side(d) == t.term
}

// resolve is the person's choice between the sides of a conflict.
func (w *world) resolve(d *device) {
	if len(d.heads) < 2 || !slices.ContainsFunc(d.heads, func(t *transfer) bool { return t.to == d.id }) {
		return
	}
	if keep := w.rng.IntN(len(d.heads)); w.holds(d.heads[keep]) {
		w.keep(d, keep)
	}
}

func (w *world) keep(d *device, keep int) {
	t := &transfer{kind: kindResolved, prev: d.heads[keep].term, from: d.id, to: d.heads[keep].to}
	for i, h := range d.heads {
		if i != keep {
			t.over = append(t.over, h.term)
		}
	}
	t.term = d.forcedTerm(kindResolved, t.prev)
	w.said[t.term] = true
	w.lost = true
	w.logf("%s's person keeps %s's side, term %d over %v: %d", d.id, t.to, t.prev, t.over, t.term)
	w.sign(d, t)
	w.count[kindResolved]++
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
	case d.aside:
		d.aside = false
		d.restore = append(d.restore, d.content)
		d.local = append(d.local, Event{Kind: EvSetAside})
	case d.active && w.rng.IntN(4) == 0:
		w.replicate(d, w.devices[w.rng.IntN(len(w.devices))])
		return len(d.tasks) > 0 || len(d.local) > 0
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
		if len(d.heads) > 1 {
			return // nothing is started during a conflict
		}
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
	w.writes = append(w.writes, write{on: d.content, term: d.term})
	d.content = len(w.writes) - 1
	d.hyper.mem = d.content
	w.ended[d.term] = d.content
}

// heal ends all bad luck and waits until nothing moves any more; if it comes to
// rest in a conflict, the person chooses.
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
	for range 6 {
		w.settle()
		if w.err != nil || len(w.devices[0].heads) == 1 {
			break
		}
		for range 20 {
			w.resolve(w.devices[w.rng.IntN(len(w.devices))])
		}
	}
	if w.err == nil {
		w.rest()
	}
}

// settle lets everything happen that needs no bad luck.
func (w *world) settle() {
	ticks := 0
	for range 20000 {
		busy := false
		for i, d := range w.devices {
			for _, p := range w.devices[:i] {
				w.meet(d, p)
			}
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
			return
		}
		w.now = w.now.Add(2 * time.Second)
		for _, d := range w.devices {
			if len(d.queue) == 0 {
				w.tick(d)
			}
		}
	}
	w.fail("it never comes to rest")
}

// rest asserts what must hold when nothing moves any more.
func (w *world) rest() {
	if n := len(w.devices[0].heads); n > 1 {
		w.fail("at rest there are %d sides, and none can be chosen", n)
		return
	}
	owner := w.devices[0].heads[0].to
	for _, d := range w.devices {
		want := Replica
		if owner == d.id {
			want = Owned
		}
		if d.m.State() != want {
			w.fail("at rest %s is %s, should be %s", d.id, d.m.State(), want)
		}
		if d.active != (want == Owned) || d.active && d.term != d.heads[0].term {
			w.fail("at rest %s's disk is active: %v, under %d", d.id, d.active, d.term)
		}
		if want == Replica && d.hyper.kind != hyperNone {
			w.fail("at rest %s still has a hypervisor: %s", d.id, d.hyper.kind)
		}
		if want == Replica && d.m.Judging() {
			w.fail("at rest %s's disk was not judged", d.id)
		}
		if want == Owned && !w.lost && d.hyper.kind != hyperRunning {
			w.fail("at rest nothing runs, but no memory was lost")
		}
		if want == Owned && d.hyper.kind != hyperRunning && d.hyper.kind != hyperNone {
			w.fail("at rest the owner's guest is %s", d.hyper.kind)
		}
	}
}

// explore runs one seed; in two of three the person never uses force.
func explore(seed uint64, sab sabotage) *world {
	w := newWorld(seed, 2+int(seed%2), sab)
	w.force = seed/2%3 == 0
	if sab != nil {
		w.calm = 1
	}
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
	count := map[string]int{}
	for seed := uint64(1); seed <= *flagSeeds; seed++ {
		w := explore(seed, nil)
		if w.err != nil {
			t.Fatalf("seed %d: %v\nreplay: go test ./directory/baton -run TestExplore -v -seed %d", seed, w.err, seed)
		}
		for k, n := range w.count {
			count[k] += n
		}
	}
	t.Logf("%d seeds, %v", *flagSeeds, count)
	n := int(*flagSeeds)
	if count[kindSwitch] < n || count[kindReturned] < n/100 || count[kindTakeover] < n/4 || count[kindKept] < n/20 || count[kindResolved] < n/20 {
		t.Fatalf("the explorer hardly does what it is for: %v", count)
	}
}
