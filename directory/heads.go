package directory

import (
	"bytes"
	"cmp"
	"slices"
)

// heads returns the ends of the history that count, the preferred one first;
// there is at least one. removed says who was removed from the fleet. The rules
// depend on nothing but the set of transfers and who was removed, so that every
// device that knows both comes to the same. It takes time in proportion to the transfers of the branches that ended or are void, and to
// how far their positions are apart.
func (t *tree) heads(removed func(id string) bool) []*node {
	life := newLife(removed)
	over := life.givenUp(t)
	seen := map[*node]bool{}
	var heads []*node
	for n := range t.leaves {
		for !life.alive(n) && !seen[n] {
			seen[n] = true
			n = n.parent // the first one is always alive
		}
		if seen[n] {
			continue
		}
		seen[n] = true
		if !slices.ContainsFunc(n.children, life.alive) && !over[n.hash] && !t.subsumed(n, life) {
			heads = append(heads, n)
		}
	}
	slices.SortFunc(heads, func(a, b *node) int { return cmp.Compare(b.Term, a.Term) })
	if rest := slices.DeleteFunc(slices.Clone(heads), func(n *node) bool { return life.overtaken(n) || t.unused(n, life) }); len(rest) > 0 {
		heads = rest
	} else {
		// Choices that contradict each other, made apart: the last one counts.
		heads = heads[:1]
	}
	slices.SortStableFunc(heads, func(a, b *node) int { return cmp.Compare(kept(a), kept(b)) })
	return heads
}

func kept(n *node) int {
	if n.Kind == KindKept {
		return 1
	}
	return 0
}

// life knows which transfers are void, from the leaves on: forced ones whose
// writer was removed, and what a replica kept of takeovers that are void. What it has found out of the children of a node it keeps.
type life struct {
	removed func(id string) bool
	known   map[*node]bool
	rivals  map[*node]bool      // whether a child that isn't kept is alive
	kept    map[*node]*coverage // what the children have kept
	chosen  map[*node]*choices
}

func newLife(removed func(id string) bool) *life {
	return &life{removed, map[*node]bool{}, map[*node]bool{}, map[*node]*coverage{}, map[*node]*choices{}}
}

func (l *life) alive(n *node) bool {
	replicas := n.Kind == KindKept && n.From != n.To
	if !n.Kind.forced() || !replicas && !l.removed(n.Record.Writer) {
		return true
	}
	lives, ok := l.known[n]
	if !ok {
		// There must be something that it could be kept from.
		lives = slices.ContainsFunc(n.children, l.alive) || replicas && !l.removed(n.Record.Writer) && l.rival(n.parent)
		l.known[n] = lives
	}
	return lives
}

// rival says that p has a child that is alive and not kept.
func (l *life) rival(p *node) bool {
	is, ok := l.rivals[p]
	if !ok {
		is = slices.ContainsFunc(p.children, func(c *node) bool { return c.Kind != KindKept && l.alive(c) })
		l.rivals[p] = is
	}
	return is
}

// givenUp returns what the choices that count give up.
func (l *life) givenUp(t *tree) map[Hash]bool {
	over := map[Hash]bool{}
	for _, n := range t.choices {
		if l.alive(n) {
			for _, h := range n.Over {
				over[h] = true
			}
		}
	}
	return over
}

// subsumed says that n is kept by a replica, and that another device has kept all that n has beside it. What the old owner itself has
// kept, perhaps with a guest's memory, always counts. Of two that have the same, the old owner's counts, else the lower hash.
func (t *tree) subsumed(n *node, l *life) bool {
	if n.Kind != KindKept || n.From == n.To {
		return false
	}
	c := l.kept[n.parent]
	if c == nil {
		c = t.coverage(n.parent.children, l)
		l.kept[n.parent] = c
	}
	return c.has(n)
}

// coverage is what some nodes that are alive and kept from one parent have together: how far in which terms.
type coverage struct {
	ends   map[Position]*node // the one that counts of those that end there
	within map[uint64]*reach
}

// reach is how far in a term the ones get that end in it, and those that end in a later one.
type reach struct {
	end, passing uint64
	passed       bool
}

// coverage follows what each of the nodes has back to where it began, until it meets what another one has: before that, both have the same.
func (t *tree) coverage(list []*node, l *life) *coverage {
	c := &coverage{map[Position]*node{}, map[uint64]*reach{}}
	for _, n := range list {
		if n.Kind != KindKept || !l.alive(n) {
			continue
		}
		at := n.end()
		if best := c.ends[at]; best == nil || counts(n, best) {
			c.ends[at] = n
		}
		for passing := false; at.Term != 0; passing = true {
			r, met := c.within[at.Term]
			if !met {
				r = &reach{}
				c.within[at.Term] = r
			}
			if passing {
				r.passing, r.passed = max(r.passing, at.Barrier), true
			} else {
				r.end = max(r.end, at.Barrier)
			}
			before, known := t.before(at.Term)
			if met || !known {
				break
			}
			at = before
		}
	}
	return c
}

// end is what n holds: nothing has one place.
func (n *node) end() Position {
	if n.Position.Term == 0 {
		return Position{}
	}
	return n.Position
}

// counts says that a counts rather than b, if both have kept the same.
func counts(a, b *node) bool {
	if own := a.From == a.To; own != (b.From == b.To) {
		return own
	}
	return bytes.Compare(a.hash[:], b.hash[:]) < 0
}

// has says that one of the nodes, but n, has all that n has, and counts if it has the same.
func (c *coverage) has(n *node) bool {
	at := n.end()
	if best := c.ends[at]; best != nil && best != n && counts(best, n) {
		return true
	}
	if at.Term == 0 {
		return len(c.within) > 0
	}
	r := c.within[at.Term]
	return r != nil && (r.end > at.Barrier || r.passed && r.passing >= at.Barrier)
}

// choices are the children of a node that decide whether one of them, a choice, was overtaken.
type choices struct {
	given bool    // the owner gave it on
	last  *node   // the choice that is alive and of the highest term
	used  []*node // choices that are alive and went on, at most two
}

// overtaken says that n is a choice whose side has gone on all the same: its owner gave it on, or somebody else
// chose the same. What n gives up stays so; and whoever gives that other end up, gives up n with it.
func (l *life) overtaken(n *node) bool {
	if n.Kind != KindResolved {
		return false
	}
	c := l.chosen[n.parent]
	if c == nil {
		c = &choices{}
		l.chosen[n.parent] = c
		for _, x := range n.parent.children {
			switch {
			case x.Kind.consented():
				c.given = true
			case x.Kind != KindResolved || !l.alive(x):
			default:
				if c.last == nil || x.Term > c.last.Term {
					c.last = x
				}
				if len(x.children) > 0 && len(c.used) < 2 {
					c.used = append(c.used, x)
				}
			}
		}
	}
	return c.given || c.last != nil && c.last.Term > n.Term || slices.ContainsFunc(c.used, func(x *node) bool { return x != n })
}

// unused says that n gave the VM to a device which then took it over itself, from the same owner and with all that n gave, or kept all
// of that from somebody's takeover, without having heard of n. Nobody ever had it under n, and nobody will. So it is if that device took it over from
// an owner before, with less: then what n gave must have been kept by somebody else.
func (t *tree) unused(n *node, l *life) bool {
	if !n.Kind.consented() || n.parent == nil {
		return false
	}
	kept := false
	for _, c := range n.parent.children {
		if (c.Kind != KindTakeover && c.Kind != KindKept) || !l.alive(c) || t.within(c.Position, n.Position) != RelationBehind {
			continue
		}
		if c.To == n.To {
			return true
		}
		kept = kept || c.Kind == KindKept
	}
	for p := n.parent; kept && p != nil; p = p.parent {
		if slices.ContainsFunc(p.children, func(c *node) bool { return c.Kind == KindTakeover && c.To == n.To && l.alive(c) && !n.descends(c) }) {
			return true
		}
	}
	return false
}
