package vmdisk

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// runsOf are the blocks that a copy brought, as first and end of each run.
func runsOf(t *testing.T, a *Applier) (out []int64) {
	t.Helper()
	s, err := a.Copied()
	must(t, err)
	for x, y := range s.Runs() {
		out = append(out, x, y)
	}
	return out
}

func TestCopied(t *testing.T) {
	const size = 64 * Block
	m := vfs.NewMem()
	d := newReplica(t, size, quiet(m))
	a, err := d.Apply()
	must(t, err)
	p := make([]byte, 2*Block)
	if err := a.ReadAt(p, 0); !errors.Is(err, ErrNoCopy) {
		t.Errorf("read before a copy: %v", err)
	}

	// Of a first copy: whatever isn't a hole.
	a, err = reapply(d, a)
	must(t, err)
	one, two := bytes.Repeat([]byte{1}, 2*Block), bytes.Repeat([]byte{2}, 2*Block)
	must(t, a.Begin([16]byte{1}))
	must(t, a.Write(3*Block, one))
	must(t, a.Write(9*Block, one))
	must(t, a.Zero(10*Block, 5*Block))
	if got := runsOf(t, a); !slices.Equal(got, []int64{3, 5, 9, 10}) {
		t.Errorf("a first copy has brought %v", got)
	}
	must(t, a.ReadAt(p, 4*Block))
	if !bytes.Equal(p, append(bytes.Clone(one[:Block]), make([]byte, Block)...)) {
		t.Error("a first copy reads as something else")
	}
	must(t, a.Barrier(Position{1, 1}))
	if got := runsOf(t, a); got != nil {
		t.Errorf("after the copy: %v", got)
	}
	if err := a.ReadAt(p, 0); !errors.Is(err, ErrNoCopy) {
		t.Errorf("read after the copy: %v", err)
	}

	// Of a catch-up: what is in its layer, also when it is gone on with.
	a, err = reapply(d, a)
	must(t, err)
	must(t, a.Begin([16]byte{2}))
	must(t, a.Write(4*Block, two))
	must(t, a.Zero(9*Block, Block))
	must(t, a.Checkpoint(Position{1, 5}))
	a, err = reapply(d, a)
	must(t, err)
	if got := runsOf(t, a); !slices.Equal(got, []int64{4, 6, 9, 10}) {
		t.Errorf("a catch-up has brought %v", got)
	}
	must(t, a.Begin([16]byte{2}))
	all, want := make([]byte, 8*Block), make([]byte, 8*Block)
	must(t, a.ReadAt(all, 3*Block))
	copy(want, one[:Block])
	copy(want[Block:], two)
	if !bytes.Equal(all, want) {
		t.Error("a catch-up reads as something else")
	}
	must(t, d.ReadAt(p, 4*Block))
	if !bytes.Equal(p[:Block], one[:Block]) {
		t.Error("the disk shows what isn't committed")
	}
	if err := a.ReadAt(p, size-Block); !errors.Is(err, ErrRange) {
		t.Errorf("read beyond the end: %v", err)
	}
}

// reapply follows anew.
func reapply(d *Store, a *Applier) (*Applier, error) {
	if err := a.Close(); err != nil {
		return nil, err
	}
	return d.Apply()
}

// A first copy's checkpoints may be at the position at which it ends: those of a cut are.
func TestACopyEndsWhereItsCheckpointWas(t *testing.T) {
	for _, complete := range []bool{false, true} {
		r := newReplica(t, 1<<20, quiet(vfs.NewMem()))
		a, err := r.Apply()
		must(t, err)
		at := Position{1, 5}
		if complete {
			must(t, a.Begin([16]byte{1}))
			must(t, a.Barrier(at))
			at.Barrier++
		}
		must(t, a.Begin([16]byte{2}))
		must(t, a.Write(0, blockOf(1)))
		must(t, a.Checkpoint(at))
		must(t, a.Write(Block, blockOf(2)))
		must(t, a.Barrier(at))
		if st := r.ReplicaState(); !st.Complete || st.Position != at {
			t.Errorf("complete before: %v, at %+v", complete, st)
		}
		if err := a.Barrier(Position{1, 4}); !errors.Is(err, ErrOldPosition) {
			t.Errorf("an older barrier: %v", err)
		}
		must(t, a.Close())
	}
}
