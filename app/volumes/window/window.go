// Package window shows one volume of a store as a disk of its own.
//
// A request that crosses from one extent into another is split; what of it is to be durable is made so by its last part, which takes all
// before along. A flush is the store's: a barrier over all its volumes.
//
// A store may end before a volume does, while it hasn't grown yet: what isn't there reads as zeros, and a write to it is refused as one to a
// store that isn't active, which passes. Nothing here keeps or decides anything; all may be called by many goroutines at once.
package window

import (
	"fmt"

	"tagalong.org/tagalong/app/volumes"
	"tagalong.org/tagalong/vmdisk"
)

// Reader is a volume that only is read.
type Reader struct {
	of   vmdisk.Reader
	v    volumes.Volume
	size int64
}

// Disk is a volume. Two of them are the same if they are one pointer.
type Disk struct {
	Reader
	disk vmdisk.Disk
}

var (
	_ vmdisk.Reader = (*Reader)(nil)
	_ vmdisk.Disk   = (*Disk)(nil)
)

// NewReader shows v of a store, or of a cut of one. v is of a table that was checked.
func NewReader(of vmdisk.Reader, v volumes.Volume) *Reader {
	return &Reader{of: of, v: v, size: v.Bytes()}
}

// New shows v of a store, to read and to write.
func New(d vmdisk.Disk, v volumes.Volume) *Disk {
	return &Disk{Reader: *NewReader(d, v), disk: d}
}

// Size implements vmdisk.Reader: the volume's.
func (r *Reader) Size() int64 { return r.size }

// one is where a range lies, if it lies in one extent: nearly all do.
func (r *Reader) one(off, n int64) (at int64, ok bool) {
	if off < 0 || n < 0 {
		return 0, false
	}
	for _, e := range r.v.Extents {
		if off < e.Bytes {
			return e.At + off, n <= e.Bytes-off && e.At+off+n <= r.of.Size()
		}
		off -= e.Bytes
	}
	return 0, false
}

// each does something with every part of a range that the store has, and with every part that it doesn't have yet.
func (r *Reader) each(off, n int64, there, beyond func(p volumes.Piece) error) error {
	if err := r.v.Within(off, n); err != nil {
		return fmt.Errorf("%w: %w", vmdisk.ErrRange, err)
	}
	end := r.of.Size()
	for p := range r.v.Pieces(off, n) {
		has := min(max(end-p.At, 0), p.Len)
		if has > 0 {
			if err := there(volumes.Piece{Off: p.Off, At: p.At, Len: has}); err != nil {
				return err
			}
		}
		if has < p.Len {
			if err := beyond(volumes.Piece{Off: p.Off + has, At: p.At + has, Len: p.Len - has}); err != nil {
				return err
			}
		}
	}
	return nil
}

// ReadAt implements vmdisk.Reader.
func (r *Reader) ReadAt(p []byte, off int64) error {
	if at, ok := r.one(off, int64(len(p))); ok {
		return r.of.ReadAt(p, at)
	}
	return r.each(off, int64(len(p)), func(x volumes.Piece) error {
		return r.of.ReadAt(p[x.Off:x.Off+x.Len], x.At)
	}, func(x volumes.Piece) error {
		clear(p[x.Off : x.Off+x.Len])
		return nil
	})
}

// Extents implements vmdisk.Reader. It says something of the first part only.
func (r *Reader) Extents(off, n int64) (list []vmdisk.Extent, err error) {
	if n <= 0 {
		return nil, fmt.Errorf("extents of %d bytes at %d: %w", n, off, vmdisk.ErrRange)
	}
	asked := false
	err = r.each(off, n, func(x volumes.Piece) error {
		if asked {
			return nil
		}
		asked = true
		list, err = r.of.Extents(x.At, x.Len)
		return err
	}, func(x volumes.Piece) error {
		if !asked {
			asked, list = true, []vmdisk.Extent{{Len: x.Len, Hole: true}}
		}
		return nil
	})
	return list, err
}

// change carries a change out, part by part; the last one is as durable as was asked for.
func (d *Disk) change(off, n int64, fua bool, do func(x volumes.Piece, fua bool) error) error {
	left := n
	return d.each(off, n, func(x volumes.Piece) error {
		left -= x.Len
		return do(x, fua && left == 0)
	}, func(x volumes.Piece) error {
		return fmt.Errorf("%d bytes at %d, the store has %d: %w", x.Len, x.At, d.of.Size(), vmdisk.ErrInactive)
	})
}

// WriteAt implements vmdisk.Disk.
func (d *Disk) WriteAt(p []byte, off int64, fua bool) error {
	if at, ok := d.one(off, int64(len(p))); ok {
		return d.disk.WriteAt(p, at, fua)
	}
	return d.change(off, int64(len(p)), fua, func(x volumes.Piece, fua bool) error {
		return d.disk.WriteAt(p[x.Off:x.Off+x.Len], x.At, fua)
	})
}

// Zero implements vmdisk.Disk.
func (d *Disk) Zero(off, n int64, mayTrim, fua bool) error {
	return d.change(off, n, fua, func(x volumes.Piece, fua bool) error { return d.disk.Zero(x.At, x.Len, mayTrim, fua) })
}

// Trim implements vmdisk.Disk.
func (d *Disk) Trim(off, n int64, fua bool) error {
	return d.change(off, n, fua, func(x volumes.Piece, fua bool) error { return d.disk.Trim(x.At, x.Len, fua) })
}

// Flush implements vmdisk.Disk: it is a barrier of the store, over all its volumes.
func (d *Disk) Flush() error { return d.disk.Flush() }

// partial is a store that may lack blocks, as disknbd asks for it.
type partial interface {
	Stale(off, n int64) bool
	Prefetch(off, n int64) error
}

// Stale says whether any of n bytes at off has to be fetched before it can be read.
func (d *Disk) Stale(off, n int64) bool {
	p, ok := d.disk.(partial)
	if !ok {
		return false
	}
	if at, ok := d.one(off, n); ok {
		return p.Stale(at, n)
	}
	stale := false
	err := d.each(off, n, func(x volumes.Piece) error {
		stale = stale || p.Stale(x.At, x.Len)
		return nil
	}, func(volumes.Piece) error { return nil })
	return stale || err != nil
}

// Prefetch fetches them.
func (d *Disk) Prefetch(off, n int64) error {
	p, ok := d.disk.(partial)
	if !ok {
		return nil
	}
	return d.each(off, n, func(x volumes.Piece) error { return p.Prefetch(x.At, x.Len) }, func(volumes.Piece) error { return nil })
}
