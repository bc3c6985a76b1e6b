package vmdisk

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"tagalong.org/tagalong/vmdisk/blockset"
)

const (
	// maxExport bounds what travels, exportGoal is where sets are made coarser, both in bytes.
	maxExport  = 16 << 20
	exportGoal = 8 << 20
)

// ExportDirty is what this disk knows of its peers and of the terms before, at its present position, for the next
// owner. The disk must be fenced, or have given its term away, and everything must have its barrier (Drain). At most
// 16 MiB: very scattered sets are made coarser. Errors: ErrNotFenced.
func (d *Store) ExportDirty() ([]byte, error) {
	d.mu.Lock()
	if d.active && (!d.fenced || d.unflushed()) {
		d.mu.Unlock()
		return nil, fmt.Errorf("export dirty sets: %w", ErrNotFenced)
	}
	if d.hydration.Load() != nil {
		d.mu.Unlock()
		return nil, fmt.Errorf("export dirty sets: %w", ErrHydrating)
	}
	le := binary.LittleEndian
	b := appendPosition(d.sealed(exportFormat, d.blocks()), d.position)
	b = le.AppendUint32(b, uint32(len(d.ends)))
	for _, t := range slices.Sorted(maps.Keys(d.ends)) {
		b = appendPosition(b, Position{t, d.ends[t]})
	}
	var sets []peerSet
	blocks := d.blocks()
	for _, name := range slices.Sorted(maps.Keys(d.peers)) {
		sets = append(sets, d.peers[name].set(blocks))
	}
	d.mu.Unlock()
	defer forgetSets(sets)
	b = le.AppendUint32(b, uint32(min(len(sets), maxSets)))
	for i, s := range sets[:min(len(sets), maxSets)] {
		next := s.appendTo(b)
		if share := exportGoal / len(sets); len(next)-len(b) > share || len(next) > exportGoal {
			s.dirty, s.ticked = s.dirty.Coarse(regionSize/Block), s.ticked.Coarse(regionSize/Block)
			s.dirty.Remove(blocks, blockset.Most)
			s.ticked.Remove(blocks, blockset.Most)
			next = s.appendTo(b)
		}
		if len(next) > maxExport-1024 {
			// What isn't told isn't known, and then everything is copied.
			le.PutUint32(b[setHeader+20+16*le.Uint32(b[setHeader+16:]):], uint32(i))
			break
		}
		b = next
	}
	return seal(b), nil
}

// ImportDirty takes what the owner before exported, except for the peer called self. It replaces all that was known, and
// counts if this disk becomes active at the position of the export, which it must have. Errors: ErrActive,
// ErrMalformed, ErrVersion, ErrWrongDisk, ErrOldPosition.
func (d *Store) ImportDirty(b []byte, self string) error {
	d.role.Lock()
	defer d.role.Unlock()
	if err := d.importDirty(b, self); err != nil {
		return fmt.Errorf("import dirty sets: %w", err)
	}
	return nil
}

func (d *Store) importDirty(b []byte, self string) error {
	if len(b) > maxExport {
		return fmt.Errorf("%d bytes: %w", len(b), ErrMalformed)
	}
	b, blocks, version, err := d.unseal(b, exportFormat)
	if err != nil {
		return err
	}
	at, ends, sets, err := parseExport(b, blocks, version)
	if err == nil {
		err = d.reach(blocks * Block)
	}
	if err != nil {
		return err
	}
	d.saveMu.Lock()
	defer d.saveMu.Unlock()
	d.mu.Lock()
	switch {
	case d.closed:
		err = ErrClosed
	case d.active:
		err = ErrActive
	case at != d.position:
		err = fmt.Errorf("exported at %s, the disk is at %s: %w", at, d.position, ErrOldPosition)
	}
	gone := slices.Collect(maps.Keys(d.peers))
	d.mu.Unlock()
	if err != nil {
		return err
	}
	if err := d.learn(ends); err != nil {
		return err
	}
	if err := d.removeSets(gone...); err != nil {
		return err
	}
	if err := d.hashes.forget(d.al.logged(regionsOf(d.Size()), false)); err != nil {
		return err
	}
	if err := d.j.commit(func(st *state) { clear(st.regions) }); err != nil {
		return err
	}
	d.al.forget()
	d.mu.Lock()
	clear(d.peers)
	for _, s := range sets {
		if s.name != self {
			s.at, s.term = at, 0
			d.peers[s.name] = d.peerOf(s)
		}
	}
	d.mu.Unlock()
	return d.storeLocked()
}

func parseExport(b []byte, blocks int64, version uint32) (at Position, ends []Position, sets []peerSet, err error) {
	le := binary.LittleEndian
	short := fmt.Errorf("ends early: %w", ErrMalformed)
	if len(b) < 20 {
		return at, nil, nil, short
	}
	at = readPosition(b)
	n := int64(le.Uint32(b[16:]))
	if b = b[20:]; n > maxEnds || int64(len(b)) < 16*n+4 {
		return at, nil, nil, short
	}
	for ; n > 0; n-- {
		ends, b = append(ends, readPosition(b)), b[16:]
	}
	n = int64(le.Uint32(b))
	if b = b[4:]; n > maxSets {
		return at, nil, nil, fmt.Errorf("%d sets: %w", n, ErrMalformed)
	}
	for ; n > 0; n-- {
		var s peerSet
		if s, b, err = parseSet(b, blocks, version); err != nil {
			return at, nil, nil, err
		}
		sets = append(sets, s)
	}
	if len(b) > 0 {
		return at, nil, nil, fmt.Errorf("%d bytes too many: %w", len(b), ErrMalformed)
	}
	return at, ends, sets, nil
}

// Ends are the last positions of all terms before the present one, as far as they are known, in order. They tell
// which positions are part of this disk's history.
func (d *Store) Ends() []Position {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []Position
	for _, t := range slices.Sorted(maps.Keys(d.ends)) {
		out = append(out, Position{t, d.ends[t]})
	}
	return out
}

// LearnEnds adds ends that another device knows of this disk's history (its Ends), durably. What is known already, and terms
// from the present one on, are left as they are.
func (d *Store) LearnEnds(ends []Position) error {
	d.role.Lock()
	defer d.role.Unlock()
	if err := d.learn(ends); err != nil {
		return fmt.Errorf("learn ends: %w", err)
	}
	return nil
}

func (d *Store) learn(ends []Position) error {
	present := d.Position().Term
	err := d.j.commit(func(st *state) {
		for _, e := range ends[:min(len(ends), maxEnds)] {
			if _, known := st.ends[e.Term]; !known && e.Term < present {
				st.end(e)
			}
		}
	})
	if err != nil {
		return err
	}
	st := d.j.snapshot()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ends = st.ends
	return nil
}

// SetClean says that a peer is known to be this disk at pos, such as the owner before, after a hand-off. This disk must be
// at pos, and nothing may have been written since it became active. Errors: ErrTooLate, ErrOldPosition, ErrAttached.
func (d *Store) SetClean(peer string, pos Position) error {
	if err := checkPeer(peer); err != nil {
		return fmt.Errorf("set clean: %w", err)
	}
	d.mu.Lock()
	var err error
	old := d.peers[peer]
	switch {
	case d.closed:
		err = ErrClosed
	case d.active && !d.pristine:
		err = ErrTooLate
	case pos != d.position:
		err = fmt.Errorf("at %s, the disk is at %s: %w", pos, d.position, ErrOldPosition)
	case old != nil && old.feed != nil:
		err = ErrAttached
	}
	if err == nil {
		p := d.newPeer(peer)
		p.acked, p.at = pos, pos
		if d.active {
			p.term = d.term
		}
		d.peers[peer] = p
	}
	d.mu.Unlock()
	if err == nil {
		err = d.storePeers()
	}
	if err != nil {
		return fmt.Errorf("set %s clean: %w", peer, err)
	}
	return nil
}
