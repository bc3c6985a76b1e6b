package blockset

import (
	"bytes"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// modelBits draws a set made by random changes, beside the same as a plain slice.
func modelBits(t *rapid.T) (*Set, []bool) {
	blocks := rapid.Int64Range(1, 3*ChunkBlocks).Draw(t, "blocks")
	m, want := New(blocks), make([]bool, blocks)
	for range rapid.IntRange(0, 12).Draw(t, "changes") {
		a := rapid.Int64Range(0, blocks-1).Draw(t, "a")
		b := min(blocks, a+rapid.OneOf(rapid.Int64Range(0, 70), rapid.Int64Range(0, 2*ChunkBlocks)).Draw(t, "n"))
		on := rapid.Bool().Draw(t, "on")
		if rapid.IntRange(0, 3).Draw(t, "aligned") == 0 {
			a = a / ChunkBlocks * ChunkBlocks
		}
		if on {
			m.Add(a, b)
		} else {
			m.Remove(a, b)
		}
		for i := a; i < b; i++ {
			want[i] = on
		}
	}
	return m, want
}

func same(t *rapid.T, m *Set, want []bool) {
	var n int64
	got := make([]bool, len(want))
	for a := m.Next(0, true); a < m.blocks; {
		b := m.Next(a, false)
		for i := range got[a:b] {
			got[a+int64(i)] = true
		}
		n, a = n+b-a, m.Next(b, true)
	}
	if !slices.Equal(got, want) {
		t.Fatal("sets differ")
	}
	last := int64(-1)
	for a, b := range m.Runs() {
		if a <= last || b <= a {
			t.Fatalf("run from %d to %d after %d", a, b, last)
		}
		for i := a; i < b; i++ {
			got[i] = !got[i]
		}
		last = b
	}
	if slices.Contains(got, true) {
		t.Fatal("runs differ")
	}
	for x := 0; x < len(want); x += 61 { // each bit of a word in turn
		if m.Has(int64(x)) != want[x] {
			t.Fatalf("block %d: %v", x, !want[x])
		}
	}
	if m.Count() != n || m.Empty() != (n == 0) {
		t.Fatalf("count %d, want %d", m.Count(), n)
	}
	for i, c := range m.from(0) {
		if c != fullChunk && (c.n == 0 || c.n == m.room(i)) {
			t.Fatalf("chunk %d keeps its memory with %d bits", i, c.n)
		}
	}
}

func TestSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, want := modelBits(t)
		same(t, m, want)
		c, err := Decode(m.AppendTo(nil), m.blocks)
		if err != nil {
			t.Fatal(err)
		}
		same(t, c, want)
		c = New(m.blocks)
		for part, at := []byte(nil), 0; at >= 0; {
			part, at = m.AppendPart(nil, at, 1)
			if err := c.AddEncoded(part); err != nil {
				t.Fatal(err)
			}
		}
		same(t, c, want)
		from := rapid.Int64Range(0, m.blocks).Draw(t, "from")
		a, b, ok := m.Run(from, 100)
		if ok != !m.Empty() || ok && (b <= a || b-a > 100 || !want[a] || !want[b-1]) {
			t.Fatalf("run from %d: %d to %d, %v", from, a, b, ok)
		}
		for i := from; i < a; i++ {
			if want[i] {
				t.Fatalf("run from %d skipped %d", from, i)
			}
		}
		m.Reset()
		same(t, m, make([]bool, m.blocks))
		same(t, c, want)
	})
}

func TestUnion(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, want := modelBits(t)
		o, other := New(m.blocks), make([]bool, m.blocks)
		a := rapid.Int64Range(0, m.blocks-1).Draw(t, "from")
		b := rapid.Int64Range(a, m.blocks).Draw(t, "to")
		o.Add(a, b)
		var n int64
		for i := range want {
			other[i] = int64(i) >= a && int64(i) < b
			if want[i] || other[i] {
				n++
			}
		}
		if got := UnionCount(m, o, New(m.blocks)); got != n {
			t.Fatalf("union has %d, want %d", got, n)
		}
		if got := UnionCount(New(m.blocks), o, m); got != n {
			t.Fatalf("union has %d, want %d", got, n)
		}
		m.Or(o)
		same(t, o, other)
		for i := range want {
			want[i] = want[i] || other[i]
		}
		same(t, m, want)
	})
}

// Bits behind the end of the disk, which a set from elsewhere may have, aren't taken.
func TestDecodeCutsOff(t *testing.T) {
	b := append([]byte{1, 0, 0, 0, formWords, 0, 0}, bytes.Repeat([]byte{0xff}, 8*chunkWords)...)
	m, err := Decode(b, ChunkBlocks+70)
	if err != nil || m.Count() != 70 || m.chunk(1) != fullChunk {
		t.Fatalf("%d blocks: %v", m.Count(), err)
	}
}

// A disk of 16 TiB must not need memory before it is used.
func TestHuge(t *testing.T) {
	m := New(1 << 32)
	m.Add(0, m.blocks)
	m.Remove(12345, 12346)
	if m.Count() != m.blocks-1 {
		t.Fatal(m.Count())
	}
	var kept int
	for _, c := range m.from(0) {
		if c != fullChunk {
			kept++
		}
	}
	if kept != 1 {
		t.Fatalf("%d chunks in memory", kept)
	}
	if a, b, _ := m.Run(0, 1<<32); a != 0 || b != 12345 {
		t.Fatal(a, b)
	}
}

func FuzzSet(f *testing.F) {
	m := New(3*ChunkBlocks - 5)
	f.Add(m.AppendTo(nil))
	m.Add(5, 9)
	m.Add(ChunkBlocks, 2*ChunkBlocks)
	for i := int64(2 * ChunkBlocks); i < m.blocks; i += 3 {
		m.Add(i, i+1)
	}
	f.Add(m.AppendTo(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b, 3*ChunkBlocks-5)
		if err != nil {
			return
		}
		again, err := Decode(m.AppendTo(nil), m.blocks)
		if err != nil || again.Count() != m.Count() || UnionCount(again, m, New(m.blocks)) != m.Count() {
			t.Fatalf("second round differs: %v", err)
		}
	})
}

// A set that grew has what it had, and takes what is beyond; a clone of before stays as it was.
func TestGrow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, want := modelBits(t)
		if rapid.Bool().Draw(t, "all") {
			m.Add(0, m.blocks)
			for i := range want {
				want[i] = true
			}
		}
		old := m.Clone()
		before := m.blocks
		blocks := before + rapid.OneOf(rapid.Int64Range(-1, 70), rapid.Int64Range(0, 2*ChunkBlocks)).Draw(t, "more")
		m.Grow(blocks)
		if m.blocks != max(before, blocks) {
			t.Fatalf("%d blocks instead of %d", m.blocks, blocks)
		}
		same(t, old, want)
		want = append(want, make([]bool, m.blocks-before)...)
		same(t, m, want)
		a := rapid.Int64Range(0, m.blocks-1).Draw(t, "a")
		m.Add(a, m.blocks)
		for i := a; i < m.blocks; i++ {
			want[i] = true
		}
		same(t, m, want)
		// As one of the largest disk, whose end no table reaches.
		m.Grow(Most)
		if m.Next(m.Count()+int64(len(want)), true) != Most || m.Has(Most-1) {
			t.Fatal("something is beyond the end")
		}
		c, err := Decode(m.AppendTo(nil), int64(len(want)))
		if err != nil {
			t.Fatal(err)
		}
		same(t, c, want)
	})
}
