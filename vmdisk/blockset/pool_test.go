package blockset

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// checkPool looks at what Pool and chunk promise: references are never too few, the ring has only chunks in words.
func checkPool(t *rapid.T, p *Pool, sets []*Set) {
	holders := map[*chunk]int32{}
	for _, m := range sets {
		for _, c := range m.from(0) {
			if c != fullChunk {
				holders[c]++
			}
		}
	}
	for c, n := range holders {
		if c.refs.Load() < n {
			t.Fatalf("%d references to a chunk of %d sets", c.refs.Load(), n)
		}
		if (c.words.Load() == nil) != (c.packed != nil) {
			t.Fatal("a chunk is neither packed nor in words, or both")
		}
	}
	for i, c := range p.ring {
		if c.at != i || c.words.Load() == nil && c.refs.Load() > 0 {
			t.Fatalf("ring: place %d is at %d, packed %v", i, c.at, c.words.Load() == nil)
		}
	}
}

// Sets of a pool that is much too small, their clones, and what they should be, through everything that can be done to them.
func TestPool(t *testing.T) {
	var packed, shared int
	rapid.Check(t, func(t *rapid.T) {
		blocks := rapid.Int64Range(1, 3*ChunkBlocks).Draw(t, "blocks")
		p := NewPool(0)
		p.limit = rapid.IntRange(1, 4).Draw(t, "limit")
		var sets []*Set
		var want [][]bool
		for range rapid.IntRange(1, 4).Draw(t, "sets") {
			sets, want = append(sets, p.New(blocks)), append(want, make([]bool, blocks))
		}
		pooled := len(sets)
		span := func() (a, b int64) {
			a = rapid.Int64Range(0, blocks-1).Draw(t, "a")
			return a, min(blocks, a+rapid.OneOf(rapid.Int64Range(1, 70), rapid.Int64Range(0, 2*ChunkBlocks)).Draw(t, "n"))
		}
		put := func(w []bool, a, b int64, on bool) {
			for x := a; x < b; x++ {
				w[x] = on
			}
		}
		any := func() int { return rapid.IntRange(0, len(sets)-1).Draw(t, "set") }
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0, 1, 2:
				from := rapid.IntRange(0, pooled-1).Draw(t, "first")
				a, b := span()
				AddAll(sets[from:pooled], a, b)
				for _, w := range want[from:pooled] {
					put(w, a, b, true)
				}
			case 3: // scattered
				rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
				i := any()
				for range 500 {
					x := rnd.Int64N(blocks)
					sets[i].Add(x, x+1)
					want[i][x] = true
				}
			case 4:
				i := any()
				a, b := span()
				sets[i].Remove(a, b)
				put(want[i], a, b, false)
			case 5:
				i, o := any(), any()
				sets[i].Or(sets[o])
				for x, on := range want[o] {
					want[i][x] = want[i][x] || on
				}
			case 6:
				i := any()
				sets, want = append(sets, sets[i].Clone()), append(want, slices.Clone(want[i]))
			case 7:
				i := any()
				sets[i].Reset()
				clear(want[i])
			case 8:
				Share(sets[:pooled])
			case 9:
				i, o := any(), any()
				n := int64(0)
				for x := range want[i] {
					if want[i][x] || want[o][x] || want[0][x] {
						n++
					}
				}
				if got := UnionCount(sets[i], sets[o], sets[0]); got != n {
					t.Fatalf("union has %d, want %d", got, n)
				}
			}
			checkPool(t, p, sets)
			for _, m := range sets {
				for _, c := range m.from(0) {
					if c != fullChunk && c.packed != nil {
						packed++
					}
					if c.refs.Load() > 1 {
						shared++
					}
				}
			}
		}
		for i, m := range sets {
			same(t, m, want[i])
			coarse := m.Coarse(1024)
			if UnionCount(coarse, m, New(blocks)) != coarse.Count() || coarse.Count() > m.Count()*1024 {
				t.Fatal("coarse isn't what it should be")
			}
			c, err := Decode(m.AppendTo(nil), blocks)
			if err != nil {
				t.Fatal(err)
			}
			same(t, c, want[i])
		}
	})
	if packed == 0 || shared == 0 {
		t.Fatalf("%d packed, %d shared: the test is too tame", packed, shared)
	}
}

// A clone is read in another goroutine while its set, and those that share with it, are changed and packed.
func TestCloneBeside(t *testing.T) {
	const blocks = 40 * ChunkBlocks
	p := NewPool(0)
	sets := []*Set{p.New(blocks), p.New(blocks), p.New(blocks)}
	rnd := rand.New(rand.NewPCG(1, 1))
	var wg sync.WaitGroup
	for range 20 {
		for range 2000 {
			x := rnd.Int64N(blocks)
			AddAll(sets, x, x+1)
		}
		c := sets[0].Clone()
		n := c.Count()
		wg.Go(func() {
			d, err := Decode(c.AppendTo(nil), blocks)
			if err != nil || d.Count() != n {
				t.Errorf("clone has %d blocks, want %d: %v", d.Count(), n, err)
			}
			c.Add(7, 9)
			c.Reset()
		})
	}
	wg.Wait()
	if !bytes.Equal(sets[0].AppendTo(nil), sets[2].AppendTo(nil)) {
		t.Fatal("sets differ")
	}
	// Chunks that only a clone has any more are still in the pool's ring.
	c := sets[0].Clone()
	for _, m := range sets {
		m.Reset()
	}
	wg.Go(func() {
		for i := range int64(40) {
			c.Remove(i*ChunkBlocks, i*ChunkBlocks+99)
		}
	})
	for i := range int64(40) {
		AddAll(sets, i*ChunkBlocks, i*ChunkBlocks+1)
	}
	wg.Wait()
	if sets[1].Count() != 40 || c.Has(7) {
		t.Fatal("a clone and its set aren't apart")
	}
}

func TestPack(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 5))
	var scratch [maxPacked + 16]byte
	for round := range 2000 {
		var w, got words
		var n int64
		share, run := rnd.Float64()*rnd.Float64(), int64(1)<<rnd.IntN(10)
		for x := int64(0); x < ChunkBlocks; x += 1 + rnd.Int64N(2*run) {
			if rnd.Float64() < share {
				n += w.fill(x, min(ChunkBlocks, x+1+rnd.Int64N(run)))
			}
		}
		b := pack(&w, n, &scratch)
		if b == nil {
			continue
		}
		if unpack(b, &got); got != w {
			t.Fatalf("round %d: %d blocks come back different", round, n)
		}
		if len(b) > maxPacked {
			t.Fatalf("%d bytes", len(b))
		}
	}
	var one words
	one.fill(ChunkBlocks-1, ChunkBlocks)
	if b := pack(&one, 1, &scratch); len(b) > 16 {
		t.Fatalf("one block takes %d bytes", len(b))
	}
}

var gib = flag.Int64("gib", 256, "size of the disk of TestScattered, in GiB")

// scattered are three sets of a disk with a random tenth of its blocks each: the same in all, or not.
func scattered(p *Pool, blocks int64, together bool) []*Set {
	rnd := rand.New(rand.NewPCG(1, 2))
	var patterns [61]words
	for i := range patterns {
		for n := int64(0); n <= ChunkBlocks/10; {
			x := rnd.Int64N(ChunkBlocks)
			n += patterns[i].fill(x, x+1)
		}
	}
	sets := []*Set{p.New(blocks), p.New(blocks), p.New(blocks)}
	for i := range blocks / ChunkBlocks {
		pattern := rnd.IntN(len(patterns))
		for j, m := range sets {
			if !together {
				pattern += j
			}
			m.or(i, &patterns[pattern%len(patterns)])
		}
	}
	if together {
		Share(sets)
	}
	return sets
}

// A random tenth of a disk for three peers takes less than 64 MiB for each TiB, the heap's own waste included.
func TestScattered(t *testing.T) {
	for _, together := range []bool{true, false} {
		t.Run(fmt.Sprint("together ", together), func(t *testing.T) {
			heap := func() int64 {
				var m runtime.MemStats
				runtime.GC()
				runtime.GC() // the second empties what pools of the first kept
				runtime.ReadMemStats(&m)
				return int64(m.HeapInuse)
			}
			before := heap()
			p := NewPool(*gib * (20 << 20) / 1024)
			sets := scattered(p, *gib<<18, together)
			used := heap() - before
			t.Logf("%d, %d, %d blocks of %d take %.1f MiB", sets[0].Count(), sets[1].Count(), sets[2].Count(), *gib<<18, float64(used)/(1<<20))
			if used > *gib*(64<<20)/1024 || sets[0].Count() < *gib<<18/10 {
				t.Fatalf("%d bytes for %d blocks", used, sets[0].Count())
			}
			AddAll(sets, 5, 6)
			if (sets[0].chunk(0) == sets[1].chunk(0)) != together {
				t.Fatal("shared or not, unlike expected")
			}
			runtime.KeepAlive(p)
		})
	}
}

func BenchmarkAdd(b *testing.B) {
	for _, blocks := range []int64{1 << 18, 1 << 28} { // 1 GiB, 1 TiB
		for _, k := range []int{1, 3} {
			b.Run(fmt.Sprintf("%dGiB/%d", blocks>>18, k), func(b *testing.B) {
				p := NewPool(20 << 20)
				var sets []*Set
				for range k {
					sets = append(sets, p.New(blocks))
				}
				rnd := rand.New(rand.NewPCG(1, 2))
				b.ReportAllocs()
				for b.Loop() {
					x := rnd.Int64N(blocks)
					AddAll(sets, x, x+1)
				}
			})
		}
	}
}

// BenchmarkTera is what is done with three sets of 1 TiB, a random tenth: the worst case.
func BenchmarkTera(b *testing.B) {
	p := NewPool(20 << 20)
	sets := scattered(p, 1<<28, true)
	enc := sets[0].AppendTo(nil)
	rnd := rand.New(rand.NewPCG(1, 2))
	b.Run("add", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			x := rnd.Int64N(1 << 28)
			AddAll(sets, x, x+1)
		}
	})
	b.Run("clone", func(b *testing.B) {
		for b.Loop() {
			sets[0].Clone().Reset()
		}
	})
	b.Run("encode", func(b *testing.B) {
		b.SetBytes(int64(len(enc)))
		for b.Loop() {
			enc = sets[0].AppendTo(enc[:0])
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.SetBytes(int64(len(enc)))
		for b.Loop() {
			if _, err := Decode(enc, 1<<28); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("share", func(b *testing.B) {
		for b.Loop() {
			Share(sets)
		}
	})
	b.Run("drain", func(b *testing.B) { // a catch-up: each run is taken, and noted elsewhere
		m, cur := sets[2], p.New(1<<28)
		at := int64(0)
		for b.Loop() {
			x, y, ok := m.Run(at, 1<<20)
			if !ok {
				b.Skip("drained")
			}
			m.Remove(x, y)
			cur.Add(x, y)
			at = y
		}
	})
}

func BenchmarkPack(b *testing.B) {
	var w words
	rnd := rand.New(rand.NewPCG(1, 2))
	var n int64
	for n < ChunkBlocks/10 {
		x := rnd.Int64N(ChunkBlocks)
		n += w.fill(x, x+1)
	}
	var scratch [maxPacked + 16]byte
	p := slices.Clone(pack(&w, n, &scratch))
	b.Run("pack", func(b *testing.B) {
		b.ReportMetric(float64(len(p)), "bytes")
		for b.Loop() {
			pack(&w, n, &scratch)
		}
	})
	b.Run("unpack", func(b *testing.B) {
		for b.Loop() {
			unpack(p, &w)
		}
	})
}
