// Package throttle limits how many bytes a second background work may move: what copies a cut, merges layers, hydrates,
// scrubs or exports. The guest's own reads and writes never pass through it.
//
// A Limit is a token bucket that may go into debt: a request passes as soon as there is no debt, whatever its size, and
// the next one waits until it is paid for. So big and small requests get the same rate, and nothing has to be cut into
// pieces for it. A new rate counts at once, also for those who wait already; this is why golang.org/x/time/rate
// isn't used, where a waiter sleeps as long as the rate at its arrival wanted.
//
// Tests: go test ./vmdisk/throttle.
package throttle

import (
	"context"
	"sync"
	"time"
)

// burst is for how long at most unused bytes are saved up.
const burst = 50 * time.Millisecond

// Limit is a rate in bytes per second, shared by all who Wait on it. A nil Limit limits nothing. Its methods may be called
// from any goroutine.
type Limit struct {
	mu      sync.Mutex
	rate    int64   // bytes per second, 0 is without limit
	level   float64 // bytes that may pass at once; below 0 it is the debt
	at      time.Time
	changed chan struct{} // closed by Set
}

// New limits to rate bytes per second; 0 or less is no limit, until Set.
func New(rate int64) *Limit {
	return &Limit{rate: max(rate, 0), at: time.Now(), changed: make(chan struct{})}
}

// Set changes the rate, in bytes per second; 0 or less is no limit.
func (l *Limit) Set(rate int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fill()
	l.rate = max(rate, 0)
	close(l.changed)
	l.changed = make(chan struct{})
}

// Rate in bytes per second; 0 is no limit.
func (l *Limit) Rate() int64 {
	if l == nil {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rate
}

// Wait returns when n more bytes may be moved, or with ctx's error, and then they don't count.
func (l *Limit) Wait(ctx context.Context, n int64) error {
	if err := ctx.Err(); err != nil || l == nil {
		return err
	}
	for {
		debt, changed := l.take(n)
		if debt <= 0 {
			return nil
		}
		t := time.NewTimer(debt)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-changed:
			t.Stop()
		case <-t.C:
		}
	}
}

// take lets n bytes pass if there is no debt; otherwise it says how long it takes to pay it at the present rate.
func (l *Limit) take(n int64) (debt time.Duration, changed chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fill()
	switch {
	case l.rate == 0:
		l.level = 0
	case l.level < 0:
		// At least a little, so that rounding never makes a waiter spin; at most an hour, which can't overflow.
		wait := min(-l.level/float64(l.rate), time.Hour.Seconds())
		return max(time.Duration(wait*float64(time.Second)), 10*time.Microsecond), l.changed
	default:
		l.level -= float64(n)
	}
	return 0, nil
}

// fill adds what the time since the last call allows. The caller holds mu.
func (l *Limit) fill() {
	now := time.Now()
	l.level = min(l.level+now.Sub(l.at).Seconds()*float64(l.rate), burst.Seconds()*float64(l.rate))
	l.at = now
}
