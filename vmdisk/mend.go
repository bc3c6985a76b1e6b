package vmdisk

import (
	"fmt"

	"github.com/zeebo/blake3"
)

// MendUnit is how much is mended at once, in bytes: what is recorded is a hash for each so many, and for the rest at the disk's end.
const MendUnit = hashUnit

// Recorded is the first 16 bytes of the BLAKE3 hash that is recorded of the unit at off, a multiple of MendUnit. ok is false if none
// counts now: where a layer has something, or a block is stale, it isn't of what is read there. Zeros have the hash of zeros. Errors: ErrRange,
// those of the file of hashes.
func (d *Store) Recorded(off int64) (sum [16]byte, ok bool, err error) {
	d.rd.RLock()
	defer d.rd.RUnlock()
	return d.recorded(off)
}

// recorded is Recorded for who holds rd.
func (d *Store) recorded(off int64) (sum [16]byte, ok bool, err error) {
	n, err := d.unitAt(off)
	if err != nil {
		return sum, false, fmt.Errorf("recorded: %w", err)
	}
	if d.covered(off, n) {
		return sum, false, nil
	}
	r, u := uint32(off/regionSize), int(off%regionSize/hashUnit)
	look := d.hashes.watch(r)
	s, _, err := d.hashes.read(r)
	still, derr := d.hashes.done(look, d.al.has, nil)
	if err == nil {
		err = derr
	}
	if err != nil || s == nil || !still {
		return sum, false, err
	}
	if s.data>>u&1 == 0 {
		zeros := blake3.Sum256(make([]byte, n))
		return [unitSum]byte(zeros[:unitSum]), true, nil
	}
	return s.sums[u], true, nil
}

// covered says that some of n bytes at off isn't read from base.raw, or can't be read yet. The caller holds rd.
func (d *Store) covered(off, n int64) bool {
	if d.Stale(off, n) {
		return true
	}
	a, b := off/Block, (off+n+Block-1)/Block
	for _, l := range d.stack.layers {
		if has, to := l.Run(a, b); has || to < b {
			return true
		}
	}
	return false
}

// unitAt is how long the unit at off is.
func (d *Store) unitAt(off int64) (int64, error) {
	if off < 0 || off >= d.Size() || off%hashUnit != 0 {
		return 0, fmt.Errorf("unit at %d of %d: %w", off, d.Size(), ErrRange)
	}
	return min(hashUnit, d.Size()-off), nil
}

// Mend puts p in the place of the unit at off, durably, if that is what was recorded there and nobody has written to the region since. For the guest and the
// peers nothing changes: it is what the disk has always been. Errors: ErrNotRecorded, ErrMerging (a layer has something there, or it is stale), ErrRange, ErrClosed,
// ErrIncomplete, those of the files.
func (d *Store) Mend(p []byte, off int64) error {
	if err := d.mend(p, off); err != nil {
		return fmt.Errorf("mend %d bytes at %d: %w", len(p), off, err)
	}
	d.log.Warn("Damaged content was mended", "disk", d.id, "off", off, "len", len(p))
	return nil
}

func (d *Store) mend(p []byte, off int64) error {
	n, err := d.unitAt(off)
	if err != nil {
		return err
	}
	if int64(len(p)) != n {
		return ErrRange
	}
	// Who writes logs the region before it claims its blocks: while they are claimed here, whoever comes is told from who came before.
	c := d.claims.take(off/Block, (off+n)/Block)
	defer c.release()
	d.rd.RLock()
	defer d.rd.RUnlock()
	if err := d.mayRead(); err != nil {
		return err
	}
	if d.covered(off, n) {
		return ErrMerging
	}
	want, ok, err := d.recorded(off)
	if err != nil {
		return err
	}
	sum := blake3.Sum256(p)
	if !ok || [unitSum]byte(sum[:unitSum]) != want {
		return ErrNotRecorded
	}
	_, err = d.stack.base.WriteAt(p, off)
	if err == nil {
		err = d.stack.base.Sync()
	}
	return d.troubled("mend", err)
}
