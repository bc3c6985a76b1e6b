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
	nodes := t.byTerm()
	alive := t.alive(nodes, removed)
	over := map[Hash]bool{}
	for _, n := range nodes {
		for _, h := range n.Over {
			over[h] = over[h] || alive[n]
		}
	}
	var heads, leaves []*node
	for _, n := range nodes {
		if !alive[n] || slices.ContainsFunc(n.children, func(c *node) bool { return alive[c] }) {
			continue
		}
		leaves = append(leaves, n)
		if !over[n.hash] && t.subsumed(n, alive) == nil && !overtaken(n, alive) {
			heads = append(heads, n)
		}
	}
	if len(heads) == 0 {
		// Nothing that honest devices sign leads here.
		heads = leaves[len(leaves)-1:]
	}
	slices.SortFunc(heads, func(a, b *node) int {
		if k, l := a.Kind == KindKept, b.Kind == KindKept; k != l {
			if k {
				return 1
			}
			return -1
		}
		return cmp.Compare(b.Term, a.Term)
	})
	return heads
}

// alive leaves out, from the leaves on, what is void: forced transfers whose
// writer was removed, and what a replica kept of a takeover that is void.
func (t *tree) alive(nodes []*node, removed func(id string) bool) map[*node]bool {
	alive := make(map[*node]bool, len(nodes))
	for _, n := range slices.Backward(nodes) {
		beside, lives := false, false
		for _, c := range n.children {
			beside = beside || alive[c] && c.Kind != KindKept
		}
		for _, c := range n.children {
			if c.Kind == KindKept && c.From != c.To && len(c.children) == 0 && !beside {
				alive[c] = false // there is nothing that it could be kept from
			}
			lives = lives || alive[c]
		}
		alive[n] = lives || !n.Kind.forced() || !removed(n.Record.Writer)
	}
	return alive
}

// subsumed returns what another device has kept beside n, if n is kept by a
// replica and the other has all that n has; else nil. What the old owner itself has kept, perhaps with a guest's
// memory, always counts.
func (t *tree) subsumed(n *node, alive map[*node]bool) *node {
	if n.Kind != KindKept || n.From == n.To {
		return nil
	}
	for _, c := range n.parent.children {
		if c == n || c.Kind != KindKept || !alive[c] || t.within(c.Position, n.Position) != RelationBehind {
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

// overtaken says that n is a choice whose side has gone on all the same: its
// owner gave it on, or somebody else chose the same. What n gives up stays so.
func overtaken(n *node, alive map[*node]bool) bool {
	if n.Kind != KindResolved {
		return false
	}
	return slices.ContainsFunc(n.parent.children, func(c *node) bool {
		if c == n || !alive[c] {
			return false
		}
		return c.Kind.consented() || c.Kind == KindResolved && (len(c.children) > 0 || c.Term > n.Term)
	})
}
