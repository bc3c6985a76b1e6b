package window

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"tagalong.org/tagalong/app/volumes"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/vfs"
)

const mib = 1 << 20

// pieces is a volume of three extents, out of order, between others.
var pieces = volumes.Volume{ID: "disk2", Kind: volumes.Disk, Extents: []volumes.Extent{{At: 4 * mib, Bytes: mib}, {At: 2 * mib, Bytes: 4096}, {At: 6 * mib, Bytes: 2 * mib}}}

func store(t *testing.T, size int64) *vmdisk.Store {
	t.Helper()
	d, err := vmdisk.Create("", vmdisk.ID{1}, size, vmdisk.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := d.Activate(1); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestAWindowIsADisk does random things to a window and to a slice, and to what is around it nothing.
func TestAWindowIsADisk(t *testing.T) {
	d := store(t, 9*mib)
	around := bytes.Repeat([]byte{0xaa}, 9*mib)
	if err := d.WriteAt(around, 0, false); err != nil {
		t.Fatal(err)
	}
	w := New(d, pieces)
	model := make([]byte, w.Size())
	if err := w.Zero(0, w.Size(), true, false); err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 400 {
		// Most ranges begin or end at the borders.
		off := []int64{0, mib, mib + 4096, rnd.Int64N(w.Size())}[rnd.IntN(4)] - rnd.Int64N(8192)
		off = min(max(off, 0), w.Size()-1)
		n := 1 + rnd.Int64N(min(w.Size()-off, []int64{8192, 2 * mib}[rnd.IntN(2)]))
		var err error
		switch rnd.IntN(4) {
		case 0, 1:
			p := bytes.Repeat([]byte{byte(i)}, int(n))
			copy(model[off:], p)
			err = w.WriteAt(p, off, rnd.IntN(4) == 0)
		case 2:
			clear(model[off : off+n])
			err = w.Zero(off, n, rnd.IntN(2) == 0, rnd.IntN(4) == 0)
		case 3:
			clear(model[off : off+n])
			err = w.Trim(off, n, rnd.IntN(4) == 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, n)
		if err := w.ReadAt(got, off); err != nil || !bytes.Equal(got, model[off:off+n]) {
			t.Fatalf("%d bytes at %d after change %d: %v", n, off, i, err)
		}
	}
	got := make([]byte, w.Size())
	if err := w.ReadAt(got, 0); err != nil || !bytes.Equal(got, model) {
		t.Fatalf("at the end: %v", err)
	}
	for off := int64(0); off < w.Size(); {
		list, err := w.Extents(off, w.Size()-off)
		if err != nil || len(list) == 0 {
			t.Fatal(err)
		}
		for _, x := range list {
			if x.Hole && len(bytes.Trim(model[off:off+x.Len], "\x00")) > 0 {
				t.Fatalf("%d bytes at %d are no hole", x.Len, off)
			}
			off += x.Len
		}
	}
	for _, x := range [][2]int64{{0, 2 * mib}, {2*mib + 4096, 4 * mib}, {5 * mib, 6 * mib}, {8 * mib, 9 * mib}} {
		got := make([]byte, x[1]-x[0])
		if err := d.ReadAt(got, x[0]); err != nil || !bytes.Equal(got, around[x[0]:x[1]]) {
			t.Errorf("what lies beside the volume, at %d, was changed (%v)", x[0], err)
		}
	}
	for _, x := range [][2]int64{{-1, 1}, {w.Size(), 1}, {w.Size() - 1, 2}} {
		if err := w.ReadAt(make([]byte, x[1]), x[0]); !errors.Is(err, vmdisk.ErrRange) {
			t.Errorf("reading %v: %v", x, err)
		}
		if err := w.WriteAt(make([]byte, x[1]), x[0], false); !errors.Is(err, vmdisk.ErrRange) {
			t.Errorf("writing %v: %v", x, err)
		}
	}
}

// TestDurableIsTheWhole: the last part of a split request takes the rest along, and a flush of one volume is a barrier over the others.
func TestDurableIsTheWhole(t *testing.T) {
	d := store(t, 9*mib)
	w := New(d, pieces)
	before := d.Info().Position
	if err := w.WriteAt(bytes.Repeat([]byte{1}, 2*mib), mib-512, true); err != nil {
		t.Fatal(err)
	}
	if i := d.Info(); i.Unflushed || i.Position.Barrier != before.Barrier+1 {
		t.Errorf("after FUA over three extents: %+v, before %v", i, before)
	}
	if err := d.WriteAt([]byte{1}, 0, false); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if d.Info().Unflushed {
		t.Error("the flush of one volume left another's write behind")
	}
}

// TestAStoreThatHasNotGrownYet reads as zeros where it isn't, and lets a writer wait.
func TestAStoreThatHasNotGrownYet(t *testing.T) {
	d := store(t, 5*mib)
	if err := d.WriteAt(bytes.Repeat([]byte{1}, mib), 4*mib, false); err != nil {
		t.Fatal(err)
	}
	w := New(d, pieces)
	got := bytes.Repeat([]byte{9}, int(w.Size()))
	if err := w.ReadAt(got, 0); err != nil || got[0] != 1 || got[mib-1] != 1 || len(bytes.Trim(got[mib+4096:], "\x00")) > 0 {
		t.Errorf("%v", err)
	}
	if err := w.WriteAt([]byte{1}, w.Size()-1, false); !errors.Is(err, vmdisk.ErrInactive) {
		t.Errorf("writing beyond the store: %v", err)
	}
	if list, err := w.Extents(mib+4096, mib); err != nil || len(list) != 1 || !list[0].Hole {
		t.Errorf("%+v, %v", list, err)
	}
	if w.Stale(0, w.Size()) {
		t.Error("what isn't there would have to be fetched")
	}
}
