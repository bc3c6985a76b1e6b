package vmdisk

import (
	"context"
	"encoding/binary"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// TestStanding plays a peer that can't keep up again and again: it comes back after it was calm for the hold without a break, which
// doubles with each relapse up to its limit, and is short again after it kept up for long.
func TestStanding(t *testing.T) {
	now := time.Unix(1e9, 0)
	var s standing
	s.look(now, true)
	s.look(now, false)
	if s != (standing{}) {
		t.Fatalf("a peer that keeps up has changed: %+v", s)
	}
	for _, hold := range []time.Duration{3, 6, 12, 24, 48, 60, 60} {
		hold *= time.Second
		s.fall(now)
		began := s.since
		s.look(now, false)
		now = now.Add(hold - 1)
		s.look(now, true) // a break
		s.fall(now)
		s.look(now, false)
		now = now.Add(hold - 1)
		s.look(now, false)
		if !s.behind || s.rested(now) || !s.since.Equal(began) {
			t.Fatalf("hold %s: %+v", hold, s)
		}
		now = now.Add(1)
		if !s.rested(now) {
			t.Fatalf("hold %s: not rested: %+v", hold, s)
		}
		s.comeBack(now)
		if s.behind || !s.since.IsZero() {
			t.Fatalf("%+v", s)
		}
		now = now.Add(relapse - 1)
	}
	now = now.Add(1)
	s.fall(now)
	if s.hold != calmFirst {
		t.Fatalf("after it kept up for long: hold %s", s.hold)
	}
	// It gets a barrier at once, and then each touchEvery.
	s.look(now, false)
	for range 3 {
		if !s.touch(now) || s.touch(now) || s.touch(now.Add(touchEvery-1)) {
			t.Fatalf("touched at the wrong times: %+v", s)
		}
		if got, want := s.wait(now.Add(touchEvery), false), s.hold-now.Add(touchEvery).Sub(s.calm); got != want {
			t.Errorf("with no barrier due it waits %v, not %v", got, want)
		}
		if got, want := s.wait(now, true), min(touchEvery, s.hold-now.Sub(s.calm)); got != want {
			t.Fatalf("waits %s, not %s", got, want)
		}
		now = now.Add(touchEvery)
	}
}

// An age never says that what is lacking is younger than it is, however many barriers it had to forget, and says nothing if nothing
// is lacking.
func TestAge(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		a, now := age{since: time.Unix(1e9, 0)}, time.Unix(1e9, 0)
		var cut []time.Time // of barrier i+1
		acked := 0
		for range rapid.IntRange(1, 400).Draw(rt, "steps") {
			now = now.Add(time.Second)
			if rapid.IntRange(0, 9).Draw(rt, "ack") > 0 || acked == len(cut) {
				cut = append(cut, now)
				a.pass(Position{1, uint64(len(cut))}, now)
			} else {
				acked = rapid.IntRange(acked, len(cut)).Draw(rt, "acked")
				a.reach(Position{1, uint64(acked)}, false)
			}
			if len(a.passed) > maxPassed {
				rt.Fatalf("it remembers %d", len(a.passed))
			}
			truth := time.Unix(1e9, 0)
			if acked > 0 {
				truth = cut[acked-1]
			}
			if a.since.After(truth) {
				rt.Fatalf("since %s, what is lacking may be of %s", a.since, truth)
			}
			if len(cut) <= maxPassed && !a.since.Equal(truth) {
				rt.Fatalf("since %s, not %s", a.since, truth)
			}
		}
		if a.reach(Position{1, uint64(len(cut))}, true); !a.since.IsZero() || len(a.passed) > 0 {
			rt.Fatalf("%+v", a)
		}
	})
}

// merging is quiet, and merges what it caught up with by itself.
func merging(m *vfs.Mem) Options {
	o := quiet(m)
	o.mergeByHand = false
	return o
}

// stamped writes the count of writes so far into a block, and notes when.
type stamped struct {
	d     *Store
	times []time.Time
}

func (w *stamped) write(t *testing.T, block int64) {
	t.Helper()
	p := blockOf(1)
	binary.LittleEndian.PutUint64(p, uint64(len(w.times)+1))
	w.times = append(w.times, time.Now())
	must(t, w.d.WriteAt(p, block*Block, false))
}

// lacking is when the first write was made that r lacks. Since there is one writer, a replica has all writes up to its newest.
func (w *stamped) lacking(t *testing.T, r *Store, blocks int64) (at time.Time, some bool) {
	t.Helper()
	var newest uint64
	var p [8]byte
	for b := range blocks {
		must(t, r.ReadAt(p[:], b*Block))
		newest = max(newest, binary.LittleEndian.Uint64(p[:]))
	}
	if newest >= uint64(len(w.times)) {
		return at, false
	}
	return w.times[newest], true
}

// TestSteadyOverload has a guest that writes twice as fast as a peer can take, for ten minutes, in a few blocks: without hysteresis the
// peer's queue would fill every few seconds. It goes back and forth only now and then, its replica goes on all the same, what is said of its
// age is true, and it is live again soon after the guest rests.
func TestSteadyOverload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size, hot, lasts = 4 << 20, 12, 10 * time.Minute
		o := quiet(vfs.NewMem())
		o.QueueBytes = 512 << 10
		d, r, f, a := pairOf(t, size, o, merging(vfs.NewMem()))
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
				time.Sleep(time.Duration(op.Len) * 2 * time.Microsecond) // 0.5 MB/s
				ack, err := feedTo(a, op)
				if err != nil {
					t.Error(err)
					return
				}
				f.Acked(ack)
			}
		})
		w := stamped{d: d}
		var turns int
		var behind time.Duration
		var worst time.Duration
		was := Live
		for began := time.Now(); time.Since(began) < lasts; {
			for range 25 {
				w.write(t, int64(len(w.times)*7%hot))
				time.Sleep(4 * time.Millisecond) // 1 MB/s
			}
			must(t, d.Flush())
			synctest.Wait()
			g := f.Progress()
			if g.Phase != was {
				turns, was = turns+1, g.Phase
			}
			if g.Phase == Behind {
				behind += 100 * time.Millisecond
			}
			if (g.Phase == Behind) == g.Fell.IsZero() {
				t.Fatalf("%+v", g)
			}
			if g.Phase == Behind && g.Queued > o.attachBelow+64<<10 {
				t.Fatalf("behind, and %d bytes are queued", g.Queued)
			}
			if at, some := w.lacking(t, r, hot); some {
				if g.Since.IsZero() || g.Since.After(at) {
					t.Fatalf("what is lacking is said to be of %s, and is of %s", g.Since, at)
				}
				worst = max(worst, time.Since(g.Since))
			}
		}
		if turns < 2 || turns > 2*15 {
			t.Errorf("it went back and forth %d times", turns)
		}
		if behind < lasts/2 {
			t.Errorf("it was behind for %s only", behind)
		}
		if worst > 10*time.Second {
			t.Errorf("its replica was %s old", worst)
		}
		time.Sleep(calmFirst)
		synctest.Wait()
		if g := f.Progress(); g.Phase != Live || !g.Complete || !g.Since.IsZero() || g.Remaining != 0 {
			t.Errorf("after a rest: %+v", g)
		}
	})
}

// A hand-off doesn't wait until a peer that fell behind has shown that it can keep up.
func TestDrainOfOneThatIsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := quiet(vfs.NewMem())
		d, r, f, a := pair(t, 4<<20, o)
		w := stamped{d: d}
		for b := range int64(1024) {
			w.write(t, b)
		}
		if g := f.Progress(); g.Phase != Behind || g.Fell.IsZero() {
			t.Fatalf("%+v", g)
		}
		// A touch, which isn't acknowledged: the rule makes it wait for the next.
		for touched := false; !touched; {
			op, err := f.poll()
			must(t, err)
			touched = op.Kind == OpBarrier
			_, err = feedTo(a, op)
			must(t, err)
		}
		w.write(t, 1)
		must(t, d.Fence())
		ctx, cancel := context.WithCancel(t.Context())
		var peer sync.WaitGroup
		defer peer.Wait()
		defer cancel()
		began := time.Now()
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
		pos, err := d.Drain(ctx, "r")
		must(t, err)
		if time.Since(began) >= touchEvery {
			t.Errorf("it took %s", time.Since(began))
		}
		if r.Position() != pos || string(content(t, r)) != string(content(t, d)) {
			t.Errorf("the replica is at %s, drained at %s", r.Position(), pos)
		}
	})
}

// TestWideOverload has a guest that writes all over the disk twice as fast as a peer takes, for minutes: whatever is copied has changed by the time that all
// is. The replica gets on all the same, a barrier after the other; the guest never waits, and nothing is kept once it has rested.
func TestWideOverload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size, lasts = 1 << 20, time.Minute
		const whole = size * 2 * time.Microsecond // how long the peer takes for all of the disk
		m := vfs.NewMem()
		o := quiet(m)
		o.QueueBytes = 128 << 10
		d, r, f, a := pairOf(t, size, o, merging(vfs.NewMem()))
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
				if op.Kind == OpWrite {
					time.Sleep(time.Duration(op.Len) * 2 * time.Microsecond) // 0.5 MB/s
				}
				ack, err := feedTo(a, op)
				if err != nil {
					t.Error(err)
					return
				}
				f.Acked(ack)
			}
		})
		w := stamped{d: d}
		var worst time.Duration
		for began := time.Now(); time.Since(began) < lasts; {
			for range 25 {
				at := time.Now()
				w.write(t, int64(len(w.times)*7%(size/Block)))
				if time.Since(at) > 0 {
					t.Fatal("the guest waited")
				}
				time.Sleep(4 * time.Millisecond) // 1 MB/s
			}
			must(t, d.Flush())
			synctest.Wait()
			g := f.Progress()
			if g.Queued > o.QueueBytes {
				t.Fatalf("%d bytes are queued", g.Queued)
			}
			if at, some := w.lacking(t, r, size/Block); some {
				if g.Since.IsZero() || g.Since.After(at) {
					t.Fatalf("what is lacking is said to be of %s, and is of %s", g.Since, at)
				}
				worst = max(worst, time.Since(g.Since))
			}
		}
		// One pass without a cut, and two with, of which the first is still to come when the second begins.
		if worst > 3*whole {
			t.Errorf("its replica was %s old; all of the disk takes %s", worst, whole)
		}
		time.Sleep(3*whole + calmFirst)
		synctest.Wait()
		if g := f.Progress(); g.Phase != Live || !g.Complete || !g.Since.IsZero() || g.Remaining != 0 {
			t.Errorf("after a rest: %+v", g)
		}
		if string(content(t, r)) != string(content(t, d)) {
			t.Error("the replica differs")
		}
		if open := d.cuts.open.Load(); open != nil {
			t.Errorf("%d cuts are open still", len(*open))
		}
	})
}
