package vmdisk

import (
	"context"
	"math/rand/v2"
	"testing"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// BenchmarkWrite4K compares a random 4 KiB write through the disk, without and with a live peer, with the bare file.
func BenchmarkWrite4K(b *testing.B) {
	const size = 1 << 30
	p := blockOf(7)
	open := func(b *testing.B) *Store {
		d, err := Create(b.TempDir(), NewID(), size, Options{})
		if err == nil {
			err = d.Activate(1)
		}
		for off := int64(0); off < size && err == nil; off += regionSize {
			err = d.WriteAt(p, off, false) // so that the activity log has all regions
		}
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = d.Close() })
		return d
	}
	write := func(b *testing.B, fn func(off int64) error) {
		b.SetBytes(Block)
		b.ReportAllocs()
		for b.Loop() {
			if err := fn(rand.Int64N(size/Block) * Block); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("file", func(b *testing.B) {
		f, err := vfs.OS(b.TempDir()).Create("f")
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		write(b, func(off int64) error { _, err := f.WriteAt(p, off); return err })
	})
	b.Run("disk", func(b *testing.B) {
		d := open(b)
		write(b, func(off int64) error { return d.WriteAt(p, off, false) })
	})
	b.Run("peer", func(b *testing.B) {
		d := open(b)
		f, err := d.Attach("p", ReplicaState{Disk: d.ID(), Complete: true})
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				op, err := f.Next(ctx)
				if err != nil {
					return
				}
				if op.Kind == OpBarrier {
					f.Acked(op.Pos)
				}
				op.Release()
			}
		}()
		write(b, func(off int64) error { return d.WriteAt(p, off, false) })
		cancel()
		<-done
	})
}
