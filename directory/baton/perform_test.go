package baton

import "slices"

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
	w.logf("%s does %s term=%d (write %d)", d.id, a.Kind, a.Term, d.content)
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
	case ActPersistOwned, ActPersistTakeover:
		w.persistOwned(d, a)
	case ActPersistKept:
		w.persistKept(d, a)
	case ActActivateDisk:
		w.activate(d, a.Term)
	case ActRenewTerm:
		if !d.active {
			w.fail("%s renews the term of a fenced disk", d.id)
		}
		w.activate(d, a.Term)
	case ActFenceDisk:
		d.active = false
	case ActYieldDisk:
		d.given = max(d.given, a.Term)
		if d.active {
			w.fail("%s yields an active disk", d.id)
		}
	case ActRunGuest:
		w.runGuest(d)
	case ActResume:
		d.tasks = nil
		if t := w.history[a.Term]; t == nil || t.to != d.id || w.passedOn(t) {
			w.fail("%s resumes term %d, which isn't its own", d.id, a.Term)
		}
		w.activate(d, a.Term)
		if a.Guest && d.hyper.kind != hyperNone && d.hyper.kind != hyperRunning {
			w.run(d)
		}
	case ActPauseGuest:
		d.tasks = nil
		if d.hyper.kind == hyperRunning {
			d.hyper.kind = hyperHeld
		}
	case ActKillHypervisor:
		if !w.mayKill(d) {
			w.fail("%s kills a guest that is %s", d.id, d.hyper.kind)
		}
		d.hyper = hyper{kind: hyperNone}
	case ActReportStopped:
		if d.hyper.kind != hyperNone {
			w.fail("%s reports a lost memory, but it is %s here", d.id, d.hyper.kind)
		}
	case ActJudge:
		busy := d.hyper.kind == hyperHeld || d.hyper.kind == hyperRunning || d.hyper.kind == hyperLoaded
		side := slices.ContainsFunc(d.heads, func(t *transfer) bool { return t.to == d.id })
		newer := a.Guest && (busy || side) || slices.Contains([]standing{beyond, ownSide}, w.stand(d))
		d.local = append(d.local, Event{Kind: EvJudged, Term: a.Term, Newer: newer && w.broken != "judge"})
	case ActSetAside:
		d.aside = true
	default:
		w.fail("%s: unknown action %s", d.id, a.Kind)
	}
}

// mayKill: a guest that stands here is killed only if the person chose against
// it, or if it has gone on at the device that it was given to.
func (w *world) mayKill(d *device) bool {
	switch d.hyper.kind {
	case hyperNone, hyperIncoming, hyperLoaded:
		return true
	case hyperRunning:
		return false
	}
	if d.m.d.Chosen != 0 {
		w.lost = true
		return true
	}
	for term := range w.taken {
		if t := w.history[term]; t.consented() && t.from == d.id && t.content == d.hyper.mem {
			return true
		}
	}
	return false
}

// passedOn tells whether the owner of t has given it to another device.
func (w *world) passedOn(t *transfer) bool {
	next := w.history[t.term+1]
	return next != nil && next.prev == t.term
}

func (w *world) persistGiven(d *device, a Action) {
	if d.active || d.hyper.kind == hyperRunning {
		w.fail("%s gives term %d with an active disk or a running guest", d.id, a.Term)
	}
	fails := w.chance(4)
	written := !fails || !w.chance(2)
	if w.broken == "store" { // it often fails, first in doubt and then for certain
		written = w.history[a.Term] == nil || w.rng.IntN(2) == 0
		fails = !written || w.history[a.Term] == nil
	}
	if !written {
		certain := w.broken == "store" || w.chance(2)
		d.local = append(d.local, Event{Kind: EvPersistFailed, Term: a.Term, NotWritten: certain})
		return
	}
	kind := kindSwitch
	if a.Returned {
		kind = kindReturned
	}
	prev, old := w.history[a.Term-1], w.history[a.Term]
	switch {
	case old != nil: // tried again
		if old.from != d.id || old.to != a.Peer || old.attempt != a.Attempt {
			w.fail("%s forks term %d", d.id, a.Term)
		}
	case prev == nil || prev.to != d.id:
		w.fail("%s gives term %d, but doesn't own the one before", d.id, a.Term)
		return
	default:
		w.sign(d, &transfer{term: a.Term, prev: prev.term, kind: kind, from: d.id, to: a.Peer, attempt: a.Attempt})
		if a.Returned {
			w.history[a.Term].content = prev.content
		}
		w.count[kind]++
	}
	d.durable = a.State
	d.given = max(d.given, a.Term-1)
	w.persisted(d, a.Term, fails)
}

// persisted answers; if it fails, it is durable, but nobody knows.
func (w *world) persisted(d *device, term uint64, fails bool) {
	kind := EvPersisted
	if fails {
		kind = EvPersistFailed
	}
	d.local = append(d.local, Event{Kind: kind, Term: term})
}

func (w *world) persistOwned(d *device, a Action) {
	t := w.history[a.Term]
	switch {
	case t == nil && a.Kind == ActPersistTakeover:
		if !w.signTakeover(d, a) {
			return
		}
	case w.chance(20):
		d.local = append(d.local, Event{Kind: EvPersistFailed, Term: a.Term, NotWritten: w.chance(2)})
		return
	case t == nil || t.to != d.id || !d.known[a.Term]:
		w.fail("%s takes term %d, which isn't its own", d.id, a.Term)
		return
	}
	d.durable = a.State
	w.taken[a.Term] = true
	w.persisted(d, a.Term, w.chance(20))
}

func (w *world) signTakeover(d *device, a Action) bool {
	if d.unsure == nil || d.unsure.term != a.Term {
		head := d.heads[0]
		if !w.said[a.Term] || head.to != a.Peer || d.forcedTerm(kindTakeover, head.term) != a.Term {
			// The history went on since the person was asked.
			d.local = append(d.local, Event{Kind: EvPersistFailed, Term: a.Term, NotWritten: true})
			return false
		}
		d.unsure = &transfer{term: a.Term, prev: head.term, kind: kindTakeover, from: head.to, to: d.id}
	}
	if w.chance(10) {
		// What is signed is signed once: it is the same when it is tried again.
		d.local = append(d.local, Event{Kind: EvPersistFailed, Term: a.Term})
		return false
	}
	w.sign(d, d.unsure)
	w.count[kindTakeover]++
	return true
}

func (w *world) persistKept(d *device, a Action) {
	if w.chance(10) {
		d.local = append(d.local, Event{Kind: EvPersistFailed, Term: a.Term, NotWritten: w.chance(2)})
		return
	}
	// It branches off the newest of its own transfers that has all of it.
	own := w.history[max(w.writes[d.content].term, 1)]
	for term := range d.known {
		t := w.history[term]
		if term > own.term && (t.to == d.id || t.from == d.id && t.consented()) && w.within(d.content, t) {
			own = t
		}
	}
	d.durable = a.State
	if (own.to != d.id || !slices.Contains(d.heads, own)) && !w.keptOn(d, own.term) {
		w.sign(d, &transfer{term: d.forcedTerm(kindKept, own.term), prev: own.term, kind: kindKept, from: own.to, to: d.id})
		w.count[kindKept]++
	}
	w.persisted(d, a.Term, w.chance(20))
}

// keptOn tells whether d keeps something on top of term already.
func (w *world) keptOn(d *device, term uint64) bool {
	for k := range d.known {
		if t := w.history[k]; t.kind == kindKept && t.to == d.id && t.prev == term {
			return true
		}
	}
	return false
}

func (w *world) activate(d *device, term uint64) {
	t := w.history[term]
	switch {
	case t == nil || t.to != d.id || !w.taken[term] || t.kind == kindKept:
		w.fail("%s activates its disk under term %d, which it didn't take", d.id, term)
		return
	case term <= d.given:
		w.fail("%s activates its disk under term %d, but gave %d away", d.id, term, d.given)
	case d.heads[0].to != d.id && (d.told == d.heads[0].term || !w.unheard(d)):
		w.fail("%s activates its disk under term %d and knows that %s owns the VM", d.id, term, d.heads[0].to)
	case d.aside:
		w.fail("%s activates its disk while it is being set aside", d.id)
	}
	if _, ok := w.actives[term]; !ok {
		switch {
		case t.consented() && d.content != t.content:
			w.fail("%s begins term %d with write %d, the giver's last was %d", d.id, term, d.content, t.content)
		case t.kind == kindResolved && !w.within(d.content, t):
			w.fail("%s begins term %d with write %d, which wasn't chosen", d.id, term, d.content)
		}
	}
	w.actives[term] = d.id
	d.active, d.term = true, term
	w.ended[term] = d.content
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
