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
