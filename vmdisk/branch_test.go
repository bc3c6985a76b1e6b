package vmdisk

import (
	"bytes"
	"errors"
	"testing"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// pass hands the disk from one device to another, as a switch does.
func pass(t *testing.T, from, to *Store, name string, old, term uint64) {
	t.Helper()
	connect(t, from, to, name)()
	must(t, from.Fence())
	must(t, from.Give(old))
	sets, err := from.ExportDirty()
	must(t, err)
	must(t, to.ImportDirty(sets, name))
	must(t, to.Activate(term))
}

// A device that was an owner of a history that was given up doesn't take it for its own when it becomes the owner of the other: a replica
// that still is on the lost one is compared, and doesn't become a mixture.
func TestALostBranchIsForgotten(t *testing.T) {
	a := newDisk(t, forkSize, quiet(vfs.NewMem()))
	replica := func() *Store { return newReplica(t, forkSize, quiet(vfs.NewMem())) }
	b, c, d := replica(), replica(), replica()
	must(t, a.Activate(1))
	must(t, a.WriteAt(blockOf(1), 0, true))
	connect(t, a, d, "d")()
	connect(t, a, c, "c")()
	connect(t, a, b, "b")()
	// b takes over; d follows it; the disk goes to c and back.
	must(t, b.Activate(1000))
	must(t, b.WriteAt(blockOf(0xbb), 5*Block, true))
	connect(t, b, d, "d")()
	lost := d.Position()
	pass(t, b, c, "c", 1000, 1001)
	must(t, c.WriteAt(blockOf(0xcc), 6*Block, true))
	pass(t, c, b, "b", 1001, 1002)
	// The person keeps a's side. b follows it, and then gets the disk from it.
	must(t, a.WriteAt(blockOf(0xaa), 7*Block, true))
	must(t, a.Renew(5000))
	must(t, b.Fence())
	must(t, b.Give(1002))
	cmp, err := a.Compare("b", b.ReplicaState())
	must(t, err)
	must(t, compareAll(cmp, b))
	must(t, cmp.Finish())
	pass(t, a, b, "b", 5000, 5001)
	if d.Position() != lost {
		t.Fatalf("d is at %s", d.Position())
	}
	if _, err := b.Attach("d", d.ReplicaState()); !errors.Is(err, ErrDiverged) {
		t.Fatalf("a replica of the lost history is taken for one of this: %v", err)
	}
	cmp, err = b.Compare("d", d.ReplicaState())
	must(t, err)
	must(t, compareAll(cmp, d))
	must(t, cmp.Finish())
	connect(t, b, d, "d")()
	if !bytes.Equal(content(t, b), content(t, d)) {
		t.Fatal("d is a mixture")
	}
}
