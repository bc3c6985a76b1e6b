package vmdisk

import (
	"fmt"

	"github.com/zeebo/blake3"
)

// MendUnit is how much is mended at once, in bytes: what is recorded is a hash for each so many, and for the rest at the disk's end.
const MendUnit = hashUnit

// Recorded is the first 16 bytes of the BLAKE3 hash that is recorded of the unit at off, a multiple of MendUnit. ok is false if none
// counts now. Zeros have the hash of zeros. Errors: ErrRange, those of the file of hashes.
func (d *Store) Recorded(off int64) (sum [16]byte, ok bool, err error) {
	n, err := d.unitAt(off)
	if err != nil {
		return sum, false, fmt.Errorf("recorded: %w", err)
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

// unitAt is how long the unit at off is.
func (d *Store) unitAt(off int64) (int64, error) {
	if off < 0 || off >= d.size || off%hashUnit != 0 {
		return 0, fmt.Errorf("unit at %d of %d: %w", off, d.size, ErrRange)
	}
	return min(hashUnit, d.size-off), nil
}

// Mend puts p in the place of the unit at off, durably, if that is what was recorded there and nobody has written to the region since. For the guest and the
// peers nothing changes: it is what the disk has always been. Errors: ErrNotRecorded, ErrMerging (layers above), ErrRange, ErrClosed,
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
	if len(d.stack.layers) > 0 {
		return ErrMerging
	}
	want, ok, err := d.Recorded(off)
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
