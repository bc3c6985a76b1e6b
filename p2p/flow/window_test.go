package flow

import (
	"math/rand/v2"
	"testing"
	"time"
)

// The window finds a link's rate and trip, and follows when they change.
func TestWindow(t *testing.T) {
	var w Window
	now := time.Duration(0)
	type packet struct {
		end int64
		at  time.Duration
	}
	var queue []packet
	busy := time.Duration(0)
	run := func(rate float64, trip, until time.Duration) (sent int64) {
		before := w.sent
		for now < until {
			for w.Room() >= 4096 {
				w.Send(now, 4096)
				busy = max(busy, now) + time.Duration(4096/rate*1e9)
				queue = append(queue, packet{w.sent, busy + trip})
			}
			if len(queue) == 0 {
				t.Fatal("nothing is on its way, and nothing may be sent")
			}
			now = max(now, queue[0].at)
			if !w.Ack(now, queue[0].end) {
				t.Fatal("an acknowledgement is refused")
			}
			queue = queue[1:]
		}
		return w.sent - before
	}
	for i, c := range []struct {
		rate float64
		trip time.Duration
	}{{875e3, 40 * time.Millisecond}, {20e6, 40 * time.Millisecond}, {200e3, 100 * time.Millisecond}, {875e3, 40 * time.Millisecond}} {
		start := now
		run(c.rate, c.trip, start+40*time.Second)
		sent := run(c.rate, c.trip, start+80*time.Second)
		if use := float64(sent) / 40 / c.rate; use < 0.95 {
			t.Errorf("link %d: use %.3f, window %d", i, use, w.Limit())
		}
		if holds := c.rate * c.trip.Seconds(); float64(w.Limit()) > max(2.2*holds, minWindow)+4*AckEvery {
			t.Errorf("link %d holds %.0f, window %d", i, holds, w.Limit())
		}
	}
	if w.Ack(now, w.sent+1) || w.Ack(now, w.got-1) {
		t.Error("an impossible acknowledgement was taken")
	}
}

// An end that is held up now and then, and says then at once what came meanwhile, isn't taken for a faster link.
func TestWindowOfAnEndThatIsHeldUp(t *testing.T) {
	const trip = 40 * time.Millisecond
	rate := 875e3
	type packet struct {
		end int64
		at  time.Duration
	}
	for _, held := range []time.Duration{5 * time.Millisecond, 20 * time.Millisecond, 40 * time.Millisecond} {
		r := rand.New(rand.NewPCG(uint64(held), 3))
		var w Window
		var queue []packet
		now, busy, stalled, sum, looks := time.Duration(0), time.Duration(0), time.Duration(0), 0.0, 0.0
		for now < 60*time.Second {
			for w.Room() >= 4096 {
				w.Send(now, 4096)
				busy = max(busy, now) + time.Duration(4096/rate*1e9)
				queue = append(queue, packet{w.sent, busy + trip})
			}
			now = max(now, queue[0].at, stalled)
			if r.IntN(20) == 0 {
				stalled = now + time.Duration(r.Int64N(int64(held)))
				continue
			}
			if !w.Ack(now, queue[0].end) {
				t.Fatal("an acknowledgement is refused")
			}
			queue = queue[1:]
			if sum += float64(w.Limit()); !w.draining {
				looks++
			}
		}
		holds := rate * trip.Seconds()
		if mean := sum / looks; mean > 2.2*holds+2*AckEvery {
			t.Errorf("held up for up to %v: a window of %.0f where the link holds %.0f", held, mean, holds)
		}
		use := float64(w.got) / 60 / rate
		t.Logf("held up for up to %v: use %.3f, window %.0f of %.0f", held, use, sum/looks, holds)
	}
}
