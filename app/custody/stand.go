package custody

import (
	"slices"

	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
)

// Standing says how this device's disk stands to the VM's history.
type Standing string

// The standings.
const (
	// Behind: all that it holds is in the history that is preferred. It may be overwritten.
	Behind Standing = "behind"
	// Own: it is a side of an undecided conflict, and this device's.
	Own Standing = "own"
	// OtherSide: all that it holds is in another device's side of an undecided conflict.
	OtherSide Standing = "other side"
	// GivenUp: all that it holds is in a side that the person gave up.
	GivenUp Standing = "given up"
	// Beyond: it holds, or may hold, what no known history has.
	Beyond Standing = "beyond"
	// Unknown: the history isn't all here yet.
	Unknown Standing = "unknown"
)

// Stand compares the disk with the history. An owner's disk must be fenced; what it wrote last gets a position first. A disk
// that isn't there, or isn't whole, holds nothing.
func (c Custody) Stand() Standing {
	heads := c.Dir.Heads(c.VM)
	if len(heads) == 0 {
		return Unknown
	}
	if c.Disk == nil || !c.Disk.Info().Complete {
		return Behind
	}
	if c.Disk.Info().Active {
		if err := c.Disk.Flush(); err != nil {
			return Beyond
		}
	}
	pos := directory.Position(c.Disk.Info().Position)
	within := func(h directory.Hash) bool { return c.Dir.Relation(h, pos) == directory.RelationBehind }
	// A side that the person is shown must be there when they choose it, even if it holds nothing of its own.
	if slices.ContainsFunc(heads[1:], func(h directory.SignedTransfer) bool { return h.To == c.Self }) {
		return Own
	}
	switch c.Dir.Relation(heads[0].Hash(), pos) {
	case directory.RelationBehind:
		return Behind
	case directory.RelationUnknown:
		return Unknown
	}
	if slices.ContainsFunc(heads[1:], func(h directory.SignedTransfer) bool { return within(h.Hash()) }) {
		return OtherSide
	}
	standing := Beyond
	for _, t := range c.Dir.Chain(c.VM) {
		if slices.ContainsFunc(t.Over, within) {
			standing = GivenUp
		}
	}
	return standing
}

// Judge answers baton.ActJudge: whether anything here must not be overwritten unasked. busy says that there is a guest, or a
// saved memory. known is false while the history isn't all here: ask again when it has changed.
func (c Custody) Judge(busy bool) (newer, known bool) {
	switch c.Stand() {
	case Unknown:
		return false, false
	case Beyond, Own:
		return true, true
	case GivenUp:
		return busy || c.ownGivenUp(), true
	default:
		return busy, true
	}
}

// ownGivenUp says that what the disk holds is in a given up side of this device's own: it becomes a restore point first.
func (c Custody) ownGivenUp() bool {
	pos := directory.Position(c.Disk.Info().Position)
	for _, t := range c.Dir.Chain(c.VM) {
		for _, h := range t.Over {
			if c.ownerOf(h) == c.Self && c.Dir.Relation(h, pos) == directory.RelationBehind {
				return true
			}
		}
	}
	return false
}

// ownerOf is whose transfer it is, or "".
func (c Custody) ownerOf(h directory.Hash) string {
	if a := c.Dir.Ancestry(h); len(a) > 0 {
		return a[len(a)-1].To
	}
	return ""
}

// chosenAgainst is the newest choice that counts and gave up a side of this device's that began with term after or later; nil
// if there is none.
func (c Custody) chosenAgainst(after uint64) *directory.SignedTransfer {
	var found *directory.SignedTransfer
	for _, t := range c.Dir.Chain(c.VM) {
		for _, h := range t.Over {
			if a := c.Dir.Ancestry(h); len(a) > 0 && a[len(a)-1].To == c.Self && a[len(a)-1].Term >= after {
				found = &t
			}
		}
	}
	return found
}

// News is what the history says that the machine doesn't know yet, if anything: a takeover, a choice, a hand-off that went on.
// It is to be asked after every change of the directory, and after every step of the machine; the machine ignores what it has
// heard before.
func (c Custody) News(m *baton.Machine) (ev baton.Event, news bool) {
	heads := c.Dir.Heads(c.VM)
	if len(heads) == 0 {
		return ev, false
	}
	head := heads[0]
	superseded := baton.Event{Kind: baton.EvSuperseded, Peer: head.To, Term: head.Term}
	switch state := m.State(); state {
	case baton.Replica, baton.Accepting, baton.Loaded:
		if head.To == c.Self {
			return c.newsOfReplica(m.Term(), head)
		}
		return superseded, m.Judging() || c.Stand() == Beyond
	case baton.Given:
		return c.newsOfGiven(m, head, superseded)
	case baton.Taking, baton.Giving:
		return ev, false // it ends at once, or is tried again
	default:
		if head.To == c.Self {
			return c.newsOfOurs(state, m.Term(), head, len(heads) == 1)
		}
		if t := c.chosenAgainst(m.Term()); t != nil {
			return baton.Event{Kind: baton.EvChosen, Peer: head.To, Term: t.Term}, true
		}
		if state == baton.Ousted && c.covered(m.Term()) {
			return baton.Event{Kind: baton.EvChosen, Peer: head.To, Term: head.Term}, true
		}
		return superseded, true
	}
}

// newsOfOurs: the preferred head is this device's, of which an owner or one that was ousted may not know.
func (c Custody) newsOfOurs(state baton.State, term uint64, head directory.SignedTransfer, only bool) (ev baton.Event, news bool) {
	switch {
	case head.Term > term && (head.Kind == directory.KindResolved || head.Kind == directory.KindKept && only) && c.continues(head, term):
		// Chosen by the person, or because the other side's device was removed.
		return baton.Event{Kind: baton.EvChosen, Peer: c.Self, Term: head.Term, Mine: true}, true
	case state == baton.Ousted && only && head.Term <= term && c.Disk != nil:
		// The takeover that ousted us was void. We take the VM from ourselves, so that the term is a new one.
		pos := directory.Position(c.Disk.Info().Position)
		next, err := c.Dir.NextForced(directory.KindTakeover, c.VM, head.Hash(), nil, pos)
		return baton.Event{Kind: baton.EvTakeOver, Peer: c.Self, Term: next, Position: baton.Position(pos)}, err == nil
	}
	return ev, false
}

// continues says that the choice head goes on with what a machine at term holds: not with a side of this device's that it has set aside
// since, after another choice.
func (c Custody) continues(head directory.SignedTransfer, term uint64) bool {
	for _, t := range c.Dir.Ancestry(head.Hash()) {
		if t.To == c.Self && (t.Term == term || t.Kind == directory.KindKept && t.Term > term) {
			return true
		}
	}
	own, ok := c.Dir.Transfer(c.VM, term)
	return ok && own.Kind == directory.KindResolved && own.Prev == head.Prev
}

// newsOfReplica: a side that this device has set aside already was chosen after all, by a choice that counts more. It goes on
// if nothing was written over it yet; else there is the restore point.
func (c Custody) newsOfReplica(term uint64, head directory.SignedTransfer) (ev baton.Event, news bool) {
	if head.Kind != directory.KindResolved || head.Term <= term || c.Disk == nil || !c.Disk.Info().Complete {
		return ev, false
	}
	pos := directory.Position(c.Disk.Info().Position)
	ev = baton.Event{Kind: baton.EvChosen, Peer: c.Self, Term: head.Term, Mine: true}
	return ev, c.Dir.Relation(head.Prev, pos) == directory.RelationBehind
}

// newsOfGiven: what this device gave may have been taken without its hearing of it, or taken over from its taker.
func (c Custody) newsOfGiven(m *baton.Machine, head directory.SignedTransfer, superseded baton.Event) (ev baton.Event, news bool) {
	if head.To == c.Self || head.Term <= m.Term() {
		return ev, false
	}
	chain := c.Dir.Chain(c.VM)
	for i, t := range chain {
		if t.Term != m.Term() || i+1 == len(chain) {
			continue
		}
		if chain[i+1].Kind == directory.KindSwitch {
			// Who gives it on had it, and the guest with it. One that was sent back never ran there.
			return baton.Event{Kind: baton.EvPeerActive, Peer: t.To, Term: t.Term}, true
		}
	}
	if t := c.chosenAgainst(m.Term()); t != nil {
		return baton.Event{Kind: baton.EvChosen, Peer: head.To, Term: t.Term}, true
	}
	return superseded, true
}

// covered says that what this replica had kept, signed as a side of its own, is in a history that is known to hold all of it: another
// side was chosen, or given up, that has it too.
func (c Custody) covered(term uint64) bool {
	kept := false
	for _, t := range c.Dir.History(c.VM) {
		kept = kept || t.Kind == directory.KindKept && t.To == c.Self && t.From != c.Self && t.Term >= term
	}
	if !kept || len(c.Dir.Heads(c.VM)) > 1 {
		return false
	}
	s := c.Stand()
	return s == Behind || s == GivenUp
}

// MayReceive says whether an owner's writes may come into the disk: only into one that holds nothing which the person has
// not seen or given up.
func (c Custody) MayReceive() bool {
	s := c.Stand()
	return s == Behind || s == GivenUp
}
