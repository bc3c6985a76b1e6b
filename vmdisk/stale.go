package vmdisk

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"tagalong.org/tagalong/vmdisk/blockset"
	"tagalong.org/tagalong/vmdisk/vfs"
)

const (
	stalePrefix  = "stale-"
	staleRefSize = 24
)

// staleRef is what the journal says of a disk that isn't whole: the file with the blocks that were stale at first, called
// by its serial number, and the position that the layers below the hydrating ones are.
type staleRef struct {
	serial uint64 // 0: whole
	before Position
}

func newStaleRef(before Position) staleRef {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return staleRef{max(1, binary.LittleEndian.Uint64(b[:])), before}
}

func (r staleRef) name() string { return fmt.Sprintf("%s%016x", stalePrefix, r.serial) }

func (r staleRef) record() record {
	return record{recStale, appendPosition(binary.LittleEndian.AppendUint64(nil, r.serial), r.before)}
}

func parseStaleRef(b []byte) staleRef {
	return staleRef{binary.LittleEndian.Uint64(b), readPosition(b[8:])}
}

// storeStale stores the set of r, durably.
func (d *Store) storeStale(r staleRef, set *blockset.Set) error {
	if err := vfs.WriteNew(d.fs, r.name(), seal(set.AppendTo(d.sealed(staleFormat)))); err != nil {
		return fmt.Errorf("store stale set: %w", err)
	}
	return nil
}

// loadStale is the set of r. If it is damaged or gone, every block is taken for stale: more is fetched, but nothing old is
// read.
func (d *Store) loadStale(r staleRef) (*blockset.Set, error) {
	b, _, err := d.readSealed(r.name(), staleFormat)
	var set *blockset.Set
	if err == nil {
		set, err = blockset.Decode(b, d.blocks)
	}
	switch {
	case err == nil:
		return set, nil
	case errors.Is(err, ErrMalformed), errors.Is(err, ErrWrongDisk), errors.Is(err, blockset.ErrMalformed), errors.Is(err, fs.ErrNotExist):
		d.log.Warn("The set of stale blocks is damaged, all blocks will be fetched", "disk", d.id, "file", r.name(), "err", err)
		set = blockset.New(d.blocks)
		set.Add(0, d.blocks)
		return set, nil
	}
	return nil, fmt.Errorf("%s: %w", r.name(), err)
}

// readSealed is what a file with sets has inside, in that version of its format.
func (d *Store) readSealed(name string, f format) (inside []byte, version uint32, err error) {
	file, err := d.fs.Open(name)
	if err != nil {
		return nil, 0, err
	}
	// A dirty set is two, and none is bigger than all its chunks in their longest form.
	b, err := readAll(file, 2*blockset.MaxEncoded(d.blocks)+64<<10)
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, 0, err
	}
	return d.unseal(b, f)
}

// sweepStale deletes the files of sets that don't count. What can't be deleted only takes space until the disk is opened again.
func (d *Store) sweepStale(names []string, kept staleRef) {
	for _, n := range names {
		if !strings.HasPrefix(n, stalePrefix) || kept.serial != 0 && n == kept.name() {
			continue
		}
		if err := d.fs.Remove(n); err != nil && !errors.Is(err, fs.ErrNotExist) {
			d.log.Warn("The file of a stale set couldn't be deleted", "disk", d.id, "file", n, "err", err)
		}
	}
}
