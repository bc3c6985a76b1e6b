package vmdisk

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// A renewed disk goes on with its peers under the new term: nothing is sent twice, and the old term is in its history.
func TestRenew(t *testing.T) {
	m := vfs.NewMem()
	d, r, f, a := pair(t, 1<<20, quiet(m))
	must(t, d.WriteAt(blockOf(1), 0, true))
	pump(t, f, a)
	old := d.Position()
	must(t, d.WriteAt(blockOf(2), Block, false)) // without a barrier
	must(t, d.Renew(500))
	if _, err := f.poll(); !errors.Is(err, ErrClosed) {
		t.Fatalf("the feed goes on: %v", err)
	}
	must(t, a.Close())
	if i := d.Info(); !i.Active || i.Term != 500 || i.Given != 0 || i.Position.Term != 1 {
		t.Fatalf("%+v", i)
	}
	end := d.Position()
	must(t, d.WriteAt(blockOf(3), 2*Block, true))
	if got := d.Position(); got.Term != 500 || got.Compare(end) <= 0 {
		t.Fatalf("the next barrier is %s", got)
	}
	if got := d.Ends(); fmt.Sprint(got) != fmt.Sprint([]Position{{0, 0}, end}) {
		t.Fatalf("ends are %v, want %s last", got, end)
	}
	a, err := r.Apply()
	must(t, err)
	if a.State().Position != old {
		t.Fatalf("the replica is at %s", a.State().Position)
	}
	f, err = d.Attach("r", a.State())
	must(t, err)
	if got := fmt.Sprint(lacks(d, "r")); got != "[1 2]" {
		t.Fatalf("the peer lacks %s", got)
	}
	pump(t, f, a)
	if !bytes.Equal(content(t, d), content(t, r)) || r.Position() != d.Position() {
		t.Fatal("not equal")
	}
	must(t, d.Renew(500))
	for term, want := range map[uint64]error{499: ErrOldTerm, 1: ErrOldTerm} {
		if err := d.Renew(term); !errors.Is(err, want) {
			t.Errorf("term %d: %v", term, err)
		}
	}
	must(t, d.Fence())
	must(t, d.Renew(600))
	if err := d.WriteAt(blockOf(4), 0, false); !errors.Is(err, ErrFenced) {
		t.Fatalf("the fence is gone: %v", err)
	}
	must(t, d.Give(600))
	if err := d.Renew(700); !errors.Is(err, ErrInactive) {
		t.Fatalf("after it was given: %v", err)
	}
}

// TestRenewCrashes fails every call of a renewal, with and without a power cut: the disk is the owner under the old or under the new term, has
// lost nothing that was flushed, and its peer lacks what it lacked or more.
func TestRenewCrashes(t *testing.T) {
	for n := 1; ; n++ {
		m := vfs.NewMem()
		d, r, f, a := pair(t, 12<<20, quiet(m))
		must(t, d.WriteAt(blockOf(1), 0, true))
		pump(t, f, a)
		must(t, a.Close())
		must(t, d.Save())
		must(t, d.WriteAt(blockOf(2), 5<<20, true)) // the peer doesn't get it
		m.FailAt(n, syscall.EIO, true)
		err := d.Renew(500)
		done := m.Calls() < n
		if done != (err == nil) {
			t.Fatalf("call %d: %v", n, err)
		}
		m.FailAt(0, nil, false)
		for seed := range uint64(4) {
			c := m.After(vfs.LoseSome, seed)
			back := reopen(t, quiet(c))
			i := back.Info()
			if !i.Owned || i.Term != 1 && i.Term != 500 || done && i.Term != 500 {
				t.Fatalf("call %d: %+v", n, i)
			}
			must(t, back.Activate(i.Term))
			b := make([]byte, Block)
			must(t, back.ReadAt(b, 5<<20))
			if !bytes.Equal(b, blockOf(2)) {
				t.Fatalf("call %d: a flushed write is lost", n)
			}
			lack := lacks(back, "r")
			if len(lack) == 0 || len(lack) == 3*1024 {
				t.Fatalf("call %d, term %d: %d blocks are taken for missing: the peer isn't known", n, i.Term, len(lack))
			}
			must(t, back.Close())
		}
		_ = r.Close()
		_ = d.Close()
		if done {
			return
		}
	}
}

// An owner that comes back from a restart fenced off by a choice activates the next term: nobody had its disk meanwhile, so what it
// knows of its peers still counts.
func TestActivateNextTermKeepsPeers(t *testing.T) {
	m := vfs.NewMem()
	d, _, f, a := pair(t, 12<<20, quiet(m))
	f.Close()
	must(t, a.Close())
	must(t, d.Save())
	must(t, d.WriteAt(blockOf(2), 5<<20, true))
	m = m.Crash(vfs.LoseUnsynced, 1)
	_ = d.Close()
	d = reopen(t, quiet(m))
	must(t, d.Activate(500))
	if lack := lacks(d, "r"); len(lack) != 1024 {
		t.Fatalf("%d blocks are taken for missing, want those of the logged region", len(lack))
	}
	// A device that gave its term away knows nothing when it is the owner again.
	must(t, d.WriteAt(blockOf(3), 0, true))
	must(t, d.Fence())
	must(t, d.Give(500))
	must(t, d.Activate(600))
	if p := d.Peers(); len(p) != 0 {
		t.Fatalf("%+v", p)
	}
}

// Writes, flushes and renewals at once: each write returns nil or isn't there, and positions only rise.
func TestRenewUnderLoad(t *testing.T) {
	d := newDisk(t, 4<<20, quiet(vfs.NewMem()))
	must(t, d.Activate(1))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range int64(4) {
		wg.Go(func() {
			last := Position{}
			for i := int64(0); ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := d.WriteAt(blockOf(byte(i)), (w*100+i%100)*Block, i%5 == 0); err != nil {
					t.Errorf("write: %v", err)
					return
				}
				pos := d.Position()
				if pos.Compare(last) < 0 {
					t.Errorf("%s after %s", pos, last)
					return
				}
				last = pos
			}
		})
	}
	for term := uint64(2); term < 60; term++ {
		if err := d.Renew(term); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
}
