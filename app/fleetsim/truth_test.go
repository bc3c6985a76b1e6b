package fleetsim

import (
	"math"

	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/vmdisk"
)

// truth is what an observer who sees everything knows: what the disk was at each position, who signed what, and what the
// guest was told. The checks hold the devices against it.
type truth struct {
	w *world
	// contents is what the disk was at each position.
	contents map[vmdisk.Position]*content
	// transfers that may be durable somewhere, by term.
	transfers map[uint64]directory.SignedTransfer
	// active is the device whose disk was ever written under a term, gave the highest term that a device has given away.
	active map[uint64]string
	gave   map[string]uint64
	// writes by their number, from 1 on.
	writes []write
	// memories are those that were saved, by the number of the write that said so.
	memories map[uint32]*guest
	// promised is, by term, the newest position that a guest was told to be durable.
	promised map[uint64]promise
}

// promise notes that a guest was told so.
func (u *truth) promise(device string, pos vmdisk.Position) {
	if u.promised[pos.Term].pos.Barrier < pos.Barrier {
		u.promised[pos.Term] = promise{device, pos}
	}
}

// write is one of the guest's.
type write struct {
	device string
	term   uint64
}

func newTruth(w *world) *truth {
	return &truth{
		w: w, contents: map[vmdisk.Position]*content{{}: {}}, transfers: map[uint64]directory.SignedTransfer{},
		active: map[uint64]string{}, gave: map[string]uint64{}, writes: make([]write, 1), memories: map[uint32]*guest{},
		promised: map[uint64]promise{},
	}
}

// signed notes the transfers among what a device is about to store.
func (u *truth) signed(d *device, entries map[string][]byte) {
	for _, key := range keysOf(entries) {
		t, ok, err := transferIn(key, entries[key])
		if err != nil {
			u.w.fail("%s: %v", d.id, err)
			return
		}
		if !ok {
			continue
		}
		old, known := u.transfers[t.Term]
		switch {
		case !known:
			u.w.note("%s stores the first copy of transfer %d: %s → %s at %d/%d (%s)", d.id, t.Term, t.From, t.To, t.Position.Term, t.Position.Barrier, t.Kind)
			u.transfers[t.Term] = t
			if t.Record.Writer != d.id {
				u.w.fail("%s knows transfer %d, which %s has never stored", d.id, t.Term, t.Record.Writer)
			}
			p, _ := u.parent(t.Term)
			u.w.linear.signed(t, p.Term)
		case old.Hash() != t.Hash():
			u.w.fail("two transfers of term %d: %s → %s and %s → %s", t.Term, old.From, old.To, t.From, t.To)
		}
		if t.Record.Writer == d.id && t.From == d.id && !isForced(t.Kind) {
			u.gave[d.id] = max(u.gave[d.id], t.Term-1)
		}
	}
}

// parent is the term that a term follows.
func (u *truth) parent(term uint64) (t directory.SignedTransfer, ok bool) {
	t, ok = u.transfers[term]
	if !ok || t.Kind == directory.KindCreated {
		return t, false
	}
	for _, p := range u.transfers {
		if p.Hash() == t.Prev {
			return p, true
		}
	}
	return directory.SignedTransfer{}, false
}

// neverBegun says that the choice t goes on with what the device was given, and never went on with: what it has written itself is older.
func (u *truth) neverBegun(d *device, t directory.SignedTransfer) bool {
	for t, ok := u.parent(t.Term); ok; t, ok = u.parent(t.Term) {
		switch t.Kind {
		case directory.KindResolved, directory.KindKept:
		default:
			return !isForced(t.Kind) && t.To == d.id && u.active[t.Term] == ""
		}
	}
	return false
}

// within says whether the history of the position q went through p: what is at q has all that was at p, or overwrote it.
func (u *truth) within(p, q vmdisk.Position) bool {
	if p == (vmdisk.Position{}) {
		return true
	}
	for q.Term > p.Term {
		t, ok := u.transfers[q.Term]
		if !ok {
			return false
		}
		before := vmdisk.Position(t.Position)
		if t.Kind == directory.KindResolved {
			// The side that was kept went on until it heard of the choice.
			p, ok := u.parent(q.Term)
			if !ok {
				return false
			}
			before = vmdisk.Position{Term: p.Term, Barrier: math.MaxUint64}
			for _, x := range u.transfers { // so did one that somebody else chose again
				if x.Kind == directory.KindResolved && x.Prev == t.Prev && x.Term < t.Term {
					before.Term = max(before.Term, x.Term)
				}
			}
		}
		if before.Term >= q.Term || before.Term == 0 {
			return false
		}
		q = before
	}
	return q.Term == p.Term && p.Barrier <= q.Barrier
}

// forced says whether somebody took the VM over by force between the two terms' common past and either of them.
func (u *truth) forced(a, b uint64) bool {
	seen := map[uint64]bool{}
	for term := a; ; {
		seen[term] = true
		p, ok := u.parent(term)
		if !ok {
			break
		}
		term = p.Term
	}
	common := b
	for !seen[common] {
		if isForced(u.transfers[common].Kind) {
			return true
		}
		p, ok := u.parent(common)
		if !ok {
			return false
		}
		common = p.Term
	}
	for term := a; term != common; {
		if isForced(u.transfers[term].Kind) {
			return true
		}
		p, ok := u.parent(term)
		if !ok {
			return false
		}
		term = p.Term
	}
	return false
}

// note records what the owner's disk is at a barrier.
func (u *truth) at(d *device, pos vmdisk.Position, c *content) {
	if old, ok := u.contents[pos]; ok {
		if *old != *c {
			u.w.fail("position %s stands for two contents at %s: %s", pos, d.id, c.differ(old))
		}
		return
	}
	now := *c
	u.contents[pos] = &now
	u.fits(d, pos, &now)
}
