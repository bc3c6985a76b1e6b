package vmdisk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"tagalong.org/tagalong/vmdisk/vfs"
)

var speedsRuns = flag.Int("speeds.runs", 4, "how many seeds TestSeveralSpeeds tries")

// lane is a peer with a speed, whose power fails now and then.
type lane struct {
	name  string
	pause time.Duration // for each block
	mem   *vfs.Mem
	disk  *Store
	held  Position // acknowledged
	stop  context.CancelFunc
	done  chan struct{} // closed when it has ended, with
	err   error
}

func (l *lane) follow(d *Store) {
	ctx, cancel := context.WithCancel(context.Background())
	l.stop, l.done = cancel, make(chan struct{})
	go func() {
		defer close(l.done)
		l.err = l.take(ctx, d)
	}()
}

func (l *lane) take(ctx context.Context, d *Store) error {
	a, err := l.disk.Apply()
	if err != nil {
		return err
	}
	defer a.Close()
	f, err := d.Attach(l.name, a.State())
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		op, err := f.Next(ctx)
		if err != nil {
			return err
		}
		time.Sleep(l.pause * time.Duration(op.Len/Block))
		ack, err := feedTo(a, op)
		if err != nil {
			return err
		}
		if ack != (Position{}) && op.Kind == OpBarrier {
			l.held = ack
		}
		f.Acked(ack)
	}
}

// TestSeveralSpeeds has one owner that writes and flushes as it likes, and three peers: one takes everything at once, one is just fast enough,
// and one falls behind whenever the guest is busy, and comes back when it isn't. The power of each fails now and then, also between two
// calls to its files. Each of them is always exactly the disk after some write, at which there was a barrier, never before one that it
// acknowledged; in the end all are equal.
func TestSeveralSpeeds(t *testing.T) {
	for seed := range uint64(*speedsRuns) {
		t.Run(fmt.Sprint(seed+1), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { severalSpeeds(t, rand.New(rand.NewPCG(seed+1, 9))) })
		})
	}
}

func severalSpeeds(t *testing.T, r *rand.Rand) {
	const blocks = 192
	o := quiet(vfs.NewMem())
	o.QueueBytes, o.attachBelow, o.checkpointEvery, o.BarrierEvery = 128<<10, 32<<10, 96<<10, time.Second
	d := newDisk(t, blocks*Block, o)
	must(t, d.Activate(1))
	lanes := []*lane{{name: "fast"}, {name: "slower", pause: 2 * time.Millisecond}, {name: "slowest", pause: 25 * time.Millisecond}}
	for _, l := range lanes {
		l.mem = vfs.NewMem()
		l.disk = newReplica(t, blocks*Block, merging(l.mem))
		l.follow(d)
		defer func() {
			l.stop()
			<-l.done
			_ = l.disk.Close()
		}()
	}
	w := stamped{d: d}
	var wrote []int64 // blocks, in order
	barriers := map[int]bool{0: true}
	// check says that a whole replica is what the disk was after so many writes.
	check := func(l *lane, s *Store) {
		t.Helper()
		st := s.ReplicaState()
		if !st.Complete {
			if l.held != (Position{}) {
				t.Fatalf("%s isn't whole any more", l.name)
			}
			return
		}
		if st.Position.Compare(l.held) < 0 {
			t.Fatalf("%s is at %s, and had acknowledged %s", l.name, st.Position, l.held)
		}
		got := content(t, s)
		n := 0
		for b := range int64(blocks) {
			n = max(n, int(binary.LittleEndian.Uint64(got[b*Block:])))
		}
		want := make([]byte, len(got))
		for i, b := range wrote[:n] {
			copy(want[b*Block:], blockOf(1))
			binary.LittleEndian.PutUint64(want[b*Block:], uint64(i+1))
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%s at %s is a mixture: it has write %d of %d", l.name, st.Position, n, len(wrote))
		}
		barriers[n] = true
	}
	revive := func(l *lane) {
		l.stop()
		<-l.done
		if err := l.err; err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, vfs.ErrGone) && !errors.Is(err, ErrFailed) {
			t.Fatalf("%s: %v", l.name, err)
		}
		l.mem = l.mem.Crash(vfs.Loss(r.IntN(3)), r.Uint64())
		_ = l.disk.Close()
		var err error
		l.disk, err = Open("", merging(l.mem))
		must(t, err)
		check(l, l.disk)
		l.follow(d)
	}
	time.Sleep(10 * time.Second) // the first copies
	behind := map[string]int{}
	for range 60 { // each about a second
		busy := r.IntN(3) > 0
		for range 100 {
			if busy {
				wrote = append(wrote, r.Int64N(blocks))
				w.write(t, wrote[len(wrote)-1])
			}
			if r.IntN(10) == 0 {
				must(t, d.Flush())
			}
			time.Sleep(10 * time.Millisecond)
		}
		synctest.Wait()
		for _, p := range d.Peers() {
			if p.Phase == Behind {
				behind[p.Peer]++
			}
		}
		for _, l := range lanes {
			switch r.IntN(12) {
			case 0:
				l.mem.FailAt(1+r.IntN(12), vfs.ErrGone, true)
				time.Sleep(time.Second)
				revive(l)
			case 1:
				revive(l)
			}
		}
	}
	if behind["slowest"] == 0 || behind["fast"] > 0 {
		t.Errorf("behind, in seconds: %v", behind)
	}
	synctest.Wait() // whoever was revived last attaches
	for _, l := range lanes {
		if _, err := d.Drain(t.Context(), l.name); err != nil {
			l.stop()
			<-l.done
			t.Fatalf("%s: %v: %v", l.name, err, l.err)
		}
		synctest.Wait()
		check(l, l.disk)
		if !bytes.Equal(content(t, l.disk), content(t, d)) {
			t.Errorf("%s differs in the end", l.name)
		}
		l.stop()
		<-l.done
		if !errors.Is(l.err, context.Canceled) {
			t.Error(l.err)
		}
	}
	if len(barriers) < 10 {
		t.Errorf("the replicas were seen at %d positions only", len(barriers))
	}
}
