package vmdisk

import (
	"bytes"
	"errors"
	"testing"
)

// pastIs reads all of what the disk was before.
func pastIs(t *testing.T, p *Past, want []byte) {
	t.Helper()
	got := make([]byte, p.Size())
	for off := int64(0); off < p.Size(); {
		es, err := p.Extents(off, p.Size()-off)
		must(t, err)
		for _, e := range es {
			if !e.Hole {
				must(t, p.ReadAt(got[off:off+e.Len], off))
			}
			off += e.Len
		}
	}
	if !bytes.Equal(got, want) {
		t.Error("the past has changed")
	}
}

// While a disk is fetched and written, what it was before stays readable.
func TestPast(t *testing.T) {
	g := newLagging(t, 3)
	if _, err := g.d.Past(); !errors.Is(err, ErrWhole) {
		t.Errorf("before: %v", err)
	}
	g.lack(t)
	must(t, g.d.Activate(2))
	p, err := g.d.Past()
	must(t, err)
	if p.Position() != g.before {
		t.Errorf("at %s", p.Position())
	}
	pastIs(t, p, g.old)
	for off := int64(0); off < hydraSize; off += 64 << 10 {
		must(t, g.d.WriteAt(blockOf(7), off, false))
		copy(g.newest[off:], blockOf(7))
	}
	must(t, g.d.Flush())
	pastIs(t, p, g.old)
	must(t, g.d.Hydrate(t.Context(), g.src))
	mergeAll(t, g.d)
	same(t, g.d, g.newest)
	if err := p.ReadAt(make([]byte, Block), 0); !errors.Is(err, ErrPast) {
		t.Errorf("after: %v", err)
	}
	if _, err := p.Extents(0, Block); !errors.Is(err, ErrPast) {
		t.Errorf("after: %v", err)
	}
}

// A rollback ends it too, though the disk is then what it was.
func TestPastOfARollback(t *testing.T) {
	g := newLagging(t, 4)
	g.lack(t)
	p, err := g.d.Past()
	must(t, err)
	_, err = g.d.Rollback()
	must(t, err)
	if err := p.ReadAt(make([]byte, Block), 0); !errors.Is(err, ErrPast) {
		t.Errorf("after: %v", err)
	}
	same(t, g.d, g.old)
	must(t, g.d.Close())
	if err := p.ReadAt(make([]byte, Block), 0); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}
