package vmdisk

import (
	"bytes"
	"errors"
	"syscall"
	"testing"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// scenario runs a small life of an owner and a replica, and stops at the first error.
func scenario(t *testing.T, om, rm *vfs.Mem) (told [][]byte, err error) {
	t.Helper()
	told = [][]byte{make([]byte, 64<<10)}
	d, err := Create("", ID{1}, 64<<10, quiet(om))
	if err != nil {
		return told, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	r, err := CreateReplica("", ID{1}, 64<<10, quiet(rm))
	if err != nil {
		return told, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := d.Activate(1); err != nil {
		return told, err
	}
	a, err := r.Apply()
	if err != nil {
		return told, err
	}
	f, err := d.Attach("r", a.State())
	if err != nil {
		return told, err
	}
	for i := range byte(4) {
		next := bytes.Clone(told[len(told)-1])
		copy(next[int(i)*Block:], bytes.Repeat([]byte{i + 1}, 2*Block))
		told = append(told, next)
		if err := d.WriteAt(bytes.Repeat([]byte{i + 1}, 2*Block), int64(i)*Block, i == 2); err != nil {
			return told, err
		}
		if err := d.Flush(); err != nil {
			return told, err
		}
		told = told[len(told)-1:] // flushed: from now on this and nothing older
		for {
			op, err := f.poll()
			if err != nil {
				return told, err
			}
			if op == nil {
				break
			}
			ack, err := feedTo(a, op)
			if err != nil {
				return told, err
			}
			f.Acked(ack)
		}
		if i == 1 {
			if err := d.save(); err != nil {
				return told, err
			}
		}
	}
	if err := d.Fence(); err != nil {
		return told, err
	}
	if _, err := d.ExportDirty(); err != nil {
		return told, err
	}
	return told, d.Give(1)
}

// TestEveryCallFails fails every single call, once and for ever, with an error or a full disk, in the owner or the
// replica. Nothing may be accepted silently: after a power cut the owner has what it promised, and the replica is
// whole.
func TestEveryCallFails(t *testing.T) {
	calls := func(owner bool) int {
		om, rm := vfs.NewMem(), vfs.NewMem()
		if _, err := scenario(t, om, rm); err != nil {
			t.Fatal(err)
		}
		if owner {
			return om.Calls()
		}
		return rm.Calls()
	}
	for _, owner := range []bool{true, false} {
		for n := 1; n <= calls(owner); n++ {
			for _, fault := range []error{errors.New("boom"), syscall.ENOSPC} {
				for _, forever := range []bool{false, true} {
					om, rm := vfs.NewMem(), vfs.NewMem()
					hit := rm
					if owner {
						hit = om
					}
					hit.FailAt(n, fault, forever)
					told, _ := scenario(t, om, rm)
					survived(t, om, told, n)
					whole(t, rm, told, n)
				}
			}
		}
	}
}

// survived checks an owner's disk after a power cut.
func survived(t *testing.T, m *vfs.Mem, told [][]byte, n int) {
	t.Helper()
	d, err := Open("", quiet(m.Crash(vfs.LoseUnsynced, uint64(n))))
	if errors.Is(err, ErrNoDisk) && len(told) == 1 && isZero(told[0]) {
		return // it was never made
	}
	if err != nil {
		t.Fatalf("call %d: %v", n, err)
	}
	defer d.Close()
	got := content(t, d)
	// Of a write that wasn't flushed each block may be there or not.
	for off := 0; off < len(got); off += Block {
		good := false
		for _, c := range told {
			good = good || bytes.Equal(got[off:off+Block], c[off:off+Block])
		}
		if !good {
			t.Fatalf("call %d: block %d is lost", n, off/Block)
		}
	}
}

// whole checks a replica after a power cut: if it is complete it has whole writes only.
func whole(t *testing.T, m *vfs.Mem, told [][]byte, n int) {
	t.Helper()
	d, err := Open("", quiet(m.Crash(vfs.LoseSome, uint64(n))))
	if errors.Is(err, ErrNoDisk) {
		return
	}
	if err != nil {
		t.Fatalf("call %d: replica: %v", n, err)
	}
	defer d.Close()
	if !d.Info().Complete {
		return
	}
	// Epoch k wrote k+1 into blocks k and k+1, so any mixture shows.
	got, want := content(t, d), make([]byte, 64<<10)
	for k := -1; k < 4; k++ {
		if k >= 0 {
			copy(want[k*Block:], bytes.Repeat([]byte{byte(k + 1)}, 2*Block))
		}
		if bytes.Equal(got, want) {
			return
		}
	}
	t.Fatalf("call %d: the replica at %s is a mixture", n, d.Position())
}
