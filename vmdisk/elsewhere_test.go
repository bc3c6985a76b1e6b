package vmdisk

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// Elsewhere is where the furthest peer is, durably, and whether it can be any further.
func TestElsewhere(t *testing.T) {
	d, _, f, a := pair(t, 1<<20, quiet(vfs.NewMem()))
	e := d.Elsewhere()
	if !e.Active || e.Hydrating || e.Newest.Compare(d.Position()) != 0 {
		t.Fatalf("%+v at %v", e, d.Position())
	}
	was := d.Position()
	must(t, d.WriteAt(make([]byte, Block), 0, false))
	must(t, d.Flush())
	var ack Position
	for ack.Compare(d.Position()) < 0 {
		if e := d.Elsewhere(); e.Newest != was {
			t.Fatalf("%+v before the peer has said so", e)
		}
		op, err := f.poll()
		must(t, err)
		ack, err = feedTo(a, op)
		must(t, err)
	}
	f.Acked(ack)
	if e := d.Elsewhere(); e.Newest != d.Position() {
		t.Fatalf("%+v at %v", e, d.Position())
	}
	f.Close()
	if e := d.Elsewhere(); e.Newest != d.Position() {
		t.Errorf("a peer that is gone had it all the same: %+v", e)
	}
	must(t, d.Forget("r"))
	if e := d.Elsewhere(); e.Newest != (Position{}) {
		t.Errorf("a peer that was forgotten counts: %+v", e)
	}
	must(t, d.Close())
	if d.Elsewhere().Active {
		t.Error("a closed disk is active")
	}
}

// Who waits for a peer that is behind isn't kept waiting by the rule that it gets a barrier only now and then.
func TestHurry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _, f, a := pair(t, 4<<20, quiet(vfs.NewMem()))
		w := stamped{d: d}
		for b := range int64(1024) {
			w.write(t, b)
		}
		if g := f.Progress(); g.Phase != Behind {
			t.Fatalf("%+v", g)
		}
		for touched := false; !touched; {
			op, err := f.poll()
			must(t, err)
			touched = op.Kind == OpBarrier
			_, err = feedTo(a, op)
			must(t, err)
		}
		w.write(t, 1)
		ctx, cancel := context.WithCancel(t.Context())
		var peer sync.WaitGroup
		defer peer.Wait()
		defer cancel()
		peer.Go(func() {
			for {
				op, err := f.Next(ctx)
				if err != nil {
					return
				}
				ack, err := feedTo(a, op)
				if err != nil {
					t.Error(err)
					return
				}
				f.Acked(ack)
			}
		})
		synctest.Wait()
		began := time.Now()
		must(t, d.Flush())
		pos := d.Position()
		changed, stop := d.Watch("")
		defer stop()
		d.Hurry()
		for d.Elsewhere().Newest.Compare(pos) < 0 {
			<-changed
		}
		if waited := time.Since(began); waited > wakeAfter {
			t.Errorf("it took %s", waited)
		}
	})
}

// A side that has lost, and is compared, may be at a higher number than the one that goes on: it holds nothing of that before it has followed.
func TestElsewhereIsNotASideThatLost(t *testing.T) {
	k := newFork(t)
	must(t, k.b.Fence())
	must(t, k.b.Give(forkTerm))
	must(t, k.a.Activate(forkTerm+1))
	apart := func(when string) {
		t.Helper()
		if e := k.a.Elsewhere(); e.Newest.Compare(k.a.Position()) >= 0 || !e.Whole {
			t.Fatalf("%s: %+v, the disk is at %v and the other side at %v", when, e, k.a.Position(), k.b.Position())
		}
	}
	c, err := k.a.Compare("b", k.b.ReplicaState())
	must(t, err)
	apart("comparing")
	must(t, compareAll(c, k.b))
	must(t, c.Finish())
	apart("compared")
	must(t, k.a.Close())
	k.a = reopen(t, behindOptions(k.am))
	apart("started anew")
	must(t, k.a.Activate(forkTerm+1))
	apart("going on")
	connect(t, k.a, k.b, "b")()
	if e := k.a.Elsewhere(); e.Newest != k.a.Position() {
		t.Fatalf("it has followed: %+v at %v", e, k.a.Position())
	}
}
