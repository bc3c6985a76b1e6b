package diskimage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"syscall"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/disknbd"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// unreadableInARow is how many blocks may be unreadable one after the other before the file, or the drive that it is on, counts as gone.
const unreadableInARow = 256

// Seeded is what came of an image.
type Seeded struct {
	// Read is how many bytes of the image went in, holes included; Unreadable of how many its drive had nothing to say.
	Read, Unreadable int64
}

// Raw is a raw file, or a drive, without asking qemu-img. What it contains doesn't matter. Errors: an *api.Error.
func Raw(path string) (Image, error) {
	if err := readable(path); err != nil {
		return Image{}, err
	}
	f, err := os.Open(path)
	if err != nil {
		return Image{}, errUnreadable(path, err)
	}
	size, err := f.Seek(0, io.SeekEnd) // works for drives too
	if err = errors.Join(err, f.Close()); err != nil {
		return Image{}, errUnreadable(path, err)
	}
	return Image{Path: path, Format: "raw", Size: size}, nil
}

// readable refuses what is neither a file nor a drive: to open a pipe waits for somebody at its other end.
func readable(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return &api.Error{Code: api.CodeNotFound, Sentence: fmt.Sprintf("There is no image %s that can be read.", path), Next: "Check the path.", Cause: err.Error()}
	case info.Mode().IsRegular(), info.Mode()&os.ModeDevice != 0 && info.Mode()&os.ModeCharDevice == 0:
		return nil
	}
	return &api.Error{Code: api.CodeUsage, Sentence: path + " is not a disk image.", Next: "Name a file, or a drive."}
}

func errUnreadable(path string, err error) error {
	return &api.Error{Code: api.CodeRefused, Sentence: fmt.Sprintf("The image %s can't be read.", path), Next: "Make sure that you may read it, and that its drive is there.", Cause: err.Error()}
}

// errLarger: what is past the end of the disk isn't zeros.
func errLarger(img Image, size int64) error {
	return &api.Error{Code: api.CodeUsage, Sentence: fmt.Sprintf("%s is larger than the VM's disk (%d bytes instead of %d), and there is something past its end.", img.Path, img.Size, size),
		Next: "It is another disk, or from after the VM's was made smaller. Name an image of this one."}
}

// Seed copies an image into disk, over what is there: what is likely to be much like it, but needn't be. What of the image can't be read is left
// out, unless that is a lot at once. A smaller image leaves the rest of the disk as it is; a larger one is refused, unless the rest of it is zeros. A raw image is read
// directly, any other as Fill does it. What was copied isn't flushed, and when Seed fails a part of it was. Errors: those of Fill.
func Seed(ctx context.Context, disk vmdisk.Disk, img Image, socketDir string, log *slog.Logger, progress func(done int64)) (Seeded, error) {
	if img.Format == "raw" {
		f, err := os.Open(img.Path)
		if err != nil {
			return Seeded{}, errUnreadable(img.Path, err)
		}
		defer func() { _ = f.Close() }() // it was only read
		// qemu-img counts in sectors.
		if img.Size, err = f.Seek(0, io.SeekEnd); err != nil {
			return Seeded{}, errUnreadable(img.Path, err)
		}
		return seedRaw(ctx, disk, img, rawFile{f}, progress)
	}
	wide := &wideDisk{Disk: disk, size: (max(img.Size, disk.Size()) + vmdisk.Block - 1) / vmdisk.Block * vmdisk.Block}
	err := serve(ctx, disknbd.Backend{Disk: wide}, socketDir, log, func(uri string) error {
		return convert(ctx, img.Size, progress, "-n", "-W", "-f", img.Format, "-O", "raw", "file:"+img.Path, uri)
	})
	switch {
	case wide.over.Load():
		return Seeded{}, errLarger(img, disk.Size())
	case wide.full.Load():
		return Seeded{}, fmt.Errorf("copy the image: %w", syscall.ENOSPC)
	case errors.Is(err, &api.Error{Code: api.CodeInternal}):
		return Seeded{}, &api.Error{Code: api.CodeUsage, Sentence: img.Path + " can't be read to its end.", Next: "What could be read stays, and needn't be fetched where it is right. See what is wrong with: qemu-img check", Cause: err.Error()}
	case err != nil:
		return Seeded{}, err
	}
	return Seeded{Read: min(img.Size, disk.Size())}, nil
}

// source is a raw image.
type source interface {
	io.ReaderAt
	// dataAt is the first offset from off on that may hold something else than a hole.
	dataAt(off int64) int64
}

type rawFile struct{ *os.File }

func (f rawFile) dataAt(off int64) int64 { return vfs.DataAt(f.File, off) }

// rawCopy is one raw image being read.
type rawCopy struct {
	from   source
	disk   vmdisk.Disk
	img    Image
	buf    []byte
	seeded Seeded
	inARow int // unreadable blocks up to here
}

func seedRaw(ctx context.Context, disk vmdisk.Disk, img Image, from source, progress func(done int64)) (Seeded, error) {
	c := &rawCopy{from: from, disk: disk, img: img, buf: make([]byte, 1<<20)}
	larger := func(p []byte, _ int64) error {
		for _, b := range p {
			if b != 0 {
				return errLarger(img, disk.Size())
			}
		}
		return nil
	}
	skip := func(int64, int64) error { return nil }
	err := c.walk(ctx, disk.Size(), img.Size, larger, skip, func(int64) {})
	if err == nil {
		c.inARow = 0
		c.seeded = Seeded{}
		put := func(p []byte, off int64) error { return disk.WriteAt(p, off, false) }
		hole := func(off, n int64) error { return disk.Zero(off, n, true, false) }
		err = c.walk(ctx, 0, min(img.Size, disk.Size()), put, hole, progress)
	}
	return c.seeded, err
}

// walk reads the image from one offset to another, in order.
func (c *rawCopy) walk(ctx context.Context, off, end int64, data func(p []byte, off int64) error, hole func(off, n int64) error, progress func(done int64)) error {
	for off < end {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := min(int64(len(c.buf)), end-off), error(nil)
		if at := min(c.from.dataAt(off), end); at > off {
			n = at - off
			err = hole(off, n)
		} else {
			err = c.read(c.buf[:n], off, data)
		}
		if err != nil {
			return err
		}
		off += n
		c.seeded.Read = off
		progress(off)
	}
	return nil
}

// read gives p, read at off, to data; if it can't be read at once, block by block, without those that can't be.
func (c *rawCopy) read(p []byte, off int64, data func(p []byte, off int64) error) error {
	n, err := c.from.ReadAt(p, off)
	switch {
	case n == len(p):
		c.inARow = 0
		return data(p, off)
	case errors.Is(err, io.EOF):
		return &api.Error{Code: api.CodeConflict, Sentence: c.img.Path + " became shorter while it was read.", Next: "Name a file that nobody changes.", Cause: io.ErrUnexpectedEOF.Error()}
	case len(p) > vmdisk.Block:
		for at := 0; at < len(p); at += vmdisk.Block {
			part := p[at:min(len(p), at+vmdisk.Block)]
			if err := c.read(part, off+int64(at), data); err != nil {
				return err
			}
		}
		return nil
	}
	c.seeded.Unreadable += int64(len(p))
	if c.inARow++; c.inARow > unreadableInARow {
		return errUnreadable(c.img.Path, err)
	}
	return nil
}

// wideDisk is a disk with room for a larger image, whose rest must be zeros.
type wideDisk struct {
	vmdisk.Disk
	size       int64
	over, full atomic.Bool // what a client of the disk's server isn't told
}

var errOver = errors.New("past the end of the disk")

func (w *wideDisk) Size() int64 { return w.size }

// inside is how many of n bytes at off are on the disk.
func (w *wideDisk) inside(off, n int64) int64 { return max(0, min(n, w.Disk.Size()-off)) }

// noted is err, noted.
func (w *wideDisk) noted(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		w.full.Store(true)
	}
	return err
}

func (w *wideDisk) ReadAt(p []byte, off int64) error {
	in := w.inside(off, int64(len(p)))
	clear(p[in:])
	if in == 0 {
		return nil
	}
	return w.Disk.ReadAt(p[:in], off)
}

func (w *wideDisk) WriteAt(p []byte, off int64, fua bool) error {
	in := w.inside(off, int64(len(p)))
	for _, b := range p[in:] {
		if b != 0 {
			w.over.Store(true)
			return errOver
		}
	}
	if in == 0 {
		return nil
	}
	return w.noted(w.Disk.WriteAt(p[:in], off, fua))
}

func (w *wideDisk) Zero(off, n int64, mayTrim, fua bool) error {
	if n = w.inside(off, n); n == 0 {
		return nil
	}
	return w.noted(w.Disk.Zero(off, n, mayTrim, fua))
}

func (w *wideDisk) Trim(off, n int64, fua bool) error { return w.Zero(off, n, true, fua) }

func (w *wideDisk) Extents(off, n int64) ([]vmdisk.Extent, error) {
	in := w.inside(off, n)
	if in == 0 {
		return []vmdisk.Extent{{Len: n, Hole: true}}, nil
	}
	return w.Disk.Extents(off, in)
}
