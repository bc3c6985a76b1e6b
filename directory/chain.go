package directory

import (
	"fmt"
	"slices"
	"time"
)

// Owner returns the VM's newest term and its owner by the chain; ok is false if
// the VM has none.
func (d *Directory) Owner(vm string) (term uint64, owner string, ok bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	chain := d.chains[vm]
	if len(chain) == 0 {
		return 0, "", false
	}
	last := chain[len(chain)-1]
	return last.Term, last.To, true
}

// Chain returns the VM's transfers from term 1 on.
func (d *Directory) Chain(vm string) []SignedTransfer {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.Clone(d.chains[vm])
}

// Transfer returns the transfer that began a term.
func (d *Directory) Transfer(vm string, term uint64) (SignedTransfer, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	chain := d.chains[vm]
	if term == 0 || term > uint64(len(chain)) {
		return SignedTransfer{}, false
	}
	return chain[term-1], true
}

// Forks returns the transfers that contradict the chain.
func (d *Directory) Forks(vm string) []SignedTransfer {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var list []SignedTransfer
	for _, t := range d.forks[vm] {
		if chain := d.chains[vm]; t.Term > uint64(len(chain)) || chain[t.Term-1].Hash() != t.Hash() {
			list = append(list, t)
		}
	}
	return list
}

// NewCreated signs the first transfer of a new VM, to this device. It stores
// nothing. Errors: ErrInvalid, and Sign's.
func (d *Directory) NewCreated(vm string) (SignedTransfer, error) {
	t, err := d.signTransfer(Transfer{VM: vm, Term: 1, To: d.opt.Self, Kind: KindCreated, At: time.Now().UTC()})
	if err != nil {
		return t, fmt.Errorf("directory: new vm: %w", err)
	}
	return t, nil
}

// NewTransfer signs the transfer of a VM that this device owns to another one.
// It stores nothing: see Give, which signs only once. Errors: ErrNotOwner,
// ErrUnknownDevice, ErrInvalid, and Sign's.
func (d *Directory) NewTransfer(vm, to, attempt string, pos Position, kind Kind) (SignedTransfer, error) {
	d.mu.RLock()
	chain, known := d.chains[vm], d.isMember(to)
	d.mu.RUnlock()
	if !known {
		return SignedTransfer{}, fmt.Errorf("directory: new transfer: %w", ErrUnknownDevice)
	}
	t, err := d.newTransfer(chain, vm, to, attempt, pos, kind)
	if err != nil {
		return t, fmt.Errorf("directory: new transfer: %w", err)
	}
	return t, nil
}

func (d *Directory) newTransfer(chain []SignedTransfer, vm, to, attempt string, pos Position, kind Kind) (SignedTransfer, error) {
	if len(chain) == 0 || chain[len(chain)-1].To != d.opt.Self {
		return SignedTransfer{}, ErrNotOwner
	}
	last := chain[len(chain)-1]
	return d.signTransfer(Transfer{
		VM:       vm,
		Term:     last.Term + 1,
		From:     d.opt.Self,
		To:       to,
		Attempt:  attempt,
		Position: pos,
		Prev:     last.Hash(),
		Kind:     kind,
		At:       time.Now().UTC(),
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
// ErrChain (the chain is not at term-1), ErrUnknownDevice, ErrInvalid, ErrNoSpace, ErrFull, ErrClosed, and
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
	chain := d.chains[vm]
	same := func(t SignedTransfer) bool {
		return t.From == d.opt.Self && t.To == to && t.Attempt == attempt && t.Kind == kind
	}
	if n := uint64(len(chain)); term >= 1 && term <= n {
		if !same(chain[term-1]) {
			return SignedTransfer{}, ErrChain
		}
		return chain[term-1], nil
	} else if term != n+1 {
		return SignedTransfer{}, ErrChain
	}
	key := transferKey(vm, term)
	if t, ok := d.pending[key]; ok {
		if !same(t) {
			return SignedTransfer{}, ErrChain
		}
		return t, nil
	}
	if !d.isMember(to) {
		return SignedTransfer{}, ErrUnknownDevice
	}
	return d.newTransfer(chain, vm, to, attempt, pos, kind)
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
	chain := d.chains[t.VM]
	if t.Term <= uint64(len(chain)) && chain[t.Term-1].Hash() == t.Hash() {
		if len(entries) == 0 {
			return nil
		}
		return d.commit(entries, false)
	}
	if err := d.follows(t); err != nil {
		return err
	}
	if t.Term <= uint64(len(chain)) {
		return d.fork(t)
	}
	if err := d.put(entries, t.Record); err != nil {
		return err
	}
	key := t.Record.Key
	if t.Record.Writer == d.opt.Self {
		if p, ok := d.pending[key]; ok && p.Hash() != t.Hash() {
			return fmt.Errorf("another one may be stored: %w", ErrChain)
		}
		d.pending[key] = t
	}
	if err := d.commit(entries, true); err != nil {
		if !isUnsure(err) {
			delete(d.pending, key)
		}
		return err
	}
	delete(d.pending, key)
	return nil
}

// follows tells whether t is genuine and follows from the transfer before it.
func (d *Directory) follows(t SignedTransfer) error {
	if t.Term > 1 {
		chain := d.chains[t.VM]
		if t.Term-1 > uint64(len(chain)) {
			return fmt.Errorf("term %d after %d: %w", t.Term, len(chain), ErrGap)
		}
		prev := chain[t.Term-2]
		switch {
		case t.Prev != prev.Hash():
			return ErrChain
		case t.From != prev.To:
			return ErrNotOwner
		case t.Kind == KindReturned && t.To != prev.From:
			return ErrChain
		}
	}
	return d.verify(t.Record)
}

// fork keeps a genuine transfer that contradicts ours, and ours, as evidence
// that is sent to everybody.
func (d *Directory) fork(t SignedTransfer) error {
	ours := d.chains[t.VM][t.Term-1]
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
