package vmdisk

import (
	"errors"
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
	return inside(off, n, d.Size())
}

// inside checks a range of a disk of so many bytes.
func inside(off, n, size int64) error {
	if off < 0 || n < 0 || n > size || off > size-n {
		return fmt.Errorf("%d bytes at %d of %d: %w", n, off, size, ErrRange)
	}
	return nil
}

// Size of the disk in bytes. It only ever rises, see Resize.
func (d *Store) Size() int64 { return d.size.Load() }

// blocks is Size in blocks.
func (d *Store) blocks() int64 { return d.Size() / Block }

// ID of the disk.
func (d *Store) ID() ID { return d.id }

// ReadAt reads len(p) bytes at off, of any alignment. It works on every complete disk, active or not; on a
// replica it reads the last committed epoch. A read that overlaps a write under way may see
// either or a mixture. Stale blocks are waited for. Errors: ErrIncomplete, ErrRange, ErrClosed, ErrStale, that of the file.
func (d *Store) ReadAt(p []byte, off int64) error {
	if err := d.bounds(off, int64(len(p))); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	err := d.fresh(off, int64(len(p)))
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	defer d.rd.RUnlock()
	err = d.mayRead()
	if err == nil && len(p) > 0 {
		err = d.troubled("read", d.stack.readAt(p, off))
	}
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	return nil
}

// mayRead says whether the layers are the disk: readable, for who doesn't hold mu. The caller holds rd.
func (d *Store) mayRead() error {
	if d.legible.Load() {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.readable()
}

// readable says whether the layers are the disk. The caller holds mu.
func (d *Store) readable() error {
	switch {
	case d.closed:
		return ErrClosed
	case !d.complete:
		return ErrIncomplete
	}
	return d.unapplied
}

// How a range is changed.
type change uint8

const (
	changeData  change = 1 // to content
	changeZero  change = 2 // to zeros, keeping the space
	changePunch change = 3 // to zeros, giving the space back
)

// WriteAt writes p at off, of any alignment. When it returns, p is in the kernel; with fua it is durable, and so is what
// was written before. Whole blocks of zeros become holes. p is the caller's again when it returns. Errors: ErrInactive,
// ErrFenced, ErrRange, ErrFailed, ErrStale (a block that is written in part), syscall.ENOSPC and others of the file; then what
// the range contains is unknown.
func (d *Store) WriteAt(p []byte, off int64, fua bool) error {
	how, n := changeData, int64(len(p))
	if off%Block == 0 && n%Block == 0 && isZero(p) {
		how = changePunch
	}
	return d.finish("write", d.change(how, off, n, p), fua)
}

// Zero makes n bytes at off read as zeros. With mayTrim their space is given back, otherwise it is kept, or taken, where
// the file system can do that. Errors are those of WriteAt.
func (d *Store) Zero(off, n int64, mayTrim, fua bool) error {
	how := changeZero
	if mayTrim {
		how = changePunch
	}
	return d.finish("zero", d.empty(how, off, n), fua)
}

// Trim gives the space of n bytes at off back; they read as zeros afterwards. Errors are those of WriteAt.
func (d *Store) Trim(off, n int64, fua bool) error {
	return d.finish("trim", d.empty(changePunch, off, n), fua)
}

// emptyPiece is how many bytes are emptied at once. A barrier waits for the change under way, whose blocks an open cut has to copy first, and all other
// changes wait for the barrier.
const emptyPiece = 32 << 20

// empty is change for how without content: of gigabytes too, which it does piece by piece. Who asks for so much at once must not keep others from
// writing; what a barrier finds of it is open until it has ended, as of every write.
func (d *Store) empty(how change, off, n int64) error {
	if err := d.bounds(off, n); err != nil {
		return err
	}
	for n > emptyPiece {
		part := d.emptyNext(off, n)
		if err := d.change(how, off, part, nil); err != nil {
			return err
		}
		off, n = off+part, n-part
	}
	return d.change(how, off, n, nil)
}

// emptyNext is how many of n bytes at off are emptied next: a hole is in no time, however large.
func (d *Store) emptyNext(off, n int64) int64 {
	d.gate.RLock()
	data, err := d.stack.nextData(off)
	d.gate.RUnlock()
	if part := data/Block*Block - off; err == nil && part > emptyPiece {
		return min(part, n)
	}
	return emptyPiece - off%emptyPiece
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

// change does one write: logged, claimed, and told to the peers. p is the content of changeData. It takes no memory unless
// feeds want the content.
func (d *Store) change(how change, off, n int64, p []byte) error {
	if err := d.bounds(off, n); err != nil {
		return err
	}
	if err := d.mayWrite(); err != nil || n == 0 {
		return err
	}
	before, err := d.edges(off, n)
	if err != nil {
		return err
	}
	if err := d.begin(off, n); err != nil {
		return err
	}
	y := d.hydration.Load()
	if y != nil && y != before {
		d.end(off, n)
		return ErrInactive // it was another owner's disk between
	}
	a, b := off/Block, (off+n+Block-1)/Block
	c := d.claims.take(a, b)
	d.preserve(a, b)
	err = d.put(how, off, n, p)
	if outOfSpace(err) && d.loseCuts(err, true) {
		err = d.put(how, off, n, p) // the guest goes before the cuts
	}
	err = d.troubled("write", err)
	if y != nil && err == nil {
		y.h.Drop(a*Block, (b-a)*Block)
	}
	d.tell(how, a, b, off, n, p, err == nil)
	c.release()
	d.end(off, n)
	return err
}

// begin lets a write into the activity log and through the gate; end ends that.
func (d *Store) begin(off, n int64) error {
	for {
		era := d.al.era.Load()
		if err := d.al.enter(off, n); errors.Is(err, ErrFenced) {
			return err // sealed since this write asked
		} else if err != nil {
			return d.troubled("log a write", err)
		}
		d.gate.RLock()
		// Asked again: now that the gate is held, a fence waits for us. If one came and went, so may have the log.
		err := d.mayWrite()
		if err == nil && d.al.era.Load() == era {
			return nil
		}
		d.end(off, n)
		if err != nil {
			return err
		}
	}
}

func (d *Store) end(off, n int64) {
	d.gate.RUnlock()
	d.al.leave(off, n)
}

// put changes the layers.
func (d *Store) put(how change, off, n int64, p []byte) error {
	if how == changePunch {
		return d.stack.zeroAt(off, n, false)
	}
	if err := d.room(off, n); err != nil {
		return err
	}
	if how == changeZero {
		return d.stack.zeroAt(off, n, true)
	}
	return d.stack.writeAt(p, off)
}

// tell notes a change of the blocks [a, b), the bytes [off, off+n), for the peers. If it failed the blocks have to be read again.
// The caller holds the claim.
func (d *Store) tell(how change, a, b, off, n int64, p []byte, ok bool) {
	switch {
	case !ok || d.queueing.Load() == 0:
		d.track(a, b, nil)
	case how != changeData && off%Block == 0 && n%Block == 0:
		one := [1]*buffer{newZeros(off, n)}
		d.track(a, b, one[:])
		one[0].release()
	case (b-a)*Block <= d.o.QueueBytes:
		var few [4]*buffer
		bufs := d.capture(few[:0], a, b, off, p)
		d.track(a, b, bufs)
		for _, buf := range bufs {
			buf.release()
		}
	default:
		d.track(a, b, nil)
	}
}

// mayWrite says whether writes are accepted: writable, for who doesn't hold mu.
func (d *Store) mayWrite() error {
	if d.open.Load() {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.writable()
}

// writable says whether writes are accepted. The caller holds mu.
func (d *Store) writable() error {
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

// reconsider must be called after every change of closed, active, fenced, complete, err or unapplied, in the same section of mu.
func (d *Store) reconsider() {
	d.open.Store(d.writable() == nil)
	d.legible.Store(d.readable() == nil)
}

// capture is the content of the blocks [a, b) after a write of p (or zeros) at off: p itself, and what is around it
// from the file. It is appended to bufs, which is empty. It is nil if that can't be read: then the blocks are copied later.
func (d *Store) capture(bufs []*buffer, a, b, off int64, p []byte) []*buffer {
	for at := a * Block; at < b*Block; {
		n := min(b*Block-at, MaxOp)
		buf := newBuffer(int(n))
		bufs = append(bufs, buf)
		if from, to := at-off, at-off+n; from >= 0 && to <= int64(len(p)) {
			copy(buf.data, p[from:to])
		} else if err := d.stack.readAt(buf.data, at); err != nil {
			for _, buf := range bufs {
				buf.release()
			}
			return nil
		}
		buf.write(at)
		at += n
	}
	return bufs
}

// holeEnd is where the hole that begins at block a ends, at most b; it is a if there is none.
func (d *Store) holeEnd(a, b int64) int64 {
	d.rd.RLock()
	defer d.rd.RUnlock()
	return d.stack.holeEnd(a, b)
}
