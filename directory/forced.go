package directory

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/zeebo/blake3"
)

// Terms of forced transfers leave a gap, in which the owner before may go on
// handing over without knowing, and are spread, so that two devices which take
// over apart don't write under one number.
const (
	forcedGap    = 256
	forcedSpread = 1 << 18
)

const forcedDomain = "tagalong forced term v1"

// forcedTerm returns the term that x, which follows from p, has to have: above
// every term that it names. All that it names is known.
func (t *tree) forcedTerm(p *node, x Transfer) uint64 {
	sum := blake3.New()
	part := func(b []byte) {
		_, _ = sum.Write(binary.BigEndian.AppendUint32(nil, uint32(len(b))))
		_, _ = sum.Write(b)
	}
	for _, s := range []string{forcedDomain, string(x.Kind), x.From, x.To} {
		part([]byte(s))
	}
	part(x.Prev[:])
	part(x.Above[:])
	for _, h := range x.Over {
		part(h[:])
	}
	return t.named(p, x) + forcedGap + binary.BigEndian.Uint64(sum.Sum(nil))%forcedSpread
}

// named returns the highest term that x names.
func (t *tree) named(p *node, x Transfer) uint64 {
	top := max(p.Term, x.Position.Term)
	if n := t.nodes[x.Above]; n != nil {
		top = max(top, n.Term)
	}
	for _, h := range x.Over {
		top = max(top, t.nodes[h].Term)
	}
	return top
}

// NextForced returns the term that TakeOver, Keep or Resolve (by kind) would
// sign for these arguments at this moment, or have signed: see IfTerm. Errors: ErrNotFound (prev or one of
// over is unknown), ErrInvalid.
func (d *Directory) NextForced(kind Kind, vm string, prev Hash, over []Hash, pos Position) (uint64, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	fail := func(err error) (uint64, error) { return 0, fmt.Errorf("directory: next term: %w", err) }
	t := Transfer{Kind: kind, VM: vm, Prev: prev, Over: sortedHashes(over), Position: pos}
	tree, p, err := d.parent(vm, prev)
	if err != nil {
		return fail(err)
	}
	for _, h := range over {
		if tree.nodes[h] == nil {
			return fail(ErrNotFound)
		}
	}
	if !kind.forced() {
		return fail(ErrInvalid)
	}
	if kind == KindKept && d.isHead(p) {
		return p.Term, nil
	}
	if n := d.signed(p, t); n != nil {
		return n.Term, nil
	}
	d.fill(&t, tree, p)
	return tree.forcedTerm(p, t), nil
}

// TakeOver signs that this device takes the VM from the owner of prev, one of
// its heads, with a replica at pos, and stores that together with the entries in
// one commit. Called again for the same head it returns the same transfer, and
// stores the entries. Errors: ErrNotFound (prev is unknown), ErrChain (it isn't a
// head any more), ErrGap (pos's term is unknown), ErrInvalid, ErrNoSpace, ErrFull, ErrClosed, and Sign's mean
// that nothing was written; ErrUnsure that it may have been.
func (d *Directory) TakeOver(vm string, prev Hash, pos Position, with ...Entry) (SignedTransfer, error) {
	return d.force(Transfer{Kind: KindTakeover, VM: vm, Prev: prev, Position: pos}, with)
}

// Keep signs that this device holds, at pos, what a takeover from prev doesn't
// have: prev is this device's own last transfer, or, of a replica, the one from
// which the takeover came. If prev is a head, it speaks for itself already: it
// is returned, nothing is signed, and the entries are stored. Otherwise as
// TakeOver, with ErrChain: there is nothing it could be kept from, or it was given up.
func (d *Directory) Keep(vm string, prev Hash, pos Position, with ...Entry) (SignedTransfer, error) {
	return d.force(Transfer{Kind: KindKept, VM: vm, Prev: prev, Position: pos}, with)
}

// Resolve signs the person's choice: the history that ends in keep goes on under
// its owner, those that end in over (1 to 16) are given up; all are heads, and this device owns one of them. pos is
// what is known of the kept side's position; how and name (at most 32 and 256 bytes) are for who carries it out.
// Otherwise as TakeOver; ErrNotOwner: this device has no side.
func (d *Directory) Resolve(vm string, keep Hash, over []Hash, pos Position, how, name string, with ...Entry) (SignedTransfer, error) {
	return d.force(Transfer{Kind: KindResolved, VM: vm, Prev: keep, Over: sortedHashes(over), Position: pos, How: how, Name: name}, with)
}

func sortedHashes(list []Hash) []Hash {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b Hash) int { return bytes.Compare(a[:], b[:]) })
	return list
}

func (d *Directory) force(t Transfer, with []Entry) (SignedTransfer, error) {
	d.write.Lock()
	defer d.write.Unlock()
	s, err := d.forced(t, d.isHead)
	if err == nil {
		err = d.appendTransfer(s, with)
	}
	if err != nil {
		return SignedTransfer{}, fmt.Errorf("directory: %s: %w", t.Kind, err)
	}
	return s, nil
}

// parent finds the transfer that a forced one follows from.
func (d *Directory) parent(vm string, prev Hash) (*tree, *node, error) {
	tree := d.trees[vm]
	if tree == nil || tree.nodes[prev] == nil {
		return nil, nil, fmt.Errorf("what it follows from: %w", ErrNotFound)
	}
	return tree, tree.nodes[prev], nil
}

// fill says who signs t, from whom, to whom, and above what.
func (d *Directory) fill(t *Transfer, tree *tree, p *node) {
	t.From, t.To = p.To, d.opt.Self
	if t.Kind == KindResolved {
		t.From, t.To = d.opt.Self, p.To
	}
	if tree.top.Term > tree.named(p, *t) {
		t.Above = tree.top.hash
	}
}

// signed returns the transfer that this device has signed for the same, or nil.
func (d *Directory) signed(p *node, t Transfer) *node {
	for _, c := range p.children {
		if c.Record.Writer == d.opt.Self && c.Kind == t.Kind && slices.Equal(c.Over, t.Over) {
			return c
		}
	}
	return nil
}

func (d *Directory) isHead(n *node) bool { return slices.Contains(d.summary(n.VM).heads, n) }

// forced returns the transfer to store: an earlier one, or a new one. may says what it may give up.
func (d *Directory) forced(t Transfer, may func(*node) bool) (SignedTransfer, error) {
	tree, p, err := d.parent(t.VM, t.Prev)
	if err != nil {
		return SignedTransfer{}, err
	}
	if n := d.signed(p, t); n != nil {
		return n.SignedTransfer, nil
	}
	for _, s := range d.pending {
		if s.Kind == t.Kind && s.Prev == t.Prev && slices.Equal(s.Over, t.Over) {
			return s, nil
		}
	}
	switch {
	case t.Kind == KindKept && d.isHead(p) && p.To == d.opt.Self:
		return p.SignedTransfer, nil
	case t.Kind == KindKept && (!p.contested() || d.givenUp(p)):
		return SignedTransfer{}, fmt.Errorf("nothing to keep: %w", ErrChain)
	case t.Kind != KindKept && !d.isHead(p):
		return SignedTransfer{}, fmt.Errorf("no head: %w", ErrChain)
	}
	for _, h := range t.Over {
		if n := tree.nodes[h]; n == nil {
			return SignedTransfer{}, fmt.Errorf("what is given up: %w", ErrNotFound)
		} else if !may(n) {
			return SignedTransfer{}, fmt.Errorf("what is given up is no head: %w", ErrChain)
		}
	}
	d.fill(&t, tree, p)
	t.Term, t.At = tree.forcedTerm(p, t), d.now().UTC()
	s, err := d.signTransfer(t)
	if err != nil {
		return SignedTransfer{}, err
	}
	return s, d.fits(tree, p, s)
}

// InDoubt returns the transfer of term that this device has signed and tried to store, of which nobody knows whether that worked (ErrUnsure):
// AppendTransfer stores it for certain.
func (d *Directory) InDoubt(vm string, term uint64) (SignedTransfer, bool) {
	d.write.Lock()
	defer d.write.Unlock()
	t, ok := d.pending[transferKey(vm, term)]
	return t, ok
}

// GivenUp says that the person has chosen against the history that ends in h,
// or against another one that has all that h keeps.
func (d *Directory) GivenUp(h Hash) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	_, n := d.find(h)
	return n != nil && d.givenUp(n)
}

func (d *Directory) givenUp(n *node) bool {
	t := d.trees[n.VM]
	life := newLife(d.isRemoved)
	over := life.givenUp(t)
	if over[n.hash] || !t.subsumed(n, life) {
		return over[n.hash]
	}
	// In any order of arrival, one of several that have all of it is enough.
	has := func(c *node) bool {
		return c != n && over[c.hash] && t.coverage([]*node{c, n}, life).has(n)
	}
	return slices.ContainsFunc(n.parent.children, has)
}
