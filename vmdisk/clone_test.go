package vmdisk

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// into makes a clone's files in memory.
func into(m *vfs.Mem) CloneOptions { return CloneOptions{FS: m} }

// A clone of a given disk is a whole replica at its position: without a right to any term that the disk had, and able to follow the winner.
func TestClone(t *testing.T) {
	for _, shared := range []bool{false, true} {
		k := newFork(t)
		m := vfs.NewMem()
		m.SetReflink(shared)
		var last, all int64
		must(t, k.a.Clone(context.Background(), "", into(m), func(done, total int64) {
			if done < last || done > total {
				t.Fatalf("%d of %d after %d", done, total, last)
			}
			last, all = done, total
		}))
		if !shared && (all == 0 || last != all) || shared && all != 0 {
			t.Fatalf("shared %t: progress ended at %d of %d", shared, last, all)
		}
		c := reopen(t, quiet(m))
		if !bytes.Equal(content(t, c), content(t, k.a)) || c.Position() != k.a.Position() || c.ID() != k.a.ID() {
			t.Fatalf("shared %t: the clone is at %s, the disk at %s", shared, c.Position(), k.a.Position())
		}
		if i := c.Info(); !i.Complete || i.Owned || i.Active || len(i.Peers) != 0 || i.Given != 4 {
			t.Fatalf("%+v", i)
		}
		for _, term := range []uint64{1, 4} {
			if err := c.Activate(term); !errors.Is(err, ErrFenced) {
				t.Fatalf("term %d: %v", term, err)
			}
		}
		if _, _, err := c.StaleIn(nil, "x"); !errors.Is(err, ErrMalformed) {
			t.Fatal(err)
		}
		cmp, err := k.b.Compare("clone", c.ReplicaState())
		must(t, err)
		must(t, compareAll(cmp, c))
		must(t, cmp.Finish())
		connect(t, k.b, c, "clone")()
		if !bytes.Equal(content(t, c), content(t, k.b)) || bytes.Equal(content(t, c), content(t, k.a)) {
			t.Fatal("the clone didn't follow, or took the disk along")
		}
	}
}

// A fresh clone is a disk that never had an owner, with an ID of its own.
func TestCloneFresh(t *testing.T) {
	k := newFork(t)
	for _, id := range []ID{{}, {7}} {
		m := vfs.NewMem()
		o := into(m)
		o.Fresh, o.ID = true, id
		must(t, k.a.Clone(context.Background(), "", o, nil))
		c := reopen(t, quiet(m))
		if c.ID() == k.a.ID() || id != (ID{}) && c.ID() != id || c.Position() != (Position{}) || c.Info().Term != 0 || len(c.Ends()) != 0 {
			t.Fatalf("%+v", c.Info())
		}
		if !bytes.Equal(content(t, c), content(t, k.a)) {
			t.Fatal("not the same content")
		}
		must(t, c.Activate(1))
	}
}

// A clone has what lies in layers that aren't merged yet, and zeros where a layer has zeros over old content.
func TestCloneLayers(t *testing.T) {
	for _, shared := range []bool{false, true} {
		b := newBehind(t)
		must(t, b.owner.Zero(40*Block, 20*Block, true, true))
		must(t, b.connect())
		must(t, b.pump(-1))
		b.cutOff()
		if len(b.rep.stack.layers) == 0 {
			t.Fatal("there are no layers")
		}
		m := vfs.NewMem()
		m.SetReflink(shared)
		must(t, b.rep.Clone(context.Background(), "", into(m), nil))
		c := reopen(t, quiet(m))
		if !bytes.Equal(content(t, c), content(t, b.rep)) {
			t.Fatalf("shared %t: %s", shared, differ(content(t, c), content(t, b.rep)))
		}
	}
}

// A running disk is cloned as it is at one barrier, whatever the guest writes meanwhile.
func TestCloneWhileWriting(t *testing.T) {
	d := newDisk(t, 8<<20, quiet(vfs.NewMem()))
	must(t, d.Activate(1))
	for x := range d.blocks() {
		must(t, d.WriteAt(blockOf(byte(1+x%250)), x*Block, false))
	}
	want := content(t, d)
	m := vfs.NewMem()
	m.SetReflink(true) // which must not be used: the guest would have to wait
	pieces := 0
	must(t, d.Clone(context.Background(), "", into(m), func(done, total int64) {
		pieces++
		must(t, d.WriteAt(bytes.Repeat([]byte{0xff}, 64<<10), 8<<20-done, false))
	}))
	if pieces == 0 {
		t.Fatal("the guest had to wait for the file system")
	}
	c := reopen(t, quiet(m))
	if !bytes.Equal(content(t, c), want) || c.Position().Term != 1 {
		t.Fatalf("at %s: %s", c.Position(), differ(content(t, c), want))
	}
	// The owner's rights stay with the owner.
	if i := c.Info(); i.Owned || i.Given != 1 {
		t.Fatalf("%+v", i)
	}
	if err := c.Activate(1); !errors.Is(err, ErrFenced) {
		t.Fatalf("two owners: %v", err)
	}
}

// TestCloneFails fails each call of a clone, and cuts the power at each: there is a whole disk or none, and the source is as it was.
func TestCloneFails(t *testing.T) {
	for _, shared := range []bool{false, true} {
		for n := 1; ; n++ {
			k := newFork(t)
			want := content(t, k.a)
			m := vfs.NewMem()
			m.SetReflink(shared)
			m.FailAt(n, syscall.EIO, true)
			err := k.a.Clone(context.Background(), "", into(m), nil)
			done := m.Calls() < n
			if done != (err == nil) {
				t.Fatalf("call %d: %v", n, err)
			}
			m.FailAt(0, nil, false)
			for seed := range uint64(4) {
				c, err := Open("", quiet(m.After(vfs.LoseSome, seed)))
				switch {
				case err == nil:
					if !bytes.Equal(content(t, c), want) {
						t.Fatalf("call %d: a clone of other content", n)
					}
					must(t, c.Close())
				case done || !errors.Is(err, ErrNoDisk):
					t.Fatalf("call %d: %v", n, err)
				}
			}
			if !bytes.Equal(content(t, k.a), want) {
				t.Fatal("the source changed")
			}
			_ = k.a.Close()
			_ = k.b.Close()
			if done {
				break
			}
		}
	}
}

// In a real directory: the name comes last, a cancelled or hopeless clone leaves nothing, and what a crash left is removed.
func TestCloneDirectory(t *testing.T) {
	top := t.TempDir()
	src, dst := filepath.Join(top, "src"), filepath.Join(top, "points", "dst")
	must(t, os.Mkdir(filepath.Join(top, "points"), 0o700))
	d, err := Create(src, ID{1}, 64<<20, Options{})
	must(t, err)
	must(t, d.Activate(1))
	for x := range int64(2000) {
		must(t, d.WriteAt(blockOf(byte(1+x%250)), 7*x*Block, false))
	}
	must(t, d.Flush())
	want := content(t, d)
	must(t, d.Close())
	none := func() {
		t.Helper()
		left, err := os.ReadDir(filepath.Dir(dst))
		if err != nil || len(left) > 0 {
			t.Fatalf("left: %v (%v)", left, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	// The file system may share the blocks, and then there is nothing to cancel: this is cancelled before.
	cancel()
	if err := Clone(ctx, dst, src, CloneOptions{}, nil); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	none()
	must(t, os.MkdirAll(dst+vfs.TempSuffix, 0o700))
	must(t, os.WriteFile(filepath.Join(dst+vfs.TempSuffix, baseName), []byte("half"), 0o600))
	must(t, SweepClones(filepath.Dir(dst)))
	none()
	must(t, SweepClones(filepath.Join(dst, "none")))
	odd := filepath.Join(t.TempDir(), "[a-z]")
	must(t, os.MkdirAll(filepath.Join(odd, "disk"+vfs.TempSuffix), 0o700))
	must(t, SweepClones(odd))
	if left, err := os.ReadDir(odd); err != nil || len(left) > 0 {
		t.Fatalf("left: %v (%v)", left, err)
	}
	must(t, os.MkdirAll(dst+vfs.TempSuffix, 0o700))
	must(t, os.WriteFile(filepath.Join(dst+vfs.TempSuffix, baseName), []byte("half"), 0o600))
	must(t, Clone(context.Background(), dst, src, CloneOptions{}, nil))
	if err := Clone(context.Background(), dst, src, CloneOptions{}, nil); !errors.Is(err, ErrExists) {
		t.Fatalf("a second time: %v", err)
	}
	c, err := Open(dst, Options{})
	must(t, err)
	defer c.Close()
	if !bytes.Equal(content(t, c), want) {
		t.Fatal("not the same")
	}
	if n, err := c.stack.base.Allocated(); err != nil || n > 12<<20 {
		t.Fatalf("the clone takes %d bytes (%v)", n, err)
	}
}

// What can't fit isn't begun; what fills up meanwhile leaves no disk.
func TestCloneNoRoom(t *testing.T) {
	d := newDisk(t, 8<<20, quiet(vfs.NewMem()))
	must(t, d.Activate(1))
	for x := range d.blocks() / 2 {
		must(t, d.WriteAt(blockOf(byte(1+x%250)), x*Block, false))
	}
	m := vfs.NewMem()
	m.SetFree(5 << 20)
	o := into(m)
	o.Options.Reserve = 2 << 20
	calls := 0
	if err := d.Clone(context.Background(), "", o, func(int64, int64) { calls++ }); !errors.Is(err, syscall.ENOSPC) || calls > 0 {
		t.Fatalf("%v after %d pieces", err, calls)
	}
}
