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
	for _, t := range c.Dir.Choices(c.VM) {
		// What the chosen side had too wasn't given up with the other: it has gone since, by a rollback say.
		if slices.ContainsFunc(t.Over, within) && !within(t.Prev) {
			standing = GivenUp
		}
	}
	return standing
}

// Judge answers baton.ActJudge for a machine at term: whether anything here must not be overwritten unasked. busy says that there is a
// guest, or a saved memory. known is false while the history isn't all here, or a choice against this device isn't heeded yet: ask again
// when the directory has changed.
func (c Custody) Judge(term uint64, busy bool) (newer, known bool) {
	stand := c.Stand()
	switch stand {
	case Unknown:
		return false, false
	case Beyond, Own:
		return true, true
	}
	if t := c.chosenAgainst(term); t != nil && !c.Heeded(*t) {
		return false, false
	}
	return busy || stand == GivenUp && c.ownGivenUp() || stand == OtherSide && c.untaken(), true
}

// ownGivenUp says that what the disk holds is in a given up side of this device's own: it becomes a restore point first.
func (c Custody) ownGivenUp() bool {
	pos := directory.Position(c.Disk.Info().Position)
	for _, t := range c.Dir.Choices(c.VM) {
		for _, h := range t.Over {
			if _, own := c.ownSide(h); own && c.Dir.Relation(h, pos) == directory.RelationBehind {
				return true
			}
		}
	}
	return false
}

// ownSide is the last transfer of a side that this device holds: it is to this device, or by its hand to one that hasn't shown that it took the VM.
func (c Custody) ownSide(h directory.Hash) (last directory.SignedTransfer, own bool) {
	a := c.Dir.Ancestry(h)
	if len(a) == 0 {
		return last, false
	}
	last = a[len(a)-1]
	return last, last.To == c.Self || c.gaveInVain(last)
}

// untaken says that all that the disk holds was given to another device by this one's hand, and nothing shows that it was taken: what is here may be all that there
// is of it.
func (c Custody) untaken() bool {
	pos := directory.Position(c.Disk.Info().Position)
	return slices.ContainsFunc(c.Dir.History(c.VM), func(t directory.SignedTransfer) bool {
		return c.gaveInVain(t) && t.Position == pos
	})
}

// gaveInVain says that this device gave the VM away by t, and nothing shows that it was taken.
func (c Custody) gaveInVain(t directory.SignedTransfer) bool {
	if t.From != c.Self || t.Kind != directory.KindSwitch && t.Kind != directory.KindReturned {
		return false
	}
	if vm, _ := c.Dir.VM(c.VM); vm.Written == t.Term {
		return false
	}
	h := t.Hash()
	return !slices.ContainsFunc(c.Dir.History(c.VM), func(next directory.SignedTransfer) bool {
		return next.Prev == h && next.Record.Writer == t.To
	})
}

// chosenAgainst is the newest choice that counts and gave up a side of this device's that began with term after or later; nil
// if there is none.
func (c Custody) chosenAgainst(after uint64) *directory.SignedTransfer {
	var found *directory.SignedTransfer
	for _, t := range c.Dir.Choices(c.VM) {
		for _, h := range t.Over {
			if last, own := c.ownSide(h); own && last.Term >= after && !c.repeats(t, h) {
				found = &t
			}
		}
	}
	return found
}

// Heeded says that nothing can be chosen any more against the choice t, as far as that is up to the device whose side it keeps. Until
// then that device may choose this one's side, apart, which must be here. (Of three sides the third one's device may still do so.)
func (c Custody) Heeded(t directory.SignedTransfer) bool {
	return len(c.Dir.Heads(c.VM)) == 1 && (t.To == c.Self || c.hasHeardOf(t.To, t))
}

// hasHeardOf says that the device has shown that it knows the choice t, or is no member any more: it has signed that choice, or one
// that gave up what came of it, or what came of it was written or followed there. Of a choice beside the one that counts, of the same side,
// the side's owner says so: nobody else can choose.
func (c Custody) hasHeardOf(device string, t directory.SignedTransfer) bool {
	if t.From == device || !c.Dir.IsMember(device) {
		return true
	}
	vm, _ := c.Dir.VM(c.VM)
	since := false
	for _, next := range c.Dir.Chain(c.VM) {
		consented := next.From == device && (next.Kind == directory.KindSwitch || next.Kind == directory.KindReturned)
		if since && consented {
			return true
		}
		since = since || next.Hash() == t.Hash()
		if since && next.To == device && next.Term == vm.Written {
			return true
		}
	}
	if since {
		return c.Dir.Replicas(c.VM)[device].Position.Term >= t.Term
	}
	if vm.Written == vm.Term && slices.Contains(vm.Heeds, t.Term) {
		return true
	}
	for _, later := range c.Dir.Choices(c.VM) {
		from := func(h directory.Hash) bool {
			return slices.ContainsFunc(c.Dir.Ancestry(h), func(a directory.SignedTransfer) bool { return a.Hash() == t.Hash() })
		}
		if later.Term > t.Term && slices.ContainsFunc(later.Over, from) && c.hasHeardOf(device, later) {
			return true
		}
	}
	return false
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
	case baton.Giving:
		return superseded, c.givesInVain(m, head)
	case baton.Taking:
		return ev, false // it ends at once, or is tried again
	default:
		if head.To == c.Self {
			return c.newsOfOurs(state, m.Term(), head, len(heads) == 1)
		}
		if t := c.chosenAgainst(m.Term()); t != nil && c.Heeded(*t) {
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
	if _, ok := c.Dir.Transfer(c.VM, term); !ok && term > 0 {
		term-- // a transfer that it couldn't write any more when it was superseded: what it holds is what it would have given
	}
	given := false
	for _, t := range c.Dir.Ancestry(head.Hash()) {
		// What it had given, and was given back, is what it holds: nobody had it meanwhile.
		back := given && t.Kind == directory.KindReturned
		if t.To == c.Self && (t.Term == term || back || t.Kind == directory.KindKept && t.Term > term) {
			return true
		}
		given = t.From == c.Self && t.Term == term
	}
	if own, ok := c.Dir.Transfer(c.VM, term); ok && own.Kind == directory.KindResolved && own.Prev == head.Prev {
		return true
	}
	// What was on its way here when it was superseded was never taken, but can be: this device was ready for it.
	t, here := c.given(head.Term, c.Self, false)
	return here && t.Term > term && c.readyFor(t)
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

// givesInVain says that what the machine is writing, and tries again, can't be written any more: the VM is another's, and not by this device's hand. As
// of a taker that sends back what it never ran, and has not heard of a takeover from its giver.
func (c Custody) givesInVain(m *baton.Machine, head directory.SignedTransfer) bool {
	return head.To != c.Self && !slices.ContainsFunc(c.Dir.Chain(c.VM), func(t directory.SignedTransfer) bool {
		return t.From == c.Self && t.Term == m.Term()+1
	})
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
		if c.ranUnder(t, chain[i+1]) {
			// It had the guest with it. One that was sent back never ran there.
			return baton.Event{Kind: baton.EvPeerActive, Peer: t.To, Term: t.Term}, true
		}
	}
	if t := c.chosenAgainst(m.Term()); t != nil && c.Heeded(*t) {
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
	for _, t := range c.Dir.Choices(c.VM) {
		if t.Term >= term && !c.Heeded(t) {
			return false
		}
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
