package qemu

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// What passes is weighed as the memory that it stands for, however empty and full pages alternate, and wherever pieces begin and end.
func TestWeigh(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for name, c := range map[string]struct {
		empty func(page int) bool
		least float64 // of the memory
	}{
		"all empty":      {func(int) bool { return true }, 0.99},
		"all full":       {func(int) bool { return false }, 0.99},
		"one by one":     {func(page int) bool { return page%2 == 0 }, 0.99},
		"here and there": {func(int) bool { return r.IntN(20) == 0 }, 0.99},
		"by the half":    {func(page int) bool { return page > 5000 }, 0.99},
	} {
		const pages = 10_000
		var stream []byte
		for page := range pages {
			flags := uint64(0x28)
			if c.empty(page) {
				flags = zeroFlags
			}
			stream = binary.BigEndian.AppendUint64(stream, uint64(page)*guestPage|flags)
			if flags == zeroFlags {
				stream = append(stream, 0)
				continue
			}
			var content [guestPage]byte
			for i := range content {
				content[i] = byte(r.Uint32())
			}
			stream = append(stream, content[:]...)
		}
		for _, piece := range []int{len(stream), 64 << 10, 4 << 10} {
			var sum int64
			for at := 0; at < len(stream); at += piece {
				sum += weigh(stream[at:min(len(stream), at+piece)])
			}
			if share := float64(sum) / (pages * guestPage); share < c.least || share > 1.02 {
				t.Errorf("%s in pieces of %d: %.3f of the memory", name, piece, share)
			}
		}
	}
	for _, p := range [][]byte{nil, {zeroFlags}, {0x10, zeroFlags}, {0x11, zeroFlags, 0}} {
		if got := weigh(p); got != int64(len(p)) {
			t.Errorf("%x weighs %d", p, got)
		}
	}
}

func BenchmarkWeigh(b *testing.B) {
	p := make([]byte, 64<<10)
	for i := range p {
		p[i] = byte(rand.Uint32())
	}
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		weigh(p)
	}
}
