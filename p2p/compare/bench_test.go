package compare_test

import (
	"testing"

	"tagalong.org/tagalong/p2p/compare"
	"tagalong.org/tagalong/p2p/wire/wiretest"
)

// full is a disk without holes that costs nothing to read.
type full struct{ *disk }

func (f full) Extents(_, n int64) ([]compare.Extent, error) { return []compare.Extent{{Len: n}}, nil }

func (f full) ReadAt(p []byte, _ int64) error {
	for i := 0; i < len(p); i += compare.Block {
		p[i] = 1
	}
	return nil
}

func (f full) Equal(int64, int64) error { return nil }

// BenchmarkCompare says how fast two equal disks are compared in one process, both ends' hashing included.
func BenchmarkCompare(b *testing.B) {
	const size = 1 << 30
	b.SetBytes(size)
	for b.Loop() {
		x, y := wiretest.TCP(b)
		d := full{newDisk(size)}
		done := make(chan error, 1)
		go func() {
			done <- compare.Serve(b.Context(), y, func(compare.Hello) (compare.Reader, compare.State, error) { return d, whole, nil }, nil)
		}()
		if err := compare.Run(b.Context(), x, hello(size), func(compare.State) (compare.Disk, error) { return d, nil }, nil); err != nil {
			b.Fatal(err)
		}
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}
