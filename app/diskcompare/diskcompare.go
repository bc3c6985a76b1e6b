// Package diskcompare lends disks to the compare protocol: an owner's comparison with a replica as its disk, and what a replica holds as its reader.
// Before each read it calls wait, with how many bytes it will be, so that whoever compares can let others go first; wait's error ends the comparison.
//
// It keeps nothing, closes nothing and decides nothing: who has the disk and the stream sees to their ends. Tested with app and by build/bench, which both
// compare through it.
package diskcompare

import (
	"tagalong.org/tagalong/p2p/compare"
	"tagalong.org/tagalong/vmdisk"
)

// Reader lends what a replica holds.
func Reader(r vmdisk.Reader, wait func(n int64) error) compare.Reader { return reader{r, wait} }

// Owner lends an owner's disk, with what it wants to know of a replica.
func Owner(c *vmdisk.Comparison, wait func(n int64) error) compare.Disk {
	return owner{reader{c, wait}, c}
}

type reader struct {
	vmdisk.Reader
	wait func(n int64) error
}

// ReadAt implements compare.Reader.
func (r reader) ReadAt(p []byte, off int64) error {
	if err := r.wait(int64(len(p))); err != nil {
		return err
	}
	return r.Reader.ReadAt(p, off)
}

// Extents implements compare.Reader.
func (r reader) Extents(off, n int64) ([]compare.Extent, error) {
	there, err := r.Reader.Extents(off, n)
	out := make([]compare.Extent, len(there))
	for i, e := range there {
		out[i] = compare.Extent(e)
	}
	return out, err
}

type owner struct {
	reader
	c *vmdisk.Comparison
}

// Next implements compare.Disk.
func (o owner) Next(off int64) (from, n int64) { return o.c.Next(off) }

// Equal implements compare.Disk.
func (o owner) Equal(off, n int64) error { return o.c.Equal(off, n) }
