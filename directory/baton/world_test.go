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
	hyperHeld     hyperKind = "held" // stopped by a hand-off, memory whole
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
	active  bool // the disk's fence, durable
	content int  // the disk's last write, durable
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

type link struct {
	term     uint64
	from, to string
	attempt  string
	returned bool
	content  int // at the end of the term before
}

// sabotage breaks a rule on purpose, to prove that the explorer would notice.
type sabotage func(w *world, d *device, ev Event, acts []Action) []Action

type world struct {
	rng      *rand.Rand
	devices  []*device
	cut      map[string]bool // links that are down
	net      []letter
	chain    []link // chain[i] begins term i+1
	actives  map[uint64]string
	now      time.Time
	writes   int
	names    int
	reuse    bool // attempts are not named freshly
	lost     bool // memory was lost through no fault of the machine's
	healing  bool
	calm     int // the higher, the rarer bad luck is
	sabotage sabotage
	log      []string
	err      error
	handoffs int
	returns  int
}

func newWorld(seed uint64, n int, sab sabotage) *world {
	w := &world{
		rng:      rand.New(rand.NewPCG(seed, 0x7a6)),
		cut:      map[string]bool{},
		actives:  map[uint64]string{1: "a"},
		now:      time.Unix(1000, 0),
		sabotage: sab,
		calm:     []int{1, 4, 12}[seed%3],
		chain:    []link{{term: 1, to: "a"}},
	}
	for i := range n {
		d := &device{id: string(rune('a' + i)), hyper: hyper{kind: hyperNone}}
		if i == 0 {
			d.m, _ = NewOwner(Config{}, 1)
			d.active = true
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

func (w *world) owner() string { return w.chain[len(w.chain)-1].to }

func (w *world) term() uint64 { return uint64(len(w.chain)) }

func pair(a, b string) string { return min(a, b) + max(a, b) }

func (w *world) linked(a, b string) bool { return !w.cut[pair(a, b)] }

// chance is true once in n while faults are allowed.
func (w *world) chance(n int) bool { return !w.healing && w.rng.IntN(n*w.calm) == 0 }

// step feeds one event to a device that has nothing left to do.
func (w *world) step(d *device, ev Event) {
	before := d.m.State()
	acts, err := d.m.Step(ev)
	if err != nil {
		w.logf("%s %s %v: %v", d.id, before, ev.Kind, err)
		// A peer can never make the caller look wrong, nor can a race.
		if ev.Kind != EvWant && ev.Kind != EvCancel {
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

// act carries out the next action of d.
func (w *world) act(d *device) {
	a := d.queue[0]
	d.queue = d.queue[1:]
	if _, ok := Delivered(d.id, a); ok {
		if w.linked(d.id, a.Peer) && !w.chance(12) {
			w.net = append(w.net, letter{d.id, a.Peer, a})
		}
		return
	}
	w.logf("%s does %s term=%d", d.id, a.Kind, a.Term)
	switch a.Kind {
	case ActSave, ActRecordAbort, ActBecomeReplica:
		d.durable = a.State
	case ActStartIncoming:
		if d.hyper.kind != hyperNone {
			w.fail("%s: incoming beside a hypervisor that is %s", d.id, d.hyper.kind)
		}
		if w.chance(20) {
			d.local = append(d.local, Event{Kind: EvLocalFailed, Attempt: a.Attempt})
			return
		}
		d.hyper = hyper{kind: hyperIncoming, attempt: a.Attempt}
		d.local = append(d.local, Event{Kind: EvIncomingReady, Attempt: a.Attempt})
	case ActStartOutgoing:
		for _, what := range []string{"stop", "fence", "copy", "prepared"} {
			d.tasks = append(d.tasks, task{what, a.Attempt, a.Peer})
		}
	case ActContinueOutgoing:
		d.tasks = append(d.tasks, task{"load", a.Attempt, a.Peer})
	case ActPersistGiven:
		w.persistGiven(d, a)
	case ActPersistOwned:
		w.persistOwned(d, a)
	case ActActivateDisk:
		w.activate(d, a.Term)
	case ActFenceDisk:
		d.active = false
	case ActRunGuest:
		w.runGuest(d)
	case ActResume:
		d.tasks = nil
		if w.owner() != d.id || w.term() != a.Term {
			w.fail("%s resumes term %d, but %s owns term %d", d.id, a.Term, w.owner(), w.term())
		}
		w.activate(d, a.Term)
		if a.Guest && d.hyper.kind != hyperNone && d.hyper.kind != hyperRunning {
			w.run(d)
		}
	case ActKillHypervisor:
		if d.hyper.kind == hyperRunning {
			w.fail("%s kills a running guest", d.id)
		}
		d.hyper = hyper{kind: hyperNone}
	case ActReportStopped:
		if d.hyper.kind != hyperNone {
			w.fail("%s reports a lost memory, but it is %s here", d.id, d.hyper.kind)
		}
	default:
		w.fail("%s: unknown action %s", d.id, a.Kind)
	}
}

func (w *world) persistGiven(d *device, a Action) {
	if d.active || d.hyper.kind == hyperRunning {
		w.fail("%s gives term %d with an active disk or a running guest", d.id, a.Term)
	}
	fails := w.chance(4)
	if fails && w.chance(2) {
		d.local = append(d.local, Event{Kind: EvPersistFailed, Term: a.Term, NotWritten: w.chance(2)})
		return
	}
	d.durable = a.State
	l := link{term: a.Term, from: d.id, to: a.Peer, attempt: a.Attempt, returned: a.Returned, content: d.content}
	switch {
	case a.Term > 0 && a.Term <= w.term(): // tried again
		if old := w.chain[a.Term-1]; old.from != d.id || old.to != a.Peer || old.attempt != a.Attempt {
			w.fail("%s forks term %d: %+v and %+v", d.id, a.Term, old, l)
		}
	case a.Term != w.term()+1 || w.owner() != d.id:
		w.fail("%s gives term %d, but %s owns term %d", d.id, a.Term, w.owner(), w.term())
	default:
		if a.Returned {
			l.content = w.chain[len(w.chain)-1].content
			w.returns++
		}
		w.handoffs++
		w.chain = append(w.chain, l)
	}
	kind := EvPersisted
	if fails {
		kind = EvPersistFailed // it is durable, but nobody knows
	}
	d.local = append(d.local, Event{Kind: kind, Term: a.Term})
}

func (w *world) persistOwned(d *device, a Action) {
	if w.term() != a.Term || w.owner() != d.id {
		w.fail("%s takes term %d, but %s owns term %d", d.id, a.Term, w.owner(), w.term())
	}
	kind := EvPersisted
	switch {
	case w.chance(20):
		kind = EvPersistFailed
	case w.chance(20):
		kind = EvPersistFailed
		d.durable = a.State
	default:
		d.durable = a.State
	}
	d.local = append(d.local, Event{Kind: kind, Term: a.Term})
}

func (w *world) activate(d *device, term uint64) {
	if term == 0 || term > w.term() {
		w.fail("%s activates its disk under term %d, there are %d", d.id, term, w.term())
		return
	}
	if by, ok := w.actives[term]; ok && by != d.id {
		w.fail("%s activates its disk under term %d, as %s did", d.id, term, by)
	}
	if _, ok := w.actives[term]; !ok {
		if want := w.chain[term-1].content; d.content != want {
			w.fail("%s begins term %d with content %d, the giver's last was %d", d.id, term, d.content, want)
		}
	}
	w.actives[term] = d.id
	d.active = true
}

func (w *world) runGuest(d *device) {
	switch {
	case d.hyper.kind == hyperNone:
		d.local = append(d.local, Event{Kind: EvGuestFailed, NeverRan: true})
	case w.chance(15):
		w.lost = true
		d.hyper = hyper{kind: hyperNone}
		d.local = append(d.local, Event{Kind: EvGuestFailed, NeverRan: w.rng.IntN(2) == 0})
	default:
		w.run(d)
		d.local = append(d.local, Event{Kind: EvGuestRuns})
	}
}

func (w *world) run(d *device) {
	if d.hyper.mem != d.content {
		w.fail("%s runs memory of write %d on a disk of write %d", d.id, d.hyper.mem, d.content)
	}
	if !d.active {
		w.fail("%s runs on a fenced disk", d.id)
	}
	d.hyper.kind = hyperRunning
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
		if !w.linked(d.id, p.id) || p.m == nil || p.active || w.chance(20) {
			failed()
			return
		}
		p.content = d.content
	case "prepared":
		d.local = append(d.local, Event{Kind: EvPrepared, Attempt: t.attempt, Position: Position{Term: w.term(), Barrier: uint64(d.content)}})
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

// deliver hands one letter over, as the caller would.
func (w *world) deliver(l letter) {
	d := w.dev(l.to)
	ev, _ := Delivered(l.from, l.action)
	switch ev.Kind {
	case EvPeerAsk:
		ev.Attempt = w.name()
		ev.Live = d.hyper.kind == hyperRunning
	case EvPeerTransfer, EvPeerReturned:
		var c link
		if ev.Term > 0 && ev.Term <= w.term() {
			c = w.chain[ev.Term-1]
		}
		if c.to != l.to || c.from != l.from || c.attempt != ev.Attempt {
			w.fail("transfer %d of %s to %s is not in the chain", ev.Term, l.from, l.to)
		}
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
	w.step(d, Event{Kind: EvRestart, Facts: Facts{HypervisorAlive: d.hyper.kind != hyperNone, DiskActive: d.active}})
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
	d.m, d.queue, d.local, d.tasks = nil, nil, nil, nil
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
	running, active, owners := 0, 0, 0
	for _, d := range w.devices {
		if d.hyper.kind == hyperRunning {
			running++
		}
		if d.active {
			active++
			if w.owner() != d.id {
				w.fail("%s has an active disk, but %s owns term %d", d.id, w.owner(), w.term())
			}
		}
		if d.m != nil && d.m.Owner() {
			owners++
		}
	}
	if running > 1 || active > 1 || owners > 1 {
		w.fail("%d guests run, %d disks are active, %d devices own", running, active, owners)
	}
}
