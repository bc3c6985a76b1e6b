package diskpush

import (
	"bytes"
	"errors"
	"testing"

	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// history has all positions, or none, and has heard nothing.
type history bool

func (h history) Has(vmdisk.Position) bool { return bool(h) }

func (h history) Told(string) (Told, bool) { return Told{}, false }

func TestLacks(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	o := vmdisk.Options{FS: vfs.NewMem(), BarrierEvery: -1, SaveEvery: -1}
	d, err := vmdisk.Create("", vmdisk.ID{1}, 64*vmdisk.Block, o)
	must(err)
	must(d.Activate(1))
	write := func(block int64) {
		t.Helper()
		must(d.WriteAt(bytes.Repeat([]byte{byte(block)}, vmdisk.Block), block*vmdisk.Block, false))
		must(d.Flush())
	}
	write(3)
	before, err := d.Cut(t.Context())
	must(err)
	write(5)
	cut, err := d.Cut(t.Context())
	must(err)
	defer cut.Close()
	there := vmdisk.ReplicaState{Disk: d.ID(), Complete: true, Position: before.Position()}

	set, exact := Lacks(d, cut, "peer", there, history(true))
	if set == nil || !exact || set.Count() != 1 || !set.Has(5) {
		t.Errorf("what was written since isn't exactly what is lacking: %v, %v", set, exact)
	}
	// The same number, on a branch that was given up: it may differ anywhere.
	if set, exact := Lacks(d, cut, "peer", there, history(false)); set != nil || exact {
		t.Errorf("a copy outside of the history is said to lack %v", set)
	}
	there.Complete = false
	if set, _ := Lacks(d, cut, "peer", there, history(true)); set != nil {
		t.Errorf("a copy that isn't whole is said to lack %v", set)
	}

	// What was written since isn't known any more.
	there.Complete = true
	must(errors.Join(cut.Close(), before.Close(), d.Close()))
	d, err = vmdisk.Open("", o)
	must(err)
	defer d.Close()
	must(d.Activate(2))
	write(7)
	cut, err = d.Cut(t.Context())
	must(err)
	defer cut.Close()
	if set, _ := Lacks(d, cut, "peer", there, history(true)); set != nil {
		t.Errorf("a copy of which nothing is known is said to lack %v", set)
	}
}

// TestWithin has a disk that is larger than the fleet has heard of: that matters where there is content beyond.
func TestWithin(t *testing.T) {
	o := vmdisk.Options{FS: vfs.NewMem(), BarrierEvery: -1, SaveEvery: -1}
	d, err := vmdisk.Create("", vmdisk.ID{1}, 64*vmdisk.Block, o)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Activate(1); err != nil {
		t.Fatal(err)
	}
	check := func(after string, known, want int64, failed error) {
		t.Helper()
		cut, err := d.Cut(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer cut.Close()
		if got, err := Within(cut, known*vmdisk.Block); got != want*vmdisk.Block || !errors.Is(err, failed) {
			t.Errorf("%s, with %d blocks known: %d, %v", after, known, got/vmdisk.Block, err)
		}
	}
	write := func(b byte, block int64) {
		t.Helper()
		if err := errors.Join(d.WriteAt(bytes.Repeat([]byte{b}, vmdisk.Block), block*vmdisk.Block, false), d.Flush()); err != nil {
			t.Fatal(err)
		}
	}
	write(1, 31)
	check("nothing is beyond", 32, 32, nil)
	check("more is known than there is", 80, 64, nil)
	write(0, 50)
	check("zeros are beyond", 32, 32, nil)
	write(1, 63)
	check("content is beyond", 32, 0, ErrBeyond)
	check("all is known", 64, 64, nil)
}
