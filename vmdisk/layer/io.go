package layer

import (
	"errors"
	"fmt"
	"io/fs"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// Delete removes the files of a layer that isn't open, as far as they are there.
func Delete(fsys vfs.FS, name string) error {
	var errs []error
	// The set goes first: data without it is nothing.
	for _, suffix := range []string{mapSuffix, mapSuffix + vfs.TempSuffix, dataSuffix} {
		if err := fsys.Remove(name + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func missing(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is missing: %w", name, ErrCorrupt)
	}
	return err
}

// ReadAt fills p from off bytes on. What the layer doesn't have reads as anything.
func (l *Layer) ReadAt(p []byte, off int64) error { return readFull(l.data, p, off) }

// NextData is the first byte from off on whose block may hold something else than zeros; it is meant for what the layer has.
func (l *Layer) NextData(off int64) (int64, error) { return l.data.NextData(off) }

// NextHole is the first byte from off on that takes no space, or the size of the disk.
func (l *Layer) NextHole(off int64) (int64, error) { return l.data.NextHole(off) }

// WriteAt writes p at off bytes. When it returns, p is in the kernel and the blocks are present. Blocks that p covers in part
// must be present before. Errors: ErrAbsent, ErrFailed, those of the files: then the content of the range is unknown, and what
// was present still is.
func (l *Layer) WriteAt(p []byte, off int64) error {
	n := int64(len(p))
	return l.change(off, n, func(a, b int64) error {
		if l.c.Kind == Written {
			var err error
			if p, off, err = l.widen(p, off, a, b); err != nil {
				return err
			}
			if err := l.notePut(p, a, b); err != nil {
				return err
			}
		}
		_, err := l.data.WriteAt(p, off)
		return err
	})
}

// ZeroAt makes n bytes at off zeros, and the blocks present. With keep their space is kept, or taken, else given back.
// Otherwise it is like WriteAt.
func (l *Layer) ZeroAt(off, n int64, keep bool) error {
	noted := l.c.Kind == Written
	if head := min(n, (Block-off%Block)%Block); noted && head > 0 {
		if err := l.WriteAt(zeroBlock[:head], off); err != nil {
			return err
		}
		off, n = off+head, n-head
	}
	if tail := n % Block; noted && tail > 0 {
		if err := l.WriteAt(zeroBlock[:tail], off+n-tail); err != nil {
			return err
		}
		n -= tail
	}
	return l.change(off, n, func(a, b int64) error {
		if noted {
			if err := l.noteZero(a, b); err != nil {
				return err
			}
		}
		if keep {
			return l.data.ZeroRange(off, n)
		}
		return l.data.Punch(off, n)
	})
}

// change does one write of blocks [a, b) and notes that they are present.
func (l *Layer) change(off, n int64, do func(a, b int64) error) error {
	if n <= 0 {
		return nil
	}
	a, b := off/Block, (off+n+Block-1)/Block
	l.writes.RLock()
	defer l.writes.RUnlock()
	l.mu.RLock()
	err := l.err
	if err == nil && (off%Block != 0 && !l.have.Has(a) || (off+n)%Block != 0 && !l.have.Has(b-1)) {
		err = fmt.Errorf("part of a block at %d: %w", off, ErrAbsent)
	}
	all := l.have.Next(a, false) >= b
	l.mu.RUnlock()
	if err != nil {
		return err
	}
	if err := do(a, b); err != nil {
		return err
	}
	if all {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.take(a, b)
	return nil
}

// take makes the blocks [a, b) present, and those that were not, fresh. The caller holds mu, or is alone.
func (l *Layer) take(a, b int64) {
	for x := l.have.Next(a, false); x < b; x = l.have.Next(x, false) {
		y := min(b, l.have.Next(x, true))
		l.fresh.Add(x, y)
		l.have.Add(x, y)
	}
}
