package vmdisk

import (
	"fmt"

	"tagalong.org/tagalong/vmdisk/blockset"
)

// Standing is where the replica of a peer stands that no feed of this disk brings further, and what it lacks there: every other block is what
// this disk has, if neither is damaged. So a copy at another site, or one that is behind or whose device was away, can be compared without moving it: with a
// Look, which tells what was written meanwhile. Not safe for concurrent use. Memory: a block set; Close gives it back.
type Standing struct {
	// Position that the peer reported last.
	Position Position
	d        *Store
	lacks    *blockset.Set
}

// Standing is what this disk knows of a peer that stands still; the caller must Close it. Errors: ErrAttached (a feed brings it further), ErrDetached
// if nothing is known of it, or it is known to have nothing whole; ErrInactive, ErrFailed, ErrClosed.
func (d *Store) Standing(peer string) (*Standing, error) {
	s := &Standing{d: d}
	d.mu.Lock()
	err := d.acting()
	p := d.peers[peer]
	switch {
	case err != nil:
	case p == nil || p.acked == Position{}:
		err = ErrDetached
	case p.feed != nil:
		err = ErrAttached
	default:
		s.Position, s.lacks = p.acked, p.dirty()
		s.lacks.Or(p.ticked)
		if p.comparison != nil {
			s.lacks.Or(p.comparison.written)
		}
	}
	d.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("where %s stands: %w", peer, err)
	}
	return s, nil
}

// Lacks says whether the peer may lack the block x, or this disk does: it is stale. Beyond the disk's end nothing is lacking.
func (s *Standing) Lacks(x int64) bool {
	return x < s.d.blocks() && (s.lacks.Has(x) || s.d.Stale(x*Block, Block))
}

// Close ends it. It may be called more than once.
func (s *Standing) Close() { s.lacks.Reset() }

// ReadHere is ReadAt, but stale blocks aren't waited for: they read as zeros.
func (d *Store) ReadHere(p []byte, off int64) error {
	y := d.hydration.Load()
	if y == nil || d.bounds(off, int64(len(p))) != nil {
		return d.ReadAt(p, off)
	}
	for end := off + int64(len(p)); off < end; {
		stale, to := y.h.Extent(off, end)
		part := p[:to-off]
		if stale {
			clear(part)
		} else if err := d.ReadAt(part, off); err != nil {
			return err
		}
		p, off = p[to-off:], to
	}
	return nil
}
