package directory

import (
	"errors"
	"fmt"
)

// NewCreated signs the first transfer of a new VM, to this device. It stores
// nothing. Errors: ErrInvalid, and Sign's.
func (d *Directory) NewCreated(vm string) (SignedTransfer, error) {
	t, err := d.signTransfer(Transfer{VM: vm, Term: 1, To: d.opt.Self, Kind: KindCreated, At: d.now().UTC()})
	if err != nil {
		return t, fmt.Errorf("directory: new vm: %w", err)
	}
	return t, nil
}

// NewTransfer signs the transfer of a VM whose preferred head this device owns
// to another one. It stores nothing: see Give, which signs only once. Errors:
// ErrNotOwner, ErrUnknownDevice, ErrInvalid, and Sign's.
func (d *Directory) NewTransfer(vm, to, attempt string, pos Position, kind Kind) (SignedTransfer, error) {
	d.mu.RLock()
	head, known := d.preferred(vm), d.isMember(to)
	d.mu.RUnlock()
	if !known {
		return SignedTransfer{}, fmt.Errorf("directory: new transfer: %w", ErrUnknownDevice)
	}
	t, err := d.newTransfer(head, to, attempt, pos, kind)
	if err != nil {
		return t, fmt.Errorf("directory: new transfer: %w", err)
	}
	return t, nil
}

func (d *Directory) newTransfer(head *node, to, attempt string, pos Position, kind Kind) (SignedTransfer, error) {
	if head == nil || head.To != d.opt.Self {
		return SignedTransfer{}, ErrNotOwner
	}
	if !kind.consented() {
		return SignedTransfer{}, fmt.Errorf("kind %q: %w", kind, ErrInvalid)
	}
	return d.signTransfer(Transfer{
		VM:       head.VM,
		Term:     head.Term + 1,
		From:     d.opt.Self,
		To:       to,
		Attempt:  attempt,
		Position: pos,
		Prev:     head.hash,
		Kind:     kind,
		At:       d.now().UTC(),
	})
}

func (d *Directory) signTransfer(t Transfer) (SignedTransfer, error) {
	if err := t.check(); err != nil {
		return SignedTransfer{}, err
	}
	value, err := encodeValue(t)
	if err != nil {
		return SignedTransfer{}, err
	}
	r, err := d.sign(transferKey(t.VM, t.Term), transferVersion(value), value)
	if err != nil {
		return SignedTransfer{}, err
	}
	return readTransfer(r)
}

// Give signs the transfer that begins term, and stores it together with the
// entries in one commit. Called again for the same receiver and attempt, it
// returns the same transfer, and stores the entries. Errors: ErrNotOwner,
// ErrChain (the preferred head isn't at term-1), ErrUnknownDevice, ErrInvalid, ErrNoSpace, ErrFull, ErrClosed, and
// Sign's mean that nothing was written; ErrUnsure that it may have been.
func (d *Directory) Give(vm string, term uint64, to, attempt string, pos Position, kind Kind, with ...Entry) (SignedTransfer, error) {
	d.write.Lock()
	defer d.write.Unlock()
	t, err := d.given(vm, term, to, attempt, pos, kind)
	if err == nil {
		err = d.appendTransfer(t, with)
	}
	if err != nil {
		return SignedTransfer{}, fmt.Errorf("directory: give term %d: %w", term, err)
	}
	return t, nil
}

// given returns the transfer to store: an earlier one, or a new one.
func (d *Directory) given(vm string, term uint64, to, attempt string, pos Position, kind Kind) (SignedTransfer, error) {
	same := func(t SignedTransfer) bool {
		return t.From == d.opt.Self && t.To == to && t.Attempt == attempt && t.Kind == kind
	}
	tree := d.trees[vm]
	if tree == nil {
		return SignedTransfer{}, ErrNotOwner
	}
	if n := tree.terms[term]; n != nil {
		if !same(n.SignedTransfer) {
			return SignedTransfer{}, ErrChain
		}
		return n.SignedTransfer, nil
	}
	head := d.preferred(vm)
	if head.To != d.opt.Self {
		return SignedTransfer{}, ErrNotOwner
	}
	if term != head.Term+1 {
		return SignedTransfer{}, ErrChain
	}
	if t, ok := d.pending[transferKey(vm, term)]; ok {
		if !same(t) {
			return SignedTransfer{}, ErrChain
		}
		return t, nil
	}
	if !d.isMember(to) {
		return SignedTransfer{}, ErrUnknownDevice
	}
	return d.newTransfer(head, to, attempt, pos, kind)
}

// AppendTransfer verifies a transfer and stores it together with the entries in
// one commit. One that is known already is no error, and the entries are stored.
// Errors: ErrSignature, ErrGap, ErrChain, ErrNotOwner, ErrFork (kept aside, the
// entries are not stored), ErrFull, ErrInvalid, ErrNoSpace, ErrUnsure, ErrClosed.
func (d *Directory) AppendTransfer(t SignedTransfer, with ...Entry) error {
	t, err := readTransfer(t.Record)
	if err != nil {
		return fmt.Errorf("directory: append: %w", err)
	}
	d.write.Lock()
	defer d.write.Unlock()
	if err := d.appendTransfer(t, with); err != nil {
		return fmt.Errorf("directory: append: %w", err)
	}
	return nil
}

func (d *Directory) appendTransfer(t SignedTransfer, with []Entry) error {
	entries := map[string][]byte{}
	if err := d.putLocal(entries, with...); err != nil {
		return err
	}
	for _, e := range with {
		if e.term != 0 && e.term != t.Term {
			return fmt.Errorf("term %d, not %d: %w", t.Term, e.term, ErrChain)
		}
	}
	tree := d.trees[t.VM]
	if tree == nil {
		tree = newTree()
	}
	if tree.nodes[t.Hash()] != nil {
		if len(entries) == 0 {
			return nil
		}
		return d.commit(entries, false)
	}
	if err := d.follows(tree, t); err != nil {
		return err
	}
	if tree.terms[t.Term] != nil {
		return d.fork(t)
	}
	if err := d.put(entries, t.Record); err != nil {
		return err
	}
	key := t.Record.Key
	p, doubt := d.pending[key]
	if t.Record.Writer == d.opt.Self {
		if doubt && p.Hash() != t.Hash() {
			return fmt.Errorf("another one may be stored: %w", ErrChain)
		}
		d.pending[key] = t
	}
	if err := d.commit(entries, true); err != nil {
		if !isUnsure(err) && !doubt { // what may have been stored before still may
			delete(d.pending, key)
		}
		return err
	}
	delete(d.pending, key)
	return nil
}

// follows tells whether t is genuine and follows from what it names. ErrGap is
// no lie: what is missing may still come.
func (d *Directory) follows(tree *tree, t SignedTransfer) error {
	if t.Kind != KindCreated {
		p := tree.nodes[t.Prev]
		if p == nil {
			return d.withoutParent(tree, t)
		}
		if err := d.fits(tree, p, t); err != nil {
			return err
		}
	}
	return d.verify(t.Record)
}

// withoutParent says why the transfer that t names isn't known.
func (d *Directory) withoutParent(tree *tree, t SignedTransfer) error {
	if _, n := d.find(t.Prev); n != nil {
		return fmt.Errorf("it follows from another vm's: %w", ErrChain)
	}
	if !t.Kind.forced() && tree.terms[t.Term-1] != nil {
		return fmt.Errorf("it follows from another term %d: %w", t.Term-1, ErrFork)
	}
	return fmt.Errorf("what term %d follows from: %w", t.Term, ErrGap)
}

// fits checks t by the rules of its kind; p is the transfer that it names.
func (d *Directory) fits(tree *tree, p *node, t SignedTransfer) error {
	if t.Kind != KindResolved && t.From != p.To {
		return ErrNotOwner
	}
	switch t.Kind {
	case KindReturned:
		if !p.Kind.consented() || t.To != p.From {
			return ErrChain
		}
	case KindResolved:
		if err := d.fitsChoice(tree, p, t); err != nil {
			return err
		}
	}
	want := p.Term + 1
	if t.Kind.forced() {
		if (t.Above != Hash{}) && tree.nodes[t.Above] == nil {
			return fmt.Errorf("what it is above: %w", ErrGap)
		}
		if t.Position.Term != 0 && tree.terms[t.Position.Term] == nil {
			return fmt.Errorf("its position's term %d: %w", t.Position.Term, ErrGap)
		}
		want = tree.forcedTerm(p, t.Transfer)
	}
	if t.Term != want {
		return fmt.Errorf("term %d, not %d: %w", t.Term, want, ErrChain)
	}
	if t.Kind == KindKept && !p.contested() {
		return fmt.Errorf("what it is kept from: %w", ErrGap)
	}
	return nil
}

// contested says that n has a child that isn't kept: from that, something may be
// kept.
func (n *node) contested() bool {
	for _, c := range n.children {
		if c.Kind != KindKept {
			return true
		}
	}
	return false
}

// fitsChoice checks what a resolved gives up, and that its signer had a side.
func (d *Directory) fitsChoice(tree *tree, p *node, t SignedTransfer) error {
	side := t.From == p.To
	for _, h := range t.Over {
		n := tree.nodes[h]
		if n == nil {
			if _, other := d.find(h); other != nil {
				return fmt.Errorf("over another vm's: %w", ErrChain)
			}
			return fmt.Errorf("what it gives up: %w", ErrGap)
		}
		if n.descends(p) || p.descends(n) {
			return fmt.Errorf("over its own history: %w", ErrChain)
		}
		side = side || t.From == n.To
	}
	if !side || t.To != p.To {
		return ErrNotOwner
	}
	return nil
}

// fork keeps a genuine transfer that contradicts ours, and ours, as evidence
// that is sent to everybody.
func (d *Directory) fork(t SignedTransfer) error {
	ours := d.trees[t.VM].terms[t.Term].SignedTransfer
	entries := map[string][]byte{}
	for _, x := range []SignedTransfer{ours, t} {
		r, err := forkRecord(x)
		if err != nil {
			return err
		}
		if _, ok := d.records[r.Key]; ok {
			continue
		}
		if len(d.forks[t.VM])+len(entries) >= maxForks {
			return fmt.Errorf("forks of one vm: %w", ErrFull)
		}
		if err := d.put(entries, r); err != nil {
			return err
		}
	}
	if len(entries) > 0 {
		if err := d.commit(entries, true); err != nil {
			return err
		}
		d.log.Error("Two transfers for one term", "vm", t.VM, "term", t.Term, "ours", ours.To, "other", t.To)
	}
	return fmt.Errorf("term %d of %s: %w", t.Term, t.VM, ErrFork)
}

// applyFork takes evidence in that another device has found.
func (d *Directory) applyFork(r Record) error {
	if _, ok := d.records[r.Key]; ok {
		return nil
	}
	t, err := readFork(r)
	if err != nil {
		return err
	}
	tree := d.trees[t.VM]
	if tree == nil || tree.terms[t.Term] == nil {
		return ErrGap
	}
	if tree.nodes[t.Hash()] != nil {
		return nil // only ours; what contradicts it comes as a record of its own
	}
	if err := d.follows(tree, t); err != nil {
		return err
	}
	if err := d.fork(t); !errors.Is(err, ErrFork) {
		return err
	}
	return nil
}

func isUnsure(err error) bool { return errors.Is(err, ErrUnsure) }
