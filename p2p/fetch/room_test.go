package fetch

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// hydrator fetches n bytes as package vmdisk/hydrate does: as much at once as there is room for.
func hydrator(t testing.TB, p *Pool, n int64) time.Duration {
	began := time.Now()
	var mu sync.Mutex
	var wg sync.WaitGroup
	var flying int64
	landed := make(chan struct{}, 1)
	for at := int64(0); at < n; {
		room := p.Room()
		piece := min(room.Piece, n-at)
		mu.Lock()
		may := room.Pull > 0 && (flying == 0 || flying+piece <= min(room.Pull, 64<<20))
		if may {
			flying += piece
		}
		mu.Unlock()
		if !may {
			select {
			case <-landed:
			case <-room.Changed:
			}
			continue
		}
		off := at % (testSize / 2)
		piece = min(piece, testSize/2-off)
		at += piece
		wg.Go(func() {
			b := make([]byte, piece)
			if err := p.Fetch(t.Context(), Want{Off: off, P: b}); err != nil {
				t.Error(err)
			}
			checkOnes(t, b, off)
			mu.Lock()
			flying -= piece
			mu.Unlock()
			select {
			case landed <- struct{}{}:
			default:
			}
		})
	}
	wg.Wait()
	return time.Since(began)
}

// Whatever the link, the background fills it, and a demand beside it takes not much longer than alone.
func TestLinks(t *testing.T) {
	for _, c := range []struct {
		name  string
		delay time.Duration // one way
		rate  float64       // bytes a second
		n     int64
		slow  float64 // what a demand may take, idle ones
		more  time.Duration
		use   float64
	}{
		{"7 Mbit/s, 40 ms", 20 * time.Millisecond, 7e6 / 8, 8 << 20, 1.6, 0, 0.95},
		{"100 Mbit/s, 10 ms", 5 * time.Millisecond, 100e6 / 8, 48 << 20, 1.6, time.Millisecond, 0.93},
		{"1 Gbit/s, 0.4 ms", 200 * time.Microsecond, 1e9 / 8, 256 << 20, 1, 5 * time.Millisecond, 0.85},
		{"300 MB/s, 25 ms", 12500 * time.Microsecond, 300e6, 768 << 20, 1.6, time.Millisecond, 0.8},
		{"300 MB/s, 80 ms", 40 * time.Millisecond, 300e6, 768 << 20, 1.6, time.Millisecond, 0.7},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &holder{name: "a", path: &path{delay: c.delay, rate: c.rate}, disk: ones(), state: whole}
				p := newPool(t, Options{}, h)
				connected(t, p, 1)
				demand := func() time.Duration {
					var took []time.Duration
					for range 20 {
						time.Sleep(23 * time.Millisecond)
						began := time.Now()
						get(t, p, 60<<20, Block, true)
						took = append(took, time.Since(began))
					}
					slices.Sort(took)
					return took[len(took)/2]
				}
				idle := demand()
				var busy time.Duration
				var wg sync.WaitGroup
				wg.Go(func() {
					time.Sleep(800 * time.Millisecond) // it has found its pace
					busy = demand()
				})
				took := hydrator(t, p, c.n)
				wg.Wait()
				use := float64(c.n) / took.Seconds() / h.path.rate
				t.Logf("a demand took %v idle, %v beside the background, which used %.3f of the link", idle, busy, use)
				if limit := time.Duration(c.slow*float64(idle)) + c.more; busy > limit {
					t.Errorf("a demand took %v idle and %v beside the background", idle, busy)
				}
				if use < c.use {
					t.Errorf("the background used %.3f of the link", use)
				}
			})
		})
	}
}

// A computer that does something else for a while, again and again, isn't taken for a full line as long as some answers come in time.
func TestBusyComputer(t *testing.T) {
	for _, c := range []struct {
		delay, on, busy time.Duration
		use             float64
	}{
		{100 * time.Microsecond, 10 * time.Millisecond, 15 * time.Millisecond, 0.85},
		{12500 * time.Microsecond, 15 * time.Millisecond, 25 * time.Millisecond, 0.4},
		{40 * time.Millisecond, 10 * time.Millisecond, 15 * time.Millisecond, 0.75},
	} {
		t.Run(c.delay.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &holder{name: "a", path: &path{delay: c.delay, rate: 300e6, on: c.on, busy: c.busy}, disk: ones(), state: whole}
				p := newPool(t, Options{}, h)
				connected(t, p, 1)
				const n = 384 << 20
				use := n / hydrator(t, p, n).Seconds() / (h.path.rate * c.on.Seconds() / (c.on + c.busy).Seconds())
				t.Logf("the background used %.3f of what was left", use)
				if use < c.use {
					t.Errorf("the background used %.3f of what was left", use)
				}
			})
		})
	}
}

// Little may be on its way while somebody waits whom nobody foresaw; who has come up with what is fetched for him is no reason for that.
func TestForeseen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &holder{name: "a", path: &path{delay: 200 * time.Microsecond, rate: 1e9 / 8}, disk: ones(), state: whole}
		p := newPool(t, Options{}, h)
		connected(t, p, 1)
		hydrator(t, p, 64<<20) // the pace is known
		before := p.Room()
		urgent := make(chan struct{})
		close(urgent)
		b := make([]byte, Block)
		if err := p.Fetch(t.Context(), Want{Off: 0, P: b, Kind: Ahead, Urgent: urgent}); err != nil {
			t.Fatal(err)
		}
		if r := p.Room(); r.Pull != before.Pull || r.Piece != MaxWant {
			t.Errorf("after somebody came up with what is fetched for him %d bytes are worth fetching in pieces of %d, before it was %d and %d",
				r.Pull, r.Piece, before.Pull, before.Piece)
		}
		get(t, p, 0, Block, true)
		if r := p.Room(); r.Pull > before.Pull/3 {
			t.Errorf("after a demand %d bytes are worth fetching, before it was %d", r.Pull, before.Pull)
		}
		time.Sleep(calm)
		if r := p.Room(); r.Pull != before.Pull {
			t.Errorf("a while after a demand %d bytes are worth fetching, before it was %d", r.Pull, before.Pull)
		}
	})
}

// A read of what waits for its turn in the background doesn't wait for that turn, and nothing is asked for twice.
func TestUrgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &holder{name: "a", path: &path{delay: 20 * time.Millisecond, rate: 7e6 / 8}, disk: ones(), state: whole}
		p := newPool(t, Options{}, h)
		connected(t, p, 1)
		hydrator(t, p, 4<<20) // the pace is known
		before := h.stats.Data.Load()
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() { get(t, p, int64(i)*MaxWant, MaxWant, false) })
		}
		synctest.Wait()
		urgent, began := make(chan struct{}), time.Now()
		wg.Go(func() {
			if err := p.Fetch(t.Context(), Want{Off: 32 << 20, P: make([]byte, 2*Block), Urgent: urgent}); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took > time.Second+120*time.Millisecond {
				t.Errorf("it took %v", took)
			}
		})
		time.Sleep(time.Second)
		close(urgent)
		wg.Wait()
		if took := time.Since(began); took < 2*time.Second {
			t.Errorf("all took only %v: nothing waited", took)
		}
		if n := h.stats.Data.Load() - before; n != 8*MaxWant+2*Block {
			t.Errorf("%d bytes came for %d", n, 8*MaxWant+2*Block)
		}
	})
}

// What is asked for already is asked of another one when it is late by what a demand takes.
func TestUrgentIsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		near := &holder{name: "near", path: &path{delay: time.Millisecond}, state: whole, disk: &fake{
			size: testSize, at: func(int64) uint64 { return 1 }, hook: func(int64, int64) error { <-stuck; return nil },
		}}
		far := &holder{name: "far", path: &path{delay: 10 * time.Millisecond}, disk: ones(), state: whole}
		p := newPool(t, Options{}, near, far)
		connected(t, p, 2)
		p.Allow("far", Allowance{})
		urgent, began := make(chan struct{}), time.Now()
		time.AfterFunc(200*time.Millisecond, func() { close(urgent) })
		if err := p.Fetch(t.Context(), Want{P: make([]byte, Block), Urgent: urgent}); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 230*time.Millisecond {
			t.Errorf("it took %v", took)
		}
		close(stuck)
	})
}

// rated is a Pace that lets one more byte through every so often.
type rated struct{ rate atomic.Int64 }

func (r *rated) Rate() int64 { return r.rate.Load() }

func (r *rated) Wait(ctx context.Context, n int64) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Duration(n) * time.Second / time.Duration(r.rate.Load())):
		return nil
	}
}

// What may not be pulled isn't, until it may, or somebody waits for it; what they soon want, and what they wait for, comes at once.
func TestAllow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &holder{name: "a", path: &path{delay: 10 * time.Millisecond}, disk: ones(), state: whole}
		p := newPool(t, Options{}, h)
		connected(t, p, 1)
		if r := p.Room(); r.Pull != r.Ahead || r.Pull == 0 {
			t.Errorf("%+v", r)
		}
		before := p.Room()
		p.Allow("a", Allowance{})
		p.Allow("nobody", Allowance{})
		select {
		case <-before.Changed:
		default:
			t.Error("nobody was told")
		}
		if r := p.Room(); r.Pull != 0 || r.Ahead == 0 {
			t.Errorf("%+v", r)
		}
		began := time.Now()
		fetch := func(off int64, kind Kind, urgent <-chan struct{}) chan time.Duration {
			took := make(chan time.Duration, 1)
			go func() {
				if err := p.Fetch(t.Context(), Want{Off: off, P: make([]byte, Block), Kind: kind, Urgent: urgent}); err != nil {
					t.Error(err)
				}
				took <- time.Since(began)
			}()
			return took
		}
		urgent := make(chan struct{})
		pulled, urged := fetch(0, Pull, nil), fetch(Block, Pull, urgent)
		if took := <-fetch(2*Block, Ahead, nil); took > 50*time.Millisecond {
			t.Errorf("ahead took %v", took)
		}
		if took := <-fetch(3*Block, Demand, nil); took > 100*time.Millisecond {
			t.Errorf("a demand took %v", took)
		}
		time.Sleep(time.Hour)
		began = time.Now()
		close(urgent)
		if took := <-urged; took > 50*time.Millisecond {
			t.Errorf("what became urgent took %v", took)
		}
		select {
		case <-pulled:
			t.Error("it was pulled")
		default:
		}
		pace := &rated{}
		pace.rate.Store(1024)
		began = time.Now()
		p.Allow("a", Allowance{Pull: true, Pace: pace})
		if took := <-pulled; took < 4*time.Second || took > 4*time.Second+50*time.Millisecond {
			t.Errorf("4 KiB at 1 KiB/s took %v", took)
		}
		if r := p.Room(); r.Pull != slowly || r.Piece != leastPiece {
			t.Errorf("%+v", r)
		}
		// What waits for the rate is let off by who waits for it, and by the end.
		urgent = make(chan struct{})
		began = time.Now()
		urged = fetch(0, Pull, urgent)
		time.Sleep(time.Second)
		close(urgent)
		if took := <-urged; took > time.Second+50*time.Millisecond {
			t.Errorf("what became urgent took %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.Fetch(ctx, Want{P: make([]byte, Block)}); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if l := p.links[0]; l.pace.flying != 0 || l.asked != [2]int{} {
			t.Errorf("%d bytes, %v questions are on their way", l.pace.flying, l.asked)
		}
	})
}

// Who may be pulled from is, and what only others have waits.
func TestAllowOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &holder{name: "a", path: &path{delay: time.Millisecond}, disk: ones(), state: whole}
		b := &holder{name: "b", path: &path{delay: 10 * time.Millisecond}, disk: ones(), state: whole}
		p := newPool(t, Options{}, a, b)
		connected(t, p, 2)
		p.Allow("a", Allowance{})
		hydrator(t, p, 8<<20)
		if a.stats.Data.Load() != 0 || b.stats.Data.Load() < 8<<20 {
			t.Errorf("%d bytes of a, %d of b", a.stats.Data.Load(), b.stats.Data.Load())
		}
	})
}
