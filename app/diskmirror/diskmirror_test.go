package diskmirror_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tagalong.org/tagalong/app/diskmirror"
	"tagalong.org/tagalong/p2p/mirror"
	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/p2p/wire/wiretest"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/throttle"
	"tagalong.org/tagalong/vmdisk/vfs"
)

const (
	cutSize = 1 << 20
	cuts    = 24
	disk    = 8 * cutSize
)

// cutter is an owner's disk of which cut after cut is sent, each a copy that changes cutSize bytes.
type cutter struct {
	r     *rand.Rand
	ops   []mirror.Op
	want  []byte
	taken int
	begun atomic.Int64
	acked chan mirror.Position
}

func newCutter() *cutter {
	return &cutter{r: rand.New(rand.NewPCG(1, 1)), want: make([]byte, disk), acked: make(chan mirror.Position, cuts+1)}
}

func (c *cutter) Next(ctx context.Context) (mirror.Op, error) {
	if len(c.ops) == 0 {
		if c.taken == cuts {
			// All is sent: the end is in order only when all is acknowledged.
			for at := range c.acked {
				if at.Barrier == cuts+1 {
					break
				}
			}
			return mirror.Op{}, io.EOF
		}
		c.taken++
		c.begun.Add(1)
		c.ops = append(c.ops, mirror.Op{Kind: mirror.Begin, Copy: [16]byte{byte(c.taken)}})
		for range cutSize / (64 << 10) {
			p := bytes.Repeat([]byte{byte(1 + c.r.IntN(250))}, 64<<10)
			off := c.r.Int64N(disk/(64<<10)) * (64 << 10)
			copy(c.want[off:], p)
			c.ops = append(c.ops, mirror.Op{Kind: mirror.Write, Off: off, Len: int64(len(p)), Data: p})
		}
		c.ops = append(c.ops, mirror.Op{Kind: mirror.Barrier, Pos: mirror.Position{Term: 1, Barrier: uint64(c.taken + 1)}})
	}
	op := c.ops[0]
	c.ops = c.ops[1:]
	return op, ctx.Err()
}

func (c *cutter) Acked(at mirror.Position) { c.acked <- at }

// slow is a whole replica in memory whose layers are merged at that rate, in bytes a second.
func slow(t *testing.T, rate int64) *vmdisk.Store {
	t.Helper()
	r, err := vmdisk.CreateReplica("", vmdisk.ID{1}, disk, vmdisk.Options{
		FS: vfs.NewMem(), BarrierEvery: -1, SaveEvery: -1, Background: throttle.New(rate),
	})
	if err != nil {
		t.Fatal(err)
	}
	a, err := r.Apply()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(a.Begin([16]byte{99}), a.Barrier(vmdisk.Position{Term: 1, Barrier: 1}), a.Close()); err != nil {
		t.Fatal(err)
	}
	return r
}

// mirrorTo sends what c has to r, and returns what either end says of it.
func mirrorTo(ctx context.Context, t *testing.T, c mirror.Source, r *vmdisk.Store, stats *mirror.Stats) (sent, received error) {
	t.Helper()
	a, b := wiretest.Pipe(t)
	applier, err := r.Apply()
	if err != nil {
		t.Fatal(err)
	}
	var both sync.WaitGroup
	both.Go(func() {
		received = mirror.Receive(ctx, b, func(mirror.Hello) (mirror.Sink, mirror.State, error) {
			return diskmirror.Sink{Applier: applier}, diskmirror.State(applier.State()), nil
		}, nil)
		if err := applier.Close(); err != nil {
			t.Error(err)
		}
	})
	target := replica.Target{VM: "work", Disk: replica.ID(r.ID()), Size: disk, Term: 1}
	sent = mirror.Send(ctx, a, mirror.Hello{Target: target}, func(mirror.State) (mirror.Source, error) { return c, nil }, stats)
	both.Wait()
	return sent, received
}

// A replica that gets cuts faster than it stores them where they belong has its owner wait, much longer than a write may take: one stream is enough, and
// nothing comes twice.
func TestCutsWaitForASlowMerger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c := slow(t, cutSize/200), newCutter() // a cut in more than three minutes
		defer r.Close()
		began, stats := time.Now(), new(mirror.Stats)
		sent, received := mirrorTo(t.Context(), t, c, r, stats)
		if sent != nil || received != nil {
			t.Fatalf("sent: %v, received: %v, after %s and %d cuts", sent, received, time.Since(began), c.begun.Load())
		}
		if took := time.Since(began); took < 30*time.Minute {
			t.Errorf("it took %s: the merger isn't slow", took)
		}
		if n := stats.Data.Load(); n != cuts*cutSize {
			t.Errorf("%d bytes were sent", n)
		}
		got := make([]byte, disk)
		if err := r.ReadAt(got, 0); err != nil || !bytes.Equal(got, c.want) {
			t.Errorf("the replica isn't what was sent: %v", err)
		}
		if at := r.Position(); at != (vmdisk.Position{Term: 1, Barrier: cuts + 1}) {
			t.Errorf("the replica is at %s", at)
		}
	})
}

// Who waits for a slow merger can be ended at any time, by this device as by the owner's.
func TestWaitingForAMergerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c := slow(t, 1), newCutter()
		defer r.Close()
		ctx, cancel := context.WithCancelCause(t.Context())
		enough := errors.New("enough")
		time.AfterFunc(time.Hour, func() { cancel(enough) })
		sent, received := mirrorTo(ctx, t, c, r, nil)
		if !errors.Is(sent, enough) || !errors.Is(received, enough) {
			t.Errorf("sent: %v, received: %v", sent, received)
		}
		a, err := r.Apply()
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- a.Await(t.Context()) }()
		synctest.Wait()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, vmdisk.ErrClosed) {
			t.Errorf("waiting on a closed disk: %v", err)
		}
	})
}
