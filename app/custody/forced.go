package custody

import (
	"errors"
	"fmt"
	"slices"

	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/vmdisk"
)

// TookOver signs, once, that this device takes the VM over under term with its disk at pos, and writes it with the machine's
// state. ErrNotWritten: it was as if nothing had been tried, for instance because the history is another one by now. One that may have been written is
// written again, whatever has become of the history: it is true if it is there.
func (c Custody) TookOver(term uint64, pos baton.Position, state []byte) error {
	entry := directory.BatonEntry(c.VM, state)
	t, ok := c.Dir.Transfer(c.VM, term)
	if !ok {
		t, ok = c.Dir.InDoubt(c.VM, term)
	}
	if ok && t.To == c.Self && t.Kind == directory.KindTakeover {
		if err := c.Dir.AppendTransfer(t, entry); err != nil {
			return fmt.Errorf("write the takeover again: %w", err)
		}
		return nil
	}
	prev, err := c.takeoverFrom(term, directory.Position(pos))
	if err == nil {
		_, err = c.Dir.TakeOver(c.VM, prev, directory.Position(pos), entry, directory.IfTerm(term))
	}
	if err != nil {
		return unwritten(fmt.Errorf("write the takeover: %w", err))
	}
	return nil
}

// takeoverFrom is the head from which a takeover at pos has this term.
func (c Custody) takeoverFrom(term uint64, pos directory.Position) (directory.Hash, error) {
	for _, h := range c.Dir.Heads(c.VM) {
		if next, err := c.Dir.NextForced(directory.KindTakeover, c.VM, h.Hash(), nil, pos); err == nil && next == term {
			return h.Hash(), nil
		}
	}
	return directory.Hash{}, directory.ErrChain
}

// Kept signs, once, that this device holds something which the preferred history lacks, unless a head of its own says so already, and
// writes it with the machine's state. It returns the term that speaks for what is here.
func (c Custody) Kept(state []byte) (term uint64, err error) {
	pos := directory.Position{}
	if c.Disk != nil {
		if c.Disk.Info().Active {
			if err := c.sealDisk(); err != nil {
				return 0, fmt.Errorf("%w: %w", ErrNotWritten, err)
			}
		}
		pos = directory.Position(c.Disk.Info().Position)
	}
	err = fmt.Errorf("the history of position %d/%d isn't known: %w", pos.Term, pos.Barrier, directory.ErrNotFound)
	beyond := c.Stand() == Beyond
	for _, prev := range c.branches(pos, beyond) {
		var t directory.SignedTransfer
		if t, err = c.Dir.Keep(c.VM, prev, pos, directory.BatonEntry(c.VM, state)); err == nil {
			term = t.Term
			if !beyond || c.Stand() != Beyond {
				return term, nil
			}
			continue // that was said of it once, and speaks for it no more
		}
		if !errors.Is(err, directory.ErrChain) {
			return 0, unwritten(fmt.Errorf("write what is kept: %w", err))
		}
	}
	if term != 0 {
		return term, nil
	}
	return 0, unwritten(fmt.Errorf("write what is kept: %w", err))
}

// branches are the transfers from which what is here may have gone on, the newest first: those to this device, those that it
// signed itself, and that of the term in which its disk was written last, as far as they have all of the disk. If others says so, all others that do follow: a replica's
// may have gone on from any of them.
func (c Custody) branches(pos directory.Position, others bool) []directory.Hash {
	var list, rest []directory.Hash
	for _, t := range slices.Backward(c.Dir.History(c.VM)) {
		h := t.Hash()
		if c.Dir.Relation(h, pos) != directory.RelationBehind {
			continue
		}
		consented := t.From == c.Self && (t.Kind == directory.KindSwitch || t.Kind == directory.KindReturned)
		switch {
		case t.To == c.Self, consented, t.Term == pos.Term:
			list = append(list, h)
		case others:
			rest = append(rest, h)
		}
	}
	return append(list, rest...)
}

// Renew lets the disk go on under term, which this device owns, undisturbed if it is active. Errors: ErrNoDisk, and vmdisk's.
func (c Custody) Renew(term uint64) error {
	if c.Disk == nil {
		return ErrNoDisk
	}
	err := c.Disk.Renew(term)
	if errors.Is(err, vmdisk.ErrInactive) {
		err = c.begin(term, nil)
	}
	return err
}

// Yield makes it durable that the disk is never active again under a term before term, which is another owner's. From then on
// it may be overwritten.
func (c Custody) Yield(term uint64) error {
	if c.Disk == nil || term == 0 {
		return nil
	}
	if err := c.DropStale(); err != nil {
		return err
	}
	return c.giveDisk(term-1, vmdisk.Position{})
}

// DropStale lets a disk that lacks blocks be again what it was before: what it holds beyond that is the winner's too, or is set aside. The caller knows that.
func (c Custody) DropStale() error {
	if !c.Disk.Info().Hydrating {
		return nil
	}
	if c.Disk.Info().Active {
		if err := c.Disk.Fence(); err != nil {
			return err
		}
	}
	_, err := c.Disk.Rollback()
	return err
}
