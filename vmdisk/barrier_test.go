package vmdisk

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// A barrier whose number is reserved already doesn't need the journal: if that has no room for the numbers after it, what was written still
// gets a position of its own. The old one would stand for two contents.
func TestBarrierWithoutRoomForFurtherNumbers(t *testing.T) {
	m := &muteFS{Mem: vfs.NewMem()}
	o := quiet(nil)
	o.FS = m
	d := newDisk(t, 1<<20, o)
	must(t, d.Activate(1))
	must(t, d.WriteAt(blockOf(1), 0, true))
	d.mu.Lock()
	d.counter = d.reserved - 2
	d.mu.Unlock()
	m.full.Store(true)
	before := d.Position()
	for range 2 {
		must(t, d.WriteAt(blockOf(2), 0, false))
		must(t, d.Flush())
		if p := d.Position(); p.Compare(before) <= 0 || d.Info().Unflushed {
			t.Fatalf("at %s after a flush, unflushed %t; it was at %s", p, d.Info().Unflushed, before)
		}
		before = d.Position()
	}
	// Without a number there is no barrier, and what was written stays unflushed.
	must(t, d.WriteAt(blockOf(3), 0, false))
	if err := d.Flush(); !errors.Is(err, syscall.ENOSPC) || d.Position() != before || !d.Info().Unflushed {
		t.Fatalf("flush without a number: %v, at %s, unflushed %t", err, d.Position(), d.Info().Unflushed)
	}
	m.full.Store(false)
	must(t, d.Flush())
	if p := d.Position(); p.Compare(before) <= 0 {
		t.Fatalf("at %s, it was at %s", p, before)
	}
}

// A peer gets a barrier after so many bytes, however soon they were written, and not before.
func TestBarrierAfterMuch(t *testing.T) {
	o := quiet(vfs.NewMem())
	o.BarrierEvery = time.Hour
	d, r, f, a := pair(t, 2*barrierBytes, o)
	before, p := d.Position(), make([]byte, MaxOp)
	p[0] = 1
	for off := int64(0); off < barrierBytes-MaxOp; off += MaxOp {
		must(t, d.WriteAt(p, off, false))
	}
	if len(d.ripe) > 0 || d.Position() != before {
		t.Fatalf("at %s before it was much", d.Position())
	}
	must(t, d.WriteAt(p, barrierBytes, false))
	for r.Position() == before {
		op, err := f.Next(t.Context())
		must(t, err)
		ack, err := feedTo(a, op)
		must(t, err)
		f.Acked(ack)
	}
	if d.Info().Unflushed || r.Position() != d.Position() {
		t.Errorf("the disk is at %s, unflushed %t, the replica at %s", d.Position(), d.Info().Unflushed, r.Position())
	}
}
