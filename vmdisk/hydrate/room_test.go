package hydrate

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"tagalong.org/tagalong/vmdisk/blockset"
)

// A reader of what is in flight already asks for nothing twice: the fetch is told that it is urgent, at once, and no other is.
func TestReaderUrges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s := newDisk(t, all(100_000), Options{}), newSource(t, 100_000)
		s.latency = time.Hour
		stop := d.begin(s)
		synctest.Wait()
		before := s.began()
		third := before[3]
		read := make(chan error, 1)
		go func() {
			_, err := d.read(t.Context(), third.a+5, third.a+6)
			read <- err
		}()
		time.Sleep(2 * time.Hour)
		must(t, <-read)
		for _, j := range s.began()[len(before):] {
			if j.kind == Demand {
				t.Errorf("%v beside what was in flight", j)
			}
		}
		if want := []job{third}; !slices.Equal(s.urged, want) {
			t.Errorf("urged %v, not %v", s.urged, want)
		}
		_ = stop()
	})
}

// What somebody waits for who can't be served yet is urgent when the background comes to it first.
func TestBackgroundTakesWhatIsAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s := newDisk(t, all(1_000), Options{Demand: 1}), newSource(t, 1_000)
		s.latency = time.Second
		s.room = Room{Pull: 32 * MaxFetch, Ahead: Block, Piece: MaxFetch}
		for _, a := range []int64{900, 0} {
			go func() { _, _ = d.read(t.Context(), a, a+1) }()
			synctest.Wait()
		}
		must(t, d.h.Run(t.Context(), s, d))
		if len(s.urged) != 1 || s.urged[0].a != 0 {
			t.Errorf("urged %v", s.urged)
		}
	})
}

// What may not be pulled isn't, but what is read is fetched, with what follows; and the rest as soon as it may be.
func TestNothingIsPulled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s := newDisk(t, all(10_000), Options{}), newSource(t, 10_000)
		changed := make(chan struct{})
		s.room = Room{Ahead: MaxFetch, Piece: MaxFetch, Changed: changed}
		stop := d.begin(s)
		for a := int64(5_000); a < 5_640; a += 8 {
			_, err := d.read(t.Context(), a, a+8)
			must(t, err)
		}
		synctest.Wait()
		time.Sleep(time.Hour)
		for _, j := range s.began() {
			if j.kind == Pull {
				t.Errorf("%v", j)
			}
		}
		if p := d.h.Progress(); p.Fetched < 640*Block || p.Fetched > (640+2*leastAhead)*Block {
			t.Errorf("%d blocks came", p.Fetched/Block)
		}
		s.mu.Lock()
		s.room = Room{Pull: MaxFetch, Ahead: MaxFetch, Piece: MaxFetch, Changed: make(chan struct{})}
		s.mu.Unlock()
		close(changed)
		time.Sleep(time.Minute)
		synctest.Wait()
		must(t, stop())
	})
}

// Blocks that nobody has who is there keep no others from coming, cost no second try before somebody comes, and are waited for.
func TestAbsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 10_000
		d, s := newDisk(t, all(n), Options{}), newSource(t, n)
		changed := make(chan struct{})
		s.room = Room{Pull: 4 * MaxFetch, Ahead: MaxFetch, Piece: MaxFetch, Changed: changed}
		here := false
		s.fail = func(_ int, a, b int64) error {
			if !here && a < 3_000 && 1_000 < b {
				from, to := max(a, 1_000), min(b, 3_000)
				return fmt.Errorf("blocks %d-%d: %w", a, b, &AbsentError{from * Block, (to - from) * Block, errLine})
			}
			return nil
		}
		stop := d.begin(s)
		waits := make(chan error, 1)
		go func() {
			_, err := d.read(t.Context(), 2_000, 2_001)
			waits <- err
		}()
		began := time.Now()
		_, err := d.read(t.Context(), 9_000, 9_001)
		must(t, err)
		if time.Since(began) > 2*s.latency {
			t.Errorf("another block took %v", time.Since(began))
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		p := d.h.Progress()
		if p.Left != 2_000*Block || p.Absent != p.Left || p.Waiting != 1 || p.Blocked != 1 || p.Err != nil {
			t.Errorf("%+v", p)
		}
		if tries := len(s.began()); tries > 250 {
			t.Errorf("%d fetches", tries)
		}
		select {
		case err := <-waits:
			t.Fatalf("read: %v", err)
		default:
		}
		s.mu.Lock()
		here, s.room.Changed = true, nil
		s.mu.Unlock()
		close(changed)
		must(t, <-waits)
		time.Sleep(time.Minute)
		synctest.Wait()
		must(t, stop())
	})
}

// Who comes while the answer "nobody" is on its way is asked.
func TestComesMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s := newDisk(t, all(10), Options{}), newSource(t, 10)
		changed := make(chan struct{})
		s.room = Room{Pull: MaxFetch, Ahead: MaxFetch, Piece: MaxFetch, Changed: changed}
		s.fail = func(n int, _, _ int64) error {
			if n > 1 {
				return nil
			}
			s.mu.Lock()
			s.room.Changed = make(chan struct{})
			s.mu.Unlock()
			close(changed)
			time.Sleep(time.Second) // Run has long looked who is there
			return ErrAbsent
		}
		must(t, d.h.Run(t.Context(), s, d))
	})
}

// What is in flight is what the source has room for, and no more than memory.
func TestRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct{ room, piece, flight, want int64 }{
			{64 << 10, 8 << 10, 0, 64 << 10},
			{16 << 20, MaxFetch, 0, 16 << 20},
			{1 << 30, MaxFetch, 0, 64 << 20},
			{16 << 20, MaxFetch, 1 << 20, 1 << 20},
			{4 << 10, 64 << 10, 0, 64 << 10}, // one there always is
		} {
			d, s := newDisk(t, all(40_000), Options{Flight: c.flight}), newSource(t, 40_000)
			s.room = Room{Pull: c.room, Ahead: c.room, Piece: c.piece}
			stop := d.begin(s)
			time.Sleep(time.Second)
			synctest.Wait()
			if s.peak != c.want {
				t.Errorf("%+v: %d bytes at once", c, s.peak)
			}
			_ = stop()
		}
	})
}

// lead reads with ahead.read and says how much of what is read had been named before, and how much that wasn't read was named.
func lead(h *ahead, reads [][2]int64) (hit, named int64) {
	const n = 1 << 22
	known := blockset.New(n)
	for _, r := range reads {
		for x := r[0]; x < r[1]; x++ {
			if known.Has(x) {
				hit++
			}
		}
		h.read(r[0], r[1])
		if r := h.readers[0]; r.next < r.end {
			known.Add(r.next, min(n, r.end))
		}
	}
	return hit, known.Count()
}

func TestAhead(t *testing.T) {
	h := newAhead()
	h.reach(8 << 20)
	var reads [][2]int64
	for a := int64(1000); a < 21_000; a += 16 {
		reads = append(reads, [2]int64{a, a + 16})
	}
	if hit, named := lead(&h, reads); hit < 19_900 || named < 19_900+2*8<<20/Block/2 || named > 20_000+2*8<<20/Block {
		t.Errorf("in sequence: %d of 20000 blocks were fetched ahead, %d in all", hit, named)
	}

	h = newAhead()
	r := rand.New(rand.NewPCG(1, 2))
	reads = nil
	for range 1000 {
		a := r.Int64N(1 << 21)
		reads = append(reads, [2]int64{a, a + 1})
	}
	if _, named := lead(&h, reads); named > 600 {
		t.Errorf("at random: %d blocks were fetched for 1000 reads", named)
	}
	// And who then reads in sequence is recognised among them.
	var mixed [][2]int64
	for a := int64(3 << 20); a < 3<<20+8_000; a += 8 {
		x := r.Int64N(1 << 21)
		mixed = append(mixed, [2]int64{a, a + 8}, [2]int64{x, x + 1})
	}
	hit := int64(0)
	known := blockset.New(1 << 22)
	for _, m := range mixed {
		if known.Has(m[0]) && m[0] >= 3<<20 {
			hit += 8
		}
		h.read(m[0], m[1])
		if r := h.readers[0]; r.next < r.end {
			known.Add(r.next, min(1<<22, r.end))
		}
	}
	if hit < 7_500 {
		t.Errorf("%d of 8000 blocks were fetched ahead beside a random reader", hit)
	}

	// Requests that overtake each other are one reader's.
	h = newAhead()
	reads = nil
	for a := int64(0); a < 4_000; a += 32 {
		for _, k := range r.Perm(4) {
			reads = append(reads, [2]int64{a + int64(k)*8, a + int64(k)*8 + 8})
		}
	}
	if hit, _ := lead(&h, reads); hit < 3_600 || len(h.readers) > 2 {
		t.Errorf("out of order: %d of 4000 blocks were fetched ahead, %d readers", hit, len(h.readers))
	}
}

// Of what was read at random nothing is ever named beyond the window, and the window is bounded.
func TestAheadIsBounded(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 9))
		h := newAhead()
		at := int64(0)
		for range 2000 {
			switch r.IntN(10) {
			case 0:
				at = r.Int64N(1 << 30)
			case 1:
				h.reach(r.Int64N(1 << 30))
			case 2:
				at = max(0, at-r.Int64N(100))
			}
			n := 1 + r.Int64N(64)
			h.read(at, at+n)
			at += n
			if len(h.readers) > streams || h.guess < 0 || h.guess > mostGuess {
				t.Fatalf("seed %d: %d readers, guess %d", seed, len(h.readers), h.guess)
			}
			for _, x := range h.readers {
				if x.end < x.next-64-skip || x.end-x.next > mostAhead || x.window > mostAhead {
					t.Fatalf("seed %d: %+v", seed, x)
				}
			}
		}
	}
}
