package directory

import (
	"cmp"
	"fmt"
	"slices"
)

// A choice can be overtaken: the side that it keeps was given on meanwhile, with its owner's consent, which counts more. The history goes on at
// the next number then, and the choice's is far above: whoever set its side aside has given up all numbers below the choice's, and would
// refuse the VM's owner. So the owner says the choice again, of what the side is now: every number that was given up is below its own.

// beside returns the choices that count and keep the history of head, but aren't in it, by rising term.
func (d *Directory) beside(head *node) []*node {
	life := newLife(d.isRemoved)
	var list []*node
	for _, n := range d.trees[head.VM].choices {
		if !head.descends(n) && n.parent != nil && head.descends(n.parent) && life.alive(n) {
			list = append(list, n)
		}
	}
	slices.SortFunc(list, func(a, b *node) int { return cmp.Compare(a.Term, b.Term) })
	return list
}

// overtaken are those of a higher term than the VM's history, if there is one.
func (d *Directory) overtaken(vm string) (head *node, choices []*node) {
	s := d.summary(vm)
	if s == nil || len(s.heads) != 1 {
		return nil, nil
	}
	head = s.heads[0]
	return head, slices.DeleteFunc(d.beside(head), func(n *node) bool { return n.Term <= head.Term })
}

// Overtaken returns the choices that keep the VM's history and count, but were overtaken by it, and whose terms are above it, by rising term: see
// Repeat. There is none as long as there is a conflict.
func (d *Directory) Overtaken(vm string) []SignedTransfer {
	d.mu.RLock()
	defer d.mu.RUnlock()
	_, choices := d.overtaken(vm)
	var list []SignedTransfer
	for _, n := range choices {
		list = append(list, n.SignedTransfer)
	}
	return list
}

// Repeat signs the choices again that Overtaken tells of, as one, for the history as it is now, which this device owns at pos. How and
// Name are those of the newest; of more than 16 sides the ones that were given up last are named. Otherwise as Resolve. ErrChain: there is nothing to
// repeat; ErrNotOwner.
func (d *Directory) Repeat(vm string, pos Position, with ...Entry) (SignedTransfer, error) {
	d.write.Lock()
	defer d.write.Unlock()
	s, err := d.repeated(vm, pos)
	if err == nil {
		err = d.appendTransfer(s, with)
	}
	if err != nil {
		return SignedTransfer{}, fmt.Errorf("directory: repeat a choice: %w", err)
	}
	return s, nil
}

func (d *Directory) repeated(vm string, pos Position) (SignedTransfer, error) {
	head, choices := d.overtaken(vm)
	switch {
	case len(choices) == 0:
		return SignedTransfer{}, fmt.Errorf("none was overtaken: %w", ErrChain)
	case head.To != d.opt.Self:
		return SignedTransfer{}, ErrNotOwner
	}
	last := choices[len(choices)-1]
	t := Transfer{Kind: KindResolved, VM: vm, Prev: head.hash, Position: pos, How: last.How, Name: last.Name}
	for _, n := range slices.Backward(choices) {
		for _, h := range n.Over {
			if !slices.Contains(t.Over, h) && len(t.Over) < maxOver {
				t.Over = append(t.Over, h)
			}
		}
	}
	t.Over = sortedHashes(t.Over)
	return d.forced(t, d.givenUp)
}
