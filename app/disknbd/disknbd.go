// Package disknbd lends a disk to the NBD server: the engine's to QEMU, and that of `tagalong disk serve`
// to whoever connects.
//
// It guarantees that passing trouble (writes are fenced off for a switch, the disk isn't active yet, or is being
// closed, or lacks blocks that nobody can send now) becomes a hang-up: QEMU reconnects and sends the request again, while an error would reach the
// guest's file system. Everything else that a disk says reaches the client as the protocol's error.
//
// Who wants flushes, and writes with FUA, to be answered only when a second device has them too gives it a [Second] (package second has one).
//
// It keeps nothing, closes nothing and decides nothing: who serves a disk sees to it that it is active,
// or serves it with ReadOnly.
package disknbd

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/nbd"
)

// Backend is a disk for reading and writing. Two of the same are equal, so the server keeps the order of requests across them.
type Backend struct {
	Disk vmdisk.Disk
	// Second, if not nil, is asked before anything durable is answered. It must be comparable.
	Second Second
}

// Second holds an answer back until there is a second copy; a second.Bound does.
type Second interface {
	// Flushed runs flush, which makes what was written durable here, and returns its error, or when that is durable elsewhere too.
	Flushed(flush func() error) error
}

var (
	_ nbd.StatusBackend   = Backend{}
	_ nbd.PromptBackend   = Backend{}
	_ nbd.CacheBackend    = Backend{}
	_ nbd.StatusBackend   = ReadOnly{}
	_ nbd.ReadOnlyBackend = ReadOnly{}
)

// passing turns what is only a matter of time into a hang-up.
func passing(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, vmdisk.ErrFenced), errors.Is(err, vmdisk.ErrInactive), errors.Is(err, vmdisk.ErrClosed),
		errors.Is(err, vmdisk.ErrStale):
		return errors.Join(nbd.ErrHangUp, err)
	default:
		return err
	}
}

// Size implements nbd.Backend.
func (b Backend) Size() int64 { return b.Disk.Size() }

// ReadAt implements nbd.Backend.
func (b Backend) ReadAt(p []byte, off int64) error { return passing(b.Disk.ReadAt(p, off)) }

// WriteAt implements nbd.Backend.
func (b Backend) WriteAt(p []byte, off int64, fua bool) error {
	if fua {
		return b.flushed(func() error { return b.Disk.WriteAt(p, off, true) })
	}
	return passing(b.Disk.WriteAt(p, off, false))
}

// Flush implements nbd.Backend.
func (b Backend) Flush() error { return b.flushed(b.Disk.Flush) }

// flushed does what makes something durable, and waits for the second copy if that is asked for.
func (b Backend) flushed(flush func() error) error {
	if b.Second == nil {
		return passing(flush())
	}
	return passing(b.Second.Flushed(flush))
}

// Trim implements nbd.Backend.
func (b Backend) Trim(off, n int64, fua bool) error {
	if fua {
		return b.flushed(func() error { return b.Disk.Trim(off, n, true) })
	}
	return passing(b.Disk.Trim(off, n, false))
}

// Zero implements nbd.Backend.
func (b Backend) Zero(off, n int64, mayTrim, fua bool) error {
	if fua {
		return b.flushed(func() error { return b.Disk.Zero(off, n, mayTrim, true) })
	}
	return passing(b.Disk.Zero(off, n, mayTrim, false))
}

// BlockStatus implements nbd.StatusBackend.
func (b Backend) BlockStatus(off, n int64) ([]nbd.Extent, error) { return status(b.Disk, off, n) }

// partial is a disk that may lack blocks; a vmdisk.Store is one.
type partial interface {
	// Stale says whether any of n bytes at off has to be fetched before it can be read.
	Stale(off, n int64) bool
	// Prefetch fetches them.
	Prefetch(off, n int64) error
}

var _ partial = (*vmdisk.Store)(nil)

// Prompt implements nbd.PromptBackend: a disk waits for nothing but its file, unless a block must be fetched. Whole blocks are
// written without that.
func (b Backend) Prompt(off, n int64, write bool) bool {
	p, ok := b.Disk.(partial)
	return !ok || write && off%vmdisk.Block == 0 && n%vmdisk.Block == 0 || !p.Stale(off, n)
}

// Cache implements nbd.CacheBackend: what is stale is fetched.
func (b Backend) Cache(off, n int64) error {
	if p, ok := b.Disk.(partial); ok {
		return passing(p.Prefetch(off, n))
	}
	return nil
}

// ReadOnly is a disk, or a cut of one, that only is read. Clients are told, and a write gets EPERM.
type ReadOnly struct{ Reader vmdisk.Reader }

// ReadOnly implements nbd.ReadOnlyBackend.
func (ReadOnly) ReadOnly() {}

// Size implements nbd.Backend.
func (b ReadOnly) Size() int64 { return b.Reader.Size() }

// ReadAt implements nbd.Backend.
func (b ReadOnly) ReadAt(p []byte, off int64) error { return passing(b.Reader.ReadAt(p, off)) }

// WriteAt implements nbd.Backend.
func (ReadOnly) WriteAt([]byte, int64, bool) error { return fs.ErrPermission }

// Flush does nothing: there is nothing to make durable.
func (ReadOnly) Flush() error { return nil }

// Trim implements nbd.Backend.
func (ReadOnly) Trim(int64, int64, bool) error { return fs.ErrPermission }

// Zero implements nbd.Backend.
func (ReadOnly) Zero(int64, int64, bool, bool) error { return fs.ErrPermission }

// BlockStatus implements nbd.StatusBackend.
func (b ReadOnly) BlockStatus(off, n int64) ([]nbd.Extent, error) { return status(b.Reader, off, n) }

// Known is a disk that nobody makes whole any more: what it lacks can't be read, which a client is told at once, instead of waiting.
type Known struct{ *vmdisk.Store }

// ReadAt implements vmdisk.Reader. Its error is syscall.EIO where something is lacking.
func (k Known) ReadAt(p []byte, off int64) error {
	if k.Stale(off, int64(len(p))) {
		return fmt.Errorf("%d bytes at %d never came to this device: %w", len(p), off, syscall.EIO)
	}
	return k.Store.ReadAt(p, off)
}

// status says where there is data. Holes read as zeros.
func status(r vmdisk.Reader, off, n int64) ([]nbd.Extent, error) {
	list, err := r.Extents(off, n)
	if err != nil {
		return nil, passing(err)
	}
	out := make([]nbd.Extent, len(list))
	for i, x := range list {
		out[i] = nbd.Extent{Len: x.Len, Hole: x.Hole, Zero: x.Hole}
	}
	return out, nil
}
