package vfs

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"
)

// A sparse file must be what a plain slice of bytes is, and a copy must not see what happens to the other.
func TestSparse(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 0))
		var c, old sparse
		var want, oldWant []byte
		for range 120 {
			off, n := r.Int64N(8*memPage), r.Int64N(3*memPage)+1
			if r.IntN(3) == 0 {
				off, n = off/memPage*memPage, (n+memPage-1)/memPage*memPage
			}
			switch r.IntN(8) {
			case 0:
				c.truncate(off)
				want = append(bytes.Clone(want), make([]byte, max(0, off-int64(len(want))))...)[:off]
			case 1, 2:
				c.zero(off, n)
				want = bytes.Clone(want)
				clear(want[min(off, int64(len(want))):min(off+n, int64(len(want)))])
			case 3:
				old, oldWant = c.copy(), want
			case 4:
				c, old, want, oldWant = old, c, oldWant, want
			default:
				p := make([]byte, n)
				for i := range p {
					p[i] = byte(1 + r.IntN(255))
				}
				c.writeAt(p, off)
				want = append(bytes.Clone(want), make([]byte, max(0, off+n-int64(len(want))))...)
				copy(want[off:], p)
			}
			same(t, seed, &c, want)
			same(t, seed, &old, oldWant)
		}
	}
}

func same(t *testing.T, seed uint64, c *sparse, want []byte) {
	t.Helper()
	got := make([]byte, len(want)+10)
	n, err := c.readAt(got, 0)
	if n != len(want) || err != io.EOF || !bytes.Equal(got[:n], want) || c.size != int64(n) {
		t.Fatalf("seed %d: %d bytes, %v, instead of %d", seed, n, err, len(want))
	}
	for off := int64(0); off < c.size; {
		data := c.next(off, false)
		if !bytes.Equal(want[off:data], make([]byte, data-off)) {
			t.Fatalf("seed %d: data between %d and %d", seed, off, data)
		}
		off = data
		if off < c.size {
			if off = c.next(off, true); off == data {
				t.Fatalf("seed %d: data and a hole at %d", seed, off)
			}
		}
	}
}

// A big file costs what is in it.
func TestSparseBig(t *testing.T) {
	var c sparse
	c.truncate(1 << 44)
	c.writeAt([]byte("x"), 1<<43)
	if d, h := c.next(0, false), c.next(1<<43, true); d != 1<<43 || h != 1<<43+memPage {
		t.Fatalf("data at %d, hole at %d", d, h)
	}
	c.zero(0, 1<<44)
	if len(c.pages) != 0 || c.next(0, false) != 1<<44 {
		t.Fatalf("%d pages are left", len(c.pages))
	}
}

func TestTrace(t *testing.T) {
	m := NewMem()
	var states []*Mem
	m.Trace(func(s *Mem) { states = append(states, s) })
	f, err := m.Create("a")
	if err != nil {
		t.Fatal(err)
	}
	put(t, f, 0, "one")
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	put(t, f, 0, "two")
	if err := m.SyncDir(); err != nil {
		t.Fatal(err)
	}
	m.Trace(nil)
	put(t, f, 0, "six")
	for i, want := range []struct{ all, synced string }{{"", "-"}, {"one", "-"}, {"one", "-"}, {"two", "-"}, {"two", "one"}} {
		if got := content(t, states[i].After(LoseNothing, 0), "a"); got != want.all {
			t.Errorf("after call %d: %q instead of %q", i+1, got, want.all)
		}
		after := states[i].After(LoseUnsynced, 0)
		if names, _ := after.List(); want.synced == "-" {
			if len(names) > 0 {
				t.Errorf("after call %d: %v is durable", i+1, names)
			}
		} else if got := content(t, after, "a"); got != want.synced {
			t.Errorf("after call %d and a power cut: %q instead of %q", i+1, got, want.synced)
		}
	}
	if len(states) != 5 {
		t.Errorf("%d states", len(states))
	}
}
