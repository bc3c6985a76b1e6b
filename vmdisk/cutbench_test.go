package vmdisk

import (
	"math/rand/v2"
	"testing"
)

// BenchmarkWriteWithCut is a random 4 KiB write: without a cut, with one that needs nothing any more, and with one of
// which half is still to be copied. It is taken anew before what is written has become so much that few writes meet a block for the
// first time. The files are in $TMPDIR.
func BenchmarkWriteWithCut(b *testing.B) {
	const size = 1 << 30
	d, err := Create(b.TempDir(), NewID(), size, Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	if err := d.Activate(1); err != nil {
		b.Fatal(err)
	}
	p := make([]byte, 1<<20)
	for i := range p {
		p[i] = byte(i%251) + 1
	}
	for off := int64(0); off < size; off += int64(len(p)) {
		if err := d.WriteAt(p, off, false); err != nil {
			b.Fatal(err)
		}
	}
	run := func(name string, released int64) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(Block)
			var c *Cut
			n := 0
			for b.Loop() {
				if released >= 0 && n%(size/Block/8) == 0 {
					b.StopTimer()
					if c != nil {
						_ = c.Close()
					}
					if c, err = d.Cut(b.Context()); err != nil {
						b.Fatal(err)
					}
					c.Release(0, released)
					b.StartTimer()
				}
				n++
				if err := d.WriteAt(p[:Block], rand.Int64N(size/Block)*Block, false); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			if c != nil {
				if err := c.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	run("none", -1)
	run("copied", size)
	run("half", size/2)
}
