package second_test

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tagalong.org/tagalong/app/diskmirror"
	"tagalong.org/tagalong/app/disknbd"
	"tagalong.org/tagalong/app/second"
	"tagalong.org/tagalong/p2p/mirror"
	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/p2p/wire/wiretest"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/vfs"
)

const (
	powerBlocks = 64
	powerDisk   = powerBlocks * vmdisk.Block
)

// pc is a device's disk in memory that can lose what wasn't synced.
type pc struct {
	mem  *vfs.Mem
	disk *vmdisk.Store
}

func options(m *vfs.Mem) vmdisk.Options {
	return vmdisk.Options{FS: m, BarrierEvery: -1, SaveEvery: -1}
}

// mirrored mirrors from one to the other over the real protocol, until the returned function is called.
func mirrored(t testing.TB, from, to pc) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	a, b := wiretest.Pipe(t)
	applier, err := to.disk.Apply()
	if err != nil {
		t.Fatal(err)
	}
	var both sync.WaitGroup
	both.Go(func() {
		_ = mirror.Receive(ctx, b, func(mirror.Hello) (mirror.Sink, mirror.State, error) {
			return diskmirror.Sink{Applier: applier}, diskmirror.State(applier.State()), nil
		}, nil)
		_ = applier.Close()
	})
	both.Go(func() {
		var feed *vmdisk.Feed
		target := replica.Target{VM: "work", Disk: replica.ID(from.disk.ID()), Size: powerDisk, Term: 1}
		_ = mirror.Send(ctx, a, mirror.Hello{Target: target}, func(s mirror.State) (mirror.Source, error) {
			var err error
			feed, err = from.disk.Attach("other", diskmirror.ReplicaState(from.disk, from.disk.Size(), s))
			return diskmirror.Source{Feed: feed}, err
		}, nil)
		if feed != nil {
			feed.Close()
		}
	})
	return func() { cancel(); both.Wait() }
}

// twoPCs are an owner and a device with a whole copy of its disk, to which it mirrors until the function is called.
func twoPCs(t testing.TB) (desk, laptop pc, stop func()) {
	t.Helper()
	var err error
	desk.mem, laptop.mem = vfs.NewMem(), vfs.NewMem()
	if desk.disk, err = vmdisk.Create("", vmdisk.ID{1}, powerDisk, options(desk.mem)); err != nil {
		t.Fatal(err)
	}
	if laptop.disk, err = vmdisk.CreateReplica("", vmdisk.ID{1}, powerDisk, options(laptop.mem)); err != nil {
		t.Fatal(err)
	}
	if err := desk.disk.Activate(1); err != nil {
		t.Fatal(err)
	}
	stop = mirrored(t, desk, laptop)
	awaitCopy(t, desk.disk)
	return desk, laptop, stop
}

// BenchmarkFlush is what waiting for a second copy adds to a write and flush, without drives and networks.
func BenchmarkFlush(b *testing.B) {
	for _, two := range []bool{false, true} {
		b.Run(map[bool]string{false: "one", true: "two"}[two], func(b *testing.B) {
			desk, laptop, stop := twoPCs(b)
			gate := second.New(func(vmdisk.Elsewhere) second.Why { return second.Held }, func() {})
			gate.Set(two)
			guest := disknbd.Backend{Disk: desk.disk, Second: gate.On(desk.disk, nil)}
			p := bytes.Repeat([]byte{1}, vmdisk.Block)
			for i := int64(0); b.Loop(); i++ {
				if err := guest.WriteAt(p, i%powerBlocks*vmdisk.Block, false); err != nil {
					b.Fatal(err)
				}
				if err := guest.Flush(); err != nil {
					b.Fatal(err)
				}
			}
			stop()
			_, _ = desk.disk.Close(), laptop.disk.Close()
		})
	}
}

// The promise: what a flush was answered for survives that the owner's device dies for good, and that the power fails on the other one in the same
// moment. Whatever is under way then may be there or not, in whole epochs.
func TestAnAnsweredFlushSurvivesTheOwner(t *testing.T) {
	for seed := range uint64(20) {
		desk, laptop, stop := twoPCs(t)
		gate := second.New(func(vmdisk.Elsewhere) second.Why { return second.Held }, func() {})
		gate.Set(true)
		guest := disknbd.Backend{Disk: desk.disk, Second: gate.On(desk.disk, nil)}
		// The guest fills the disk with one number after the other, and flushes after each.
		var answered atomic.Uint64
		var writing sync.WaitGroup
		writing.Go(func() {
			for n := byte(1); ; n++ {
				for block := range int64(powerBlocks) {
					if guest.WriteAt(bytes.Repeat([]byte{n}, vmdisk.Block), block*vmdisk.Block, n%3 == 0 && block == powerBlocks-1) != nil {
						return
					}
				}
				if n%3 != 0 && guest.Flush() != nil { // the others were written through (FUA)
					return
				}
				answered.Store(uint64(n))
				if n == 250 {
					return
				}
			}
		})
		until := 3 + seed%17
		for answered.Load() < until {
			time.Sleep(10 * time.Microsecond)
		}
		// The owner's power goes while the guest goes on; what was answered before is what counts.
		least := answered.Load()
		found := laptop.mem.Crash([]vfs.Loss{vfs.LoseUnsynced, vfs.LoseSome}[seed%2], seed)
		desk.mem.Crash(vfs.LoseUnsynced, seed)
		stop()
		gate.Set(false)
		writing.Wait()
		_, _ = desk.disk.Close(), laptop.disk.Close()

		back, err := vmdisk.Open("", options(found))
		if err != nil {
			t.Fatal(err)
		}
		if err := back.Activate(2); err != nil {
			t.Fatal(err)
		}
		p := make([]byte, powerDisk)
		if err := back.ReadAt(p, 0); err != nil {
			t.Fatal(err)
		}
		if n := uint64(p[0]); n < least || !bytes.Equal(p, bytes.Repeat(p[:1], powerDisk)) {
			t.Fatalf("seed %d: %d was answered for, the other device has %d (a mixture: %v)", seed, least, n, !bytes.Equal(p, bytes.Repeat(p[:1], powerDisk)))
		}
		if err := back.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// awaitCopy waits until the peer has a whole copy.
func awaitCopy(t testing.TB, d *vmdisk.Store) {
	t.Helper()
	changed, stop := d.Watch("")
	defer stop()
	deadline := time.After(time.Minute)
	for {
		if peers := d.Peers(); len(peers) == 1 && peers[0].Complete {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("no whole copy: %+v", d.Peers())
		}
	}
}
