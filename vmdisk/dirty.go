package vmdisk

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/zeebo/blake3"
	"tagalong.org/tagalong/vmdisk/blockset"
	"tagalong.org/tagalong/vmdisk/vfs"
)

const (
	dirtyPrefix = "dirty-"
	setHeader   = 48 // of a file with sets, before what it holds
	maxSets     = 1024
)

// dirtyName is the file of a peer.
func dirtyName(peer string) string {
	sum := blake3.Sum256([]byte(peer))
	return dirtyPrefix + hex.EncodeToString(sum[:8])
}

// peerSet is what is stored of a peer, and what travels at a hand-off.
type peerSet struct {
	name  string
	term  uint64
	at    Position
	acked Position
	copy  [16]byte
	mark  Position
	dirty *blockset.Set
	// ticked is what the peer lacks too if it has lost the copy, or gives it up: as it does when it becomes the owner.
	ticked *blockset.Set
	blocks int64 // of the disk that this is known of
}

// guessMark is stored as the mark of a set that is a guess, while there is no copy and therefore no mark.
var guessMark = Position{0, 1}

func (p *peer) set(blocks int64) peerSet {
	s := peerSet{p.name, p.term, p.at, p.acked, p.copy, p.mark, p.dirty(), p.ticked.Clone(), blocks}
	if p.half != [16]byte{} {
		s.dirty.Or(s.ticked)
		s.ticked.Reset()
	}
	if p.guessed && p.copy == [16]byte{} {
		s.mark = guessMark
	}
	return s
}

// peerOf is the peer of a set. The caller holds d.mu.
func (d *Store) peerOf(s peerSet) *peer {
	p := d.newPeer(s.name)
	p.term, p.at, p.acked, p.copy, p.mark = s.term, s.at, s.acked, s.copy, s.mark
	if p.copy == [16]byte{} {
		p.guessed, p.mark = p.mark == guessMark, Position{}
	}
	p.todo.Or(s.dirty)
	p.ticked.Or(s.ticked)
	d.widen(p, s.blocks)
	return p
}

// widen tells that the disk had so many blocks when it became known what p lacks. What came since is zeros, here and on every replica of a position of this disk's
// history, as in a first copy that has come to a checkpoint. Any other may have something there: both were compared as far as this disk went. The caller holds d.mu, or
// is alone.
func (d *Store) widen(p *peer, before int64) {
	known := p.acked != Position{} && d.inHistory(p.acked) || p.acked == Position{} && p.copy != [16]byte{} && p.mark.Term > 0
	if now := d.blocks(); !known && before < now {
		p.todo.Add(before, now)
		p.changed = true
	}
}

func (s peerSet) appendTo(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint16(b, uint16(len(s.name)))
	b = append(b, s.name...)
	b = le.AppendUint64(b, s.term)
	b = appendPosition(b, s.at)
	b = appendPosition(b, s.acked)
	b = append(b, s.copy[:]...)
	b = appendPosition(b, s.mark)
	for _, m := range []*blockset.Set{s.dirty, s.ticked} {
		at := len(b)
		b = m.AppendTo(le.AppendUint64(b, 0))
		le.PutUint64(b[at:], uint64(len(b)-at-8))
	}
	return b
}

// parseSet reads what appendTo wrote, in that version of the formats, from the beginning of b, and returns the rest.
func parseSet(b []byte, blocks int64, version uint32) (s peerSet, rest []byte, err error) {
	s.blocks = blocks
	le := binary.LittleEndian
	short := fmt.Errorf("peer's set ends early: %w", ErrMalformed)
	if len(b) < 2 {
		return s, nil, short
	}
	n := int(le.Uint16(b))
	if b = b[2:]; len(b) < n+64 {
		return s, nil, short
	}
	s.name = string(b[:n])
	if err := checkPeer(s.name); err != nil {
		return s, nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	b = b[n:]
	s.term, s.at, s.acked, s.copy = le.Uint64(b), readPosition(b[8:]), readPosition(b[24:]), [16]byte(b[40:56])
	b = b[56:]
	if version > 1 {
		if len(b) < 16 {
			return s, nil, short
		}
		s.mark, b = readPosition(b), b[16:]
	}
	if s.dirty, b, err = parseBlocks(b, blocks); err != nil {
		return s, nil, err
	}
	if version > 1 {
		s.ticked, b, err = parseBlocks(b, blocks)
		return s, b, err
	}
	s.ticked = blockset.New(blockset.Most)
	if s.copy != [16]byte{} {
		// Then acked was the first copy's checkpoint.
		s.acked, s.mark = Position{}, s.acked
		s.ticked.Add(0, blocks)
	}
	return s, b, nil
}

// parseBlocks reads a length and as many bytes of a set.
func parseBlocks(b []byte, blocks int64) (m *blockset.Set, rest []byte, err error) {
	if len(b) < 8 {
		return nil, nil, fmt.Errorf("set of blocks ends early: %w", ErrMalformed)
	}
	n := binary.LittleEndian.Uint64(b)
	if b = b[8:]; n > uint64(len(b)) {
		return nil, nil, fmt.Errorf("set of blocks ends early: %w", ErrMalformed)
	}
	if m, err = decodeBlocks(b[:n], blocks); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return m, b[n:], nil
}

// decodeBlocks reads a set that was encoded when the disk had that many blocks: nothing beyond them is in it.
func decodeBlocks(b []byte, blocks int64) (*blockset.Set, error) {
	m, err := blockset.Decode(b, blocks)
	if err != nil {
		return nil, err
	}
	m.Grow(blockset.Most)
	return m, nil
}

// sealed begins a file or message with sets of the disk when it had that many blocks; seal ends it.
func (d *Store) sealed(f format, blocks int64) []byte {
	le := binary.LittleEndian
	b := f.begin(make([]byte, 0, 4096))
	b = append(b, d.id[:]...)
	b = le.AppendUint64(b, uint64(blocks))
	return le.AppendUint64(b, 0)
}

func seal(b []byte) []byte {
	sum := blake3.Sum256(b)
	return append(b, sum[:]...)
}

// unseal checks what sealed and seal made and returns what is inside, and how many blocks the disk had then.
func (d *Store) unseal(b []byte, f format) (inside []byte, blocks int64, version uint32, err error) {
	le := binary.LittleEndian
	switch version, err = f.version(b); {
	case errors.Is(err, ErrForeign):
		return nil, 0, 0, fmt.Errorf("%w: %w", ErrMalformed, err)
	case err != nil:
		return nil, 0, 0, err
	case len(b) < setHeader+32:
		return nil, 0, 0, fmt.Errorf("header: %w", ErrMalformed)
	}
	end := len(b) - 32
	if sum := blake3.Sum256(b[:end]); string(sum[:]) != string(b[end:]) {
		return nil, 0, 0, fmt.Errorf("checksum: %w", ErrMalformed)
	}
	if n := le.Uint64(b[32:]); n > uint64(blockset.Most) {
		return nil, 0, 0, fmt.Errorf("a disk of %d blocks: %w", n, ErrMalformed)
	}
	if ID(b[16:32]) != d.id {
		return nil, 0, 0, ErrWrongDisk
	}
	return b[setHeader:end], int64(le.Uint64(b[32:])), version, nil
}

// loadPeers reads the stored sets. One that is damaged is left out: its peer isn't known then, and gets everything.
func (d *Store) loadPeers(names []string) error {
	for _, name := range names {
		if !strings.HasPrefix(name, dirtyPrefix) || strings.HasSuffix(name, vfs.TempSuffix) {
			continue
		}
		s, err := d.loadSet(name)
		if errors.Is(err, ErrMalformed) || errors.Is(err, ErrWrongDisk) {
			d.log.Warn("What was known of a peer is damaged, it will get everything", "disk", d.id, "file", name, "err", err)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		p := d.peerOf(s)
		p.changed = false
		d.peers[s.name] = p
	}
	lack := d.lacking()
	blockset.Share(lack)
	d.al.each(d.blocks(), func(from, to int64) {
		d.eachFresh(from, to, func(a, b int64) { blockset.AddAll(lack, a, b) })
		for _, p := range d.peers {
			p.changed, p.guessed = true, true
		}
	})
	return nil
}

// eachFresh calls f for the runs of blocks in [from, to) that aren't stale. A stale one wasn't written since it was known what the peers
// lack of it: were it said that they lack it, an owner would ask nobody for it.
func (d *Store) eachFresh(from, to int64, f func(a, b int64)) {
	y := d.hydration.Load()
	if y == nil {
		f(from, to)
		return
	}
	for from < to {
		stale, end := y.h.Extent(from*Block, to*Block)
		if !stale {
			f(from, end/Block)
		}
		from = end / Block
	}
}

// lacking are the sets of what is still to be sent to each peer. The caller holds d.mu, or is alone.
func (d *Store) lacking() []*blockset.Set {
	var out []*blockset.Set
	for _, p := range d.peers {
		out = append(out, p.todo)
	}
	return out
}

func (d *Store) loadSet(name string) (peerSet, error) {
	b, blocks, version, err := d.readSealed(name, dirtyFormat)
	if err != nil {
		return peerSet{}, err
	}
	s, rest, err := parseSet(b, blocks, version)
	if err == nil && (len(rest) > 0 || dirtyName(s.name) != name) {
		err = fmt.Errorf("set of %q: %w", s.name, ErrMalformed)
	}
	return s, err
}

// storePeers stores the sets that changed, durably.
func (d *Store) storePeers() error {
	d.saveMu.Lock()
	defer d.saveMu.Unlock()
	return d.storeLocked()
}

// storeLocked is storePeers for who holds saveMu.
func (d *Store) storeLocked() error {
	d.mu.Lock()
	if d.err != nil {
		d.mu.Unlock()
		return d.err
	}
	if d.sets.Crowded() {
		blockset.Share(d.lacking())
	}
	var sets []peerSet
	blocks := d.blocks()
	for _, p := range d.peers {
		if p.changed {
			sets, p.changed = append(sets, p.set(blocks)), false
		}
	}
	d.mu.Unlock()
	defer forgetSets(sets)
	for i, s := range sets {
		err := vfs.WriteNew(d.fs, dirtyName(s.name), seal(s.appendTo(d.sealed(dirtyFormat, blocks))))
		if err == nil {
			continue
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, s := range sets[i:] {
			if p := d.peers[s.name]; p != nil {
				p.changed = true
			}
		}
		return fmt.Errorf("store set of %s: %w", s.name, err)
	}
	return nil
}

// forgetSets gives what p.set took for the blocks back.
func forgetSets(sets []peerSet) {
	for _, s := range sets {
		s.dirty.Reset()
		s.ticked.Reset()
	}
}

// removeSets deletes the files of peers. The caller holds saveMu.
func (d *Store) removeSets(peers ...string) error {
	var errs []error
	for _, p := range peers {
		if err := d.fs.Remove(dirtyName(p)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if len(peers) > 0 {
		errs = append(errs, d.fs.SyncDir())
	}
	return errors.Join(errs...)
}

// keepPeers forgets the peers whose sets don't count when this disk, which was as st says, becomes active under term at position
// at, and makes the others count for that term, durably.
func (d *Store) keepPeers(st *state, term uint64, at Position) error {
	d.saveMu.Lock()
	defer d.saveMu.Unlock()
	began := at // the position at which this disk became the owner under term
	if term == st.activated {
		began = st.lastEnd()
	}
	d.mu.Lock()
	var gone []string
	for _, name := range slices.Collect(maps.Keys(d.peers)) {
		p := d.peers[name]
		switch {
		case p.term == term && term == st.activated:
			continue
		case p.at == began, st.owned() && p.term == st.activated:
			// The second: nobody else had the disk since that term began, and what was written is in the set.
			p.term, p.at, p.changed = term, began, true
		default:
			delete(d.peers, name)
			gone = append(gone, name)
		}
	}
	d.mu.Unlock()
	if err := d.removeSets(gone...); err != nil {
		return fmt.Errorf("forget peers: %w", err)
	}
	return d.storeLocked()
}

// Save does at once what housekeeping does every Options.SaveEvery: it makes a barrier if something was written, stores what
// is known of the peers, and clears the activity log, so that less counts as dirty after a crash from now on. On a disk that
// isn't active it does nothing. Errors: ErrFailed, those of the files; what was not stored counts as before.
func (d *Store) Save() error {
	if err := d.save(); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	return nil
}

// Settle does what Save does, and makes it durable that the disk is exactly at its position. settled is false if something was
// written meanwhile. A crash of an owner otherwise leaves a disk that counts as written since, and that gets a position which no
// replica has. Settling what is settled costs nothing. Errors are those of Save.
func (d *Store) Settle() (settled bool, err error) {
	exact, seq := d.j.exact()
	if !exact {
		if err := d.save(); err != nil {
			return false, fmt.Errorf("settle: %w", err)
		}
		if exact, seq = d.j.exact(); !exact {
			return false, nil
		}
	}
	if err := d.j.syncTo(seq); err != nil {
		return false, fmt.Errorf("settle: %w", err)
	}
	return true, nil
}

// save stores the dirty sets and drops from the activity log what was not written since. What a region contains
// is made durable before it is dropped: a peer may have acknowledged what this disk could still lose.
func (d *Store) save() error {
	d.mu.Lock()
	active := d.active && d.err == nil
	d.mu.Unlock()
	if !active {
		return nil
	}
	// One at a time from the mark on: a second mark would make regions look idle that were written after the first one's barrier.
	d.saveMu.Lock()
	defer d.saveMu.Unlock()
	if d.al.mark() > 0 {
		if err := d.barrier(); err != nil {
			return err
		}
	}
	if err := d.storeLocked(); err != nil {
		return err
	}
	if err := d.hashes.forget(d.al.logged(regionsOf(d.Size()), true)); err != nil {
		return err
	}
	return d.al.retire(func() (Position, bool) {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.position, d.active && !d.unflushed()
	})
}
