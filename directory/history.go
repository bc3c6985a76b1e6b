package directory

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"sync/atomic"
)

// tree is what is known of a VM's history: its transfers, each a child of the
// one that it names. Terms are unique in it, and rise from parent to child.
type tree struct {
	nodes   map[Hash]*node
	terms   map[uint64]*node
	leaves  map[*node]struct{}
	choices []*node // of kind resolved
	top     *node   // of the highest term
	// sum is what follows from the nodes and from who was removed; nil after a
	// change of either, until somebody wants to know.
	sum atomic.Pointer[summary]
}

type node struct {
	SignedTransfer
	hash     Hash
	parent   *node // nil of the first
	children []*node
	choices  []uint64 // terms of its children of kind resolved, ascending
	root     uint64   // the newest forced term of its ancestry, itself included; 0 if there is none
}

// summary is what a tree says at the moment.
type summary struct {
	heads []*node                          // preferred first
	chain atomic.Pointer[[]SignedTransfer] // the preferred head's ancestry, once somebody wants it
}

func newTree() *tree {
	return &tree{nodes: map[Hash]*node{}, terms: map[uint64]*node{}, leaves: map[*node]struct{}{}}
}

// add puts a transfer that was checked into the tree.
func (t *tree) add(s SignedTransfer) error {
	n := &node{SignedTransfer: s, hash: s.Hash()}
	if old := t.terms[s.Term]; old != nil {
		if old.hash == n.hash {
			return nil
		}
		return fmt.Errorf("two transfers for term %d: %w", s.Term, ErrCorrupt)
	}
	if s.Kind != KindCreated {
		n.parent = t.nodes[s.Prev]
		if n.parent == nil || n.parent.Term >= s.Term {
			return fmt.Errorf("term %d without its parent: %w", s.Term, ErrCorrupt)
		}
		n.parent.children = append(n.parent.children, n)
		if s.Kind == KindResolved {
			at, _ := slices.BinarySearch(n.parent.choices, s.Term)
			n.parent.choices = slices.Insert(n.parent.choices, at, s.Term)
		}
		n.root = n.parent.root
		delete(t.leaves, n.parent)
	}
	if s.Kind.forced() {
		n.root = s.Term
	}
	if s.Kind == KindResolved {
		t.choices = append(t.choices, n)
	}
	if t.top == nil || s.Term > t.top.Term {
		t.top = n
	}
	t.leaves[n] = struct{}{}
	t.nodes[n.hash], t.terms[s.Term] = n, n
	t.sum.Store(nil)
	return nil
}

// byTerm returns all nodes, parents before children.
func (t *tree) byTerm() []*node {
	list := make([]*node, 0, len(t.nodes))
	for _, n := range t.nodes {
		list = append(list, n)
	}
	slices.SortFunc(list, func(a, b *node) int { return cmp.Compare(a.Term, b.Term) })
	return list
}

// ancestry returns n and what came before it, oldest first.
func (n *node) ancestry() []SignedTransfer {
	var list []SignedTransfer
	for ; n != nil; n = n.parent {
		list = append(list, n.SignedTransfer)
	}
	slices.Reverse(list)
	return list
}

// descends says whether a is n or one of its ancestors.
func (n *node) descends(a *node) bool {
	for n != nil && n.Term > a.Term {
		n = n.parent
	}
	return n == a
}

// summary returns what vm's tree says; nil if there is none. The caller holds mu
// or write.
func (d *Directory) summary(vm string) *summary {
	t := d.trees[vm]
	if t == nil || len(t.nodes) == 0 {
		return nil
	}
	if s := t.sum.Load(); s != nil {
		return s
	}
	s := &summary{heads: t.heads(d.isRemoved)}
	t.sum.Store(s)
	return s
}

// preferred returns the head that speaks for the VM, or nil.
func (d *Directory) preferred(vm string) *node {
	if s := d.summary(vm); s != nil {
		return s.heads[0]
	}
	return nil
}

// find returns a transfer of any VM by its hash, or nil.
func (d *Directory) find(h Hash) (*tree, *node) {
	for _, t := range d.trees {
		if n := t.nodes[h]; n != nil {
			return t, n
		}
	}
	return nil, nil
}

// Owner returns the term and the owner of the preferred head; ok is false if the
// VM has no history.
func (d *Directory) Owner(vm string) (term uint64, owner string, ok bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	n := d.preferred(vm)
	if n == nil {
		return 0, "", false
	}
	return n.Term, n.To, true
}

// Orphan says that the owner of the preferred head was removed from the fleet:
// the VM can only be taken over.
func (d *Directory) Orphan(vm string) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	n := d.preferred(vm)
	return n != nil && d.isRemoved(n.To)
}

// Heads returns the ends of the VM's history that count, the preferred one
// first, the others by falling term: more than one is a conflict. What counts is
// told in the package comment.
func (d *Directory) Heads(vm string) []SignedTransfer {
	d.mu.RLock()
	defer d.mu.RUnlock()
	s := d.summary(vm)
	if s == nil {
		return nil
	}
	list := make([]SignedTransfer, len(s.heads))
	for i, n := range s.heads {
		list[i] = n.SignedTransfer
	}
	return list
}

// Chain returns the ancestry of the preferred head, oldest first. Terms in it
// rise, with gaps.
func (d *Directory) Chain(vm string) []SignedTransfer {
	d.mu.RLock()
	defer d.mu.RUnlock()
	s := d.summary(vm)
	if s == nil {
		return nil
	}
	chain := s.chain.Load()
	if chain == nil {
		list := s.heads[0].ancestry()
		chain = &list
		s.chain.Store(chain)
	}
	return slices.Clone(*chain)
}

// History returns all transfers of the VM, also those of sides that were given
// up or are void, by rising term: parents before children.
func (d *Directory) History(vm string) []SignedTransfer {
	d.mu.RLock()
	defer d.mu.RUnlock()
	t := d.trees[vm]
	if t == nil {
		return nil
	}
	var list []SignedTransfer
	for _, n := range t.byTerm() {
		list = append(list, n.SignedTransfer)
	}
	return list
}

// Choices returns the person's choices that count (resolved, by who is in the fleet), whatever has become of the sides that they kept,
// by rising term. What they give up is given up on every device.
func (d *Directory) Choices(vm string) []SignedTransfer {
	d.mu.RLock()
	defer d.mu.RUnlock()
	t := d.trees[vm]
	if t == nil {
		return nil
	}
	life := newLife(d.isRemoved)
	var list []SignedTransfer
	for _, n := range t.choices {
		if life.alive(n) {
			list = append(list, n.SignedTransfer)
		}
	}
	slices.SortFunc(list, func(a, b SignedTransfer) int { return cmp.Compare(a.Term, b.Term) })
	return list
}

// Heeds returns what PutVM would say of choices beside the preferred history now: see VM. The caller owns it.
func (d *Directory) Heeds(vm string) []uint64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if head := d.preferred(vm); head != nil {
		return d.heeds(head)
	}
	return nil
}

func (d *Directory) heeds(head *node) []uint64 {
	var list []uint64
	for _, n := range d.beside(head) {
		list = append(list, n.Term)
	}
	return list[max(0, len(list)-maxHeeds):]
}

// Ancestry returns the transfer and what came before it, oldest first; nil if it
// is unknown.
func (d *Directory) Ancestry(head Hash) []SignedTransfer {
	d.mu.RLock()
	defer d.mu.RUnlock()
	_, n := d.find(head)
	return n.ancestry()
}

// Transfer returns the transfer that began a term, on whatever branch.
func (d *Directory) Transfer(vm string, term uint64) (SignedTransfer, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	t := d.trees[vm]
	if t == nil || t.terms[term] == nil {
		return SignedTransfer{}, false
	}
	return t.terms[term].SignedTransfer, true
}

// Forks returns the transfers that were signed twice, as far as they aren't part
// of the history here.
func (d *Directory) Forks(vm string) []SignedTransfer {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var list []SignedTransfer
	for _, f := range d.forks[vm] {
		if t := d.trees[vm]; t == nil || t.nodes[f.Hash()] == nil {
			list = append(list, f)
		}
	}
	slices.SortFunc(list, func(a, b SignedTransfer) int {
		x, y := a.Hash(), b.Hash()
		return cmp.Or(cmp.Compare(a.Term, b.Term), bytes.Compare(x[:], y[:]))
	})
	return list
}
