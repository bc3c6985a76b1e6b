package directory

import (
	"bytes"
	"cmp"
	"slices"
)

// heads returns the ends of the history that count, the preferred one first;
// there is at least one. removed says who was removed from the fleet. The rules
// depend on nothing but the set of transfers and who was removed, so that every
// device that knows both comes to the same.
func (t *tree) heads(removed func(id string) bool) []*node {
	life := newLife(removed)
	over := life.givenUp(t)
	seen := map[*node]bool{}
	var heads []*node
	for n := range t.leaves {
		for !life.alive(n) {
			n = n.parent // the first one is always alive
		}
		if seen[n] || slices.ContainsFunc(n.children, life.alive) {
			continue
		}
		seen[n] = true
		if !over[n.hash] && t.subsumed(n, life) == nil {
			heads = append(heads, n)
		}
	}
	slices.SortFunc(heads, func(a, b *node) int { return cmp.Compare(b.Term, a.Term) })
	if rest := slices.DeleteFunc(slices.Clone(heads), func(n *node) bool { return overtaken(n, life) || t.unused(n, life) }); len(rest) > 0 {
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
// writer was removed, and what a replica kept of takeovers that are void.
type life struct {
	removed func(id string) bool
	known   map[*node]bool
}

func newLife(removed func(id string) bool) *life { return &life{removed, map[*node]bool{}} }

func (l *life) alive(n *node) bool {
	replicas := n.Kind == KindKept && n.From != n.To
	if !n.Kind.forced() || !replicas && !l.removed(n.Record.Writer) {
		return true
	}
	lives, ok := l.known[n]
	if !ok {
		// There must be something that it could be kept from.
		beside := func(c *node) bool { return c.Kind != KindKept && l.alive(c) }
		lives = slices.ContainsFunc(n.children, l.alive) ||
			replicas && !l.removed(n.Record.Writer) && slices.ContainsFunc(n.parent.children, beside)
		l.known[n] = lives
	}
	return lives
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

// subsumed returns what another device has kept beside n, if n is kept by a
// replica and the other has all that n has; else nil. What the old owner itself has kept, perhaps with a guest's
// memory, always counts.
func (t *tree) subsumed(n *node, l *life) *node {
	if n.Kind != KindKept || n.From == n.To {
		return nil
	}
	for _, c := range n.parent.children {
		if c == n || c.Kind != KindKept || !l.alive(c) || t.within(c.Position, n.Position) != RelationBehind {
			continue
		}
		// Of two that have the same, the old owner's counts, else the lower hash.
		same := t.within(n.Position, c.Position) == RelationBehind
		if !same || c.From == c.To || bytes.Compare(c.hash[:], n.hash[:]) < 0 {
			return c
		}
	}
	return nil
}

// overtaken says that n is a choice whose side has gone on all the same: its owner gave it on, or somebody else
// chose the same. What n gives up stays so; and whoever gives that other end up, gives up n with it.
func overtaken(n *node, l *life) bool {
	if n.Kind != KindResolved {
		return false
	}
	return slices.ContainsFunc(n.parent.children, func(c *node) bool {
		if c == n || !l.alive(c) {
			return false
		}
		return c.Kind.consented() || c.Kind == KindResolved && (len(c.children) > 0 || c.Term > n.Term)
	})
}

// unused says that n gave the VM to a device which then took it over itself, from the same owner and with all that n gave, or kept all
// of that from somebody's takeover, without having heard of n. Nobody ever had it under n, and nobody will.
func (t *tree) unused(n *node, l *life) bool {
	if !n.Kind.consented() || n.parent == nil {
		return false
	}
	return slices.ContainsFunc(n.parent.children, func(c *node) bool {
		return (c.Kind == KindTakeover || c.Kind == KindKept) && l.alive(c) && c.To == n.To && t.within(c.Position, n.Position) == RelationBehind
	})
}
