package vmdisk

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// taken is an operation that left, and when.
type taken struct {
	kind OpKind
	pos  Position
	cost int64
	at   time.Duration
}

// applied applies what leaves f until stop, which returns all of it.
func applied(t *testing.T, f *Feed, a *Applier) (stop func() []taken) {
	ctx, cancel := context.WithCancel(t.Context())
	var list []taken
	var peer sync.WaitGroup
	began := time.Now()
	peer.Go(func() {
		for {
			op, err := f.Next(ctx)
			if err != nil {
				return
			}
			list = append(list, taken{op.Kind, op.Pos, op.cost(), time.Since(began)})
			ack, err := feedTo(a, op)
			if err != nil {
				t.Error(err)
				return
			}
			f.Acked(ack)
		}
	})
	return func() []taken {
		cancel()
		peer.Wait()
		return list
	}
}

func barriersOf(list []taken) (out []taken) {
	for _, op := range list {
		if op.kind == OpBarrier {
			out = append(out, op)
		}
	}
	return out
}

const every = 5 * time.Millisecond

// bursting is a disk with a live peer that gets what is written in bursts.
func bursting(t *testing.T) (d, r *Store, f *Feed, a *Applier) {
	o := quiet(vfs.NewMem())
	o.MirrorEvery, o.QueueBytes = every, 64<<20
	return pair(t, 8<<20, o)
}

// A guest that flushes every millisecond: the first barrier leaves at once, then one every MirrorEvery, and each is what the disk was.
func TestBursts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, r, f, a := bursting(t)
		time.Sleep(time.Second)
		stop := applied(t, f, a)
		states := map[Position][]byte{}
		const pairs = 100
		for i := range pairs {
			must(t, d.WriteAt(bytes.Repeat([]byte{byte(i + 1)}, Block), int64(i%7)*Block, false))
			must(t, d.Flush())
			states[d.Position()] = content(t, d)
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		list := barriersOf(stop())
		if n := len(list); n < pairs/10 || n > pairs/5+2 {
			t.Fatalf("%d barriers left of %d in %d ms", n, pairs, pairs)
		}
		for i, b := range list {
			if states[b.pos] == nil {
				t.Errorf("the disk never was at %s", b.pos)
			}
			if i == 0 && b.at > 0 || i > 0 && b.at < list[i-1].at+every {
				t.Errorf("barrier %d leaves at %s, that before at %s", i, b.at, list[max(0, i-1)].at)
			}
		}
		if p := r.Position(); p != d.Position() || !bytes.Equal(content(t, r), content(t, d)) {
			t.Fatalf("the replica is at %s, the disk at %s", p, d.Position())
		}
		if g := f.Progress(); !g.Complete || g.Remaining != 0 || !g.Since.IsZero() {
			t.Fatalf("%+v", g)
		}
	})
}

// What barriers are left out of is bounded, however fast the guest is and however slow the peer.
func TestBurstIsBounded(t *testing.T) {
	for _, blocks := range []int64{1, 64} {
		d, _, f, a := bursting(t)
		for i := range int64(3 * burstBarriers) {
			off := i % 16 * blocks * Block
			must(t, d.WriteAt(bytes.Repeat([]byte{byte(i + 1)}, int(blocks)*Block), off, false))
			must(t, d.Flush())
		}
		var since int64
		var last Position
		for last != d.Position() {
			op, err := f.Next(t.Context())
			must(t, err)
			since += op.cost()
			if op.Kind == OpBarrier {
				if most := burstBarriers + 1; int(op.Pos.Barrier-last.Barrier) > most && last != (Position{}) {
					t.Fatalf("%s after %s", op.Pos, last)
				}
				last, since = op.Pos, 0
			}
			if since > burstBytes+blocks*Block+opCost {
				t.Fatalf("%d bytes without a barrier", since)
			}
			ack, err := feedTo(a, op)
			must(t, err)
			f.Acked(ack)
		}
	}
}

// Who waits for the peer doesn't wait for its next burst, and much to send doesn't either.
func TestBurstsHurried(t *testing.T) {
	for name, wait := range map[string]func(t *testing.T, d *Store){
		"drain": func(t *testing.T, d *Store) {
			_, err := d.Drain(t.Context(), "r")
			must(t, err)
		},
		"hurry": func(t *testing.T, d *Store) {
			must(t, d.Flush())
			d.Hurry()
		},
		"much": func(t *testing.T, d *Store) {
			must(t, d.WriteAt(bytes.Repeat([]byte{4}, wakeBytes), 1<<20, false))
			must(t, d.Flush())
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, r, f, a := bursting(t)
				time.Sleep(time.Second)
				stop := applied(t, f, a)
				must(t, d.WriteAt(bytes.Repeat([]byte{1}, Block), 0, false))
				must(t, d.Flush())
				synctest.Wait()
				if r.Position() != d.Position() {
					t.Fatal("the first barrier waits")
				}
				was := r.Position()
				must(t, d.WriteAt(bytes.Repeat([]byte{2}, Block), 0, false))
				must(t, d.Flush())
				synctest.Wait()
				if r.Position() != was {
					t.Fatal("the second doesn't")
				}
				must(t, d.WriteAt(bytes.Repeat([]byte{3}, Block), 0, false))
				wait(t, d)
				synctest.Wait()
				if r.Position() != d.Position() {
					t.Error("it waits all the same")
				}
				stop()
			})
		})
	}
}

// A barrier that is durable here isn't kept back for one that isn't yet.
func TestBurstWaitsForNoSync(t *testing.T) {
	h := newHoldFS()
	o := quiet(nil)
	o.FS, o.MirrorEvery = h, 1
	d, _, f, a := pair(t, 1<<20, o)
	must(t, d.WriteAt(blockOf(1), 0, false))
	must(t, d.Flush())
	durable := d.Position()
	h.arm(t)
	flushed := make(chan error, 1)
	must(t, d.WriteAt(blockOf(2), 0, false))
	go func() { flushed <- d.Flush() }()
	<-h.started // its barrier is in the queue
	for {
		op, _, held, err := f.decide(false)
		must(t, err)
		if held != nil {
			t.Fatal("all that is left waits for the sync")
		}
		if op == nil {
			continue // a burst has just ended
		}
		ack, err := feedTo(a, op)
		must(t, err)
		if f.Acked(ack); op.Kind == OpBarrier {
			if op.Pos != durable {
				t.Fatalf("%s leaves, durable is %s", op.Pos, durable)
			}
			break
		}
	}
	h.release()
	must(t, <-flushed)
}
