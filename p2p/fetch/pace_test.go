package fetch

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// fetchAll fetches n bytes in the background like a Hydrator, and says how long it took.
func fetchAll(t testing.TB, p *Pool, n int64) time.Duration {
	var next atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for range 8 {
		wg.Go(func() {
			b := make([]byte, MaxWant)
			for {
				off := next.Add(MaxWant) - MaxWant
				if off >= n {
					return
				}
				if err := fetchOne(t.Context(), p, off%testSize, b, false); err != nil {
					t.Error(err)
					return
				}
				checkOnes(t, b, off%testSize)
			}
		})
	}
	wg.Wait()
	return time.Since(began)
}

// All links are used, each as much as it carries.
func TestBackgroundIsSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rates := []float64{12e6, 4e6, 1e6}
		var holders []*holder
		var sum float64
		for i, rate := range rates {
			sum += rate
			holders = append(holders, &holder{
				name: string(rune('a' + i)), path: &path{delay: 5 * time.Millisecond, rate: rate}, disk: ones(), state: whole,
			})
		}
		p := newPool(t, Options{}, holders...)
		connected(t, p, 3)
		const n = 64 << 20
		took := fetchAll(t, p, n)
		if use := n / took.Seconds() / sum; use < 0.85 {
			t.Errorf("%.2f of what the links carry", use)
		}
		for i, h := range holders {
			share, want := float64(h.path.carried(1))/n, rates[i]/sum
			t.Logf("holder %d: %.3f of the bytes, %.3f of the rate", i, share, want)
			if share < 0.7*want || share > 1.4*want {
				t.Errorf("holder %d gave %.3f of the bytes with %.3f of the rate", i, share, want)
			}
		}
	})
}

// On a slow link the background fills it, and a demand hardly notices.
func TestDemandBesideBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &holder{name: "a", path: &path{delay: 20 * time.Millisecond, rate: 7e6 / 8}, disk: ones(), state: whole}
		p := newPool(t, Options{}, h)
		connected(t, p, 1)
		demand := func() (sum time.Duration) {
			for range 100 {
				time.Sleep(73 * time.Millisecond)
				began := time.Now()
				get(t, p, 60<<20, Block, true)
				sum += time.Since(began)
			}
			return sum / 100
		}
		idle := demand()
		var busy time.Duration
		var wg sync.WaitGroup
		wg.Go(func() {
			time.Sleep(5 * time.Second)
			busy = demand()
		})
		const n = 24 << 20
		took := fetchAll(t, p, n)
		wg.Wait()
		use := float64(n) / took.Seconds() / h.path.rate
		t.Logf("a demand took %v idle, %v beside the background, which used %.3f of the link", idle, busy, use)
		if busy > idle*16/10 {
			t.Errorf("a demand took %v idle and %v beside the background", idle, busy)
		}
		if use < 0.93 {
			t.Errorf("the background used %.3f of the link", use)
		}
	})
}

// What waits in the path's buffers doesn't grow while nobody but the background asks: the round trip is learnt anew.
func TestStandingStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &holder{name: "a", path: &path{delay: 20 * time.Millisecond, rate: 7e6 / 8}, disk: ones(), state: whole}
		p := newPool(t, Options{}, h)
		connected(t, p, 1)
		// When in the rhythm of the background's pieces a demand comes is chance, so there are some.
		const demands = 11
		var took time.Duration
		var wg sync.WaitGroup
		wg.Go(func() {
			time.Sleep(40 * time.Second)
			for i := range int64(demands) {
				time.Sleep(2917 * time.Millisecond)
				began := time.Now()
				get(t, p, 60<<20+i*Block, Block, true)
				took += time.Since(began)
			}
		})
		const n = 64 << 20
		use := n / fetchAll(t, p, n).Seconds() / h.path.rate
		wg.Wait()
		took /= demands
		t.Logf("a demand took %v on average, the background used %.3f of the link", took, use)
		if took > 75*time.Millisecond || use < 0.95 {
			t.Errorf("a demand took %v on average, the background used %.3f of the link", took, use)
		}
	})
}

// A fast long link is filled too, as far as its fetches go.
func TestLongLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &holder{name: "a", path: &path{delay: 12500 * time.Microsecond, rate: 50e6}, disk: ones(), state: whole}
		p := newPool(t, Options{}, h)
		connected(t, p, 1)
		const n = 96 << 20
		if use := n / fetchAll(t, p, n).Seconds() / 50e6; use < 0.8 {
			t.Errorf("%.2f of the link", use)
		}
	})
}

// On a slow link who asked first is served first: a demand may wait for what is on its way in the background.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &holder{name: "a", path: &path{delay: 20 * time.Millisecond, rate: 7e6 / 8}, disk: ones(), state: whole}
		p := newPool(t, Options{}, h)
		connected(t, p, 1)
		fetchAll(t, p, 4<<20) // the pace is known
		var wg sync.WaitGroup
		var mu sync.Mutex
		var order []int
		for i := range 8 {
			wg.Go(func() {
				get(t, p, int64(i)*MaxWant, MaxWant, false)
				mu.Lock()
				defer mu.Unlock()
				order = append(order, i)
			})
			synctest.Wait()
		}
		wg.Wait()
		if !slices.IsSorted(order) {
			t.Errorf("served in the order %v", order)
		}
	})
}
