package vmdisk

import (
	"fmt"

	"github.com/zeebo/blake3"

	"tagalong.org/tagalong/vmdisk/blockset"
)

// Patch is right content for a damaged place of a replica.
type Patch struct {
	// At is the position at which the disk has that content. It counts for a replica only while that is there.
	At Position
	// Off is the unit, a multiple of MendUnit, Content all of it, or of what is left at the disk's end.
	Off     int64
	Content []byte
	// Blocks has a bit for each of its blocks that is to be replaced, the lowest first. What Content has of others doesn't matter.
	Blocks uint16
	// Doubted says that the record isn't to be believed that says that what is there now is right.
	Doubted bool
}

// Patch puts content in the place of what is damaged in a replica, durably: it stays at its position, which is what it should have been all the
// while. Nothing that has a record which holds is replaced by something else, unless that is Doubted: then the region has no record any more. Errors:
// ErrOldPosition (the replica isn't at that position), ErrNotRecorded, ErrActive, ErrHydrating, ErrRange, ErrClosed, ErrIncomplete, syscall.ENOSPC and others
// of the files.
func (d *Store) Patch(p Patch) error {
	err := d.patch(p)
	if err == nil {
		err = d.syncAll()
	}
	if err != nil {
		return fmt.Errorf("patch %d bytes at %d: %w", len(p.Content), p.Off, err)
	}
	d.log.Warn("Damaged content was replaced", "disk", d.id, "off", p.Off, "len", len(p.Content))
	return nil
}

func (d *Store) patch(p Patch) error {
	n, err := d.unitAt(p.Off)
	if err != nil {
		return err
	}
	if int64(len(p.Content)) != n || p.Blocks == 0 || int64(p.Blocks)>>(n/Block) != 0 {
		return ErrRange
	}
	// With rd held nothing moves the replica: epochs, and catch-ups, need it for writing.
	c := d.claims.take(p.Off/Block, (p.Off+n)/Block)
	defer c.release()
	d.rd.RLock()
	defer d.rd.RUnlock()
	if err := d.mayPatch(p.At); err != nil {
		return err
	}
	have := make([]byte, n)
	// What can't be read isn't what was recorded, either: the blocks that stay are zeros then, if they are none of p's.
	readErr := d.stack.readAt(have, p.Off)
	want, recorded, err := d.recorded(p.Off)
	if err != nil {
		return err
	}
	was := blake3.Sum256(have)
	for x := int64(0); x < n; x += Block {
		if p.Blocks>>(x/Block)&1 == 1 {
			copy(have[x:x+Block], p.Content[x:x+Block])
		}
	}
	becomes := blake3.Sum256(have)
	if !recorded || [unitSum]byte(becomes[:unitSum]) != want {
		if recorded && readErr == nil && [unitSum]byte(was[:unitSum]) == want && !p.Doubted {
			return ErrNotRecorded
		}
		region := blockset.New(regionsOf(d.Size()))
		region.Add(p.Off/regionSize, p.Off/regionSize+1)
		if err := d.hashes.forget(region); err != nil {
			return err
		}
	}
	if err := d.room(p.Off, n); err != nil {
		return err
	}
	for x := int64(0); x < n; x += Block {
		if p.Blocks>>(x/Block)&1 == 0 {
			continue
		}
		if err := d.troubled("patch", d.stack.writeAt(have[x:x+Block], p.Off+x)); err != nil {
			return err
		}
	}
	return nil
}

// mayPatch says whether this is a replica at that position. The caller holds rd.
func (d *Store) mayPatch(at Position) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.readable()
	switch {
	case err != nil:
	case d.active:
		err = ErrActive
	case d.hydration.Load() != nil:
		err = ErrHydrating
	case d.position != at:
		err = fmt.Errorf("the replica is at %s, not %s: %w", d.position, at, ErrOldPosition)
	}
	return err
}
