package vmdisk

import (
	"bytes"
	"context"
	"testing"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// A first copy of an empty terabyte, and of one with a little in it, is a matter of as many operations as there is content: holes are never read, sent or
// written. So it is with a replica that was away while a terabyte was given back, and with what comes from a cut.
func TestTerabyteOfHoles(t *testing.T) {
	const size = 1 << 40
	om, rm := vfs.NewMem(), vfs.NewMem()
	om.SetFree(1 << 50)
	rm.SetFree(1 << 50)
	o, ro := quiet(om), quiet(rm)
	o.MirrorEvery, o.checkpointEvery, o.attachBelow = -1, 32<<20, 4<<20
	d := newDisk(t, size, o)
	r := newReplica(t, size, ro)
	must(t, d.Activate(1))
	// sync brings the replica up to date, and counts.
	sync := func() (ops int, data int64) {
		t.Helper()
		a, err := r.Apply()
		must(t, err)
		f, err := d.Attach("r", a.State())
		must(t, err)
		for {
			op, err := f.poll()
			must(t, err)
			if op == nil {
				break
			}
			ops++
			if op.Kind == OpWrite {
				data += op.Len
			}
			ack, err := feedTo(a, op)
			must(t, err)
			f.Acked(ack)
		}
		if g := f.Progress(); !g.Complete || g.Phase != Live || g.Remaining != 0 {
			t.Fatalf("%+v", g)
		}
		f.Close()
		must(t, a.Close())
		return ops, data
	}
	var took int64 // calls of both file systems
	calls := func() int64 {
		before := took
		took = int64(om.Calls() + rm.Calls())
		return took - before
	}
	calls()
	// A run is at most 4 GiB: 256 of them, and a checkpoint, a barrier or so.
	if ops, data := sync(); ops > 256+8 || data != 0 {
		t.Errorf("empty: %d operations, %d bytes", ops, data)
	}
	if n := calls(); n > 4000 {
		t.Errorf("empty: %d calls of the file systems", n)
	}
	content := bytes.Repeat([]byte{7}, 1<<20)
	for x := range int64(8) {
		must(t, d.WriteAt(content, x*(100<<30), false))
	}
	must(t, d.Trim(900<<30, 100<<30, false))
	must(t, d.Flush())
	if ops, data := sync(); ops > 25+8*4+8*4+8 || data != 8<<20 {
		t.Errorf("some content: %d operations, %d bytes", ops, data)
	}
	calls()
	must(t, d.Trim(0, size, false))
	must(t, d.Flush())
	if ops, data := sync(); ops > 256+8 || data != 0 {
		t.Errorf("given back: %d operations, %d bytes", ops, data)
	}
	for more := true; more; {
		var err error
		more, err = r.mergeBottom(context.Background())
		must(t, err)
	}
	if n := calls(); n > 12000 {
		t.Errorf("given back: %d calls of the file systems", n)
	}
	if i := r.Info(); i.Allocated > 1<<20 {
		t.Errorf("the replica takes %d bytes", i.Allocated)
	}
	// From a cut too.
	c, err := d.Cut(t.Context())
	must(t, err)
	defer c.Close()
	must(t, d.WriteAt(content, 1<<30, false))
	ops, from := 0, int64(0)
	for ; from < size/Block; ops++ {
		op, err := c.op(from, min(size/Block, from+maxRunBlocks))
		must(t, err)
		if op.Kind != OpZero {
			t.Fatalf("block %d isn't a hole of the cut", from)
		}
		from += op.Len / Block
	}
	if ops > 256+3 {
		t.Errorf("a cut: %d operations", ops)
	}
}

// What was a hole of a layer when a merge looked at it, and isn't any more when it copies, is copied piece by piece.
func TestMergeOfAHoleThatIsWritten(t *testing.T) {
	const size = 16 << 20
	d, r, f, a := pairOf(t, size, behindOptions(vfs.NewMem()), behindOptions(vfs.NewMem()))
	f.Close()
	must(t, a.Close())
	for x := int64(0); x < size; x += MaxOp {
		must(t, d.WriteAt(bytes.Repeat([]byte{5}, MaxOp), x, false))
	}
	must(t, d.Trim(0, size, true))
	a, err := r.Apply()
	must(t, err)
	f, err = d.Attach("r", a.State())
	must(t, err)
	pump(t, f, a)
	m := r.beginMerge()
	if m == nil {
		t.Fatal("there is no layer")
	}
	x, y, ok := m.next(0)
	if !ok || x != 0 || y != size/Block {
		t.Fatalf("to be merged: %d to %d, %v", x, y, ok)
	}
	// Before the merge has claimed it.
	must(t, d.WriteAt(blockOf(9), 3*MaxOp, false))
	must(t, d.WriteAt(blockOf(8), size-Block, true))
	pump(t, f, a)
	x, y = m.take(x, y)
	must(t, r.mergeRun(m, x, y))
	if left := m.count(); left != y-x-mergeBlocks {
		t.Errorf("%d blocks are left", left)
	}
	for more := true; more; {
		more, err = r.mergeBottom(context.Background())
		must(t, err)
	}
	if !bytes.Equal(content(t, r), content(t, d)) {
		t.Error("the replica differs")
	}
	f.Close()
	must(t, a.Close())
}
