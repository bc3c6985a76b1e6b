package vmdisk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// TestConcurrent has writers, flushes, two peers that lose their connection now and then, and all the housekeeping at
// once; in the end all disks are equal.
func TestConcurrent(t *testing.T) {
	const size = 8 << 20
	o := quiet(vfs.NewMem())
	o.BarrierEvery, o.SaveEvery = 4*time.Millisecond, 5*time.Millisecond
	d := newDisk(t, size, o)
	must(t, d.Activate(1))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var peers, writers sync.WaitGroup
	var replicas []*Store
	for i, name := range []string{"p", "q"} {
		r := newReplica(t, size, quiet(vfs.NewMem()))
		replicas = append(replicas, r)
		peers.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), 3))
			for ctx.Err() == nil {
				err := follow(ctx, d, r, name, rnd.IntN(3000)+300)
				if errors.Is(err, ErrMerging) { // it comes back when it has
					err = nil
					for more := true; more && err == nil; {
						more, err = r.mergeBottom(ctx)
					}
				}
				if err != nil && ctx.Err() == nil {
					t.Errorf("%s: %v", name, err)
					return
				}
			}
		})
	}
	for w := range uint64(4) {
		writers.Go(func() {
			rnd := rand.New(rand.NewPCG(w, 4))
			for i := range uint64(400) {
				n := 1 + rnd.Int64N(6*Block)
				if rnd.IntN(2) == 0 {
					n = Block
				}
				off := rnd.Int64N(size - n)
				p := bytes.Repeat(binary.BigEndian.AppendUint32(nil, uint32(w<<24|i)), int(n/4)+1)[:n]
				var err error
				switch rnd.IntN(10) {
				case 0:
					err = d.Zero(off, n, true, false)
				case 1:
					err = d.Flush()
				case 2:
					err = d.ReadAt(p, off)
				default:
					err = d.WriteAt(p, off, rnd.IntN(10) == 0)
				}
				if err != nil {
					t.Errorf("writer: %v", err)
					return
				}
			}
		})
	}
	writers.Wait()
	must(t, d.Fence())
	for _, name := range []string{"p", "q"} {
		for {
			_, err := d.Drain(t.Context(), name)
			if err == nil {
				break
			}
			if !errors.Is(err, ErrDetached) || t.Failed() {
				t.Fatal(err)
			}
		}
	}
	cancel()
	peers.Wait()
	want := content(t, d)
	for i, r := range replicas {
		if !bytes.Equal(content(t, r), want) {
			t.Errorf("replica %d differs", i)
		}
	}
	h, err := d.Hash(t.Context(), nil)
	must(t, err)
	for _, r := range replicas {
		got, err := r.Hash(t.Context(), nil)
		must(t, err)
		if got != h {
			t.Error("hashes differ")
		}
	}
}

// follow moves up to n operations over one connection. Acknowledgements come from another goroutine.
func follow(ctx context.Context, d, r *Store, name string, n int) error {
	a, err := r.Apply()
	if err != nil {
		return err
	}
	f, err := d.Attach(name, a.State())
	if err != nil {
		return errors.Join(err, a.Close())
	}
	acks := make(chan Position, 8)
	var wg sync.WaitGroup
	wg.Go(func() {
		for p := range acks {
			f.Acked(p)
			_ = f.Progress()
		}
	})
	for i := 0; err == nil && (i < n || d.Info().Fenced); i++ {
		var op *Op
		if op, err = f.Next(ctx); err != nil {
			break
		}
		var ack Position
		if ack, err = feedTo(a, op); ack != (Position{}) && err == nil {
			acks <- ack
		}
	}
	close(acks)
	wg.Wait()
	f.Close()
	return errors.Join(err, a.Close())
}

// Overlapping writes are serialised, also against the copier: what the peer gets last is what is on the disk.
func TestOverlappingWrites(t *testing.T) {
	d, r, f, a := pair(t, 256<<10, quiet(vfs.NewMem()))
	for round := range byte(20) {
		var wg sync.WaitGroup
		for w := range byte(4) {
			wg.Go(func() {
				if err := d.WriteAt(bytes.Repeat([]byte{round*4 + w + 1}, 16<<10), int64(w)*2048, false); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		must(t, d.Flush())
		pump(t, f, a)
		if !bytes.Equal(content(t, d), content(t, r)) {
			t.Fatalf("round %d: the replica has another order of writes", round)
		}
	}
}

// The disk makes a barrier by itself when its peers wait for one, and stores the dirty sets.
func TestHousekeeping(t *testing.T) {
	m := vfs.NewMem()
	o := quiet(m)
	o.BarrierEvery, o.SaveEvery = 4*time.Millisecond, 4*time.Millisecond
	d, r, f, a := pair(t, 1<<20, o)
	must(t, d.WriteAt(blockOf(5), 0, false))
	// One look at both, else a barrier between two looks passes for the replica's.
	for i := d.Info(); i.Unflushed || r.Position() != i.Position; i = d.Info() {
		op, err := f.Next(t.Context())
		must(t, err)
		ack, err := feedTo(a, op)
		must(t, err)
		f.Acked(ack)
	}
	if !bytes.Equal(content(t, d), content(t, r)) {
		t.Fatal("differs")
	}
	for len(d.j.snapshot().regions) > 0 { // until the activity log is empty
		must(t, d.Flush())
	}
	must(t, d.save()) // with the last acknowledgement
	// Nothing was written since, so a killed owner is still at its position, and the peer lacks nothing.
	pos := d.Position()
	d = reopen(t, quiet(m.Crash(vfs.LoseNothing, 0)))
	if p := d.Peers(); d.Position() != pos || p[0].Remaining != 0 {
		t.Fatalf("%s, %+v", d.Position(), p)
	}
}

// Between the mark of one save and its end there is no other mark: what was written after the barrier would look idle, and
// leave the activity log undurable, with its old hashes and without its dirty bits.
func TestOneSaveAtATime(t *testing.T) {
	h := newHoldFS()
	o := quiet(h.Mem)
	o.FS = h
	d := newDisk(t, 8<<20, o)
	must(t, d.Activate(1))
	must(t, d.WriteAt(blockOf(1), 0, false))
	h.arm(t)
	done := make(chan error)
	go func() { done <- d.Save() }()
	<-h.started
	if d.saveMu.TryLock() {
		d.saveMu.Unlock()
		t.Error("another save may begin during the barrier of this one")
	}
	h.release()
	must(t, <-done)
}
