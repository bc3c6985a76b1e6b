package limits

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Pushes get the same, though one of them wants sixteen times as much at once; together they get the rate.
func TestPaceIsFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace()
		p.set(100 << 10)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var group sync.WaitGroup
		var got [3]int64
		for i, piece := range []int64{4 << 10, 64 << 10, 12 << 10} {
			group.Go(func() {
				for p.Wait(ctx, piece) == nil {
					got[i] += piece
				}
			})
		}
		group.Wait()
		sum := got[0] + got[1] + got[2]
		if least, most := int64(57*100<<10), int64(61*100<<10); sum < least || sum > most {
			t.Errorf("%d bytes in a minute, want %d to %d", sum, least, most)
		}
		for i, n := range got {
			if share := float64(n) / float64(sum); share < 0.31 || share > 0.36 {
				t.Errorf("push %d got %.2f of it: %v", i, share, got)
			}
		}
	})
}

// A new rate counts for those who wait, also in line; no limit lets all go.
func TestPaceChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace()
		p.set(1 << 10)
		began := time.Now()
		var group sync.WaitGroup
		for range 3 {
			group.Go(func() {
				if err := p.Wait(t.Context(), 1<<20); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		p.set(1 << 20)
		time.Sleep(time.Second)
		synctest.Wait()
		p.set(0)
		group.Wait()
		if took := time.Since(began); took > 12*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// Who is called off goes at once, has the turn or waits for it, and keeps it from nobody.
func TestPaceIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace()
		p.set(1 << 10)
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		for range 3 {
			group.Go(func() {
				if err := p.Wait(ctx, 1<<30); !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		began := time.Now()
		cancel()
		group.Wait()
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v", took)
		}
		if err := p.Wait(t.Context(), 8<<10); err != nil || time.Since(began) > time.Minute {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if err := p.Wait(ctx, 0); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
