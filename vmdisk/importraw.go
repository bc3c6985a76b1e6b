package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// ImportRaw fills a disk that was never active with the content of the raw file at path, which isn't bigger than the
// disk; the rest is zeros. Holes and zeros take no space. While it runs, and if it fails, the disk is incomplete;
// it can be tried again. progress, if not nil, is called now and then. Errors: ErrNotFresh, ErrRange (file too
// big), syscall.ENOSPC, those of the files and ctx.
func (d *Store) ImportRaw(ctx context.Context, path string, progress func(done, total int64)) error {
	d.role.Lock()
	defer d.role.Unlock()
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	err = d.importFrom(ctx, f, progress)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("import %s: %w", path, err)
	}
	return nil
}

func (d *Store) importFrom(ctx context.Context, f *os.File, progress func(done, total int64)) error {
	size, err := f.Seek(0, io.SeekEnd) // works for block devices too
	if err != nil {
		return err
	}
	if size > d.Size() {
		return fmt.Errorf("%d bytes into a disk of %d: %w", size, d.Size(), ErrRange)
	}
	st := d.j.snapshot()
	d.mu.Lock()
	closed, failed, applying := d.closed, d.err, d.applier != nil
	d.mu.Unlock()
	switch {
	case closed:
		return ErrClosed
	case failed != nil:
		return failed
	case applying:
		return ErrApplying
	case st.newest() > 0 || !st.complete && !st.importing || st.position != Position{}:
		return ErrNotFresh
	}
	mark := func(complete bool) error {
		if err := d.j.commit(func(st *state) { st.complete, st.importing = complete, !complete }); err != nil {
			return err
		}
		d.became(complete, [16]byte{}, Position{})
		return nil
	}
	if err := errors.Join(mark(false), d.hashes.reset()); err != nil {
		return err
	}
	d.loseCuts(ErrIncomplete, false)
	if err := d.stack.zeroAt(0, d.Size(), false); err != nil {
		return err
	}
	if err := d.copyIn(ctx, f, size, progress); err != nil {
		return err
	}
	if err := d.syncAll(); err != nil {
		return err
	}
	return mark(true)
}

func (d *Store) copyIn(ctx context.Context, f *os.File, size int64, progress func(done, total int64)) error {
	buf := make([]byte, 1<<20)
	for off := int64(0); off < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		if data := vfs.DataAt(f, off); data > off {
			off = min(data, size)
		} else {
			n := min(int64(len(buf)), size-off)
			if m, err := f.ReadAt(buf[:n], off); int64(m) < n {
				return errors.Join(err, io.ErrUnexpectedEOF)
			}
			if err := d.putIn(buf[:n], off); err != nil {
				return err
			}
			off += n
		}
		if progress != nil {
			progress(off, size)
		}
	}
	return nil
}

// putIn writes the blocks of p that aren't zeros, in runs.
func (d *Store) putIn(p []byte, off int64) error {
	for at := 0; at < len(p); {
		end := min(len(p), at+Block)
		if isZero(p[at:end]) {
			at = end
			continue
		}
		for end < len(p) && !isZero(p[end:min(len(p), end+Block)]) {
			end = min(len(p), end+Block)
		}
		if err := d.room(off+int64(at), int64(end-at)); err != nil {
			return err
		}
		if err := d.stack.writeAt(p[at:end], off+int64(at)); err != nil {
			return err
		}
		at = end
	}
	return nil
}
