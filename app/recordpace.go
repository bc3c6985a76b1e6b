package app

import (
	"context"
	"sync"
	"time"

	"tagalong.org/tagalong/vmdisk/throttle"
)

const (
	// recordRate is how many bytes a second the disks of this device may read, all together, to record hashes of what has been quiet, recordBusy
	// is that while guests use their disks, and recordCalm once neither guests nor other devices have used any for recordLull: then it goes as fast as the
	// background verification, a terabyte in 4.6 hours. Hashing takes about 0.8 ms of one core for each MiB: 5 % of it at most.
	recordRate = 8 << 20
	recordBusy = 1 << 20
	recordCalm = 64 << 20
	recordLull = 30 * time.Second
	// recordLook is how often it is looked whether this device is on its battery still: then nothing is recorded.
	recordLook = 10 * time.Second
)

// recordPace is the vmdisk.Pace of all disks' recording. Its method may be called from any goroutine.
type recordPace struct {
	battery func() bool
	busy    func() bool                   // guests use their disks
	calm    func(long time.Duration) bool // nobody has used any for so long
	limit   *throttle.Limit
}

func (e *Engine) newRecordPace() *recordPace {
	lull, guests := &lull{moved: e.traffic}, e.courtesy
	calm := func(long time.Duration) bool {
		still := lull.calm(time.Now(), long) // it must be looked at in any case
		return guests.Calm() >= long && still
	}
	return &recordPace{e.onBattery, guests.Busy, calm, throttle.New(recordRate)}
}

// Wait implements vmdisk.Pace.
func (p *recordPace) Wait(ctx context.Context, n int64) error {
	for p.battery() {
		t := time.NewTimer(recordLook)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
	}
	rate, calm := int64(recordRate), p.calm(recordLull)
	switch {
	case p.busy():
		rate = recordBusy
	case calm:
		rate = recordCalm
	}
	if p.limit.Rate() != rate {
		p.limit.Set(rate)
	}
	return p.limit.Wait(ctx, n)
}

const (
	// lullLook is how often a lull looks at most, and lullGap for how long it may not have been looked at: what was longer ago isn't known.
	lullLook = time.Second
	lullGap  = 5 * time.Second
	// lullRate is from how many bytes a second on that something moves.
	lullRate = 2 << 20
)

// lull knows since when next to nothing has moved between this device and the others: a first copy, a push or a hydration reads and writes disks here.
type lull struct {
	moved func() int64 // so far, in bytes

	mu     sync.Mutex
	at     time.Time
	before int64
	since  time.Time
}

// calm says that it has lasted for so long.
func (l *lull) calm(now time.Time, long time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if took := now.Sub(l.at); took >= lullLook {
		n := l.moved()
		if took > lullGap || n < l.before || float64(n-l.before) > lullRate*took.Seconds() {
			l.since = now
		}
		l.at, l.before = now, n
	}
	return now.Sub(l.since) >= long
}

// traffic is how many bytes have gone to and from the devices that are connected.
func (e *Engine) traffic() (n int64) {
	for _, p := range e.host.Peers() {
		in, out := e.host.Traffic(p.ID)
		n += in + out
	}
	return n
}
