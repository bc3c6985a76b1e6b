package handoff

import (
	"context"
	"sync"
)

// Gate controls how much of a memory stream may pass. It starts parked. All
// methods may be called from anywhere at any time.
//
// The hypervisor goes on running its guest while it can't write, so a parked
// gate holds a hand-off just before its end; but once the hypervisor has been
// told to finish, it must never be stalled: Release the gate before.
type Gate struct {
	mu       sync.Mutex
	open     bool
	released bool
	credit   int64 // what may pass while parked
	weigh    func(p []byte) int64
	changed  chan struct{} // closed and replaced when more may pass, or all has
}

// NewGate returns a parked gate. weigh says what a piece of the stream counts, at least about a byte's worth for each byte; nil counts bytes. It is called by one
// goroutine, for each piece in order.
func NewGate(weigh func(p []byte) int64) *Gate {
	if weigh == nil {
		weigh = func(p []byte) int64 { return int64(len(p)) }
	}
	return &Gate{weigh: weigh, changed: make(chan struct{})}
}

// Open lets everything pass until Park.
func (g *Gate) Open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = true
	g.wakeLocked()
}

// Park lets nothing pass any more, and forgets what was allowed. The piece whose
// read is under way (at most 64 KiB) still passes. After Release it does
// nothing and returns false.
func (g *Gate) Park() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.released {
		return false
	}
	g.open, g.credit = false, 0
	return true
}

// Allow lets so much pass from now on although the gate is parked, as NewGate's weigh counts it, in place of what
// was allowed before and hasn't passed.
func (g *Gate) Allow(n int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.credit = max(n, 0)
	g.wakeLocked()
}

// Spent waits until everything allowed has passed, the gate opens, or ctx ends; whichever
// it is, the caller looks for itself.
func (g *Gate) Spent(ctx context.Context) {
	for {
		g.mu.Lock()
		over, changed := g.open || g.credit == 0, g.changed
		g.mu.Unlock()
		if over {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// Release opens the gate for good.
func (g *Gate) Release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open, g.released = true, true
	g.wakeLocked()
}

func (g *Gate) wakeLocked() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// allowance waits until something may pass and returns how much, at most limit.
func (g *Gate) allowance(ctx context.Context, limit int) (int, error) {
	for {
		g.mu.Lock()
		open, credit, changed := g.open, g.credit, g.changed
		g.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			return 0, context.Cause(ctx)
		case open:
			return limit, nil
		case credit > 0:
			return int(min(credit, int64(limit))), nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// passed takes what a piece weighs off what was allowed. An open gate doesn't count.
func (g *Gate) passed(p []byte) {
	n := g.weigh(p)
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.open {
		g.credit = max(0, g.credit-n)
		if g.credit == 0 {
			g.wakeLocked()
		}
	}
}
