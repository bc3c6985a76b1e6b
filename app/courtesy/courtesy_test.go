package courtesy_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"tagalong.org/tagalong/app/courtesy"
)

// guest is one that waits for its disk for a part of each period, with so many requests.
type guest struct {
	period, waits time.Duration
	requests      int64         // a period
	took          time.Duration // that their disk needs, a period
}

// served is what it had after so long.
func (g guest) served(after time.Duration) courtesy.Served {
	if g.period == 0 {
		return courtesy.Served{}
	}
	whole, in := int64(after/g.period), after%g.period
	part := min(1, float64(in)/float64(max(g.waits, 1)))
	s := courtesy.Served{
		Requests: whole*g.requests + int64(part*float64(g.requests)),
		Took:     time.Duration(whole)*g.took + time.Duration(part*float64(g.took)),
	}
	if in < g.waits && g.requests == 1 {
		s.Open = 1
	}
	return s
}

// copies is what is copied beside the guest in so long, of a source that gives a piece in so long, and which part of the time while the guest waits something
// is read.
func copies(g guest, piece int64, takes, long time.Duration) (bytes int64, disturbed float64) {
	c := courtesy.Controller{Rules: courtesy.Usual}
	start := time.Now()
	var waited, read time.Duration
	// What a piece costs beside being read holds its reader up, too.
	takes += time.Duration(float64(piece) * courtesy.Usual.PerByte * float64(time.Second))
	for now := time.Duration(0); now < long; {
		c.Look(start.Add(now), g.served(now))
		step := c.Delay()
		reads := step == 0
		if reads {
			step = takes
			bytes += piece
			c.Took(piece, takes-time.Duration(float64(piece)*courtesy.Usual.PerByte*float64(time.Second)))
		}
		for end := now + step; now < end; now += 50 * time.Microsecond {
			if g.period > 0 && now%g.period < g.waits {
				waited += 50 * time.Microsecond
				if reads {
					read += 50 * time.Microsecond
				}
			}
		}
	}
	if waited == 0 {
		return bytes, 0
	}
	return bytes, float64(read) / float64(waited)
}

// Whatever guests do they aren't disturbed for more than a part of the time, and what they leave is used.
func TestShareOfTheTime(t *testing.T) {
	const ms, piece = time.Millisecond, 256 << 10
	memory, drive := 60*time.Microsecond, 12*ms
	for name, c := range map[string]struct {
		guest       guest
		takes       time.Duration
		least, most float64 // MB/s
		disturbs    float64 // at most, of the time for which the guest waits
	}{
		"nobody":                         {guest{}, memory, 290, 320, 0},
		"nobody, a drive":                {guest{}, drive, 19, 22, 0},
		"as fast as it goes":             {guest{ms, ms, 30, 300 * time.Microsecond}, memory, 10, 14, 0.05},
		"as fast as it goes, a drive":    {guest{8 * ms, 8 * ms, 1, 8 * ms}, drive, 0.7, 1.1, 0.055},
		"flush after flush":              {guest{ms / 2, ms / 2, 2, 350 * time.Microsecond}, memory, 10, 18, 0.07},
		"a slow flush, and another":      {guest{time.Second, time.Second, 1, time.Second}, memory, 10, 14, 0.05},
		"a hundred small ones a second":  {guest{10 * ms, 100 * time.Microsecond, 1, 20 * time.Microsecond}, memory, 100, 320, 1},
		"a thousand small ones a second": {guest{ms, 100 * time.Microsecond, 2, 20 * time.Microsecond}, memory, 15, 40, 0.2},
		"in bursts, half of the time":    {guest{400 * ms, 200 * ms, 6000, 60 * ms}, memory, 100, 160, 0.08},
		"in bursts, now and then":        {guest{time.Second, 50 * ms, 1500, 15 * ms}, memory, 250, 320, 0.2},
	} {
		t.Run(name, func(t *testing.T) {
			n, disturbed := copies(c.guest, piece, c.takes, 20*time.Second)
			rate := float64(n) / 20 / 1e6
			t.Logf("%.1f MB/s, %.3f of the guest's waits", rate, disturbed)
			if rate < c.least || rate > c.most {
				t.Errorf("%.1f MB/s, want %g to %g", rate, c.least, c.most)
			}
			if disturbed > c.disturbs {
				t.Errorf("%.3f of the time for which the guest waits something is read, want %g at most", disturbed, c.disturbs)
			}
		})
	}
}

// However slow the drive and busy the guests, everything ends.
func TestFloor(t *testing.T) {
	for _, takes := range []time.Duration{time.Millisecond, 100 * time.Millisecond, 400 * time.Millisecond} {
		busy := guest{time.Millisecond, time.Millisecond, 100, time.Millisecond}
		n, _ := copies(busy, 64<<10, takes, time.Minute)
		if least := int64(time.Minute / (takes + 64*time.Millisecond) * (64 << 10)); n < least*9/10 {
			t.Errorf("%d bytes in a minute, where a piece takes %s, want %d", n, takes, least)
		}
	}
}

// A disk that isn't served any more, and a clock that is set back, are no load and no rest.
func TestOddNumbers(t *testing.T) {
	c := courtesy.Controller{Rules: courtesy.Usual}
	now := time.Now()
	if c.Look(now, courtesy.Served{Requests: 1e6, Took: time.Hour}); c.Load() != 1 || !c.Busy() {
		t.Error("guests of which nothing is known count as resting")
	}
	for range 100 {
		now = now.Add(10 * time.Millisecond)
		c.Look(now, courtesy.Served{})
	}
	if c.Load() > 0.01 || c.Busy() {
		t.Errorf("the load of a disk that isn't served any more is %g", c.Load())
	}
	if calm := c.Calm(now); calm <= 0 || calm > time.Second {
		t.Errorf("calm for %s", calm)
	}
	c.Look(now.Add(-time.Hour), courtesy.Served{})
	if c.Load() != 1 {
		t.Error("with a clock that was set back guests count as resting")
	}
}

// Background work is slow while guests use their disks, and at full speed again when they don't.
func TestGuestsGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		made, rate, since := 0.0, 0.0, time.Now() // requests until then, and how many a second since
		c := courtesy.New(courtesy.Usual, func() courtesy.Served {
			n := made + rate*time.Since(since).Seconds()
			return courtesy.Served{Requests: int64(n), Took: time.Duration(n * 30e3)}
		})
		const piece = 1 << 20
		// moved is how much passes in a second in which a guest makes so many requests; no more than a fast drive gives.
		moved := func(perSecond float64) (n int64) {
			made, rate, since = made+rate*time.Since(since).Seconds(), perSecond, time.Now()
			for end := time.Now().Add(time.Second); time.Now().Before(end); n += piece {
				if err := c.Wait(t.Context(), piece); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Millisecond)
			}
			return n
		}
		rests := func(when string, perSecond float64) {
			t.Helper()
			if n := moved(perSecond); n < 900*piece {
				t.Errorf("%s %d MiB are read", when, n>>20)
			}
		}
		const busy, most = 40000, 16 * piece
		moved(0)
		rests("of a device that rests", 0)
		moved(busy)
		if n := moved(busy); n > most || n < most/4 {
			t.Errorf("beside busy guests %d MiB are read", n>>20)
		}
		if !c.Busy() || c.Calm() != 0 {
			t.Error("guests don't count as busy")
		}
		moved(0)
		rests("after that", 0)
		rests("beside a guest that does next to nothing", courtesy.Busy/4)
		if c.Busy() || c.Calm() < time.Second {
			t.Errorf("guests count as busy, calm for %s", c.Calm())
		}
		time.Sleep(time.Hour)
		moved(busy)
		if n := moved(busy); n > most {
			t.Errorf("of what was long ago it is taken that guests rest: %d MiB are read", n>>20)
		}
	})
}

// Who waits stops at once when its work is called off.
func TestCallOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := courtesy.Usual
		r.Floor, r.PerByte = 1, 1
		c := courtesy.New(r, func() courtesy.Served { return courtesy.Served{Open: 1} })
		ctx, cancel := context.WithCancel(t.Context())
		if err := c.Wait(ctx, 1<<30); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		time.AfterFunc(time.Minute, cancel)
		if err := c.Wait(ctx, 1); !errors.Is(err, context.Canceled) || time.Since(began) != time.Minute {
			t.Errorf("%v after %s", err, time.Since(began))
		}
	})
}
