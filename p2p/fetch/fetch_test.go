package fetch

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/p2p/wire/wiretest"
)

// Ranges of all lengths, with zeros of all lengths between, many at once.
func TestFetch(t *testing.T) {
	for name, pair := range wiretest.Kinds {
		t.Run(name, func(t *testing.T) {
			disk := &fake{size: testSize, at: func(block int64) uint64 { return uint64(block) % 97 / 40 }}
			var stats Stats
			var served sync.WaitGroup
			p := newPool(t, Options{})
			p.Add(Holder{Name: "a", Dial: func(context.Context) (Stream, error) {
				a, b := pair(t)
				served.Go(func() {
					err := Serve(t.Context(), b, func(h Hello) (Reader, State, error) {
						if h.At != handOff || h.Target != hello().Target {
							t.Errorf("asked by %+v", h)
						}
						return disk, whole, nil
					}, &stats)
					if err == nil {
						t.Error("a pool that is closed resets its streams")
					}
				})
				return a, nil
			}})
			var wg sync.WaitGroup
			var bytes atomic.Int64
			for g := range 8 {
				wg.Go(func() {
					r := rand.New(rand.NewPCG(uint64(g), 1))
					for range 40 {
						n := (1 + r.Int64N(64)) * Block
						off := r.Int64N((testSize-n)/Block+1) * Block
						b := make([]byte, n)
						if err := fetchOne(t.Context(), p, off, b, r.IntN(2) == 0); err != nil {
							t.Error(err)
							return
						}
						for i := int64(0); i < n; i += Block {
							block := (off + i) / Block
							if v, ok := versionOf(b[i:i+Block], block); !ok || v != disk.at(block) {
								t.Errorf("block %d: version %d, %v", block, v, ok)
							}
						}
						bytes.Add(n)
					}
				})
			}
			wg.Wait()
			if h := p.Holders(); len(h) != 1 || h[0].Fetched != bytes.Load() || h[0].RoundTrip <= 0 || h[0].Rate <= 0 || h[0].Err != nil {
				t.Errorf("%+v", h)
			}
			p.Close()
			served.Wait()
			if n := stats.Data.Load() + stats.Zeroed.Load(); n != bytes.Load() || stats.Zeroed.Load() == 0 || stats.Sorry.Load() != 0 {
				t.Errorf("%d bytes fetched, %d served, of these %d as zeros", bytes.Load(), n, stats.Zeroed.Load())
			}
		})
	}
}

func TestRanges(t *testing.T) {
	p := newPool(t, Options{})
	for _, c := range []struct{ off, n int64 }{
		{-Block, Block}, {1, Block}, {0, 0}, {0, 100}, {0, MaxWant + Block}, {testSize, Block}, {testSize - Block, 2 * Block},
	} {
		if err := fetchOne(t.Context(), p, c.off, make([]byte, c.n), true); !errors.Is(err, ErrRange) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	for _, h := range []Hello{{}, {Target: hello().Target}, {Target: hello().Target, At: Position{Term: 5}}} {
		if _, err := NewPool(h, Options{}); !errors.Is(err, ErrHello) {
			t.Errorf("%+v: %v", h, err)
		}
	}
}

// A range is asked of those who have its parts, and nobody is asked for what it lacks.
func TestSplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var holders [3]*holder
		p := newPool(t, Options{})
		lacks := func(i int) Lacks { // each has runs of 5 blocks, and the last one all but the first 8 MiB
			return func(off int64) (bool, int64) {
				if i == 2 {
					if off < 8<<20 {
						return true, 8 << 20
					}
					return false, testSize
				}
				run := off / (5 * Block)
				return run%2 != int64(i), (run + 1) * 5 * Block
			}
		}
		for i := range holders {
			l := lacks(i)
			h := &holder{name: string(rune('a' + i)), path: &path{delay: time.Duration(i+1) * time.Millisecond}, state: whole}
			h.disk = &fake{size: testSize, at: func(int64) uint64 { return 1 }, hook: func(off, n int64) error {
				for x := off; x < off+n; x += Block {
					if no, _ := l(x); no {
						t.Errorf("holder %d was asked for block %d", i, x/Block)
					}
				}
				return nil
			}}
			p.Add(Holder{Name: h.name, Dial: h.dial, Judge: func(State) (Lacks, error) { return l, nil }})
			holders[i] = h
		}
		connected(t, p, 3)
		for _, demand := range []bool{true, false} {
			for _, off := range []int64{0, 3 * Block, 8<<20 - 7*Block, 20 << 20} {
				for _, n := range []int64{Block, 9 * Block, MaxWant} {
					checkOnes(t, get(t, p, off, n, demand), off)
				}
			}
		}
		for i, h := range holders {
			if h.stats.Wants.Load() == 0 {
				t.Errorf("holder %d wasn't asked", i)
			}
		}
		p.Close()
		for _, h := range holders {
			h.wg.Wait()
		}
	})
}

func TestNearestFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var holders []*holder
		for i, delay := range []time.Duration{40, 1, 10} {
			holders = append(holders, &holder{name: string(rune('a' + i)), path: &path{delay: delay * time.Millisecond}, disk: ones(), state: whole})
		}
		p := newPool(t, Options{}, holders...)
		connected(t, p, 3)
		for _, near := range []int{1, 2, 0} {
			for range 50 {
				began := time.Now()
				get(t, p, 1<<20, Block, true)
				if took := time.Since(began); took != 2*holders[near].path.delay {
					t.Fatalf("holder %d is next, but it took %v", near, took)
				}
			}
			for i, h := range holders {
				if n := h.stats.Wants.Load(); i != near && n != 0 && n != 50 || i == near && n != 50 {
					t.Errorf("holder %d is the nearest, %d was asked %d times", near, i, n)
				}
			}
			p.Remove(holders[near].name)
		}
		if h := p.Holders(); len(h) != 0 {
			t.Errorf("%+v", h)
		}
	})
}

// Who is nearer gives what it has, also in the midst of what only somebody farther has.
func TestNearerHasTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near := &holder{name: "near", path: &path{delay: time.Millisecond}, disk: ones(), state: whole}
		far := &holder{name: "far", path: &path{delay: 40 * time.Millisecond}, disk: ones(), state: whole}
		p := newPool(t, Options{}, near, far)
		p.Add(Holder{Name: "near", Dial: near.dial, Judge: func(State) (Lacks, error) {
			return func(off int64) (bool, int64) { return off < 2*Block, max(2*Block, off/(2*Block)*testSize) }, nil
		}})
		connected(t, p, 2)
		synctest.Wait()
		checkOnes(t, get(t, p, 0, 16*Block, true), 0)
		p.Close()
		near.wg.Wait()
		far.wg.Wait()
		if n, f := near.stats.Data.Load(), far.stats.Data.Load(); n != 14*Block || f != 2*Block {
			t.Errorf("%d bytes came from near, %d from far", n, f)
		}
	})
}

var errDrive = errors.New("the drive is broken")

// Who lacks it, can't read it or has moved is followed by the next.
func TestSorry(t *testing.T) {
	for _, sorry := range []error{ErrNotHere, ErrOver, errDrive} {
		synctest.Test(t, func(t *testing.T) {
			bad := &holder{name: "bad", path: &path{delay: time.Millisecond}, state: whole, disk: &fake{
				size: testSize, at: func(int64) uint64 { return 1 }, hook: func(int64, int64) error { return sorry },
			}}
			good := &holder{name: "good", path: &path{delay: 10 * time.Millisecond}, disk: ones(), state: whole}
			p := newPool(t, Options{}, bad, good)
			connected(t, p, 2)
			over := false
			for i := range 20 {
				off := int64(i) * MaxWant
				checkOnes(t, get(t, p, off, MaxWant, i%2 == 0), off)
				over = over || errors.Is(p.Holders()[0].Err, ErrOver)
			}
			if over != (sorry == ErrOver) {
				t.Errorf("its link has ended: %v", over)
			}
			good.leave()
			if bad.stats.Sorry.Load() == 0 {
				t.Error("nobody asked the nearest")
			}
			want := sorry
			if sorry == errDrive {
				want = ErrRead
			}
			err := fetchOne(t.Context(), p, 0, make([]byte, Block), true)
			if !errors.Is(err, ErrNoHolder) || sorry != ErrOver && !errors.Is(err, want) {
				t.Error(err)
			}
		})
	}
}

// A holder that hangs costs one late answer; then others are asked first.
func TestHedge(t *testing.T) {
	for _, demand := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			stuck := make(chan struct{})
			near := &holder{name: "near", path: &path{delay: time.Millisecond}, state: whole, disk: &fake{
				size: testSize, at: func(int64) uint64 { return 1 }, hook: func(int64, int64) error { <-stuck; return nil },
			}}
			far := &holder{name: "far", path: &path{delay: 10 * time.Millisecond}, disk: ones(), state: whole}
			p := newPool(t, Options{}, near, far)
			connected(t, p, 2)
			began := time.Now()
			checkOnes(t, get(t, p, 0, 16*Block, demand), 0)
			limit := 200 * time.Millisecond
			if !demand {
				limit = 2 * time.Second
			}
			if took := time.Since(began); took > limit {
				t.Errorf("the first took %v", took)
			}
			if demand {
				time.Sleep(100 * time.Millisecond)
				began = time.Now()
				get(t, p, 1<<20, Block, true)
				if took := time.Since(began); took != 20*time.Millisecond {
					t.Errorf("the second took %v", took)
				}
			}
			// The only one that hangs for a minute is hung up on.
			p.Remove("far")
			err := fetchOne(t.Context(), p, 2<<20, make([]byte, Block), true)
			if !errors.Is(err, ErrStalled) || !errors.Is(err, ErrNoHolder) {
				t.Error(err)
			}
			close(stuck)
		})
	}
}

// Also when a holder hangs, nobody is asked for what it lacks.
func TestHedgeOnlyWhoHasIt(t *testing.T) {
	for _, demand := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			near := &holder{name: "near", path: &path{delay: time.Millisecond}, state: whole, disk: &fake{
				size: testSize, at: func(int64) uint64 { return 1 }, hook: func(int64, int64) error { time.Sleep(30 * time.Second); return nil },
			}}
			far := &holder{name: "far", path: &path{delay: 10 * time.Millisecond}, state: whole, disk: &fake{size: testSize, at: func(int64) uint64 { return 7 }}}
			p := newPool(t, Options{}, near)
			p.Add(Holder{Name: "far", Dial: far.dial, Judge: func(State) (Lacks, error) {
				return func(int64) (bool, int64) { return true, testSize }, nil
			}})
			connected(t, p, 2)
			checkOnes(t, get(t, p, 0, 2*Block, demand), 0)
			if n := far.stats.Wants.Load(); n != 0 {
				t.Errorf("who lacks it was asked %d times", n)
			}
			p.Close()
			far.wg.Wait()
		})
	}
}

// When Fetch has returned, its buffer isn't touched.
func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		h := &holder{name: "a", path: &path{delay: time.Millisecond}, state: whole, disk: &fake{
			size: testSize, at: func(int64) uint64 { return 1 }, hook: func(int64, int64) error { <-stuck; return nil },
		}}
		p := newPool(t, Options{}, h)
		connected(t, p, 1)
		var bufs [][]byte
		for _, demand := range []bool{true, false} {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			b := make([]byte, MaxWant)
			began := time.Now()
			if err := fetchOne(ctx, p, 0, b, demand); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 50*time.Millisecond {
				t.Errorf("%v after %v", err, time.Since(began))
			}
			cancel()
			bufs = append(bufs, b)
		}
		close(stuck)
		checkOnes(t, get(t, p, 1<<20, MaxWant, true), 1<<20)
		checkOnes(t, get(t, p, 1<<20, MaxWant, false), 1<<20)
		for _, b := range bufs {
			if !bytes.Equal(b, make([]byte, MaxWant)) {
				t.Error("a buffer changed after Fetch")
			}
		}
		// What was abandoned is booked no more.
		p.mu.Lock()
		if l := p.links[0]; l.asked != [2]int{} || l.pace.flying != 0 || l.bytes != 0 {
			t.Errorf("%+v", l.estimate)
		}
		p.mu.Unlock()
	})
}

// Without a holder Fetch waits a little, and goes on when one comes.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &holder{name: "a", path: &path{delay: time.Millisecond}, disk: ones(), state: whole}
		p := newPool(t, Options{}, h)
		connected(t, p, 1)
		h.leave()
		synctest.Wait()
		for _, demand := range []bool{true, false} {
			began := time.Now()
			want := time.Second
			if !demand {
				want *= 30
			}
			if err := fetchOne(t.Context(), p, 0, make([]byte, Block), demand); !errors.Is(err, ErrNoHolder) || time.Since(began) != want {
				t.Errorf("%v after %v", err, time.Since(began))
			}
		}
		if i := p.Holders(); i[0].Connected || !errors.Is(i[0].Err, errAway) {
			t.Errorf("%+v", i)
		}
		o := &holder{name: "b", path: &path{delay: time.Millisecond}, disk: ones(), state: whole}
		time.AfterFunc(300*time.Millisecond, func() {
			p.Add(Holder{Name: "b", Dial: o.dial, Judge: func(State) (Lacks, error) {
				return func(off int64) (bool, int64) { return off < 4<<20, max(4<<20, off/(4<<20)*testSize) }, nil
			}})
		})
		began := time.Now()
		get(t, p, 8<<20, Block, false)
		if took := time.Since(began); took > 400*time.Millisecond {
			t.Errorf("a fetch that waited took %v", took)
		}
		// The background doesn't wait for what one of those who are there lacks.
		began = time.Now()
		if err := fetchOne(t.Context(), p, 0, make([]byte, Block), false); !errors.Is(err, ErrNoHolder) || time.Since(began) != 0 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		// The first comes back by itself.
		h.mu.Lock()
		h.away = false
		h.mu.Unlock()
		connected(t, p, 2)
		checkOnes(t, get(t, p, 0, MaxWant, true), 0)
		p.Close()
		o.wg.Wait()
		if err := fetchOne(t.Context(), p, 0, make([]byte, Block), true); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		p.Add(h.holder())
		if i := p.Holders(); len(i) != 0 {
			t.Errorf("%+v", i)
		}
	})
}

// Close ends a Fetch that waits.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, Options{Patience: time.Hour})
		p.Add(Holder{Name: "a", Dial: func(ctx context.Context) (Stream, error) { <-ctx.Done(); return nil, ctx.Err() }})
		done := make(chan error, 1)
		go func() { done <- fetchOne(context.Background(), p, 0, make([]byte, Block), true) }()
		synctest.Wait()
		p.Close()
		if err := <-done; !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
}

// Who is at another position than is wanted isn't asked, unless somebody who knows says so.
func TestJudge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := &holder{name: "a", path: &path{}, disk: ones(), state: State{Complete: true, Position: Position{Term: 3, Barrier: 99}}}
		p := newPool(t, Options{Patience: 10 * time.Second}, old)
		p.Add(Holder{Name: "a", Dial: old.dial})
		if err := fetchOne(t.Context(), p, 0, make([]byte, Block), true); !errors.Is(err, ErrNoHolder) {
			t.Error(err)
		}
		if i := p.Holders(); !errors.Is(i[0].Err, ErrNotHere) {
			t.Errorf("%+v", i)
		}
		old.become(whole, ones())
		checkOnes(t, get(t, p, 0, Block, true), 0)
	})
}

// Both streams of a link are answered from the same position, or it isn't used.
func TestMovesBetweenStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &holder{name: "a", path: &path{}, disk: ones(), state: whole}
		p := newPool(t, Options{})
		dials := 0
		var mu sync.Mutex
		p.Add(Holder{Name: "a", Judge: h.holder().Judge, Dial: func(ctx context.Context) (Stream, error) {
			mu.Lock()
			defer mu.Unlock()
			if dials++; dials <= 2 {
				h.become(State{Complete: true, Position: Position{Term: 3, Barrier: uint64(dials)}}, strict())
			} else {
				h.become(whole, ones())
			}
			return h.dial(ctx)
		}})
		checkOnes(t, get(t, p, 0, MaxWant, true), 0)
		checkOnes(t, get(t, p, 0, MaxWant, false), 0)
		if i := p.Holders(); i[0].Position != handOff || dials != 4 {
			t.Errorf("%d dials, %+v", dials, i)
		}
		p.Close()
		h.wg.Wait()
	})
}

func TestRefusals(t *testing.T) {
	good := func(Hello) (Reader, State, error) { return ones(), whole, nil }
	for name, c := range map[string]struct {
		change func(*Hello)
		open   func(Hello) (Reader, State, error)
		code   string
	}{
		"version":  {func(h *Hello) { h.Version = 2 }, good, replica.RefuseVersion},
		"size":     {func(h *Hello) { h.Size = 100 }, good, replica.RefuseHello},
		"position": {func(h *Hello) { h.At.Term = 5 }, good, replica.RefuseHello},
		"none":     {func(h *Hello) { h.At = Position{} }, good, replica.RefuseHello},
		"history": {func(*Hello) {}, func(Hello) (Reader, State, error) {
			return nil, State{}, &Refusal{Code: RefuseHistory, Text: "another history"}
		}, RefuseHistory},
		"partial": {func(*Hello) {}, func(Hello) (Reader, State, error) { return ones(), State{Position: handOff}, nil }, replica.RefuseBusy},
		"old": {func(*Hello) {}, func(Hello) (Reader, State, error) {
			return ones(), State{Complete: true, Position: Position{Term: 5}}, nil
		}, replica.RefuseOldTerm},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := wiretest.TCP(t)
			done := make(chan error, 1)
			go func() { done <- Serve(t.Context(), b, c.open, nil) }()
			h := hello()
			h.Version = Version
			c.change(&h)
			_, _, err := greet(t.Context(), a, h)
			var r *Refusal
			if !errors.As(err, &r) || r.Code != c.code {
				t.Errorf("the asker was told %v", err)
			}
			if err := <-done; !errors.As(err, &r) {
				t.Errorf("the holder said %v", err)
			}
		})
	}
}

// Serve ends in order when the asker does, and with its context.
func TestServeEnds(t *testing.T) {
	for name, pair := range wiretest.Kinds {
		t.Run(name, func(t *testing.T) {
			for _, order := range []bool{true, false} {
				a, b := pair(t)
				ctx, cancel := context.WithCancelCause(t.Context())
				done := make(chan error, 1)
				go func() {
					done <- Serve(ctx, b, func(Hello) (Reader, State, error) { return ones(), whole, nil }, nil)
				}()
				h := hello()
				h.Version = Version
				if _, _, err := greet(t.Context(), a, h); err != nil {
					t.Fatal(err)
				}
				want := error(nil)
				if order {
					if err := a.CloseWrite(); err != nil {
						t.Fatal(err)
					}
				} else {
					want = errAway
					cancel(want)
				}
				if err := <-done; !errors.Is(err, want) {
					t.Error(err)
				}
				cancel(nil)
			}
		})
	}
}
