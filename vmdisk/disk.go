package vmdisk

import "fmt"

// Disk is what a disk is to those who only use it: a guest's server, an export, a check. A Store is one.
// Offsets and lengths are bytes, of any alignment. Methods may be called from any goroutine; buffers belong to the
// caller again when a call returns.
type Disk interface {
	Reader
	// WriteAt writes p at off. When it returns, p is in the kernel; with fua, it and all before is durable.
	WriteAt(p []byte, off int64, fua bool) error
	// Zero makes n bytes at off zeros; with mayTrim their space is given back, else it is kept or taken.
	Zero(off, n int64, mayTrim, fua bool) error
	// Trim gives the space of n bytes at off back; they read as zeros.
	Trim(off, n int64, fua bool) error
	// Flush makes what was written before durable: a barrier.
	Flush() error
}

// Reader is the half of a Disk that changes nothing. A Store is one, and a cut.
type Reader interface {
	// Size in bytes. It never becomes smaller; a Cut's stays.
	Size() int64
	// ReadAt fills p from off.
	ReadAt(p []byte, off int64) error
	// Extents says, in order and from off on, where there is data and where there are holes. It covers at least one byte
	// of the n > 0 that were asked for, and at most all.
	Extents(off, n int64) ([]Extent, error)
}

var _ Disk = (*Store)(nil)

// Extent is a run of Len > 0 bytes. Of a Hole it is known that it reads as zeros.
type Extent struct {
	Len  int64
	Hole bool
}

// maxExtents bounds the answer of one call of Extents.
const maxExtents = 4096

// Extents is Reader.Extents. What is written meanwhile may or may not be seen.
func (d *Store) Extents(off, n int64) ([]Extent, error) {
	if err := d.bounds(off, n); err != nil {
		return nil, fmt.Errorf("extents: %w", err)
	}
	d.rd.RLock()
	defer d.rd.RUnlock()
	if err := d.mayRead(); err != nil {
		return nil, fmt.Errorf("extents: %w", err)
	}
	y := d.hydration.Load()
	if y == nil {
		return d.stack.extents(nil, off, off+n)
	}
	var out []Extent
	for last := off + n; off < last && len(out) < maxExtents; {
		stale, end := y.h.Extent(off, last)
		if stale {
			out = append(out, Extent{end - off, false})
		} else {
			var err error
			if out, err = d.stack.extents(out, off, end); err != nil {
				return nil, err
			}
		}
		off = end
	}
	return out, nil
}

// extents appends to out what is in [off, end), until there are maxExtents.
func (s *stack) extents(out []Extent, off, end int64) ([]Extent, error) {
	for off < end && len(out) < maxExtents {
		data, err := s.nextData(off)
		if err != nil {
			return nil, fmt.Errorf("extents: %w", err)
		}
		if data = min(data, end); data > off {
			out = append(out, Extent{data - off, true})
			off = data
			continue
		}
		hole, err := s.nextHole(off)
		if err != nil {
			return nil, fmt.Errorf("extents: %w", err)
		}
		// Never none, should the file change between the two questions.
		hole = max(min(hole, end), off+1)
		out = append(out, Extent{hole - off, false})
		off = hole
	}
	return out, nil
}
