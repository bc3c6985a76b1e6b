package vmdisk

import (
	"context"
	"fmt"

	"github.com/zeebo/blake3"
)

const hashPiece = 1 << 20

// Hash is a checksum of the whole content, to compare disks: BLAKE3 over the BLAKE3 sums of its 1 MiB pieces, so that
// holes cost nothing. The disk must be complete and at rest: not active or fenced, and without an applier. progress, if
// not nil, is called after each piece. Errors: ErrActive, ErrApplying, ErrIncomplete, those of reading and ctx.
func (d *Store) Hash(ctx context.Context, progress func(done, total int64)) ([32]byte, error) {
	all, one := blake3.New(), blake3.New()
	var zeroSum, sum [32]byte
	piece := make([]byte, hashPiece)
	var zeroLen int64
	for size, off := d.Size(), int64(0); off < size; off += hashPiece {
		n := min(hashPiece, size-off)
		hole, err := d.hashable(off, n)
		if err == nil {
			err = ctx.Err()
		}
		if err == nil && !hole {
			err = d.ReadAt(piece[:n], off)
		}
		if err != nil {
			return [32]byte{}, fmt.Errorf("hash: %w", err)
		}
		if hole || isZero(piece[:n]) {
			if zeroLen != n {
				zeroLen, zeroSum = n, blake3.Sum256(make([]byte, n))
			}
			_, _ = all.Write(zeroSum[:])
		} else {
			one.Reset()
			_, _ = one.Write(piece[:n])
			_, _ = all.Write(one.Sum(sum[:0]))
		}
		if progress != nil {
			progress(off+n, size)
		}
	}
	all.Sum(sum[:0])
	return sum, nil
}

// hashable says whether the disk is at rest, and whether the range is a hole.
func (d *Store) hashable(off, n int64) (bool, error) {
	d.rd.RLock()
	defer d.rd.RUnlock()
	d.mu.Lock()
	err := d.readable()
	switch {
	case err != nil:
	case d.active && !d.fenced:
		err = ErrActive
	case d.applier != nil:
		err = ErrApplying
	case d.hydration.Load() != nil:
		err = ErrHydrating
	}
	d.mu.Unlock()
	if err != nil {
		return false, err
	}
	data, err := d.stack.nextData(off)
	return err == nil && data >= off+n, nil
}
