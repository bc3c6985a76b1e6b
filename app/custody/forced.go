package custody

import (
	"errors"
	"fmt"

	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/vmdisk"
)

// TookOver signs, once, that this device takes the VM over under term with its disk at pos, and writes it with the machine's
// state. ErrNotWritten: it was as if nothing had been tried, for instance because the history is another one by now.
func (c Custody) TookOver(term uint64, pos baton.Position, state []byte) error {
	entry := directory.BatonEntry(c.VM, state)
	if t, ok := c.Dir.Transfer(c.VM, term); ok && t.To == c.Self && t.Kind == directory.KindTakeover {
		if err := c.Dir.AppendTransfer(t, entry); err != nil {
			return fmt.Errorf("write the takeover again: %w", err)
		}
		return nil
	}
	prev, err := c.takeoverFrom(term, directory.Position(pos))
	if err == nil {
		_, err = c.Dir.TakeOver(c.VM, prev, directory.Position(pos), entry)
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
		pos = directory.Position(c.Disk.Info().Position)
	}
	prev, ok := c.branch(pos)
	if !ok {
		return 0, fmt.Errorf("%w: the history of position %d/%d isn't known", ErrNotWritten, pos.Term, pos.Barrier)
	}
	t, err := c.Dir.Keep(c.VM, prev, pos, directory.BatonEntry(c.VM, state))
	if err != nil {
		return 0, unwritten(fmt.Errorf("write what is kept: %w", err))
	}
	return t.Term, nil
}

// branch is the transfer from which what is here went on: the last one by which this device was the owner, if it never gave
// that away, else the one of the term in which its disk was written last.
func (c Custody) branch(pos directory.Position) (directory.Hash, bool) {
	history := c.Dir.History(c.VM)
	given := map[directory.Hash]bool{}
	for _, t := range history {
		if t.From == c.Self && (t.Kind == directory.KindSwitch || t.Kind == directory.KindReturned) {
			given[t.Prev] = true
		}
	}
	found, ok := directory.Hash{}, false
	for _, t := range history {
		own := t.To == c.Self && !given[t.Hash()] && t.Term >= pos.Term
		if own || t.Term == pos.Term {
			found, ok = t.Hash(), true
		}
	}
	return found, ok
}

// Renew lets the disk go on under term, which this device owns, undisturbed if it is active. Errors: ErrNoDisk, and vmdisk's.
func (c Custody) Renew(term uint64) error {
	if c.Disk == nil {
		return ErrNoDisk
	}
	err := c.Disk.Renew(term)
	if errors.Is(err, vmdisk.ErrInactive) {
		err = c.Disk.Activate(term)
	}
	return err
}

// Yield makes it durable that the disk is never active again under a term before term, which is another owner's. From then on
// it may be overwritten.
func (c Custody) Yield(term uint64) error {
	if c.Disk == nil || term == 0 {
		return nil
	}
	return c.giveDisk(term - 1)
}
