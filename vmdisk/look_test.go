package vmdisk

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// looked is an owner and its replica "b", with 200 blocks of 300 written and there.
func looked(t *testing.T) (owner, replica *Store) {
	t.Helper()
	return lookedOf(t, Options{FS: vfs.NewMem(), BarrierEvery: -1, MirrorEvery: -1, SaveEvery: -1})
}

// lookedOf is looked with options for the owner.
func lookedOf(t *testing.T, o Options) (owner, replica *Store) {
	t.Helper()
	owner = newDisk(t, forkSize, o)
	replica = newReplica(t, forkSize, Options{FS: vfs.NewMem(), BarrierEvery: -1, SaveEvery: -1})
	must(t, owner.Activate(4))
	for x := int64(0); x < 200; x++ {
		must(t, owner.WriteAt(blockOf(byte(1+x)), x*Block, false))
	}
	connect(t, owner, replica, "b")()
	return owner, replica
}

func TestALookNotesWhatIsWritten(t *testing.T) {
	owner, _ := looked(t)
	must(t, owner.WriteAt(blockOf(9), 5*Block, false))
	l, err := owner.Look()
	must(t, err)
	defer l.Close()
	must(t, owner.WriteAt([]byte{1}, 7*Block+9, false))
	must(t, owner.Zero(10*Block, Block, true, false))
	must(t, owner.Trim(12*Block, Block, false))
	for x := int64(0); x < 300; x++ {
		got, err := l.Written(x*Block, Block)
		must(t, err)
		if want := x == 7 || x == 10 || x == 12; got != want {
			t.Errorf("block %d: written %v", x, got)
		}
	}
	for _, r := range [][2]int64{{0, 0}, {-1, 5}, {forkSize, 1}, {0, forkSize + 1}} {
		if _, err := l.Written(r[0], r[1]); !errors.Is(err, ErrRange) {
			t.Errorf("%v: %v", r, err)
		}
	}
	l.Close()
	if _, err := l.Written(0, Block); !errors.Is(err, ErrClosed) {
		t.Errorf("of an ended look: %v", err)
	}
	if len(owner.looks) != 0 {
		t.Error("an ended look still notes writes")
	}
	must(t, owner.Fence())
	must(t, owner.Give(4))
	if _, err := owner.Look(); !errors.Is(err, ErrInactive) {
		t.Errorf("a look at a disk that was given away: %v", err)
	}
}

// What is read after Reached and before Written is alike on both, unless it was written: with a guest that writes all the while, so much for each
// part that is looked at, and barriers as on any disk.
func TestWhatALookReachesIsAlike(t *testing.T) {
	owner, replica := lookedOf(t, Options{FS: vfs.NewMem(), SaveEvery: -1})
	a, err := replica.Apply()
	must(t, err)
	f, err := owner.Attach("b", a.State())
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer func() {
		cancel()
		wg.Wait()
		f.Close()
		must(t, a.Close())
	}()
	wg.Go(func() {
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
	const rounds, parts, writes = 20, 75, 8
	may := make(chan struct{}, rounds*parts*writes) // one for each write
	wg.Go(func() {
		r := rand.New(rand.NewPCG(1, 2))
		for n := 0; ; n++ {
			select {
			case <-may:
			case <-ctx.Done():
				return
			}
			// Some blocks are hot; one write in a hundred goes anywhere.
			x := r.Int64N(20)
			if r.IntN(100) == 0 {
				x = r.Int64N(300)
			}
			if err := owner.WriteAt(blockOf(byte(n)), x*Block, n%8 == 0); err != nil {
				t.Error(err)
				return
			}
		}
	})
	alike, mine, theirs := 0, make([]byte, 4*Block), make([]byte, 4*Block)
	for range rounds {
		l, err := owner.Look()
		must(t, err)
		for x := int64(0); x < 4*parts; x += 4 {
			for range writes {
				may <- struct{}{}
			}
			off := x * Block
			ok, err := l.Reached(t.Context(), "b", off, 4*Block)
			must(t, err)
			if !ok {
				continue
			}
			must(t, owner.ReadAt(mine, off))
			must(t, replica.ReadAt(theirs, off))
			written, err := l.Written(off, 4*Block)
			must(t, err)
			if written {
				continue
			}
			if alike++; !bytes.Equal(mine, theirs) {
				t.Fatalf("block %d differs though nobody wrote it", x)
			}
		}
		l.Close()
	}
	// Five parts are hot, and in a round six writes go anywhere.
	if least := rounds * (parts - 5 - 20); alike < least {
		t.Errorf("%d parts were compared, of %d", alike, rounds*parts)
	}
}

// Reached waits for what the peer lacks, and says so when nothing feeds it.
func TestReachedWaitsForThePeer(t *testing.T) {
	owner, replica := looked(t)
	l, err := owner.Look()
	must(t, err)
	if _, err := l.Reached(t.Context(), "b", 0, Block); !errors.Is(err, ErrDetached) {
		t.Errorf("of a detached peer: %v", err)
	}
	l.Close()
	a, err := replica.Apply()
	must(t, err)
	f, err := owner.Attach("b", a.State())
	must(t, err)
	defer func() { f.Close(); must(t, a.Close()) }()
	pump(t, f, a)
	must(t, owner.WriteAt(blockOf(77), 3*Block, false))
	if l, err = owner.Look(); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if ok, err := l.Reached(ended, "b", 3*Block, Block); ok || !errors.Is(err, context.Canceled) {
		t.Errorf("before it was sent: %v, %v", ok, err)
	}
	pump(t, f, a)
	if ok, err := l.Reached(ended, "b", 3*Block, Block); !ok || err != nil {
		t.Errorf("after it was acknowledged: %v, %v", ok, err)
	}
	must(t, owner.WriteAt(blockOf(78), 3*Block, false))
	if ok, err := l.Reached(t.Context(), "b", 2*Block, 2*Block); ok || err != nil {
		t.Errorf("after it was written again: %v, %v", ok, err)
	}
}

// A replica that is damaged gets its blocks again, whether it is attached or not, and after the owner's crash.
func TestResendMendsAReplica(t *testing.T) {
	for _, how := range []string{"attached", "detached", "after a crash"} {
		t.Run(how, func(t *testing.T) {
			om := vfs.NewMem()
			owner := newDisk(t, forkSize, behindOptions(om))
			replica := newReplica(t, forkSize, behindOptions(vfs.NewMem()))
			must(t, owner.Activate(4))
			for x := int64(0); x < 200; x++ {
				must(t, owner.WriteAt(blockOf(byte(1+x)), x*Block, false))
			}
			connect(t, owner, replica, "b")()
			must(t, owner.Save())
			for _, off := range []int64{16 * Block, 299 * Block} {
				_, err := replica.stack.base.WriteAt([]byte("WRONG"), off)
				must(t, err)
			}
			if bytes.Equal(content(t, owner), content(t, replica)) {
				t.Fatal("nothing is damaged")
			}
			resend := func() {
				must(t, owner.Resend("b", [][2]int64{{16 * Block, 16 * Block}, {299 * Block, Block}}))
			}
			var a *Applier
			var f *Feed
			attach := func() {
				var err error
				a, err = replica.Apply()
				must(t, err)
				f, err = owner.Attach("b", a.State())
				must(t, err)
			}
			if how == "attached" {
				attach()
				pump(t, f, a)
			}
			resend()
			if how == "after a crash" {
				om = om.Crash(vfs.LoseUnsynced, 1)
				owner = reopen(t, behindOptions(om))
				must(t, owner.Activate(4))
			}
			if got := lacks(owner, "b"); len(got) < 17 {
				t.Errorf("the peer lacks %v", got)
			}
			if how != "attached" {
				attach()
			}
			must(t, owner.WriteAt(blockOf(99), 20*Block, false))
			must(t, owner.Flush())
			pump(t, f, a)
			must(t, owner.Flush())
			pump(t, f, a)
			if !bytes.Equal(content(t, owner), content(t, replica)) {
				t.Error("the replica is damaged still")
			}
			if p := owner.Peers()[0]; p.Phase != Live || p.Remaining != 0 || !p.Complete {
				t.Errorf("%+v", p)
			}
			f.Close()
			must(t, a.Close())
		})
	}
}

func TestResendRefuses(t *testing.T) {
	owner, _ := looked(t)
	for _, r := range [][2]int64{{0, 0}, {1, Block}, {0, 5}, {forkSize, Block}, {-Block, Block}} {
		if err := owner.Resend("b", [][2]int64{{0, Block}, r}); !errors.Is(err, ErrRange) {
			t.Errorf("%v: %v", r, err)
		}
	}
	if got := lacks(owner, "b"); len(got) > 0 {
		t.Errorf("what was refused counts: %v", got)
	}
	if err := owner.Resend("c", [][2]int64{{0, Block}}); !errors.Is(err, ErrDetached) {
		t.Errorf("to nobody: %v", err)
	}
}
