package vmdisk

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// modelBits draws a bitmap made by random changes, beside the same as a plain slice.
func modelBits(t *rapid.T) (*bitmap, []bool) {
	blocks := rapid.Int64Range(1, 3*chunkBits).Draw(t, "blocks")
	m, want := newBitmap(blocks), make([]bool, blocks)
	for range rapid.IntRange(0, 12).Draw(t, "changes") {
		a := rapid.Int64Range(0, blocks-1).Draw(t, "a")
		b := min(blocks, a+rapid.OneOf(rapid.Int64Range(0, 70), rapid.Int64Range(0, 2*chunkBits)).Draw(t, "n"))
		on := rapid.Bool().Draw(t, "on")
		if rapid.IntRange(0, 3).Draw(t, "aligned") == 0 {
			a = a / chunkBits * chunkBits
		}
		if on {
			m.set(a, b)
		} else {
			m.clear(a, b)
		}
		for i := a; i < b; i++ {
			want[i] = on
		}
	}
	return m, want
}

func same(t *rapid.T, m *bitmap, want []bool) {
	var n int64
	got := make([]bool, len(want))
	for a := m.next(0, true); a < m.blocks; {
		b := m.next(a, false)
		for i := range got[a:b] {
			got[a+int64(i)] = true
		}
		n, a = n+b-a, m.next(b, true)
	}
	if !slices.Equal(got, want) {
		t.Fatal("sets differ")
	}
	if m.count() != n || m.empty() != (n == 0) {
		t.Fatalf("count %d, want %d", m.count(), n)
	}
	for i, c := range m.chunks {
		if c == nil || c == fullChunk {
			continue
		}
		if c.n == 0 || c.n == m.room(int64(i)) {
			t.Fatalf("chunk %d keeps its memory with %d bits", i, c.n)
		}
	}
}

func TestBitmap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, want := modelBits(t)
		same(t, m, want)
		c, err := decodeBitmap(m.appendTo(nil), m.blocks)
		if err != nil {
			t.Fatal(err)
		}
		same(t, c, want)
		from := rapid.Int64Range(0, m.blocks).Draw(t, "from")
		a, b, ok := m.run(from, 100)
		if ok != !m.empty() || ok && (b <= a || b-a > 100 || !want[a] || !want[b-1]) {
			t.Fatalf("run from %d: %d to %d, %v", from, a, b, ok)
		}
		for i := from; i < a; i++ {
			if want[i] {
				t.Fatalf("run from %d skipped %d", from, i)
			}
		}
		m.reset()
		same(t, m, make([]bool, m.blocks))
		same(t, c, want)
	})
}

func TestBitmapUnion(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, want := modelBits(t)
		o, other := newBitmap(m.blocks), make([]bool, m.blocks)
		a := rapid.Int64Range(0, m.blocks-1).Draw(t, "from")
		b := rapid.Int64Range(a, m.blocks).Draw(t, "to")
		o.set(a, b)
		var n int64
		for i := range want {
			other[i] = int64(i) >= a && int64(i) < b
			if want[i] || other[i] {
				n++
			}
		}
		if got := unionCount(m, o, newBitmap(m.blocks)); got != n {
			t.Fatalf("union has %d, want %d", got, n)
		}
		if got := unionCount(newBitmap(m.blocks), o, m); got != n {
			t.Fatalf("union has %d, want %d", got, n)
		}
		c := coarse(m)
		if unionCount(c, m, newBitmap(m.blocks)) != c.count() || c.count() > m.count()*regionSize/Block {
			t.Fatal("coarse isn't what it should be")
		}
		m.or(o)
		same(t, o, other)
		for i := range want {
			want[i] = want[i] || other[i]
		}
		same(t, m, want)
	})
}

// A disk of 16 TiB must not need memory before it is used.
func TestBitmapHuge(t *testing.T) {
	m := newBitmap(MaxSize / Block)
	m.set(0, m.blocks)
	m.clear(12345, 12346)
	if m.count() != m.blocks-1 {
		t.Fatal(m.count())
	}
	var kept int
	for _, c := range m.chunks {
		if c != nil && c != fullChunk {
			kept++
		}
	}
	if kept != 1 {
		t.Fatalf("%d chunks in memory", kept)
	}
	if a, b, _ := m.run(0, MaxSize); a != 0 || b != 12345 {
		t.Fatal(a, b)
	}
}

func FuzzBitmap(f *testing.F) {
	m := newBitmap(3*chunkBits - 5)
	f.Add(m.appendTo(nil))
	m.set(5, 9)
	m.set(chunkBits, 2*chunkBits)
	for i := int64(2 * chunkBits); i < m.blocks; i += 3 {
		m.set(i, i+1)
	}
	f.Add(m.appendTo(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeBitmap(b, 3*chunkBits-5)
		if err != nil {
			return
		}
		again, err := decodeBitmap(m.appendTo(nil), m.blocks)
		if err != nil || again.count() != m.count() || unionCount(again, m, newBitmap(m.blocks)) != m.count() {
			t.Fatalf("second round differs: %v", err)
		}
	})
}
