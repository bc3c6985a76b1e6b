package app

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Background work is slow while guests use their disks, and at full speed again when they don't.
func TestCourtesyLetsGuestsGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var requests atomic.Int64
		c := newCourtesy(requests.Load)
		const piece = 1 << 20
		made := 0.0
		// moved is how much passes in a second in which a guest makes so many requests; no more than a fast drive gives.
		moved := func(perSecond int64) (n int64) {
			for end := time.Now().Add(time.Second); time.Now().Before(end); n += piece {
				before := time.Now()
				if err := c.Wait(t.Context(), piece); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Millisecond)
				made += float64(perSecond) * time.Since(before).Seconds()
				requests.Store(int64(made))
			}
			return n
		}
		if n := moved(0); n < courtesyRate || n > 1000*piece {
			t.Errorf("of a device that rests %d MiB are read in the first second", n>>20)
		}
		if n := moved(0); n < 900*piece {
			t.Errorf("of a device that rests %d MiB are read", n>>20)
		}
		moved(5000)
		if n := moved(5000); n > courtesyRate+8*piece || n < courtesyRate/2 {
			t.Errorf("beside busy guests %d MiB are read", n>>20)
		}
		moved(0)
		if n := moved(0); n < 900*piece {
			t.Errorf("after that %d MiB are read", n>>20)
		}
		if n := moved(courtesyBusy / 4); n < 900*piece {
			t.Errorf("beside a guest that does next to nothing %d MiB are read", n>>20)
		}
		time.Sleep(time.Hour)
		if n := moved(5000); n > courtesyRate+8*piece {
			t.Errorf("of what was long ago it is taken that guests rest: %d MiB are read", n>>20)
		}
	})
}

// Both ends of a comparison let their guests go first.
func TestBothEndsOfAComparisonAreCourteous(t *testing.T) {
	owner, other, id := filled(t)
	var looks [2]atomic.Int64
	for i, d := range []*device{owner, other} {
		d.stop()
		d.prepare = func(e *Engine) {
			e.courtesy = newCourtesy(func() int64 { looks[i].Add(1); return e.guestRequests() })
		}
	}
	loseDirtySet(t, owner, id)
	owner.start()
	other.start()
	owner.live("Work")
	same(t, owner, other, id)
	if owner.engine.vm(id).feed(other.engine.host.ID()).compared.Read.Load() == 0 {
		t.Fatal("nothing was compared")
	}
	for i, d := range []*device{owner, other} {
		if looks[i].Load() == 0 {
			t.Errorf("%s doesn't look what its guests do", d.name)
		}
	}
}
