package baton

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"
)

// A world is a fleet of machines, each with a disk, perhaps a hypervisor, and a
// caller that carries the actions out, on a hostile network.

type hyperKind string

const (
	hyperNone     hyperKind = "none"
	hyperRunning  hyperKind = "running"
	hyperHeld     hyperKind = "held" // paused, memory whole
	hyperIncoming hyperKind = "incoming"
	hyperLoaded   hyperKind = "loaded"
)

type hyper struct {
	kind    hyperKind
	mem     int // the last write that the guest's memory knows of
	attempt string
}

type device struct {
	id      string
	m       *Machine // nil while the engine is down
	durable []byte
	known   map[uint64]bool // the directory, durable
	heads   []*transfer     // of what is known
	told    uint64          // the preferred head when the engine started
	active  bool            // the disk's fence, durable
	term    uint64          // what the disk is or was active under
	given   uint64          // it is never active under it again
	content int             // the disk's last write, durable
	unsure  *transfer       // signed, but perhaps not stored
	restore []int           // restore points
	aside   bool            // one is being made
	hyper   hyper
	queue   []Action
	local   []Event
	tasks   []task // the work behind start-outgoing and continue-outgoing
}

type task struct {
	what    string
	attempt string
	peer    string
}

type letter struct {
	from, to string
	action   Action
}

type write struct {
	on   int    // the write before it on its disk
	term uint64 // its writer's
}

// sabotage breaks a rule on purpose, to prove that the explorer would notice.
type sabotage func(w *world, d *device, ev Event, acts []Action) []Action

type world struct {
	rng      *rand.Rand
	devices  []*device
	cut      map[string]bool // links that are down
	net      []letter
	history  map[uint64]*transfer
	choices  []uint64
	said     map[uint64]bool // takeovers and choices that the person asked for
	taken    map[uint64]bool // terms whose receiver has taken them durably
	actives  map[uint64]string
	ended    map[uint64]int // what the disk of a side held last
	now      time.Time
	writes   []write // the first is none
	names    int
	reuse    bool // attempts are not named freshly
	lost     bool // memory was lost through no fault of the machine's
	healing  bool
	calm     int  // the higher, the rarer bad luck is
	force    bool // the person takes over and chooses
	sabotage sabotage
	broken   string // what of the world itself is sabotaged
	log      []string
	err      error
	count    map[string]int // transfers by kind
}

func newWorld(seed uint64, n int, sab sabotage) *world {
	w := &world{
		rng:      rand.New(rand.NewPCG(seed, 0x7a6)),
		cut:      map[string]bool{},
		history:  map[uint64]*transfer{1: {term: 1, kind: kindCreated, to: "a"}},
		said:     map[uint64]bool{},
		taken:    map[uint64]bool{1: true},
		actives:  map[uint64]string{1: "a"},
		ended:    map[uint64]int{},
		now:      time.Unix(1000, 0),
		sabotage: sab,
		calm:     []int{1, 4, 12}[seed%3],
		writes:   make([]write, 1),
		count:    map[string]int{},
	}
	for i := range n {
		d := &device{id: string(rune('a' + i)), hyper: hyper{kind: hyperNone}, known: map[uint64]bool{1: true}}
		d.heads = w.heads(d.known)
		if i == 0 {
			d.m, _ = NewOwner(Config{}, 1)
			d.active, d.term = true, 1
			d.hyper.kind = hyperRunning
		} else {
			d.m = NewReplica(Config{})
		}
		d.durable = d.m.Encode()
		w.devices = append(w.devices, d)
	}
	return w
}

func (w *world) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf(format, args...)
	}
}

func (w *world) logf(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf(format, args...))
}

func (w *world) dev(id string) *device {
	i := slices.IndexFunc(w.devices, func(d *device) bool { return d.id == id })
	return w.devices[i]
}

func (w *world) name() string {
	if w.reuse {
		return "again"
	}
	w.names++
	return strconv.Itoa(w.names)
}

func pair(a, b string) string { return min(a, b) + max(a, b) }

func (w *world) linked(a, b string) bool { return !w.cut[pair(a, b)] }

// chance is true once in n while faults are allowed.
func (w *world) chance(n int) bool { return !w.healing && w.rng.IntN(n*w.calm) == 0 }

// step feeds one event to a device that has nothing left to do.
func (w *world) step(d *device, ev Event) {
	before := d.m.State()
	if ev.Kind == EvPeerAsk {
		ev.Live = d.hyper.kind == hyperRunning
	}
	acts, err := d.m.Step(ev)
	if err != nil {
		w.logf("%s %s %v: %v", d.id, before, ev.Kind, err)
		// A peer can never make the caller look wrong, nor can a race.
		if ev.Kind != EvWant && ev.Kind != EvCancel && ev.Kind != EvTakeOver {
			w.fail("%s: %v", d.id, err)
		}
		return
	}
	if w.sabotage != nil {
		acts = w.sabotage(w, d, ev, acts)
	}
	if ev.Kind != EvTick || len(acts) > 0 {
		w.logf("%s %s %s peer=%s attempt=%s term=%d → %s %v", d.id, before, ev.Kind, ev.Peer, ev.Attempt, ev.Term, d.m.State(), kinds(acts))
	}
	d.queue = append(d.queue, acts...)
}

func kinds(acts []Action) []ActionKind {
	var k []ActionKind
	for _, a := range acts {
		k = append(k, a.Kind)
	}
	return k
}

// work does the next step of d's hand-off.
func (w *world) work(d *device) {
	t := d.tasks[0]
	d.tasks = d.tasks[1:]
	w.logf("%s works: %s of attempt %s", d.id, t.what, t.attempt)
	p := w.dev(t.peer)
	failed := func() {
		d.tasks = nil
		d.local = append(d.local, Event{Kind: EvLocalFailed, Attempt: t.attempt})
	}
	switch t.what {
	case "stop":
		if d.hyper.kind == hyperRunning {
			d.hyper.kind = hyperHeld
		}
	case "fence":
		d.active = false
	case "copy":
		if w.chance(20) || !w.replicate(d, p) {
			failed()
		}
	case "prepared":
		d.local = append(d.local, Event{Kind: EvPrepared, Attempt: t.attempt, Position: Position{Term: d.term, Barrier: uint64(d.content)}})
	case "load":
		if !w.linked(d.id, p.id) || p.m == nil || p.hyper.kind != hyperIncoming || p.hyper.attempt != t.attempt || d.hyper.kind != hyperHeld {
			failed()
			return
		}
		p.hyper.kind = hyperLoaded
		p.hyper.mem = d.hyper.mem
		p.local = append(p.local, Event{Kind: EvLoadedLocal, Attempt: t.attempt})
	}
}

// replicate makes p's disk equal to d's, if p may be overwritten.
func (w *world) replicate(d, p *device) bool {
	if !w.linked(d.id, p.id) || p.m == nil || d == p || p.active || p.m.Judging() && w.broken != "gate" || p.heads[0].term != d.term || w.unheard(p) ||
		!slices.Contains([]standing{behind, givenUp}, w.stand(p)) && w.broken != "gate" {
		return false
	}
	if !w.before(p.content, d.content) && w.stand(p) != givenUp {
		w.fail("%s's disk of write %d is overwritten by %s's of write %d", p.id, p.content, d.id, d.content)
	}
	p.content = d.content
	return true
}

// unheard tells whether d's machine was not told all that its directory knows.
func (w *world) unheard(d *device) bool {
	return len(d.queue) > 0 || slices.ContainsFunc(d.local, func(ev Event) bool { return ev.Kind == EvSuperseded || ev.Kind == EvChosen })
}

// deliver hands one letter over, as the caller would.
func (w *world) deliver(l letter) {
	d := w.dev(l.to)
	ev, _ := Delivered(l.from, l.action)
	switch ev.Kind {
	case EvPeerAsk:
		if len(d.heads) > 1 {
			return // nothing is switched during a conflict
		}
		ev.Attempt = w.name()
	case EvPeerTransfer, EvPeerReturned:
		t := w.history[ev.Term]
		if t == nil || t.to != l.to || t.from != l.from || t.attempt != ev.Attempt {
			w.fail("transfer %d of %s to %s is not in the history", ev.Term, l.from, l.to)
			return
		}
		w.learn(d, ev.Term)
	}
	if w.unheard(d) {
		d.local = append(d.local, ev) // events have one order
		return
	}
	w.step(d, ev)
}

func (w *world) restart(d *device) {
	m, err := Decode(Config{}, d.durable)
	if err != nil {
		w.fail("%s: %v", d.id, err)
		return
	}
	d.m = m
	d.told = d.heads[0].term
	owner, term := w.superseding(d)
	if w.broken == "facts" {
		owner, term = "", 0
	}
	w.step(d, Event{Kind: EvRestart, Facts: Facts{HypervisorAlive: d.hyper.kind != hyperNone, DiskActive: d.active || d.term > d.given, Superseded: term, Owner: owner}})
	w.tell(d)
	for _, p := range w.devices {
		if p != d && w.linked(p.id, d.id) {
			d.local = append(d.local, Event{Kind: EvLinkUp, Peer: p.id})
			if p.m != nil {
				p.local = append(p.local, Event{Kind: EvLinkUp, Peer: d.id})
			}
		}
	}
}

func (w *world) crash(d *device, host bool) {
	w.logf("%s crashes, host=%v", d.id, host)
	d.m, d.queue, d.local, d.tasks, d.aside, d.unsure = nil, nil, nil, nil, false, nil
	if host {
		w.die(d)
	}
	for _, p := range w.devices {
		if p != d && p.m != nil && w.linked(p.id, d.id) {
			p.local = append(p.local, Event{Kind: EvLinkLost, Peer: d.id})
		}
	}
}

// die kills d's hypervisor. Memory is lost unless it was only a copy.
func (w *world) die(d *device) {
	switch d.hyper.kind {
	case hyperRunning, hyperHeld, hyperLoaded:
		w.lost = true
	}
	d.hyper = hyper{kind: hyperNone}
}

// check asserts what must hold at every moment.
func (w *world) check() {
	for i, d := range w.devices {
		if d.hyper.kind == hyperRunning && !d.active && (d.m != nil && len(d.queue) == 0 && len(d.tasks) == 0) {
			w.fail("%s's guest runs on a fenced disk", d.id)
		}
		if !d.active {
			continue
		}
		t := w.history[d.term]
		if t == nil || t.to != d.id || t.kind == kindKept {
			w.fail("%s's disk is active under term %d, which isn't its own", d.id, d.term)
			return
		}
		if d.m != nil && !w.unheard(d) && d.heads[0].to != d.id {
			w.fail("%s knows that %s owns the VM, but its disk is active", d.id, d.heads[0].to)
		}
		for _, p := range w.devices[i+1:] {
			if p.active && (w.gave(t, w.history[p.term]) || w.gave(w.history[p.term], t)) {
				w.fail("%s and %s have active disks, under %d and %d, but nobody took over", d.id, p.id, d.term, p.term)
			}
		}
	}
}

// gave tells whether the owner of t let the VM go, by hand-offs only, up to u.
func (w *world) gave(t, u *transfer) bool {
	for u != nil && u.term > t.term && u.consented() {
		u = w.history[u.prev]
	}
	return u == t
}
