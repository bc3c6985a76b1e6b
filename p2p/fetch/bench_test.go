package fetch

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tagalong.org/tagalong/p2p/wire/wiretest"
)

// static is a Reader that costs next to nothing.
type static struct{ content []byte }

func (s static) ReadAt(p []byte, _ int64) error { copy(p, s.content); return nil }

func benchPool(b *testing.B, n int) *Pool {
	s := static{make([]byte, MaxWant)}
	for i := range s.content {
		s.content[i] = byte(i)%251 + 1
	}
	p, err := NewPool(hello(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	b.Cleanup(func() { p.Close(); wg.Wait() })
	for i := range n {
		p.Add(Holder{Name: string(rune('a' + i)), Dial: func(context.Context) (Stream, error) {
			x, y := wiretest.TCP(b)
			wg.Go(func() {
				_ = Serve(b.Context(), y, func(Hello) (Reader, State, error) { return s, whole, nil }, nil)
			})
			return x, nil
		}})
	}
	connected(b, p, n)
	return p
}

// pull fetches in the background, like a Hydrator, until more says no.
func pull(b *testing.B, p *Pool, more func() bool) {
	var wg sync.WaitGroup
	var next atomic.Int64
	for range 8 {
		wg.Go(func() {
			buf := make([]byte, MaxWant)
			for more() {
				if err := fetchOne(context.Background(), p, next.Add(MaxWant)%(testSize-MaxWant), buf, false); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkBackground is how fast 256 KiB after 256 KiB comes over TCP on the loopback interface, both ends in one process; bare is
// what the connection carries.
func BenchmarkBackground(b *testing.B) {
	b.Run("bare", func(b *testing.B) {
		x, y := wiretest.TCP(b)
		b.SetBytes(MaxWant)
		var wg sync.WaitGroup
		wg.Go(func() {
			p := make([]byte, MaxWant)
			for range b.N {
				if _, err := y.Write(p); err != nil {
					b.Error(err)
					return
				}
			}
		})
		p := make([]byte, MaxWant)
		for range b.N {
			if _, err := io.ReadFull(x, p); err != nil {
				b.Fatal(err)
			}
		}
		wg.Wait()
	})
	for _, n := range []int{1, 3} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := benchPool(b, n)
			b.SetBytes(MaxWant)
			left := atomic.Int64{}
			left.Store(int64(b.N))
			b.ResetTimer()
			pull(b, p, func() bool { return left.Add(-1) >= 0 })
		})
	}
}

// BenchmarkDemand is how long 4 KiB take that somebody waits for, with and without the background beside it.
func BenchmarkDemand(b *testing.B) {
	for _, beside := range []bool{false, true} {
		name := "idle"
		if beside {
			name = "beside"
		}
		b.Run(name, func(b *testing.B) {
			p := benchPool(b, 1)
			var wg sync.WaitGroup
			var stop atomic.Bool
			if beside {
				wg.Go(func() { pull(b, p, func() bool { return !stop.Load() }) })
			}
			buf := make([]byte, Block)
			took := make([]time.Duration, 0, b.N)
			b.ResetTimer()
			for range b.N {
				began := time.Now()
				if err := fetchOne(context.Background(), p, testSize-Block, buf, true); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(began))
			}
			b.StopTimer()
			stop.Store(true)
			wg.Wait()
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
		})
	}
}
