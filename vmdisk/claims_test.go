package vmdisk

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
)

// held is how many claims are held or waited for.
func (c *claims) held() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.wide)
	for _, l := range c.narrow {
		n += len(l)
	}
	return n
}

// Claims of all widths: who holds one is alone on its blocks, and in the end none is left.
func TestClaimsExclude(t *testing.T) {
	const blocks = 3 * claimStripes * stripeBlocks
	var c claims
	owner := make([]int, blocks) // the race detector watches it
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 9))
			for range 2000 {
				n := []int64{1, 1, 3, 40, stripeBlocks + 1, blocks / 2}[rnd.IntN(6)]
				a := rnd.Int64N(blocks - n + 1)
				if n < stripeBlocks {
					a = rnd.Int64N(8)*stripeBlocks + rnd.Int64N(8) // where others are
				}
				m := c.take(a, a+n)
				for _, x := range []int64{a, a + n/2, a + n - 1} {
					owner[x] = w + 1
				}
				for _, x := range []int64{a, a + n/2, a + n - 1} {
					if owner[x] != w+1 {
						t.Errorf("block %d of [%d, %d) is %d's, not %d's", x, a, a+n, owner[x], w+1)
					}
				}
				m.release()
			}
		})
	}
	wg.Wait()
	if n := c.held(); n != 0 {
		t.Fatalf("%d claims are left", n)
	}
}

// Overlapping claims are served in the order in which they came.
func TestClaimsInOrder(t *testing.T) {
	var c claims
	var got []int
	var wg sync.WaitGroup
	first := c.take(5, 6)
	for i := range 5 {
		wide := int64(i%2) * 4 * stripeBlocks
		wg.Go(func() {
			m := c.take(5-int64(i), 6+wide)
			got = append(got, i)
			m.release()
		})
		for c.held() < i+2 {
		}
	}
	first.release()
	wg.Wait()
	if fmt.Sprint(got) != "[0 1 2 3 4]" {
		t.Fatalf("served in the order %v", got)
	}
}

// BenchmarkClaims takes and releases a claim while others are held.
func BenchmarkClaims(b *testing.B) {
	for _, others := range []int{0, 16, 512} {
		b.Run(fmt.Sprint(others), func(b *testing.B) {
			var c claims
			for i := range int64(others) {
				c.take(i*1000, i*1000+1)
			}
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				rnd := rand.New(rand.NewPCG(rand.Uint64(), 1))
				for pb.Next() {
					a := rnd.Int64N(1<<20)*1000 + 500
					c.take(a, a+1).release()
				}
			})
		})
	}
}
