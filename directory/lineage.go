package directory

import (
	"math"
	"slices"
)

// Relation says how a disk stands to a history.
type Relation string

// The relations.
const (
	// RelationBehind: the history has all that the disk has.
	RelationBehind Relation = "behind"
	// RelationDiverged: the disk has, or may have, what the history lacks.
	RelationDiverged Relation = "diverged"
	// RelationUnknown: the history isn't known well enough here.
	RelationUnknown Relation = "unknown"
)

// Relation says how a disk at pos stands to the history that ends in head. It
// follows the content: the term of head began at its position, in a term that
// began at another one, and so on. Terms in which nothing was written are not met.
// The zero position is behind everything.
func (d *Directory) Relation(head Hash, pos Position) Relation {
	d.mu.RLock()
	defer d.mu.RUnlock()
	t, n := d.find(head)
	if n == nil {
		return RelationUnknown
	}
	return t.within(Position{n.Term, math.MaxUint64}, pos)
}

// within says how a disk at pos stands to what a disk at limit has.
func (t *tree) within(limit, pos Position) Relation {
	if pos.Term == 0 {
		return RelationBehind
	}
	for {
		switch {
		case limit.Term < pos.Term:
			return RelationDiverged
		case limit.Term == pos.Term && pos.Barrier <= limit.Barrier:
			return RelationBehind
		case limit.Term == pos.Term:
			return RelationDiverged
		}
		before, known := t.before(limit.Term)
		if !known {
			return RelationUnknown
		}
		limit = before
	}
}

// before returns the position at which a term began, always of a lower term.
func (t *tree) before(term uint64) (pos Position, known bool) {
	n := t.terms[term]
	switch {
	case n == nil:
		return Position{}, false
	case n.Kind == KindResolved:
		// The owner of the side that is kept writes on until it hears of the choice, perhaps under an earlier one
		// of the same side.
		before := n.parent.Term
		if i, _ := slices.BinarySearch(n.parent.choices, term); i > 0 {
			before = n.parent.choices[i-1]
		}
		return Position{before, math.MaxUint64}, true
	case n.Position.Term >= term:
		return Position{}, true // no disk was ever there
	}
	return n.Position, true
}

// CommonPosition returns the last position that the VM's heads have in common;
// of a single one it is where its term began. It is zero if there is none.
func (d *Directory) CommonPosition(vm string) Position {
	d.mu.RLock()
	defer d.mu.RUnlock()
	s := d.summary(vm)
	if s == nil {
		return Position{}
	}
	if len(s.heads) == 1 {
		return s.heads[0].Position
	}
	t := d.trees[vm]
	common := Position{s.heads[0].Term, math.MaxUint64}
	for _, h := range s.heads[1:] {
		common = t.common(common, Position{h.Term, math.MaxUint64})
	}
	return common
}

// common returns the last position that is within both.
func (t *tree) common(a, b Position) Position {
	for a.Term != b.Term {
		later := &a
		if b.Term > a.Term {
			later = &b
		}
		before, known := t.before(later.Term)
		if !known {
			return Position{}
		}
		*later = before
	}
	return Position{a.Term, min(a.Barrier, b.Barrier)}
}
