package hydrate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"tagalong.org/tagalong/vmdisk/blockset"
)

func TestBackgroundFetchesEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stale := blockset.New(100_000)
		stale.Add(10, 11)
		stale.Add(5_000, 9_000)
		stale.Add(99_999, 100_000)
		d, s := newDisk(t, stale, Options{}), newSource(t, 100_000)
		must(t, d.h.Run(t.Context(), s, d))
		got, err := d.read(t.Context(), 0, 100_000)
		must(t, err)
		for x, v := range got {
			if v != uint64(x)+1 {
				t.Fatalf("block %d is %d", x, v)
			}
		}
		if s.peak <= 7*MaxFetch || s.peak > 8*MaxFetch {
			t.Errorf("%d bytes at once", s.peak)
		}
		p := d.h.Progress()
		if p.Total != 4002*Block || p.Left != 0 || p.Fetched != p.Total || p.Running || p.Err != nil {
			t.Errorf("%+v", p)
		}
		must(t, d.h.Run(t.Context(), s, d)) // whole: at once
	})
}

// A read of one block brings what follows along, waits for nothing else, and goes ahead of the background.
func TestDemandGoesAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s := newDisk(t, all(100_000), Options{}), newSource(t, 100_000)
		stop := d.begin(s)
		synctest.Wait()
		if n := len(s.began()); n != 8 {
			t.Fatalf("%d background fetches", n)
		}
		began := time.Now()
		got, err := d.read(t.Context(), 50_000, 50_001)
		must(t, err)
		if got[0] != 50_001 || time.Since(began) != s.latency {
			t.Errorf("%d after %v", got[0], time.Since(began))
		}
		// In no order: they begin together.
		for _, want := range []job{{50_000, 50_001, Demand}, {50_001, 50_001 + mostGuess, Ahead}} {
			if !slices.Contains(s.began()[8:10], want) {
				t.Errorf("%v didn't begin, but %v", want, s.began()[8:10])
			}
		}
		synctest.Wait()
		// The background goes on behind that.
		first := int64(100_000)
		for _, j := range s.began()[10:] {
			first = min(first, j.a)
		}
		if first != 50_001+mostGuess {
			t.Errorf("then came block %d", first)
		}
		if err := stop(); !errors.Is(err, context.Canceled) {
			t.Errorf("stopped: %v", err)
		}
	})
}

func TestReadersJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s := newDisk(t, all(64), Options{}), newSource(t, 64)
		var wg sync.WaitGroup
		for i := range int64(50) {
			wg.Go(func() {
				if _, err := d.read(t.Context(), i%8, 20); err != nil {
					t.Error(err)
				}
			})
		}
		must(t, d.h.Run(t.Context(), s, d))
		wg.Wait()
	})
}

func TestOrderOfBackground(t *testing.T) {
	const blocks = 16 * heatBlocks
	p := newPlan(all(blocks))
	// Region 9 is read most, then 3; the last demand was at the beginning of 12.
	for range 3 {
		p.read(9*heatBlocks+5, 9*heatBlocks+6)
	}
	for range 2 {
		p.read(3*heatBlocks-1, 3*heatBlocks+1)
	}
	p.waiting = append(p.waiting, &waiter{a: 12 * heatBlocks, b: 12*heatBlocks + 1, done: make(chan struct{})})
	p.near = 12*heatBlocks + 1
	if j, ok := p.demand(); !ok || j != (job{12 * heatBlocks, 12*heatBlocks + 1, Demand}) {
		t.Fatalf("demand %v", j)
	}
	var regions []int64
	for {
		j, ok := p.pull(maxBlocks)
		if !ok {
			break
		}
		if r := j.a / heatBlocks; len(regions) == 0 || regions[len(regions)-1] != r {
			regions = append(regions, r)
		}
		p.end(j, arrived)
	}
	// nearBlocks is four regions; of 8 a little is left.
	want := []int64{12, 13, 14, 15, 8, 9, 10, 11, 2, 3, 0, 1, 4, 5, 6, 7, 8}
	if fmt.Sprint(regions) != fmt.Sprint(want) {
		t.Errorf("%v, not %v", regions, want)
	}
}

func TestWriteWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s := newDisk(t, all(64), Options{}), newSource(t, 64)
		stop := d.begin(s)
		synctest.Wait() // all of it is in flight
		d.write(10, 20, 777)
		got, err := d.read(t.Context(), 10, 20)
		must(t, err)
		for _, v := range got {
			if v != 777 {
				t.Fatalf("%v", got)
			}
		}
		_, err = d.read(t.Context(), 0, 64)
		must(t, err)
		for x := 10; x < 20; x++ {
			if d.fetched[x] != 0 {
				t.Errorf("block %d was stored over a write", x)
			}
		}
		must(t, stop())
		if p := d.h.Progress(); p.Written != 10*Block || p.Fetched != 54*Block {
			t.Errorf("%+v", p)
		}
	})
}

// A write of all that is stale ends a Run, though its source never answers.
func TestWritesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s := newDisk(t, all(64), Options{}), newSource(t, 64)
		s.latency = 1000 * time.Hour
		end := make(chan error)
		go func() { end <- d.h.Run(t.Context(), s, d) }()
		waits := make(chan error, 1)
		go func() { waits <- d.h.Wait(t.Context(), 0, 64*Block) }()
		synctest.Wait()
		began := time.Now()
		d.write(0, 64, 1)
		must(t, <-end)
		must(t, <-waits)
		if time.Since(began) != 0 {
			t.Error("it took", time.Since(began))
		}
	})
}

func TestNoSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s := newDisk(t, all(64), Options{Patience: time.Second}), newSource(t, 64)
		began := time.Now()
		if _, err := d.read(t.Context(), 1, 2); !errors.Is(err, ErrNoSource) || time.Since(began) != time.Second {
			t.Fatalf("%v after %v", err, time.Since(began))
		}
		if p := d.h.Progress(); p.Waiting != 0 {
			t.Errorf("%+v", p)
		}
		// One that comes in time is as good.
		read := make(chan error, 1)
		go func() {
			_, err := d.read(t.Context(), 1, 2)
			read <- err
		}()
		time.Sleep(time.Second / 2)
		s.latency = time.Minute
		stop := d.begin(s)
		must(t, <-read)
		if err := stop(); err != nil && !errors.Is(err, context.Canceled) { // the rest may have come at the same time
			t.Fatal(err)
		}

		// One that leaves starts the time again; Close ends it.
		d, s = newDisk(t, all(64), Options{Patience: time.Second}), newSource(t, 64)
		s.latency = time.Hour
		stop = d.begin(s)
		go func() {
			_, err := d.read(t.Context(), 1, 2)
			read <- err
		}()
		time.Sleep(time.Minute)
		if err := stop(); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		began = time.Now()
		if err := <-read; !errors.Is(err, ErrNoSource) || time.Since(began) != time.Second {
			t.Fatalf("%v after %v", err, time.Since(began))
		}
		go func() {
			_, err := d.read(t.Context(), 1, 2)
			read <- err
		}()
		synctest.Wait()
		d.h.Close()
		d.h.Close()
		if err := <-read; !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
		if err := d.h.Run(t.Context(), s, d); !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
	})
}

func TestCancelledWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk(t, all(64), Options{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := d.read(ctx, 1, 2); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if len(d.h.plan.waiting) != 0 {
			t.Error("still waiting")
		}
	})
}

func TestSourceGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s := newDisk(t, all(1_000), Options{}), newSource(t, 1_000)
		s.fail = func(n int, _, _ int64) error {
			if n > 5 {
				return fmt.Errorf("sold: %w", ErrGone)
			}
			return nil
		}
		if err := d.h.Run(t.Context(), s, d); !errors.Is(err, ErrGone) {
			t.Fatal(err)
		}
		if p := d.h.Progress(); p.Left+p.Fetched != p.Total || p.Fetched > 5*MaxFetch || p.Running {
			t.Errorf("%+v", p)
		}
		// Another one isn't asked block by block.
		s = newSource(t, 1_000)
		must(t, d.h.Run(t.Context(), s, d))
		if n := len(s.began()); n > 30 {
			t.Errorf("%d fetches of %d bytes at most", n, MaxFetch)
		}
	})
}

func TestTwoRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s := newDisk(t, all(64), Options{}), newSource(t, 64)
		stop := d.begin(s)
		synctest.Wait()
		if err := d.h.Run(t.Context(), s, d); !errors.Is(err, ErrRunning) {
			t.Error(err)
		}
		_ = stop()
	})
}

// One block that can't be had keeps no other from arriving, not even its neighbours or those who wait for them.
func TestBadBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s := newDisk(t, all(1_000), Options{}), newSource(t, 1_000)
		bad := true
		s.fail = func(_ int, a, b int64) error {
			if bad && a <= 333 && 333 < b {
				return errLine
			}
			return nil
		}
		stop := d.begin(s)
		got, err := d.read(t.Context(), 332, 333)
		must(t, err)
		if got[0] != 333 {
			t.Error(got)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		p := d.h.Progress()
		if p.Left != Block || !errors.Is(p.Err, errLine) {
			t.Errorf("%+v", p)
		}
		if n := len(s.began()); n > 1_000 {
			t.Errorf("%d fetches in an hour", n)
		}
		bad = false
		_, err = d.read(t.Context(), 0, 1_000)
		must(t, err)
		must(t, stop())
	})
}

// After a success the next trouble costs little again.
func TestPatienceWithSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s := newDisk(t, all(100), Options{}), newSource(t, 100)
		s.room = Room{Pull: MaxFetch, Ahead: MaxFetch, Piece: MaxFetch}
		s.fail = func(n int, _, _ int64) error {
			if n%2 == 0 {
				return errLine
			}
			return nil
		}
		began := time.Now()
		must(t, d.h.Run(t.Context(), s, d))
		if took := time.Since(began); took > 100*2*(firstWait+s.latency) {
			t.Errorf("it took %v", took)
		}
	})
}

func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s := newDisk(t, all(1_000), Options{}), newSource(t, 1_000)
		full := true
		d.put = func(int64) error {
			if full {
				return syscall.ENOSPC
			}
			return nil
		}
		stop := d.begin(s)
		time.Sleep(time.Minute)
		if p := d.h.Progress(); p.Left != p.Total || !errors.Is(p.Err, syscall.ENOSPC) || !p.Running {
			t.Errorf("%+v", p)
		}
		full = false
		_, err := d.read(t.Context(), 0, 1_000)
		must(t, err)
		must(t, stop())

		d = newDisk(t, all(1_000), Options{})
		d.put = func(int64) error { return syscall.EIO }
		if err := d.h.Run(t.Context(), s, d); !errors.Is(err, syscall.EIO) {
			t.Error(err)
		}
	})
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 40_000
		d, s := newDisk(t, all(n), Options{}), newSource(t, n)
		s.latency, s.perByte = 0, 8*time.Second/(1<<20)*(1<<20)/(4<<20) // 8 at once: 4 MiB/s
		stop := d.begin(s)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		p := d.h.Progress()
		if p.Rate < 3.8*(1<<20) || p.Rate > 4.4*(1<<20) {
			t.Errorf("%.2f MiB/s", p.Rate/(1<<20))
		}
		if left := time.Duration(float64(p.Left) / p.Rate * float64(time.Second)); p.Remaining != left || left < 10*time.Second {
			t.Errorf("%v left, not %v", p.Remaining, left)
		}
		_ = stop()
	})
}

// TestRandom: readers, writers, whole and partial, against a source that fails, sources that come and go. Nobody ever reads
// anything but the last write or the source's block; all of it is here at the end.
func TestRandom(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { random(t, seed) })
		})
	}
}

func random(t *testing.T, seed uint64) {
	const n = 3_000
	r := rand.New(rand.NewPCG(seed, 2))
	stale := blockset.New(n)
	for range 1 + r.IntN(40) {
		a := r.Int64N(n)
		stale.Add(a, a+1+r.Int64N(200))
	}
	d, s := newDisk(t, stale, Options{Demand: 1 + r.IntN(8), Flight: int64(1+r.IntN(4)) * MaxFetch, Patience: time.Hour}), newSource(t, n)
	s.stale = stale
	s.latency, s.perByte = time.Duration(r.IntN(20))*time.Millisecond, time.Duration(r.IntN(100))
	var failing sync.Mutex
	fr := rand.New(rand.NewPCG(seed, 3))
	s.fail = func(int, int64, int64) error {
		failing.Lock()
		defer failing.Unlock()
		if fr.IntN(5) == 0 {
			return errLine
		}
		return nil
	}
	// Each writer has blocks of its own (x % 4), so that all know what must be read there.
	var wg sync.WaitGroup
	for g := range int64(4) {
		gr := rand.New(rand.NewPCG(seed, 10+uint64(g)))
		wg.Go(func() {
			last := map[int64]uint64{}
			for i := range 150 {
				x := gr.Int64N(n/4)*4 + g
				switch gr.IntN(3) {
				case 0:
					last[x] = uint64(1_000_000 + i)
					d.write(x, x+1, last[x])
				case 1: // a partial write reads first
					old, err := d.read(t.Context(), x, x+1)
					if err != nil || last[x] == 0 && old[0] != uint64(x)+1 || last[x] != 0 && old[0] != last[x] {
						t.Errorf("block %d is %v, %v", x, old, err)
						return
					}
					last[x] = uint64(2_000_000 + i)
					d.write(x, x+1, last[x])
				default:
					got, err := d.read(t.Context(), x, min(n, x+gr.Int64N(30)+1))
					if err != nil {
						t.Error(err)
						return
					}
					for k, v := range got {
						y := x + int64(k)
						own := y%4 == g
						if own && last[y] != 0 && v != last[y] || own && last[y] == 0 && v != uint64(y)+1 || v != uint64(y)+1 && v < 1_000_000 {
							t.Errorf("block %d is %d", y, v)
							return
						}
					}
				}
				time.Sleep(time.Duration(gr.IntN(10)) * time.Millisecond)
			}
		})
	}
	for range 1 + r.IntN(4) {
		stop := d.begin(s)
		time.Sleep(time.Duration(r.IntN(400)) * time.Millisecond)
		if err := stop(); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		time.Sleep(time.Duration(r.IntN(400)) * time.Millisecond)
	}
	must(t, d.h.Run(t.Context(), s, d))
	wg.Wait()
	if p := d.h.Progress(); p.Left != 0 || p.Fetched+p.Written != p.Total || p.Waiting != 0 {
		t.Errorf("%+v", p)
	}
	if s.peak > d.h.o.Flight {
		t.Errorf("%d bytes at once that nobody waits for, with %d", s.peak, d.h.o.Flight)
	}
}

// Without the background only what is read comes, with what follows it; with it again, the rest.
func TestPull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s := newDisk(t, all(10_000), Options{}), newSource(t, 10_000)
		d.h.Pull(false)
		stop := d.begin(s)
		got, err := d.read(t.Context(), 5_000, 5_001)
		must(t, err)
		time.Sleep(time.Minute)
		if pulls := slices.ContainsFunc(s.began(), func(j job) bool { return j.kind == Pull }); got[0] != 5_001 || pulls {
			t.Errorf("block 5000 is %d, and %v began", got[0], s.began())
		}
		d.h.Pull(true)
		time.Sleep(time.Minute)
		if p := d.h.Progress(); p.Left != 0 {
			t.Errorf("%d bytes are left", p.Left)
		}
		must(t, stop())
	})
}
