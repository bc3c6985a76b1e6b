package vmdisk

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
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
	if err := vfs.WriteNew(d.fs, r.name(), seal(set.AppendTo(d.sealed(staleFormat, d.blocks())))); err != nil {
		return fmt.Errorf("store stale set: %w", err)
	}
	return nil
}

// loadStale is the set of r. If it is damaged or gone, every block is taken for stale: more is fetched, but nothing old is
// read.
func (d *Store) loadStale(r staleRef) (*blockset.Set, error) {
	set, err := d.readStale(r)
	if errors.Is(err, ErrMalformed) {
		d.log.Warn("The set of stale blocks is damaged, all blocks will be fetched", "disk", d.id, "file", r.name(), "err", err)
		set = blockset.New(blockset.Most)
		set.Add(0, d.blocks())
		return set, nil
	}
	return set, err
}

// readStale reads the set of r. ErrMalformed says that it is damaged or gone.
func (d *Store) readStale(r staleRef) (*blockset.Set, error) {
	b, blocks, _, err := d.readSealed(r.name(), staleFormat)
	var set *blockset.Set
	if err == nil {
		set, err = decodeBlocks(b, blocks)
	}
	switch {
	case err == nil:
		return set, nil
	case errors.Is(err, ErrWrongDisk), errors.Is(err, blockset.ErrMalformed), errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil, fmt.Errorf("%s: %w", r.name(), err)
}

// StaleIn is what this disk, whose device is called self, lacks of the disk that exported b (ExportDirty): an encoded set for
// SetStale, and the position that it goes with. What isn't known to be here is in it. Errors: ErrMalformed, ErrVersion, ErrWrongDisk,
// and ErrDiverged if this disk is at a position that the other's history doesn't have.
func (d *Store) StaleIn(b []byte, self string) (set []byte, at Position, err error) {
	set, at, err = d.staleIn(b, self)
	if err != nil {
		return nil, Position{}, fmt.Errorf("stale blocks of %s: %w", self, err)
	}
	return set, at, nil
}

func (d *Store) staleIn(b []byte, self string) (set []byte, at Position, err error) {
	if len(b) > maxExport {
		return nil, at, fmt.Errorf("%d bytes: %w", len(b), ErrMalformed)
	}
	b, blocks, version, err := d.unseal(b, exportFormat)
	if err != nil {
		return nil, at, err
	}
	at, ends, sets, err := parseExport(b, blocks, version)
	if err == nil {
		err = d.Reach(blocks * Block)
	}
	if err != nil {
		return nil, at, err
	}
	pos := d.ReplicaState().Position
	if pos == at {
		return nil, at, nil
	}
	for _, s := range sets {
		if s.name == self && pos == s.acked && pos != (Position{}) {
			// Also where it was compared, outside of the other's history: as far as the other's disk goes.
			s.dirty.Add(blocks, d.blocks())
			return s.all(), at, nil
		}
	}
	last := at
	if pos.Term != at.Term {
		i := slices.IndexFunc(ends, func(e Position) bool { return e.Term == pos.Term })
		if last = (Position{}); i >= 0 {
			last = ends[i]
		}
	}
	if pos != (Position{}) && pos.Compare(last) > 0 {
		return nil, at, fmt.Errorf("this disk is at %s, that one came to %s by %s: %w", pos, at, last, ErrDiverged)
	}
	for _, s := range sets {
		if s.name == self && pos.Compare(s.acked) >= 0 {
			return s.all(), at, nil
		}
	}
	all := blockset.New(blockset.Most)
	all.Add(0, d.blocks())
	return all.AppendTo(nil), at, nil
}

// all is what the peer lacks if it gives an unfinished copy up, encoded.
func (s peerSet) all() []byte {
	s.dirty.Or(s.ticked)
	return s.dirty.AppendTo(nil)
}

// readSealed is what a file with sets has inside, in that version of its format.
func (d *Store) readSealed(name string, f format) (inside []byte, blocks int64, version uint32, err error) {
	file, err := d.fs.Open(name)
	if err != nil {
		return nil, 0, 0, err
	}
	// A dirty set is two, and none is bigger than all its chunks in their longest form.
	b, err := readAll(file, 2*blockset.MaxEncoded(d.blocks())+64<<10)
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, 0, 0, err
	}
	if inside, blocks, version, err = d.unseal(b, f); err == nil && blocks > d.blocks() {
		err = fmt.Errorf("%s of %d blocks: %w", name, blocks, ErrWrongDisk)
	}
	return inside, blocks, version, err
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
