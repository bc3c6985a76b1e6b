package courtesy

import (
	"context"
	"sync"
	"time"
)

// Courtesy is what all background work of a device asks. Its methods may be called from any goroutine; those but Took not by who
// holds what served needs.
type Courtesy struct {
	served func() Served

	mu sync.Mutex
	c  Controller
}

// New goes by what guests had, as served says.
func New(r Rules, served func() Served) *Courtesy {
	return &Courtesy{served: served, c: Controller{Rules: r}}
}

// look has the rule know what guests do now. It returns with mu held.
func (c *Courtesy) look() {
	now := time.Now()
	c.mu.Lock()
	if !c.c.Due(now) {
		return
	}
	c.mu.Unlock()
	s := c.served()
	c.mu.Lock()
	if c.c.Due(now) { // else somebody else has looked meanwhile
		c.c.Look(now, s)
	}
}

// Requests is how many requests guests had so far.
func (c *Courtesy) Requests() int64 { return c.served().Requests }

// Busy says that guests use their disks, as far as that is known.
func (c *Courtesy) Busy() bool {
	c.look()
	defer c.mu.Unlock()
	return c.c.Busy()
}

// Calm is how long guests haven't been busy, as far as that is known: who wants to know looks at least every second.
func (c *Courtesy) Calm() time.Duration {
	c.look()
	defer c.mu.Unlock()
	return c.c.Calm(time.Now())
}

// Delay implements vmdisk.Turns.
func (c *Courtesy) Delay() time.Duration {
	c.look()
	defer c.mu.Unlock()
	return c.c.Delay()
}

// Took implements vmdisk.Turns.
func (c *Courtesy) Took(n int64, d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.c.Took(n, d)
}

// Turn returns when something may be read, or with ctx's error.
func (c *Courtesy) Turn(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		d := c.Delay()
		if d == 0 {
			return nil
		}
		t := time.NewTimer(d)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
	}
}

// Wait returns when n more bytes may be read, or with ctx's error, and then they don't count. It is for who doesn't know how long reading takes.
func (c *Courtesy) Wait(ctx context.Context, n int64) error {
	err := c.Turn(ctx)
	if err == nil {
		c.Took(n, 0)
	}
	return err
}
