package vmdisk

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"

	"tagalong.org/tagalong/vmdisk/vfs"
)

func TestCreateOpen(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrNoDisk) {
		t.Fatalf("open of nothing: %v", err)
	}
	if _, err := Open(dir+"/missing", Options{}); !errors.Is(err, ErrNoDisk) {
		t.Fatalf("open of no directory: %v", err)
	}
	for _, size := range []int64{0, -4096, 4097, MaxSize + Block} {
		if _, err := Create(dir, NewID(), size, Options{}); !errors.Is(err, ErrRange) {
			t.Fatalf("size %d: %v", size, err)
		}
	}
	id := NewID()
	const size = MaxSize / 2 // ext4 has no bigger files
	d, err := Create(dir, id, size, Options{})
	must(t, err)
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrInUse) {
		t.Fatalf("second open: %v", err)
	}
	must(t, d.Activate(1))
	p := bytes.Repeat([]byte("tagalong"), 1000)
	must(t, d.WriteAt(p, size-8192, true))
	if i := d.Info(); i.Position != (Position{1, 1}) || i.Allocated > 1<<20 || i.Unflushed || !i.Active || i.Term != 1 {
		t.Fatalf("%+v", i)
	}
	must(t, d.Close())
	must(t, d.Close())
	if err := d.ReadAt(p, 0); !errors.Is(err, ErrClosed) {
		t.Fatalf("read after close: %v", err)
	}
	if err := d.WriteAt(p, 0, false); !errors.Is(err, ErrClosed) {
		t.Fatalf("write after close: %v", err)
	}
	if _, err := Create(dir, id, 1<<20, Options{}); !errors.Is(err, ErrExists) {
		t.Fatalf("second create: %v", err)
	}
	d, err = Open(dir, Options{})
	must(t, err)
	got := make([]byte, len(p))
	must(t, d.ReadAt(got, size-8192))
	if !bytes.Equal(got, p) || d.ID() != id || d.Position() != (Position{1, 1}) {
		t.Fatal("not what it was")
	}
	if err := d.WriteAt(p, 0, false); !errors.Is(err, ErrInactive) {
		t.Fatalf("write to an inactive disk: %v", err)
	}
	must(t, d.Close())
}

func TestBounds(t *testing.T) {
	d := newDisk(t, 1<<20, quiet(vfs.NewMem()))
	must(t, d.Activate(1))
	for _, off := range []int64{-1, 1 << 20, 1<<20 - 511, 1 << 62} {
		p := make([]byte, 512)
		for what, err := range map[string]error{
			"read": d.ReadAt(p, off), "write": d.WriteAt(p, off, false), "trim": d.Trim(off, 512, false), "zero": d.Zero(off, 512, true, true),
		} {
			if !errors.Is(err, ErrRange) {
				t.Errorf("%s at %d: %v", what, off, err)
			}
		}
	}
	if err := d.Trim(0, -1, false); !errors.Is(err, ErrRange) {
		t.Error(err)
	}
	must(t, d.WriteAt(nil, 1<<20, true))
}

// Any alignment is accepted; zeros become holes only if they are whole blocks.
func TestAlignment(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 2))
		o := quiet(nil)
		o.FS = vfs.OS(t.TempDir())
		d := newDisk(t, 256<<10, o)
		must(t, d.Activate(1))
		want := make([]byte, 256<<10)
		for range 60 {
			off := r.Int64N(int64(len(want)))
			n := 1 + r.Int64N(min(20000, int64(len(want))-off))
			p := make([]byte, n)
			switch r.IntN(4) {
			case 0:
				must(t, d.Zero(off, n, r.IntN(2) == 0, false))
			case 1:
				must(t, d.Trim(off, n, false))
			default:
				if r.IntN(3) > 0 {
					for i := range p {
						p[i] = byte(r.Uint32())
					}
				}
				must(t, d.WriteAt(p, off, false))
			}
			copy(want[off:], p)
		}
		if !bytes.Equal(content(t, d), want) {
			t.Fatalf("seed %d: differs", seed)
		}
		must(t, d.Close())
	}
}

func TestFence(t *testing.T) {
	m := vfs.NewMem()
	d := newDisk(t, 1<<20, quiet(m))
	block := bytes.Repeat([]byte{1}, Block)
	if err := d.Fence(); !errors.Is(err, ErrInactive) {
		t.Fatal(err)
	}
	if err := d.Activate(0); err == nil {
		t.Fatal("term 0 activated")
	}
	must(t, d.Activate(3))
	must(t, d.Activate(3))
	if err := d.Activate(4); !errors.Is(err, ErrActive) {
		t.Fatal(err)
	}
	must(t, d.WriteAt(block, 0, false))
	if err := d.Give(3); !errors.Is(err, ErrNotFenced) {
		t.Fatal(err)
	}
	must(t, d.Fence())
	for _, err := range []error{d.WriteAt(block, 0, false), d.Trim(0, Block, false), d.Zero(0, Block, true, false)} {
		if !errors.Is(err, ErrFenced) {
			t.Fatal(err)
		}
	}
	must(t, d.Flush())
	must(t, d.Unfence())
	must(t, d.WriteAt(block, Block, false))
	must(t, d.Fence())
	if err := d.Give(2); !errors.Is(err, ErrActive) {
		t.Fatal(err)
	}
	must(t, d.Give(3))
	if p := d.Position(); p != (Position{3, 2}) {
		t.Fatalf("given at %s", p)
	}
	check := func(d *Store) {
		t.Helper()
		for term := range uint64(4) {
			if err := d.Activate(term); !errors.Is(err, ErrFenced) {
				t.Fatalf("activate %d: %v", term, err)
			}
		}
		for _, err := range []error{d.WriteAt(block, 0, false), d.Unfence(), d.Fence()} {
			if !errors.Is(err, ErrInactive) {
				t.Fatal(err)
			}
		}
	}
	check(d)
	// A power cut right after Give returned must not bring the term back.
	m = m.Crash(vfs.LoseUnsynced, 1)
	d = reopen(t, quiet(m))
	check(d)
	if p := d.Position(); p != (Position{3, 2}) {
		t.Fatalf("after a crash at %s", p)
	}
	must(t, d.Activate(5))
	must(t, d.WriteAt(block, 0, true))
	if p := d.Position(); p.Term != 5 || p.Barrier <= 2 {
		t.Fatalf("position %s", p)
	}
}

// An owner that was killed may go on, but not as a replica before it gave its term away.
func TestApplyOfAnOwner(t *testing.T) {
	m := vfs.NewMem()
	d := newDisk(t, 1<<20, quiet(m))
	must(t, d.Activate(1))
	if _, err := d.Apply(); !errors.Is(err, ErrActive) {
		t.Fatal(err)
	}
	m = m.Crash(vfs.LoseNothing, 0)
	d = reopen(t, quiet(m))
	if _, err := d.Apply(); !errors.Is(err, ErrActive) {
		t.Fatal(err)
	}
	must(t, d.Give(1))
	a, err := d.Apply()
	must(t, err)
	if err := d.Activate(2); !errors.Is(err, ErrApplying) {
		t.Fatal(err)
	}
	if _, err := d.Apply(); !errors.Is(err, ErrApplying) {
		t.Fatal(err)
	}
	must(t, a.Barrier(Position{4, 9}))
	if err := a.Barrier(Position{3, 99}); !errors.Is(err, ErrOldTerm) {
		t.Fatal(err)
	}
	must(t, a.Close())
	if err := a.Write(0, make([]byte, Block)); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	for term := uint64(1); term <= 4; term++ {
		if err := d.Activate(term); !errors.Is(err, ErrOldTerm) && !errors.Is(err, ErrFenced) {
			t.Fatalf("activate %d: %v", term, err)
		}
	}
	must(t, d.Activate(5))
}

// Barrier numbers never come back, whatever is lost.
func TestBarriersNeverRepeat(t *testing.T) {
	m := vfs.NewMem()
	d := newDisk(t, 1<<20, quiet(m))
	var last Position
	for i := range uint64(8) {
		must(t, d.Activate(1))
		for range 5 {
			must(t, d.WriteAt([]byte{byte(i), 1}, 100, false))
			must(t, d.Flush())
			p := d.Position()
			if p.Compare(last) <= 0 {
				t.Fatalf("%s after %s", p, last)
			}
			last = p
			must(t, d.Flush())
			if d.Position() != p {
				t.Fatal("a flush of nothing made a barrier")
			}
		}
		m = m.Crash(vfs.Loss(i%3), i)
		_ = d.Close()
		d = reopen(t, quiet(m))
		if i%3 != 0 {
			continue
		}
		// What a dead owner left has a position of its own, that no replica can have.
		if p := d.Position(); p.Compare(last) <= 0 {
			t.Fatalf("%s after a crash at %s", p, last)
		}
	}
}

// A settled disk stays at its position whatever happens to its owner, until it is written again.
func TestSettledDiskStaysAtItsPosition(t *testing.T) {
	for i := range uint64(12) {
		m := vfs.NewMem()
		d := newDisk(t, 1<<20, quiet(m))
		must(t, d.Activate(1))
		must(t, d.WriteAt([]byte{1}, 100, false))
		settled, err := d.Settle()
		must(t, err)
		at := d.Position()
		if !settled || at == (Position{}) {
			t.Fatalf("settled %v at %s", settled, at)
		}
		if again, err := d.Settle(); err != nil || !again || d.Position() != at {
			t.Fatalf("settled again: %v, %v, at %s", again, err, d.Position())
		}
		written := i%2 == 1
		if written {
			must(t, d.WriteAt([]byte{2}, 100, false))
		}
		m = m.Crash(vfs.Loss(i%3), i)
		_ = d.Close()
		d = reopen(t, quiet(m))
		if p := d.Position(); (p != at) != written {
			t.Errorf("after a crash it is at %s, settled at %s, and was written since: %v", p, at, written)
		}
		must(t, d.Activate(1))
		if p := d.Position(); !written && p != at {
			t.Errorf("active again it is at %s, settled at %s", p, at)
		}
	}
}

func TestReserve(t *testing.T) {
	m := vfs.NewMem()
	o := quiet(m)
	o.Reserve = 1 << 20
	d := newDisk(t, 1<<20, o)
	must(t, d.Activate(1))
	block := bytes.Repeat([]byte{1}, Block)
	m.SetFree(1<<20 + Block)
	must(t, d.WriteAt(block, 0, false))
	m.SetFree(1 << 20)
	if err := d.WriteAt(block, Block, false); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("below the reserve: %v", err)
	}
	must(t, d.WriteAt(bytes.Repeat([]byte{2}, Block), 0, false)) // takes no new space
	must(t, d.Trim(Block, Block, false))
	must(t, d.Flush())
	m.SetFree(2 << 20)
	must(t, d.WriteAt(block, Block, true))
}

// A write that fails may have changed a part: peers must get the block again.
func TestFailedWriteIsDirty(t *testing.T) {
	full := &fullFS{Mem: vfs.NewMem()}
	o := quiet(nil)
	o.FS = full
	d := newDisk(t, 1<<20, o)
	must(t, d.Activate(1))
	rm := vfs.NewMem()
	r := newReplica(t, 1<<20, quiet(rm))
	a, err := r.Apply()
	must(t, err)
	f, err := d.Attach("r", a.State())
	must(t, err)
	pump(t, f, a)
	full.full = true
	if err := d.WriteAt(bytes.Repeat([]byte{3}, 4*Block), 0, false); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if g := f.Progress(); g.Complete || g.Remaining != 4*Block {
		t.Fatalf("%+v", g)
	}
	must(t, d.Flush())
	pump(t, f, a)
	if g := f.Progress(); !g.Complete {
		t.Fatalf("%+v", g)
	}
	if !bytes.Equal(content(t, d), content(t, r)) {
		t.Fatal("replica differs")
	}
}

// After a failed sync nothing is accepted and no barrier leaves; a restart counts all of it as dirty.
func TestSyncFailureIsFinal(t *testing.T) {
	h := newHoldFS()
	o := quiet(nil)
	o.FS = h
	d := newDisk(t, 1<<20, o)
	must(t, d.Activate(1))
	r := newReplica(t, 1<<20, quiet(vfs.NewMem()))
	a, err := r.Apply()
	must(t, err)
	f, err := d.Attach("r", a.State())
	must(t, err)
	pump(t, f, a)
	before := r.Position()
	must(t, d.WriteAt(bytes.Repeat([]byte{3}, Block), 0, false))
	h.arm(t)
	flushed := make(chan error, 1)
	go func() { flushed <- d.Flush() }()
	<-h.started
	h.hold <- errors.New("boom")
	if err := <-flushed; !errors.Is(err, ErrFailed) {
		t.Fatal(err)
	}
	h.release()
	for what, err := range map[string]error{"flush": d.Flush(), "write": d.WriteAt(make([]byte, 1), 0, false), "activate": d.Activate(1)} {
		if !errors.Is(err, ErrFailed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for {
		op, err := f.poll()
		if err != nil {
			if !errors.Is(err, ErrFailed) {
				t.Fatal(err)
			}
			break
		}
		if op == nil || op.Kind == OpBarrier {
			t.Fatalf("after a failed sync: %+v", op)
		}
		op.Release()
	}
	must(t, a.Close())
	if r.Position() != before {
		t.Fatal("the replica moved")
	}
	_ = d.Close()
	d = reopen(t, quiet(h.Mem))
	if p := d.Peers(); len(p) != 1 || p[0].Remaining < Block {
		t.Fatalf("after a restart: %+v", p)
	}
}
