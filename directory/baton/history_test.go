package baton

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
)

// The model's history: a tree of transfers, of which each device knows a part,
// and the lineage of what the disks hold.

const (
	kindCreated  = "created"
	kindSwitch   = "switch"
	kindReturned = "returned"
	kindTakeover = "takeover"
	kindKept     = "kept"
	kindResolved = "resolved"
)

type transfer struct {
	term, prev uint64
	kind       string
	from, to   string
	attempt    string
	over       []uint64
	content    int // what the disk of its writer held
}

func (t *transfer) consented() bool { return t.kind == kindSwitch || t.kind == kindReturned }

func (t *transfer) forced() bool { return t.kind == kindTakeover || t.kind == kindResolved }

// forcedTerm skips ahead of all that d knows, so that two devices apart never
// write under one term.
func (d *device) forcedTerm(kind string, prev uint64) uint64 {
	top := slices.Max(sortedTerms(d.known))
	h := fnv.New64a()
	fmt.Fprint(h, d.id, kind, prev, top)
	return top + 256 + h.Sum64()%(1<<18)
}

// heads are the ends of the history that known tells of, the preferred first.
func (w *world) heads(known map[uint64]bool) []*transfer {
	parent, gone, given, choice := map[uint64]bool{}, map[uint64]bool{}, map[uint64]bool{}, map[uint64]uint64{}
	for term := range known {
		t := w.history[term]
		parent[t.prev] = true
		for _, o := range t.over {
			gone[o] = true
		}
		if t.consented() {
			given[t.prev] = true
			if p := w.history[t.prev]; p.kind == kindResolved {
				given[p.prev] = true // of choices for one side, the one that was handed on counts
			}
		}
		if t.kind == kindResolved {
			choice[t.prev] = max(choice[t.prev], term)
		}
	}
	var list []*transfer
	for term := range known {
		t := w.history[term]
		lost := t.kind == kindResolved && (given[t.prev] || choice[t.prev] != term)
		if !parent[term] && !gone[term] && !lost {
			list = append(list, t)
		}
	}
	slices.SortFunc(list, func(a, b *transfer) int {
		switch {
		case a.kind != kindKept && b.kind == kindKept:
			return -1
		case a.kind == kindKept && b.kind != kindKept:
			return 1
		}
		return cmp.Compare(b.term, a.term)
	})
	return list
}

// ancestry tells whether t is on the way to head.
func (w *world) ancestry(head *transfer, t uint64) bool {
	for ; head != nil; head = w.history[head.prev] {
		if head.term == t {
			return true
		}
	}
	return false
}

func (w *world) branched(head *transfer) bool {
	for ; head != nil; head = w.history[head.prev] {
		if head.forced() {
			return true
		}
	}
	return false
}

// before tells whether the disk of content y holds all that x holds.
func (w *world) before(x, y int) bool {
	for y > x {
		y = w.writes[y].on
	}
	return x == y
}

// within tells whether content is part of the history that ends in head.
func (w *world) within(content int, head *transfer) bool {
	switch {
	case content == 0 || w.writes[content].term == head.term:
		return true
	case head.kind == kindResolved:
		// Of several choices for one side its owner may have begun with another.
		t := w.history[w.writes[content].term]
		return t.kind == kindResolved && t.prev == head.prev || w.within(content, w.history[head.prev])
	}
	return w.before(content, head.content)
}

// A standing is what a disk is to the history that its device knows.
type standing int

const (
	behind    standing = 1 // the preferred history has all of it
	ownSide   standing = 2 // it belongs to another head, this device's
	otherSide standing = 3 // it belongs to another head, another device's
	givenUp   standing = 4 // the person chose against it, and it is in a restore point
	beyond    standing = 5 // no known history has it
)

func (w *world) stand(d *device) standing {
	if w.within(d.content, d.heads[0]) {
		return behind
	}
	s := beyond
	for _, h := range d.heads[1:] {
		if w.within(d.content, h) {
			s = otherSide
			if h.to == d.id {
				return ownSide
			}
		}
	}
	if s == otherSide {
		return s
	}
	if slices.Contains(d.restore, d.content) {
		return givenUp
	}
	for term := range d.known {
		for _, o := range w.history[term].over {
			if w.history[o].to != d.id && w.within(d.content, w.history[o]) {
				return givenUp // it is in the owner's
			}
		}
	}
	return s
}

// learn adds transfers, and what they follow from, to what d's directory knows.
func (w *world) learn(d *device, terms ...uint64) {
	changed := false
	for _, term := range terms {
		for term != 0 && !d.known[term] {
			d.known[term] = true
			changed = true
			t := w.history[term]
			for _, o := range t.over {
				w.learn(d, o)
			}
			term = t.prev
		}
	}
	if !changed {
		return
	}
	d.heads = w.heads(d.known)
	if d.m != nil {
		w.tell(d)
	}
}

// tell hands the machine what the directory's news mean to it, as the engine does.
func (w *world) tell(d *device) { d.local = append(d.local, w.news(d)...) }

// superseding is what a superseded event would say to d, or zero.
func (w *world) superseding(d *device) (owner string, term uint64) {
	head := d.heads[0]
	replica := d.m.State() == Replica || d.m.State() == Accepting || d.m.State() == Loaded
	if !w.branched(head) || head.to == d.id && !(replica && head.term < d.m.Over()) {
		return "", 0
	}
	return head.to, head.term
}

func (w *world) news(d *device) []Event {
	var list []Event
	head, own := d.heads[0], w.side(d)
	for _, term := range w.choices {
		if r := w.history[term]; d.known[term] && own != 0 && r.to != d.id && slices.ContainsFunc(r.over, func(o uint64) bool {
			return o == own || o > own && w.history[o].to == d.id
		}) {
			list = append(list, Event{Kind: EvChosen, Peer: head.to, Term: term})
		}
	}
	if head.kind == kindResolved && head.to == d.id && w.continues(d, head) {
		list = append(list, Event{Kind: EvChosen, Peer: d.id, Term: head.term, Mine: true})
	}
	if d.m.State() == Given {
		t := w.history[d.m.Term()]
		if t == nil || head == t {
			return list
		}
		for term := range d.known {
			if n := w.history[term]; n.kind == kindSwitch && n.prev == t.term {
				return append(list, Event{Kind: EvPeerActive, Peer: t.to, Term: t.term})
			}
		}
	}
	owner, term := w.superseding(d)
	if term == 0 {
		return list
	}
	if d.m.State() == Ousted && d.m.d.Kept && len(d.heads) == 1 && slices.Contains([]standing{behind, givenUp}, w.stand(d)) {
		// What it kept is in a history that has all of it.
		return append(list, Event{Kind: EvChosen, Peer: owner, Term: term})
	}
	return append(list, Event{Kind: EvSuperseded, Peer: owner, Term: term})
}

// continues tells whether the choice r is to go on with what d holds.
func (w *world) continues(d *device, r *transfer) bool {
	side := w.history[r.prev]
	if d.m.State() == Replica {
		for side.kind == kindResolved && w.actives[side.term] == "" {
			side = w.history[side.prev]
		}
		return d.content == w.ended[side.term] // nothing came since it was set aside
	}
	own := w.history[w.side(d)]
	return own != nil && (w.ancestry(side, own.term) || own.kind == kindResolved && own.prev == r.prev)
}

// side is the transfer that stands for what d holds, or zero.
func (w *world) side(d *device) uint64 {
	own := d.m.Term()
	switch d.m.State() {
	case Replica, Accepting, Loaded, Taking, Giving:
		return 0
	case Ousted:
		for term := range d.known {
			if t := w.history[term]; t.kind == kindKept && t.to == d.id && d.m.d.Kept && (own < term) {
				own = term
			}
		}
	}
	return own
}

func sortedTerms(known map[uint64]bool) []uint64 {
	return slices.Sorted(maps.Keys(known))
}

// sign adds a transfer to the history, and to what its writer knows.
func (w *world) sign(d *device, t *transfer) {
	t.content = d.content
	w.ended[t.term] = d.content
	w.history[t.term] = t
	if t.kind == kindResolved {
		w.choices = append(w.choices, t.term)
	}
	w.learn(d, t.term)
}

// meet lets two directories agree.
func (w *world) meet(a, b *device) {
	if len(a.known) == len(w.history) && len(b.known) == len(w.history) {
		return
	}
	for _, p := range [][2]*device{{a, b}, {b, a}} {
		w.learn(p[1], sortedTerms(p[0].known)...)
	}
}
