package vmdisk

import (
	"fmt"
	"slices"

	"tagalong.org/tagalong/vmdisk/layer"
)

// Past is a disk that hydrates, as it was before: what Rollback would bring back, readable while the disk is fetched and
// written. It ends (ErrPast) when the disk is whole or was rolled back: then that position is no longer held. Methods may be
// called from any goroutine.
type Past struct {
	d *Store
	y *hydration
}

var _ Reader = (*Past)(nil)

// Past is the disk at the position Info.Before. Errors: ErrWhole if the disk isn't hydrating, ErrClosed.
func (d *Store) Past() (*Past, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	y := d.hydration.Load()
	switch {
	case d.closed:
		return nil, fmt.Errorf("past of the disk: %w", ErrClosed)
	case y == nil:
		return nil, fmt.Errorf("past of the disk: %w", ErrWhole)
	}
	return &Past{d, y}, nil
}

// Position that it is the disk at.
func (p *Past) Position() Position { return p.y.before }

// Size of the disk in bytes.
func (p *Past) Size() int64 { return p.d.Size() }

// ReadAt is Reader.ReadAt. Errors: ErrPast, ErrClosed, ErrRange, those of the files.
func (p *Past) ReadAt(b []byte, off int64) error {
	return p.below("read", off, int64(len(b)), func(s *stack) error { return s.readAt(b, off) })
}

// Extents is Reader.Extents. Errors are those of ReadAt.
func (p *Past) Extents(off, n int64) (out []Extent, err error) {
	err = p.below("extents", off, n, func(s *stack) error {
		out, err = s.extents(nil, off, off+n)
		return err
	})
	return out, err
}

// below calls do with what is below the layers of the hydration, which nothing but merging changes.
func (p *Past) below(what string, off, n int64, do func(*stack) error) error {
	d := p.d
	d.rd.RLock()
	defer d.rd.RUnlock()
	err := d.bounds(off, n)
	if err == nil {
		err = d.mayRead()
	}
	if err == nil && d.hydration.Load() != p.y {
		err = ErrPast
	}
	if err == nil {
		err = do(&stack{base: d.stack.base, size: d.Size(), layers: slices.DeleteFunc(slices.Clone(d.stack.layers), func(l *layer.Layer) bool {
			return l == p.y.fetched || l == p.y.written
		})})
	}
	if err != nil {
		return fmt.Errorf("%s at %s: %w", what, p.y.before, err)
	}
	return nil
}
