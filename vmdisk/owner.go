package vmdisk

import (
	"fmt"
	"io"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// readFull reads all of p; the end of the file is an error.
func readFull(f vfs.File, p []byte, off int64) error {
	n, err := f.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// bounds checks a range of the disk.
func (d *Store) bounds(off, n int64) error {
	if off < 0 || n < 0 || n > d.size || off > d.size-n {
		return fmt.Errorf("%d bytes at %d of %d: %w", n, off, d.size, ErrRange)
	}
	return nil
}

// Size of the disk in bytes.
func (d *Store) Size() int64 { return d.size }

// ID of the disk.
func (d *Store) ID() ID { return d.id }

// ReadAt reads len(p) bytes at off, of any alignment. It works on every complete disk, active or not; on a
// replica it reads the last committed epoch. A read that overlaps a write under way may see
// either or a mixture. Errors: ErrIncomplete, ErrRange, ErrClosed, that of the file.
func (d *Store) ReadAt(p []byte, off int64) error {
	if err := d.bounds(off, int64(len(p))); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	d.rd.RLock()
	defer d.rd.RUnlock()
	d.mu.Lock()
	err := d.readable()
	d.mu.Unlock()
	if err == nil && len(p) > 0 {
		err = d.troubled("read", readFull(d.base, p, off))
	}
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	return nil
}

// readable says whether base.raw is the disk. The caller holds mu.
func (d *Store) readable() error {
	switch {
	case d.closed:
		return ErrClosed
	case !d.complete:
		return ErrIncomplete
	}
	return d.unapplied
}

// WriteAt writes p at off, of any alignment. When it returns, p is in the kernel; with fua it is durable, and so is what
// was written before. Whole blocks of zeros become holes. p is the caller's again when it returns. Errors: ErrInactive,
// ErrFenced, ErrRange, ErrFailed, syscall.ENOSPC and others of the file; then what the range contains is unknown.
func (d *Store) WriteAt(p []byte, off int64, fua bool) error {
	n := int64(len(p))
	zero := n > 0 && off%Block == 0 && n%Block == 0 && isZero(p)
	err := d.change(off, n, zero, p, func() error {
		if zero {
			return d.base.Punch(off, n)
		}
		if err := d.room(off, n); err != nil {
			return err
		}
		_, err := d.base.WriteAt(p, off)
		return err
	})
	return d.finish("write", err, fua)
}

// Zero makes n bytes at off read as zeros. With mayTrim their space is given back, otherwise it is kept, or taken, where
// the file system can do that. Errors are those of WriteAt.
func (d *Store) Zero(off, n int64, mayTrim, fua bool) error {
	err := d.change(off, n, true, nil, func() error {
		if mayTrim {
			return d.base.Punch(off, n)
		}
		if err := d.room(off, n); err != nil {
			return err
		}
		return d.base.ZeroRange(off, n)
	})
	return d.finish("zero", err, fua)
}

// Trim gives the space of n bytes at off back; they read as zeros afterwards. Errors are those of WriteAt.
func (d *Store) Trim(off, n int64, fua bool) error {
	err := d.change(off, n, true, nil, func() error { return d.base.Punch(off, n) })
	return d.finish("trim", err, fua)
}

func (d *Store) finish(what string, err error, fua bool) error {
	if err == nil && fua {
		err = d.barrier()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// change does one write: logged, claimed, and told to the peers. zero says that the range reads as zeros
// afterwards, else p is its content.
func (d *Store) change(off, n int64, zero bool, p []byte, do func() error) error {
	if err := d.bounds(off, n); err != nil {
		return err
	}
	if err := d.writable(); err != nil || n == 0 {
		return err
	}
	held, err := d.al.enter(off, n)
	if err != nil {
		return d.troubled("log a write", err)
	}
	defer d.al.leave(held)
	d.gate.RLock()
	defer d.gate.RUnlock()
	// Asked again: now that the gate is held, a fence waits for us.
	if err := d.writable(); err != nil {
		return err
	}
	a, b := off/Block, (off+n+Block-1)/Block
	c := d.claims.take(a, b)
	defer c.release()
	err = d.troubled("write", do())
	if err == nil && zero && off%Block == 0 && n%Block == 0 {
		d.track(a, b, true, nil)
		return nil
	}
	var bufs []*buffer
	if err == nil && d.queueing.Load() > 0 && (b-a)*Block <= d.o.QueueBytes {
		bufs = d.capture(a, b, off, p)
	}
	d.track(a, b, false, bufs)
	for _, buf := range bufs {
		buf.release()
	}
	return err
}

// writable says whether writes are accepted.
func (d *Store) writable() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return ErrClosed
	case d.err != nil:
		return d.err
	case !d.active:
		return ErrInactive
	case d.fenced:
		return ErrFenced
	}
	return nil
}

// capture is the content of the blocks [a, b) after a write of p (or zeros) at off: p itself, and what is around it
// from the file. It is nil if that can't be read: then the blocks are copied later.
func (d *Store) capture(a, b, off int64, p []byte) []*buffer {
	var bufs []*buffer
	for at := a * Block; at < b*Block; {
		n := min(b*Block-at, MaxOp)
		buf := newBuffer(int(n))
		bufs = append(bufs, buf)
		if from, to := at-off, at-off+n; from >= 0 && to <= int64(len(p)) {
			copy(buf.data, p[from:to])
		} else if err := readFull(d.base, buf.data, at); err != nil {
			for _, buf := range bufs {
				buf.release()
			}
			return nil
		}
		at += n
	}
	return bufs
}

// holeEnd is where the hole that begins at block a ends, at most b; it is a if there is none.
func (d *Store) holeEnd(a, b int64) int64 {
	data, err := d.base.NextData(a * Block)
	if err != nil {
		return a // it will be read, and that says what is wrong
	}
	if data >= d.size {
		return b
	}
	return max(a, min(b, data/Block))
}
