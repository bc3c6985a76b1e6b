package vmdisk

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"testing"
	"time"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// A write that was on its way when the disk was fenced may ask to be logged only after the disk was sealed. It is refused, and leaves no
// trace: a restart would take the disk for one that was written.
func TestLateWriteLeavesTheSealAlone(t *testing.T) {
	mem := vfs.NewMem()
	d := newDisk(t, 16<<20, quiet(mem))
	must(t, d.Activate(1))
	must(t, d.WriteAt(blockOf(1), 0, false))
	must(t, d.Fence())
	must(t, d.Seal())
	pos := d.Position()
	// In the place of WriteAt, which has asked before the fence whether it may.
	if err := d.begin(8<<20, Block); !errors.Is(err, ErrFenced) {
		t.Fatalf("a late write: %v", err)
	}
	if i := d.Info(); i.NeedsCheck != "" {
		t.Errorf("needs checking: %s", i.NeedsCheck)
	}
	mem = mem.Crash(vfs.LoseNothing, 1)
	_ = d.Close()
	d, err := Open("", quiet(mem))
	must(t, err)
	if got := d.Position(); got != pos {
		t.Errorf("at %s, was sealed at %s", got, pos)
	}
	must(t, d.Activate(1))
	must(t, d.Fence())
	must(t, d.Seal())
	must(t, d.Renew(2))
	must(t, d.Unfence())
	must(t, d.WriteAt(blockOf(2), 8<<20, true))
	must(t, d.Fence())
	must(t, d.Seal())
	must(t, d.Give(2))
	must(t, d.Activate(3))
	must(t, d.WriteAt(blockOf(3), 12<<20, true))
	must(t, d.Close())
}

// TestUnfenceOnAFullDrive: a disk that was sealed to be given away goes on though the drive has filled up meanwhile. What the guest overwrites then leaves its
// trace: after a crash the disk isn't taken for what it was when it was sealed.
func TestUnfenceOnAFullDrive(t *testing.T) {
	mem := vfs.NewMem()
	d := newDisk(t, 16<<20, quiet(mem))
	must(t, d.Activate(1))
	must(t, d.WriteAt(blockOf(1), 0, true))
	must(t, d.Fence())
	must(t, d.Seal())
	sealed := d.Position()
	mem.SetFull(true)
	must(t, d.Unfence())
	if err := d.WriteAt(blockOf(2), 8<<20, false); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("a write that takes space: %v", err)
	}
	must(t, d.WriteAt(blockOf(2), 0, false))
	mem.SetFull(false)
	mem = mem.Crash(vfs.LoseNothing, 1)
	_ = d.Close()
	d, err := Open("", quiet(mem))
	must(t, err)
	if got := d.Position(); got.Compare(sealed) <= 0 {
		t.Errorf("at %s, was sealed at %s, and written since", got, sealed)
	}
	must(t, d.Close())
}

// An idle disk that gets a new position while another peer is drained, and goes on, tells it to the peers that lack nothing else: to be
// one position behind would make them a branch of their own, should one take over.
func TestUnfenceTellsThePosition(t *testing.T) {
	d := newDisk(t, 4<<20, quiet(vfs.NewMem()))
	must(t, d.Activate(1))
	must(t, d.WriteAt(blockOf(1), 0, false))
	ctx, cancel := context.WithCancel(t.Context())
	var peers sync.WaitGroup
	defer peers.Wait()
	defer cancel()
	changed, stop := d.Watch("")
	defer stop()
	until := func(what string, ok func([]PeerInfo) bool) {
		t.Helper()
		for p := d.Peers(); !ok(p); p = d.Peers() {
			select {
			case <-changed:
			case <-time.After(2 * time.Minute):
				t.Fatalf("never %s: %+v; the disk is at %s", what, d.Peers(), d.Position())
			}
		}
	}
	complete := func(n int) func([]PeerInfo) bool {
		return func(p []PeerInfo) bool {
			whole := len(p) == n
			for _, i := range p {
				whole = whole && i.Complete
			}
			return whole
		}
	}
	r := newReplica(t, 4<<20, quiet(vfs.NewMem()))
	peers.Go(func() { _ = follow(ctx, d, r, "p", 1<<30) })
	until("whole", complete(1))
	// As a round that the disk makes for another peer while it is fenced.
	before := d.Position()
	must(t, d.Fence())
	d.mu.Lock()
	d.counter++
	d.position = Position{d.term, d.counter}
	d.mu.Unlock()
	must(t, d.Unfence())
	until("told", complete(1))
	if at := r.Position(); at != d.Position() || at == before {
		t.Errorf("the replica is at %s, the disk at %s, before it was %s", at, d.Position(), before)
	}
}

// A drain ends with its context, also while a guest that wasn't stopped writes between any two barriers.
func TestDrainUnderLoadEnds(t *testing.T) {
	h := newHoldFS()
	o := quiet(nil)
	o.FS = h
	d := newDisk(t, 1<<20, o)
	must(t, d.Activate(1))
	must(t, d.WriteAt(blockOf(1), 0, false))
	ctx, cancel := context.WithCancel(t.Context())
	var peer sync.WaitGroup
	defer peer.Wait()
	defer cancel()
	r := newReplica(t, 1<<20, quiet(vfs.NewMem()))
	peer.Go(func() { _ = follow(ctx, d, r, "p", 1<<30) })
	changed, stop := d.Watch("p")
	defer stop()
	for p := d.Peers(); len(p) == 0 || p[0].Phase != Live; p = d.Peers() {
		<-changed
	}
	h.arm(t)
	must(t, d.WriteAt(blockOf(2), 0, false))
	short, give := context.WithCancel(ctx)
	defer give()
	done := make(chan error, 1)
	go func() {
		_, err := d.Drain(short, "p")
		done <- err
	}()
	for n := 0; ; n++ {
		select {
		case <-h.started:
			if n == 2 {
				give()
			}
			if n == 20 {
				t.Fatal("it goes on after its end")
			}
			must(t, d.WriteAt(blockOf(byte(n)), Block, false))
			h.hold <- nil
		case err := <-done:
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			return
		}
	}
}

// Two may drain the same peer at once; that one of them ends is nothing to the other.
func TestDrainTwice(t *testing.T) {
	d := newDisk(t, 4<<20, quiet(vfs.NewMem()))
	must(t, d.Activate(1))
	must(t, d.WriteAt(blockOf(1), 0, false))
	r := newReplica(t, 4<<20, quiet(vfs.NewMem()))
	a, err := r.Apply()
	must(t, err)
	f, err := d.Attach("p", a.State())
	must(t, err)
	must(t, d.Fence())
	short, give := context.WithCancel(t.Context())
	defer give()
	first, second := make(chan error, 1), make(chan error, 1)
	draining := func(n int) {
		for done := false; !done; {
			d.mu.Lock()
			done = f.draining == n
			d.mu.Unlock()
		}
	}
	go func() { _, err := d.Drain(short, "p"); first <- err }()
	draining(1)
	go func() { _, err := d.Drain(t.Context(), "p"); second <- err }()
	draining(2)
	give()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var pumped sync.WaitGroup
	pumped.Go(func() {
		for {
			op, err := f.Next(ctx)
			if err != nil {
				return
			}
			if ack, err := feedTo(a, op); err == nil {
				f.Acked(ack)
			}
		}
	})
	must(t, <-second)
	cancel()
	pumped.Wait()
	must(t, a.Close())
}

// To drain one peer may give the disk a new position, which another peer that lacks nothing must hear of to be drained too.
func TestDrainOneAfterTheOther(t *testing.T) {
	d := newDisk(t, 4<<20, quiet(vfs.NewMem()))
	must(t, d.Activate(1))
	must(t, d.WriteAt(blockOf(1), 0, false))
	ctx, cancel := context.WithCancel(t.Context())
	var peers sync.WaitGroup
	defer peers.Wait()
	defer cancel()
	join := func(name string) {
		r := newReplica(t, 4<<20, quiet(vfs.NewMem()))
		peers.Go(func() { _ = follow(ctx, d, r, name, 1<<30) })
	}
	drain := func(name string) {
		for {
			got, err := d.Drain(ctx, name)
			if errors.Is(err, ErrDetached) {
				continue // it joins only now
			}
			must(t, err)
			if got != d.Position() {
				t.Errorf("%s was drained at %s, the disk is at %s", name, got, d.Position())
			}
			return
		}
	}
	join("p")
	must(t, d.Fence())
	drain("p")
	join("q")
	drain("q")
	drain("p")
}

// While a barrier gives what the peer has a new name, and that isn't durable yet, the peer isn't drained: the position that a hand-off
// would be signed with is about to be an old one.
func TestDrainWaitsForTheName(t *testing.T) {
	h := newHoldFS()
	h.name = journalName
	o := quiet(nil)
	o.FS = h
	d := newDisk(t, 1<<20, o)
	must(t, d.Activate(1))
	must(t, d.WriteAt(blockOf(1), 0, false))
	r := newReplica(t, 1<<20, quiet(vfs.NewMem()))
	a, err := r.Apply()
	must(t, err)
	f, err := d.Attach("p", a.State())
	must(t, err)
	pump(t, f, a)
	must(t, a.Close())
	must(t, d.Renew(7))
	must(t, d.Close())
	d = reopen(t, o)
	must(t, d.Activate(7))
	old := d.Position()
	must(t, d.Fence())
	h.arm(t)
	ctx, cancel := context.WithCancel(t.Context())
	var peer sync.WaitGroup
	defer peer.Wait()
	defer cancel()
	changed, stop := d.Watch("p")
	defer stop()
	peer.Go(func() { _ = follow(ctx, d, r, "p", 1<<30) })
	for d.Peers()[0].Phase == Detached {
		<-changed
	}
	type result struct {
		pos Position
		err error
	}
	done := make(chan result, 1)
	go func() {
		pos, err := d.Drain(ctx, "p")
		done <- result{pos, err}
	}()
	held := 0
	for {
		select {
		case <-h.started:
			held++
			if p := d.Peers()[0]; p.Complete {
				t.Errorf("it is complete at %s while a new name is being written", p.Acked)
			}
			h.hold <- nil
		case got := <-done:
			must(t, got.err)
			if at := r.Position(); got.pos != d.Position() || got.pos != at || got.pos.Term != 7 || got.pos.Compare(old) <= 0 {
				t.Errorf("drained to %s; the disk is at %s, the replica at %s, before it was %s", got.pos, d.Position(), at, old)
			}
			if held == 0 {
				t.Error("nothing was held")
			}
			return
		}
	}
}
