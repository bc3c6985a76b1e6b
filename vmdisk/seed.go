package vmdisk

import (
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
)

// seedSyncEvery is how much a Seeding takes before it makes that durable, in bytes: else the kernel would collect it all, and who lets it
// be compared next would wait for that.
const seedSyncEvery = 256 << 20

// Seeding fills a replica that isn't whole with content that may be much like the disk: an old image, or a disk carried by hand. It is a
// Disk to who fills it. What it holds is never taken for the disk: it stays incomplete, at no position, and nothing of it counts
// before the owner has compared it (Offer, Compare). So any content is right, also half of it, or what a crash leaves.
//
// While it is open there is no applier, and nothing is offered. After an error every further call that writes fails; Close it. Methods may be
// called from any goroutine.
type Seeding struct {
	a *Applier

	mu       sync.Mutex // over what is read to be written
	unsynced int64
}

var _ Disk = (*Seeding)(nil)

// Seed begins to fill this replica. What an unfinished first copy brought stays until it is written over, but isn't known to the owner any
// more: it is compared too. Errors: ErrComplete (there is a whole replica, which is worth more), and those of Apply.
func (d *Store) Seed() (*Seeding, error) {
	a, err := d.Apply()
	if err != nil {
		return nil, fmt.Errorf("seed: %w", err)
	}
	// Under a name that no owner knows, anything may be written.
	var name [16]byte
	_, _ = rand.Read(name[:]) // never fails
	if a.State().Complete {
		err = ErrComplete
	} else {
		err = a.Begin(name)
	}
	if err != nil {
		return nil, fmt.Errorf("seed: %w", errors.Join(err, a.Close()))
	}
	return &Seeding{a: a}, nil
}

// Size of the disk in bytes.
func (s *Seeding) Size() int64 { return s.a.d.Size() }

// ReadAt reads what is there now. Errors: ErrRange, ErrClosed, that of the file.
func (s *Seeding) ReadAt(p []byte, off int64) error { return s.a.d.peek(p, off) }

// Extents is Reader.Extents of what is there now.
func (s *Seeding) Extents(off, n int64) ([]Extent, error) { return s.a.d.peekExtents(off, n) }

// WriteAt writes p at off, of any alignment; blocks of zeros become holes. Errors: ErrRange, ErrClosed, syscall.ENOSPC and others
// of the files.
func (s *Seeding) WriteAt(p []byte, off int64, fua bool) error {
	if err := s.a.d.bounds(off, int64(len(p))); err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.write(p, off); err != nil {
		return err
	}
	return s.end(fua)
}

// Zero makes n bytes at off zeros, giving their space back. Errors are those of WriteAt.
func (s *Seeding) Zero(off, n int64, _, fua bool) error {
	if err := s.a.d.bounds(off, n); err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	head := min(n, (Block-off%Block)%Block)
	whole := (n - head) / Block * Block
	err := s.write(zeroBlock[:head], off)
	if err == nil && whole > 0 {
		err = s.a.Zero(off+head, whole)
	}
	if err == nil {
		err = s.write(zeroBlock[:n-head-whole], off+head+whole)
	}
	if err != nil {
		return err
	}
	return s.end(fua)
}

// Trim is Zero.
func (s *Seeding) Trim(off, n int64, fua bool) error { return s.Zero(off, n, true, fua) }

// Flush makes what was written before durable. Errors: ErrClosed, ErrFailed.
func (s *Seeding) Flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end(true)
}

// Close ends it; it may be called more than once. What wasn't flushed may be lost by a power cut: then it differs, and is sent.
func (s *Seeding) Close() error {
	if err := s.a.Close(); err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	return nil
}

// write writes p at off, widened to whole blocks by what is there. The caller holds mu.
func (s *Seeding) write(p []byte, off int64) error {
	for len(p) > 0 {
		from := off / Block * Block
		n := min(int64(len(p)), from+MaxOp-off)
		to := (off + n + Block - 1) / Block * Block
		whole := p[:n]
		if from != off || to != off+n {
			whole = make([]byte, to-from)
			if err := s.a.d.peek(whole, from); err != nil {
				return err
			}
			copy(whole[off-from:], p[:n])
		}
		if err := s.put(whole, from); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// put writes whole blocks. The caller holds mu.
func (s *Seeding) put(p []byte, off int64) error {
	for at := 0; at < len(p); {
		end, zero := at+Block, isZero(p[at:at+Block])
		for end < len(p) && isZero(p[end:end+Block]) == zero {
			end += Block
		}
		err := error(nil)
		if zero {
			err = s.a.Zero(off+int64(at), int64(end-at))
		} else {
			err = s.a.Write(off+int64(at), p[at:end])
		}
		if err != nil {
			return err
		}
		at = end
	}
	s.unsynced += int64(len(p))
	return nil
}

// end ends a call, which was to be durable or wasn't. The caller holds mu.
func (s *Seeding) end(durable bool) error {
	if !durable && s.unsynced < seedSyncEvery {
		return nil
	}
	s.unsynced = 0
	return s.a.do("sync seed", s.a.d.syncAll)
}
