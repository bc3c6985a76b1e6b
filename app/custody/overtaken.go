package custody

import (
	"fmt"
	"slices"

	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/vmdisk"
)

// Repeat signs a choice again that the history has overtaken, if this device owns the VM by that history, nothing is under way, and its machine m
// knows all of it. signed says that it did: News has the rest then, as for any choice in favour of what is here. It is to be asked before News. An
// error may pass: ask again. It may be durable then; asked again, the same is signed.
func (c Custody) Repeat(m *baton.Machine) (signed bool, err error) {
	if m.State() != baton.Owned {
		return false, nil
	}
	heads := c.Dir.Heads(c.VM)
	if len(heads) != 1 || heads[0].To != c.Self || heads[0].Term != m.Term() || len(c.Dir.Overtaken(c.VM)) == 0 {
		return false, nil
	}
	pos := heads[0].Position
	if c.Disk != nil {
		pos = directory.Position(c.Disk.Position())
	}
	if _, err := c.Dir.Repeat(c.VM, pos); err != nil {
		return false, fmt.Errorf("repeat a choice that was overtaken: %w", err)
	}
	return true, nil
}

// repeats says that the choice t gives the history h up once more, for what has come of the side that an earlier choice kept over it, of which its
// signer knew: who carries that out goes by the first.
func (c Custody) repeats(t directory.SignedTransfer, h directory.Hash) bool {
	known := uint64(0)
	if a := c.Dir.Ancestry(t.Above); len(a) > 0 {
		known = a[len(a)-1].Term
	}
	return slices.ContainsFunc(c.Dir.Choices(c.VM), func(first directory.SignedTransfer) bool {
		return first.Term <= known && first.Term < t.Term && first.Prev != t.Prev && slices.Contains(first.Over, h) &&
			slices.ContainsFunc(c.Dir.Ancestry(t.Prev), func(a directory.SignedTransfer) bool { return a.Hash() == first.Prev })
	})
}

// ranUnder says that next, which follows the hand-off t, shows that the taker had the VM: it gave it on, or repeated a choice, which only does who owns
// it and has nothing under way.
func (c Custody) ranUnder(t, next directory.SignedTransfer) bool {
	return next.Kind == directory.KindSwitch ||
		next.Kind == directory.KindResolved && next.From == t.To && next.To == t.To && c.repeats(next, next.Over[0])
}

// Unnamed says that the owner's disk is at a position of before a forced transfer of its history, or one that sent the VM back, or at none: whoever gave
// up the terms below that one, or gave its own away without having written, can't take a copy at that position. Name gives it one of its own term.
func (c Custody) Unnamed() bool {
	if c.Disk == nil {
		return false
	}
	info := c.Disk.Info()
	if !info.Active || info.Position.Term == info.Term {
		return false
	}
	return info.Position == vmdisk.Position{} || slices.ContainsFunc(c.Dir.Chain(c.VM), func(t directory.SignedTransfer) bool {
		return t.Kind != directory.KindSwitch && t.Term > info.Position.Term && t.Term <= info.Term
	})
}

// Name names what an unnamed disk holds, before it is told or sent to other devices. Errors: vmdisk's.
func (c Custody) Name() error {
	if !c.Unnamed() {
		return nil
	}
	_, err := c.Disk.Name()
	return err
}
