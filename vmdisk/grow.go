package vmdisk

import (
	"fmt"

	"tagalong.org/tagalong/vmdisk/layer"
)

// GrowUnit is what the size of a disk that was made larger is a multiple of, in bytes.
const GrowUnit = 1 << 20

// What a disk holds is a function of its position alone: beyond the end of a disk there are zeros, and the size only says how much of them can be
// addressed. So growing changes no content, gives no new position, needs no barrier, and makes no peer lack anything that is known to be of the disk's history. A
// replica that is smaller than its owner's disk must grow before it is compared or fed (ErrSize). One that is larger (of a side of a fork that had grown, say) makes
// zeros of what it has beyond its owner's end, with the first that it applies (Applier.Within).

// Resize makes the disk larger: bytes in all, a multiple of GrowUnit. What is new are zeros and takes no space. Any open disk can grow, also one that
// a guest writes, that hydrates, or is applied to; reads and writes go on, flushes and barriers wait for a few syncs. It is durable when it returns; after a crash before, it has the one
// size or the other. Cuts that are open keep their size; feeds and comparisons end, and peers attach again when they have grown too. To the size that it has, the
// disk is not changed. Errors: ErrShrink, ErrRange (no multiple, or more than MaxSize), ErrClosed, ErrFailed, syscall.ENOSPC,
// syscall.EFBIG and others of the files; then the disk is as it was.
func (d *Store) Resize(bytes int64) error {
	d.role.Lock()
	defer d.role.Unlock()
	size := d.Size()
	var err error
	switch {
	case bytes < size:
		err = fmt.Errorf("from %d: %w", size, ErrShrink)
	case bytes > size && bytes%GrowUnit != 0:
		err = ErrRange
	default:
		err = d.reach(bytes)
	}
	if err != nil {
		return fmt.Errorf("resize disk to %d bytes: %w", bytes, err)
	}
	return nil
}

// Reach is Resize to the size of a peer's disk, whatever that is a multiple of, if this one is smaller.
func (d *Store) Reach(bytes int64) error {
	d.role.Lock()
	defer d.role.Unlock()
	if err := d.reach(bytes); err != nil {
		return fmt.Errorf("grow disk to %d bytes: %w", bytes, err)
	}
	return nil
}

// reach is Reach for who holds role.
func (d *Store) reach(bytes int64) error {
	if bytes <= d.Size() {
		return nil
	}
	if err := checkSize(bytes); err != nil {
		return err
	}
	d.mu.Lock()
	a := d.applier
	d.mu.Unlock()
	if a != nil {
		a.mu.Lock() // no epoch is ended, and no layer comes or goes
		defer a.mu.Unlock()
	}
	d.saveMu.Lock()
	defer d.saveMu.Unlock()
	d.syncMu.Lock()
	defer d.syncMu.Unlock()
	if err := d.broken(); err != nil {
		return err
	}
	before := d.Size()
	if err := d.growFiles(before, bytes); err != nil {
		return err
	}
	if err := d.growStack(bytes); err != nil {
		return d.failed("grow", err)
	}
	// The regions that it was touched for have no hashes; from now on they may.
	if err := d.hashes.settle(); err != nil {
		return err
	}
	d.log.Info("Disk is larger", "disk", d.id, "from", before, "bytes", bytes)
	return nil
}

// growFiles makes the size durable. base.raw comes first, which the journal has announced; nothing else knows of the size until the journal says it. The
// caller holds syncMu.
func (d *Store) growFiles(before, bytes int64) error {
	for _, l := range d.allLayers() {
		if err := l.Renew(); err != nil {
			return d.troubled("grow", err)
		}
	}
	if err := d.record(growingRecord(bytes)); err != nil {
		return d.troubled("grow", err)
	}
	err := d.stack.base.Truncate(bytes)
	if err == nil {
		if err := d.stack.base.Sync(); err != nil {
			return d.failed("sync "+baseName, err)
		}
		if before%hashUnit != 0 {
			// The hash of the last unit is of less than there will be.
			d.hashes.touch(before-1, 1)
			err = d.hashes.forgetTouched()
		}
	}
	if err == nil {
		var placed bool
		if placed, err = d.j.resize(bytes, func(st *state) { st.growing = 0 }); placed && err != nil {
			return d.failed("grow", err) // it may have the one size or the other
		}
	}
	if err == nil {
		return nil
	}
	if terr := d.stack.base.Truncate(before); terr == nil && d.stack.base.Sync() == nil {
		_ = d.record(growingRecord(0)) // that it may be there is true without it
	}
	return d.troubled("grow", err)
}

// growStack has all know the size that the journal says. The caller holds syncMu and saveMu.
func (d *Store) growStack(bytes int64) error {
	d.gate.Lock()
	defer d.gate.Unlock()
	d.rd.Lock()
	defer d.rd.Unlock()
	for _, l := range d.allLayers() {
		if err := l.Grow(bytes / Block); err != nil {
			return err
		}
	}
	d.hashes.grow(bytes)
	d.mu.Lock()
	defer d.mu.Unlock()
	before := d.blocks()
	d.stack.size = bytes
	d.size.Store(bytes)
	for _, p := range d.peers {
		d.widen(p, before)
		p.detach()
		d.notify(p.name)
	}
	return nil
}

// allLayers are those of the disk and the one of an unfinished catch-up. The caller holds syncMu, and the applier if there is one, else role.
func (d *Store) allLayers() []*layer.Layer {
	all := append([]*layer.Layer(nil), d.stack.layers...)
	if d.incoming != nil {
		all = append(all, d.incoming)
	}
	return all
}

// shrinkBase undoes what a crash has left of growing: base.raw may be longer than the disk then.
func (d *Store) shrinkBase() error {
	if d.j.st.growing == 0 {
		return nil
	}
	n, err := d.stack.base.Size()
	if err == nil && n > d.Size() {
		if err = d.stack.base.Truncate(d.Size()); err == nil {
			// Before the journal forgets that it may be longer.
			err = d.stack.base.Sync()
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", baseName, err)
	}
	return nil
}
