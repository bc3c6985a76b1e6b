package vmdisk

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// The sizes of requests, and what there is beside the disk: nothing, three peers that are away (their sets are kept), three that
// follow and only count.
var (
	benchSizes = []int{4 << 10, 64 << 10, 1 << 20}
	benchPeers = []string{"alone", "away", "counting"}
)

const benchDiskSize = 256 << 20

// benchDisk is an active disk, written once, with the peers that benchPeers names.
func benchDisk(b *testing.B, peers string) *Store {
	d, err := Create(b.TempDir(), NewID(), benchDiskSize, Options{})
	if err == nil {
		err = d.Activate(1)
	}
	p := make([]byte, 1<<20)
	for i := range p {
		p[i] = 7
	}
	for off := int64(0); off < benchDiskSize && err == nil; off += int64(len(p)) {
		err = d.WriteAt(p, off, false) // so that the activity log has all regions, and the file its pages
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = d.Close() })
	if peers == "alone" {
		return d
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	b.Cleanup(func() { cancel(); wg.Wait() })
	if err := d.Flush(); err != nil {
		b.Fatal(err)
	}
	for i := range 3 {
		f, err := d.Attach(fmt.Sprint("peer ", i), ReplicaState{Disk: d.ID(), Complete: true, Position: d.Position()})
		if err != nil {
			b.Fatal(err)
		}
		if peers == "away" {
			f.Close()
			continue
		}
		wg.Go(func() { count(ctx, f) })
		if _, err := d.Drain(ctx, fmt.Sprint("peer ", i)); err != nil {
			b.Fatal(err)
		}
	}
	return d
}

// count takes all operations and acknowledges the barriers.
func count(ctx context.Context, f *Feed) {
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
}

func benchRun(b *testing.B, n int, parallel bool, fn func(p []byte, off int64) error) {
	b.SetBytes(int64(n))
	b.ReportAllocs()
	one := func(p []byte, rnd *rand.Rand) {
		if err := fn(p, rnd.Int64N(int64(benchDiskSize/n))*int64(n)); err != nil {
			b.Error(err)
		}
	}
	b.ResetTimer()
	if parallel {
		b.RunParallel(func(pb *testing.PB) {
			p, rnd := benchBytes(n), rand.New(rand.NewPCG(rand.Uint64(), 1))
			for pb.Next() {
				one(p, rnd)
			}
		})
		return
	}
	p, rnd := benchBytes(n), rand.New(rand.NewPCG(1, 1))
	for range b.N {
		one(p, rnd)
	}
}

func benchBytes(n int) []byte {
	p := make([]byte, n)
	p[n-1] = 7 // the worst for those who look for zeros
	return p
}

// BenchmarkDisk is reading and writing through the disk, and through the bare file for comparison, in one
// goroutine and in as many as -cpu says.
func BenchmarkDisk(b *testing.B) {
	for _, n := range benchSizes {
		for _, how := range []struct {
			name     string
			parallel bool
		}{{"one", false}, {"parallel", true}} {
			b.Run(fmt.Sprintf("%dK/%s/write/file", n>>10, how.name), func(b *testing.B) {
				f, err := vfs.OS(b.TempDir()).Create("f")
				if err != nil {
					b.Fatal(err)
				}
				defer f.Close()
				for off := int64(0); off < benchDiskSize; off += 1 << 20 {
					if _, err := f.WriteAt(benchBytes(1<<20), off); err != nil {
						b.Fatal(err)
					}
				}
				benchRun(b, n, how.parallel, func(p []byte, off int64) error { _, err := f.WriteAt(p, off); return err })
			})
			for _, peers := range benchPeers {
				b.Run(fmt.Sprintf("%dK/%s/write/%s", n>>10, how.name, peers), func(b *testing.B) {
					d := benchDisk(b, peers)
					benchRun(b, n, how.parallel, func(p []byte, off int64) error { return d.WriteAt(p, off, false) })
				})
			}
			b.Run(fmt.Sprintf("%dK/%s/read", n>>10, how.name), func(b *testing.B) {
				d := benchDisk(b, "away")
				benchRun(b, n, how.parallel, d.ReadAt)
			})
		}
	}
}
