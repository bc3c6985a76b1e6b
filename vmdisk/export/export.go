// Package export writes a disk into a file that other programs read: raw, or qcow2.
//
// What it guarantees:
//   - The file has its name only when it is whole and durable. Until then it is called .NAME.<hex>.unfinished, in the same directory;
//     an export that fails or is cancelled removes that, one that is killed leaves it.
//   - Holes aren't read, and holes and zeros take no space in the file, so an almost empty terabyte takes seconds.
//   - Memory is bounded, by 8 MiB, whatever the size of the disk.
//
// What it doesn't: it doesn't make the disk hold still. Who writes a disk that changes hands in a vmdisk.Cut.
//
// Tests: go test ./vmdisk/export; on Linux qemu-img looks at the files.
package export

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/throttle"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// The formats.
const (
	Raw   = "raw"   // the bytes of the disk
	Qcow2 = "qcow2" // QEMU's, version 3, clusters of 64 KiB, without a backing file
)

// Errors of this package. Others are those of the reader, the files and the context.
var (
	// ErrExists: there is a file of that name.
	ErrExists = errors.New("export: there is a file already")
	// ErrFormat: the format is unknown.
	ErrFormat = errors.New("export: unknown format")
)

const (
	cluster  = 64 << 10
	piece    = 1 << 20 // what is read at once
	parallel = 4
	// window is how much of the disk is behind one table of a qcow2 file. The next is begun when one is done.
	window = cluster / 8 * cluster
)

// Options of an export.
type Options struct {
	// Format is Raw or Qcow2.
	Format string
	// Force replaces a file of the same name.
	Force bool
	// Limit slows the reading down; nil doesn't.
	Limit *throttle.Limit
	// Progress, if not nil, is told now and then how many bytes of the disk's size are done. Calls don't overlap.
	Progress func(done, total int64)
	// Read, if not nil, is told what has been read and isn't needed any more: a cut's Release. Calls may overlap.
	Read func(off, n int64)
}

// File writes the disk r into the file at path. Errors: ErrExists, ErrFormat, syscall.ENOSPC, others of r and the file, ctx's.
func File(ctx context.Context, path string, r vmdisk.Reader, o Options) error {
	return To(ctx, vfs.OS(filepath.Dir(path)), filepath.Base(path), r, o)
}

// To is File into the file name of a directory. The name is looked at before and after the writing; who makes one of
// that name in the very moment between the second look and the renaming loses it.
func To(ctx context.Context, dir vfs.FS, name string, r vmdisk.Reader, o Options) error {
	if err := to(ctx, dir, name, r, o); err != nil {
		return fmt.Errorf("export to %s: %w", name, err)
	}
	return nil
}

func to(ctx context.Context, dir vfs.FS, name string, r vmdisk.Reader, o Options) (err error) {
	if o.Format != Raw && o.Format != Qcow2 {
		return fmt.Errorf("%q: %w", o.Format, ErrFormat)
	}
	if err := free(dir, name, o.Force); err != nil {
		return err
	}
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails
	part := "." + name + "." + hex.EncodeToString(id[:]) + ".unfinished"
	f, err := dir.Create(part)
	if err != nil {
		return err
	}
	if err := errors.Join(write(ctx, f, r, o), f.Close()); err != nil {
		return errors.Join(err, dir.Remove(part))
	}
	err = free(dir, name, o.Force)
	if err == nil {
		err = dir.Rename(part, name)
	}
	if err != nil {
		return errors.Join(err, dir.Remove(part))
	}
	return dir.SyncDir()
}

// free says whether name may be taken.
func free(dir vfs.FS, name string, force bool) error {
	names, err := dir.List()
	if err == nil && !force && slices.Contains(names, name) {
		err = ErrExists
	}
	return err
}

// sink is a format. put and what follows are called for rising windows.
type sink interface {
	begin() error
	// put stores p, which is of disk offset off and begins at a cluster. Calls of one window may overlap.
	put(p []byte, off int64) error
	// close ends the window at off: nothing more comes for it.
	close(off int64) error
	finish() error
}

func write(ctx context.Context, f vfs.File, r vmdisk.Reader, o Options) error {
	var s sink = &raw{f: f, size: r.Size()}
	if o.Format == Qcow2 {
		s = newQcow2(f, r.Size())
	}
	if err := s.begin(); err != nil {
		return err
	}
	w := &writer{r: r, o: o, s: s}
	for off := int64(0); off < r.Size(); off += window {
		if err := w.window(ctx, off, min(off+window, r.Size())); err != nil {
			return err
		}
	}
	if err := s.finish(); err != nil {
		return err
	}
	return f.Sync()
}

// writer is one export under way.
type writer struct {
	r    vmdisk.Reader
	o    Options
	s    sink
	pool sync.Pool // of *[]byte, a piece long

	mu   sync.Mutex
	done int64
}

// window writes what is in [from, end).
func (w *writer) window(ctx context.Context, from, end int64) error {
	g, within := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	err := w.pieces(within, from, end, func(off, n int64) {
		g.Go(func() error { return w.piece(within, off, n) })
	})
	// What a piece says comes first: it is why the others were cancelled.
	if gerr := g.Wait(); gerr != nil {
		return gerr
	}
	if err != nil {
		return err
	}
	return w.s.close(from)
}

// pieces calls do for each piece of whole clusters in [from, end) that isn't a hole.
func (w *writer) pieces(ctx context.Context, from, end int64, do func(off, n int64)) error {
	seen := from // what is before was given to do, or is a hole
	for at := from; at < end; {
		es, err := w.r.Extents(at, end-at)
		if err != nil {
			return fmt.Errorf("extents at %d: %w", at, err)
		}
		for _, e := range es {
			if err := ctx.Err(); err != nil {
				return err
			}
			a := at
			if at += e.Len; e.Hole {
				continue
			}
			// A cluster that data and holes share is read once, and whole.
			to := min(end, (at+cluster-1)/cluster*cluster)
			if a = a / cluster * cluster; a > seen {
				w.advance(seen, a-seen)
			}
			for seen = max(seen, a); seen < to; {
				n := min(to-seen, piece-seen%piece)
				do(seen, n)
				seen += n
			}
		}
	}
	w.advance(seen, end-seen)
	return nil
}

// piece moves one.
func (w *writer) piece(ctx context.Context, off, n int64) error {
	if err := w.o.Limit.Wait(ctx, n); err != nil {
		return err
	}
	buf, _ := w.pool.Get().(*[]byte)
	if buf == nil {
		b := make([]byte, piece)
		buf = &b
	}
	defer w.pool.Put(buf)
	p := (*buf)[:n]
	if err := w.r.ReadAt(p, off); err != nil {
		return fmt.Errorf("read %d at %d: %w", n, off, err)
	}
	if err := w.s.put(p, off); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	w.advance(off, n)
	return nil
}

// advance counts n bytes at off as done.
func (w *writer) advance(off, n int64) {
	if n == 0 {
		return
	}
	if w.o.Read != nil {
		w.o.Read(off, n)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done += n
	if w.o.Progress != nil {
		w.o.Progress(w.done, w.r.Size())
	}
}

// runs calls do for the longest runs of parts of p, grain bytes each (the last may be less), that aren't all zeros.
func runs(p []byte, grain int, do func(from, to int) error) error {
	for from := 0; from < len(p); {
		to := from
		for to < len(p) && !isZero(p[to:min(to+grain, len(p))]) {
			to = min(to+grain, len(p))
		}
		if to > from {
			if err := do(from, to); err != nil {
				return err
			}
		}
		from = to + grain // what stopped it is zeros, or the end
	}
	return nil
}

var zeros [cluster]byte

func isZero(p []byte) bool { return string(p) == string(zeros[:len(p)]) }
