package app

import (
	"context"
	"sync"
	"time"

	"tagalong.org/tagalong/vmdisk/throttle"
)

const (
	// courtesyRate is how many bytes a second comparisons may read on this device while guests use their disks; else there is no limit.
	courtesyRate = 32 << 20
	// courtesyLook is how often it is looked whether they do, and courtesyBusy is from how many requests a second on: a desktop that
	// only notes something now and then isn't disturbed.
	courtesyLook = 250 * time.Millisecond
	courtesyBusy = 64
)

// courtesy lets guests go first: whoever reads much in the background waits on it. Its methods may be called from any goroutine.
type courtesy struct {
	requests func() int64 // how many requests of guests this device has served
	limit    *throttle.Limit

	mu    sync.Mutex
	seen  int64
	at    time.Time // when seen was
	quiet time.Time // guests don't use their disks since then, as far as that was looked at
}

func newCourtesy(requests func() int64) *courtesy {
	return &courtesy{requests: requests, limit: throttle.New(courtesyRate)}
}

// Wait returns when n more bytes may be read, or with ctx's error.
func (c *courtesy) Wait(ctx context.Context, n int64) error {
	c.look(time.Now())
	return c.limit.Wait(ctx, n)
}

// busy says that guests use their disks, as far as that is known.
func (c *courtesy) busy() bool {
	c.look(time.Now())
	return c.limit.Rate() != 0
}

// calm says that guests haven't used their disks for so long. Who asks must go on asking, every second at least: what wasn't looked at counts as busy.
func (c *courtesy) calm(long time.Duration) bool {
	now := time.Now()
	c.look(now)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.limit.Rate() == 0 && now.Sub(c.quiet) >= long
}

// look sets the pace by what guests did since the last look. Where that was long ago it is taken for busy until the next one.
func (c *courtesy) look(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	since := now.Sub(c.at)
	if since < courtesyLook {
		return
	}
	before := c.seen
	c.seen, c.at = c.requests(), now
	rate := int64(courtesyRate)
	if since < 4*courtesyLook && float64(c.seen-before) < courtesyBusy*since.Seconds() {
		rate = 0
	} else {
		c.quiet = now
	}
	if c.limit.Rate() != rate {
		c.limit.Set(rate)
	}
}

// guestRequests is how many requests of guests were served by the disks that this device serves now.
func (e *Engine) guestRequests() (n int64) {
	for _, v := range e.allVMs() {
		v.mu.Lock()
		x := v.export
		v.mu.Unlock()
		if x != nil {
			s := x.server.Stats()
			n += s.Reads + s.Writes + s.Flushes + s.Trims + s.Zeroes
		}
	}
	return n
}
