package vmdisk

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"tagalong.org/tagalong/vmdisk/blockset"
)

// cutMemory is how much old content all open cuts of a disk together keep in memory before they use files, in bytes.
const cutMemory = 16 << 20

// cuts are a disk's open cuts.
type cuts struct {
	// open is nil when there are none: then it is all that a write looks at. The list never changes, it is replaced,
	// under Store.mu; a cut enters it while no write is under way and no epoch is being applied.
	open atomic.Pointer[[]*Cut]
	made uint64 // names the scratch files; guarded by Store.mu
	mem  slab
}

// preserve must be called before the content of the blocks [a, b) changes, by one who keeps all other changes of them
// away meanwhile: it keeps, for every open cut, what is there now.
func (d *Store) preserve(a, b int64) {
	if open := d.cuts.open.Load(); open != nil {
		for _, c := range *open {
			c.preserve(a, b)
		}
	}
}

// addCut makes c the disk at pos, and every later change preserve what c needs. The caller holds d.mu, and keeps all
// changes away.
func (d *Store) addCut(c *Cut, pos Position) error {
	if err := d.readable(); err != nil {
		return err
	}
	if d.hydration.Load() != nil {
		return ErrHydrating
	}
	if !d.active {
		d.follows(pos)
	}
	d.leaves(pos)
	d.cuts.made++
	c.number, c.pos = d.cuts.made, pos
	c.grow() // it may have been prepared before the disk grew
	list := []*Cut{c}
	if open := d.cuts.open.Load(); open != nil {
		list = append(slices.Clone(*open), c)
	}
	d.cuts.open.Store(&list)
	return nil
}

func (d *Store) removeCut(c *Cut) {
	d.mu.Lock()
	defer d.mu.Unlock()
	open := d.cuts.open.Load()
	if open == nil {
		return
	}
	list := slices.DeleteFunc(slices.Clone(*open), func(o *Cut) bool { return o == c })
	if len(list) > 0 {
		d.cuts.open.Store(&list)
		return
	}
	d.cuts.open.Store(nil)
	d.cuts.mem.drop()
}

// loseCuts gives up, because of cause, all open cuts; or, with filed, those that take space with a scratch file. It says whether
// there were any.
func (d *Store) loseCuts(cause error, filed bool) bool {
	lost := false
	if open := d.cuts.open.Load(); open != nil {
		for _, c := range *open {
			lost = c.lose(cause, filed) || lost
		}
	}
	return lost
}

// closeCuts ends all cuts. The caller has made sure that nothing changes any more, and that no more are opened.
func (d *Store) closeCuts() {
	if open := d.cuts.open.Load(); open != nil {
		for _, c := range *open {
			c.stop(ErrClosed)
			c.discard()
		}
	}
}

// stopCuts loses all open cuts because the disk becomes another one. It may be called with d.mu held; their files go when
// they are closed.
func (d *Store) stopCuts(cause error) {
	if open := d.cuts.open.Load(); open != nil {
		for _, c := range *open {
			c.stop(fmt.Errorf("%w: %w", ErrCutLost, cause))
		}
	}
}

// within is the first block of [a, b) that is in s (or, if !in, isn't), or b. It looks at a short range only, however big s is.
func within(s *blockset.Set, a, b int64, in bool) int64 {
	for near := min(b, a+1024); a < near; a++ {
		if s.Has(a) == in {
			return a
		}
	}
	if a == b {
		return b
	}
	return min(b, s.Next(a, in))
}

// slab is memory in blocks, shared by all cuts of a disk. Safe for concurrent use; a block
// belongs to who took it.
type slab struct {
	limit  int // in blocks
	mu     sync.Mutex
	pieces [][]byte
	free   []int32
	used   int
}

// slabPiece is how many blocks are allocated at a time.
const slabPiece = 64

// take gives a block, if the limit allows one more.
func (s *slab) take() (slot int32, p []byte, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used == s.limit {
		return 0, nil, false
	}
	if len(s.free) == 0 {
		for i := range int32(slabPiece) {
			s.free = append(s.free, int32(len(s.pieces))*slabPiece+slabPiece-1-i)
		}
		s.pieces = append(s.pieces, make([]byte, slabPiece*Block))
	}
	slot = s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	s.used++
	return slot, s.piece(slot), true
}

func (s *slab) piece(slot int32) []byte {
	at := slot % slabPiece * Block
	return s.pieces[slot/slabPiece][at : at+Block : at+Block]
}

// at is a block that was taken.
func (s *slab) at(slot int32) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.piece(slot)
}

// put gives a block back.
func (s *slab) put(slot int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = append(s.free, slot)
	s.used--
}

// drop gives the memory back if nobody has a block.
func (s *slab) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used == 0 {
		s.pieces, s.free = nil, nil
	}
}
