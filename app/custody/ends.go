package custody

import (
	"slices"

	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/vmdisk"
)

// teachEnds lets the disk know where the terms before ended, by the directory. The giver's word says so too, but it may be lost;
// without it a replica of an earlier term would look as if it had something of its own, and never be brought up to date.
func (c Custody) teachEnds() {
	known := map[uint64]bool{}
	for _, e := range c.Disk.Ends() {
		known[e.Term] = true
	}
	chain := c.Dir.Chain(c.VM)
	var ends []vmdisk.Position
	for limit, i := c.Disk.Position().Term, len(chain)-1; i >= 0; i-- {
		t := chain[i]
		// The content of a term began at its position; terms in between wrote nothing. What a choice says of a position is only
		// shown.
		if t.Term > limit && i < len(chain)-1 || t.Kind == directory.KindResolved {
			continue
		}
		limit = t.Position.Term
		if e := vmdisk.Position(t.Position); e.Term != 0 && !known[e.Term] {
			ends = append(ends, e)
		}
	}
	if len(ends) == 0 {
		return
	}
	slices.Reverse(ends)
	if err := c.Disk.LearnEnds(ends); err != nil {
		c.Log.Warn("Replicas of earlier terms will be compared whole", "error", err)
	}
}
