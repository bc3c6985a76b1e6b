package throttle

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// took is how long n bytes in pieces take, in the fake time of a bubble.
func took(t *testing.T, l *Limit, n, piece int64) time.Duration {
	t.Helper()
	from := time.Now()
	for ; n > 0; n -= piece {
		if err := l.Wait(t.Context(), piece); err != nil {
			t.Fatal(err)
		}
	}
	return time.Since(from)
}

// Whatever the size of the pieces, the rate is kept: all but the last piece and the burst are paid for.
func TestRate(t *testing.T) {
	for _, piece := range []int64{1, 4096, 1 << 20} {
		synctest.Test(t, func(t *testing.T) {
			const rate, n = 1 << 20, 10 << 20
			if piece == 1 {
				if d := took(t, New(100), 1000, 1); d < 9900*time.Millisecond || d > 10*time.Second {
					t.Fatalf("bytes one by one took %s", d)
				}
				return
			}
			if d := took(t, New(rate), n, piece); d < 8900*time.Millisecond || d > 10*time.Second {
				t.Fatalf("pieces of %d took %s", piece, d)
			}
		})
	}
}

// Rest is saved up for a moment only.
func TestBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(1000)
		time.Sleep(time.Hour)
		if d := took(t, l, 1000, 10); d < 900*time.Millisecond {
			t.Fatalf("after an hour of rest 1 s worth took %s", d)
		}
	})
}

func TestUnlimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if d := took(t, nil, 1<<40, 1<<30); d != 0 || (*Limit)(nil).Rate() != 0 {
			t.Fatal("nil limits")
		}
		l := New(-5)
		if d := took(t, l, 1<<40, 1<<30); d != 0 || l.Rate() != 0 {
			t.Fatal("0 limits")
		}
		l.Set(1 << 20) // what passed without a limit is no debt
		if d := took(t, l, 1<<20, 1<<10); d > time.Second {
			t.Fatalf("old debt: %s", d)
		}
	})
}

// Several share one rate.
func TestShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, from := New(1<<20), time.Now()
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() { took(t, l, 1<<20, 64<<10) })
		}
		wg.Wait()
		if d := time.Since(from); d < 7800*time.Millisecond || d > 8*time.Second {
			t.Fatalf("8 s worth took %s", d)
		}
	})
}

// A new rate counts for those who wait already.
func TestSetWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, from := New(1), time.Now()
		if err := l.Wait(t.Context(), 1<<20); err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- l.Wait(t.Context(), 1) }()
		synctest.Wait()
		l.Set(1 << 20)
		if err := <-done; err != nil || time.Since(from) > 2*time.Second {
			t.Fatalf("%v after %s", err, time.Since(from))
		}
		if l.Rate() != 1<<20 {
			t.Fatal("rate")
		}
	})
}

func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Wait(ctx, 1<<20); err != nil {
			t.Fatal(err)
		}
		if err := l.Wait(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if err := l.Wait(ctx, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if err := (*Limit)(nil).Wait(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	})
}
