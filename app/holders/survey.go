package holders

import (
	"cmp"
	"slices"
	"strings"

	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/blockset"
)

// Survey is where a disk's stale blocks are, as far as that is known. Sizes are in bytes.
type Survey struct {
	// Left is stale. Nobody's is what of that nobody has of those who are there, Held what nobody has of those that may be pulled from.
	Left, Nobodys, Held int64
	// Helpers are devices that aren't there and have some of what nobody has who is; those that have most come first.
	Helpers []string
}

// Look looks where the stale blocks of the owner's disk d are. there are the devices that answer, and of those pull the ones that may be pulled from.
// d must be active.
func Look(d *vmdisk.Store, there, pull []string) Survey {
	left := d.Lacking()
	if left == nil {
		return Survey{}
	}
	nobodys, held := left.Clone(), left.Clone()
	lacks := map[string]*blockset.Set{} // of those who aren't there
	for _, p := range d.Peers() {
		lag, ok := d.Lag(p.Peer)
		if !ok {
			continue
		}
		if lag.Acked != (vmdisk.Position{}) && lag.Acked.Compare(lag.Of) <= 0 {
			set := lagging(lag)
			if slices.Contains(there, p.Peer) {
				nobodys = common(nobodys, set)
			} else {
				lacks[p.Peer] = set
			}
			if slices.Contains(pull, p.Peer) {
				held = common(held, set)
			}
		}
		lag.Release()
	}
	s := Survey{Left: left.Count() * vmdisk.Block, Nobodys: nobodys.Count() * vmdisk.Block, Held: held.Count() * vmdisk.Block}
	has := map[string]int64{}
	for device, set := range lacks {
		if n := nobodys.Count() - common(nobodys, set).Count(); n > 0 {
			has[device] = n
			s.Helpers = append(s.Helpers, device)
		}
	}
	slices.SortFunc(s.Helpers, func(a, b string) int { return cmp.Or(cmp.Compare(has[b], has[a]), strings.Compare(a, b)) })
	return s
}

// lagging is the set of blocks that a device lacks.
func lagging(lag *vmdisk.Lag) *blockset.Set {
	set := blockset.New(blockset.Most)
	for first, n := range lag.Runs() {
		set.Add(int64(first), int64(first+n))
	}
	return set
}

// common is what both sets have.
func common(a, b *blockset.Set) *blockset.Set {
	out := blockset.New(a.Blocks())
	for x, end := range a.Runs() {
		for x = b.Next(x, true); x < end; {
			y := min(end, b.Next(x, false))
			out.Add(x, y)
			x = b.Next(y, true)
		}
	}
	return out
}
