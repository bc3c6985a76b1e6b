package vmdisk

import (
	"errors"
	"fmt"

	"tagalong.org/tagalong/vmdisk/layer"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// stack is what a disk consists of: base.raw and the layers above it. A block is read from, and written to, the topmost
// layer that has it, else base.raw; a sink takes all writes.
//
// A layer stays authoritative for its blocks until it is dropped as a whole (merge.go). The fields change only while
// Store.syncMu is held, and Store.gate and Store.rd for writing; who reads or writes holds one of the latter for reading. Writes
// and what reads to write are serialised where they overlap: by claims, or by holding Store.rd for writing.
type stack struct {
	base   vfs.File
	size   int64
	layers []*layer.Layer // top first
	sink   *layer.Layer   // nil, or the top
	merge  *merge         // the bottom layer's, if it is being merged
}

// storey is base.raw, or a layer.
type storey interface {
	ReadAt(p []byte, off int64) error
	WriteAt(p []byte, off int64) error
	ZeroAt(off, n int64, keep bool) error
	NextData(off int64) (int64, error)
	NextHole(off int64) (int64, error)
}

var _ storey = (*layer.Layer)(nil)

// ground is base.raw as a storey.
type ground struct{ f vfs.File }

func (g ground) ReadAt(p []byte, off int64) error { return readFull(g.f, p, off) }

func (g ground) WriteAt(p []byte, off int64) error {
	_, err := g.f.WriteAt(p, off)
	return err
}

func (g ground) ZeroAt(off, n int64, keep bool) error {
	if keep {
		return g.f.ZeroRange(off, n)
	}
	return g.f.Punch(off, n)
}

func (g ground) NextData(off int64) (int64, error) { return g.f.NextData(off) }
func (g ground) NextHole(off int64) (int64, error) { return g.f.NextHole(off) }

// at says where the byte off is, and up to which byte before end that is so.
func (s *stack) at(off, end int64) (storey, int64) {
	x, last := off/Block, (end+Block-1)/Block
	for _, l := range s.layers {
		has, to := l.Run(x, last)
		if has {
			return l, min(end, to*Block)
		}
		last = to
	}
	return ground{s.base}, min(end, last*Block)
}

// readAt fills p from off.
func (s *stack) readAt(p []byte, off int64) error {
	if len(s.layers) == 0 {
		return readFull(s.base, p, off)
	}
	for end := off + int64(len(p)); off < end; {
		part, to := s.at(off, end)
		if err := part.ReadAt(p[:to-off], off); err != nil {
			return err
		}
		p, off = p[to-off:], to
	}
	return nil
}

// writeAt writes p at off.
func (s *stack) writeAt(p []byte, off int64) error {
	if len(s.layers) == 0 {
		_, err := s.base.WriteAt(p, off)
		return err
	}
	return s.change(off, int64(len(p)), func(part storey, from, to int64) error {
		return part.WriteAt(p[from-off:to-off], from)
	})
}

// zeroAt makes n bytes at off zeros. With keep their space is kept or taken, else given back.
func (s *stack) zeroAt(off, n int64, keep bool) error {
	if len(s.layers) == 0 {
		return ground{s.base}.ZeroAt(off, n, keep)
	}
	return s.change(off, n, func(part storey, from, to int64) error {
		return part.ZeroAt(from, to-from, keep)
	})
}

// change calls do for the parts of a range, where they are to be written.
func (s *stack) change(off, n int64, do func(part storey, from, to int64) error) error {
	for end := off + n; off < end; {
		part, to := s.at(off, end)
		if s.sink != nil && part != storey(s.sink) {
			if err := s.raise(off, end); err != nil {
				return err
			}
			part, to = s.sink, end
		}
		err := do(part, off, to)
		if m := s.merge; m != nil && part == storey(m.l) {
			m.again(off/Block, (to+Block-1)/Block)
		}
		if err != nil {
			return err
		}
		off = to
	}
	return nil
}

// raise copies into the sink the blocks that [off, end) covers in part and that it doesn't have.
func (s *stack) raise(off, end int64) error {
	var p []byte
	for _, at := range [2]int64{off, end} {
		x := at / Block
		if at%Block == 0 || s.sink.Has(x) {
			continue
		}
		if p == nil {
			p = make([]byte, Block)
		}
		if err := s.readAt(p, x*Block); err != nil {
			return err
		}
		if err := s.sink.WriteAt(p, x*Block); err != nil {
			return err
		}
	}
	return nil
}

// nextData is the first byte from off on that may hold something else than zeros, or the size of the disk.
func (s *stack) nextData(off int64) (int64, error) {
	if len(s.layers) == 0 {
		return s.base.NextData(off)
	}
	for off < s.size {
		part, to := s.at(off, s.size)
		data, err := part.NextData(off)
		if err != nil || data < to {
			return data, err
		}
		off = to
	}
	return s.size, nil
}

// holeEnd is where the hole that begins at block a ends, at most b; it is a if there is none.
func (s *stack) holeEnd(a, b int64) int64 {
	data, err := s.nextData(a * Block)
	if err != nil {
		return a // it will be read, and that says what is wrong
	}
	if data >= s.size {
		return b
	}
	return max(a, min(b, data/Block))
}

// nextHole is the first byte from off on that takes no space, or the size of the disk.
func (s *stack) nextHole(off int64) (int64, error) {
	if len(s.layers) == 0 {
		return s.base.NextHole(off)
	}
	for off < s.size {
		part, to := s.at(off, s.size)
		hole, err := part.NextHole(off)
		if err != nil || hole < to {
			return hole, err
		}
		off = to
	}
	return s.size, nil
}

// fits says whether a write of the range takes no new space.
func (s *stack) fits(off, n int64) (bool, error) {
	for end := off + n; off < end; {
		part, to := s.at(off, end)
		if s.sink != nil {
			part, to = s.sink, end
		}
		hole, err := part.NextHole(off)
		if err != nil || hole < to {
			return false, err
		}
		off = to
	}
	return true, nil
}

// sync makes what was written durable. The caller holds Store.syncMu, or is alone.
func (s *stack) sync() error {
	for _, l := range s.layers {
		if s.sink != nil && l.Kind() == layer.Fetched {
			continue // it can be fetched again, until the disk is whole
		}
		if err := l.Sync(); err != nil {
			return fmt.Errorf("sync %s: %w", l.Name(), err)
		}
	}
	if err := s.base.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", baseName, err)
	}
	return nil
}

// allocated is how many bytes the disk takes.
func (s *stack) allocated() (int64, error) {
	n, err := s.base.Allocated()
	for _, l := range s.layers {
		m, lerr := l.Allocated()
		n, err = n+m, errors.Join(err, lerr)
	}
	return n, err
}

// close closes all files.
func (s *stack) close() error {
	var errs []error
	for _, l := range s.layers {
		errs = append(errs, l.Close())
	}
	if s.base != nil {
		errs = append(errs, s.base.Close())
	}
	return errors.Join(errs...)
}
