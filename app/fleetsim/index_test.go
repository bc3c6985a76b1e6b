package fleetsim

import (
	"errors"
	"slices"

	"github.com/zeebo/blake3"

	"tagalong.org/tagalong/app/blockindex"
	"tagalong.org/tagalong/vmdisk"
)

// In the lives in which drives go bad a device may have what is pushed to it already, elsewhere: the person has copied something out of the VM. Where
// it is says the real index of blocks (app/blockindex), which isn't told when it is overwritten there.

const (
	atticPlaces = 6
	atticDisk   = "other"
)

// attic is another disk of a device. It outlives engines.
type attic struct {
	blocks [atticPlaces][vmdisk.Block]byte
	index  blockindex.Index
	seen   map[[32]byte]int // which block was last put where: for who trusts that
}

var errNotThere = errors.New("there is no such block")

func (a *attic) read(disk string, p []byte, off int64) error {
	place := int(off / vmdisk.Block)
	if disk != atticDisk || place >= atticPlaces {
		return errNotThere
	}
	copy(p, a.blocks[place][:])
	return nil
}

// copiesOut has the person copy some of an owner's disk to another device; false if there is nothing to copy.
func (w *world) copiesOut(d *device) bool {
	if !d.e.owner() || d.e.disk == nil || !d.e.disk.Info().Active || d.e.disk.Info().Hydrating || d.fuse.lit {
		return false
	}
	for range 4 {
		p := w.pick(w.others(d))
		if p.attic == nil {
			p.attic = &attic{seen: map[[32]byte]int{}}
		}
		block := windows[w.rng.IntN(2)]/vmdisk.Block + w.rng.Int64N(windowSize/vmdisk.Block)
		place := w.rng.IntN(atticPlaces)
		b := p.attic.blocks[place][:]
		if err := d.e.disk.ReadAt(b, block*vmdisk.Block); err != nil {
			w.trouble(d, "read", err)
			return true
		}
		w.note("%s's block %d is copied to place %d of %s", d.id, block, place, p.id)
		p.attic.index.Learn(atticDisk, int64(place)*vmdisk.Block, b)
		p.attic.seen[blake3.Sum256(b)] = place
	}
	return true
}

// elsewhere is the block p as its receiver has it, if it does.
func (f *mirror) elsewhere(p []byte) ([]byte, bool) {
	a := f.replica.attic
	if a == nil || f.begins() {
		return nil, false
	}
	sum := blake3.Sum256(p)
	if place, ok := a.seen[sum]; ok && f.w.saboteur == trustsTheIndex {
		return slices.Clone(a.blocks[place][:]), true
	}
	look := a.index.Look(true, a.read)
	defer look.Close()
	if look == nil {
		return nil, false
	}
	b, ok := look.Have(sum)
	if ok {
		f.w.acts.elsewhere++
	}
	return slices.Clone(b), ok
}
