package courtesy

import (
	"math"
	"time"
)

// Rules are the numbers of the rule.
type Rules struct {
	// Room is by how much guests may be slowed: a part of their time.
	Room float64
	// Floor is how many bytes a second may be read whatever guests do.
	Floor int64
	// PerByte is what work costs beside the time that its reads take, in seconds a byte.
	PerByte float64
	// PerRequest and PerGuestByte are what a guest's request costs beside the time that its disk takes for it, in seconds.
	PerRequest, PerGuestByte float64
}

// Usual are those of the product. A first copy costs its owner 1.1 to 1.5 s of processor for a GB, most of it to encrypt and to send, and as much again in
// what the memory and the other programs feel of it. A request's way through the socket takes 10 to 30 µs where processors are free, and some times as long where
// they aren't, which is when it counts: who asks again within PerRequest is taken for one who waits for nothing else.
var Usual = Rules{Room: 0.04, Floor: 1 << 20, PerByte: 3e-9, PerRequest: 200e-6, PerGuestByte: 0.5e-9}

const (
	// lookEvery is how often it is looked at most what guests do.
	lookEvery = time.Millisecond
	// attack and release are how fast load follows what guests do, up and down.
	attack, release = 8 * time.Millisecond, 20 * time.Millisecond
	// ask is how soon who was told to wait asks again: guests may rest by then.
	ask = 5 * time.Millisecond
	// busyLook is over how long it is found out whether guests are busy, and Busy from how many requests a second on they are: a desktop that only
	// notes something now and then isn't disturbed by little.
	busyLook = 250 * time.Millisecond
	Busy     = 64
)

// Served is what guests had of this device's disks so far, all together.
type Served struct {
	Requests int64
	Bytes    int64
	Took     time.Duration // what the disks needed for them
	Open     int64         // requests that wait for their disk now
}

// Controller is the rule. It has no clock of its own. Before Delay, Look. The zero Controller, with Rules, is that of guests of which nothing
// is known yet: they count as busy until the second look.
type Controller struct {
	Rules Rules
	seen  Served
	at    time.Time
	load  float64
	debt  float64 // seconds of work that aren't paid for
	busy  bool
	then  Served // what busy goes by
	since time.Time
	calm  time.Time // guests haven't been busy since
}

// Due says whether it is time to look again.
func (c *Controller) Due(now time.Time) bool {
	return c.at.IsZero() || now.Sub(c.at) >= lookEvery || now.Before(c.at)
}

// Look is told what guests had so far.
func (c *Controller) Look(now time.Time, s Served) {
	if c.at.IsZero() || now.Before(c.at) {
		c.seen, c.at, c.then, c.since = s, now, s, now
		c.load, c.busy, c.calm = 1, true, now
		return
	}
	dt := now.Sub(c.at).Seconds()
	if dt <= 0 {
		return
	}
	if share := c.share(); share >= 1 {
		c.debt = 0
	} else {
		c.debt = max(0, c.debt-dt*share)
	}
	used := c.cost(s) - c.cost(c.seen)
	load := min(1, max(0, used/dt)) // a disk that isn't served any more doesn't count any more
	if s.Open > 0 && c.seen.Open > 0 {
		load = 1
	}
	tau := release
	if load > c.load {
		tau = attack
	}
	c.load += (1 - math.Exp(-dt/tau.Seconds())) * (load - c.load)
	c.seen, c.at = s, now
	c.lookBusy(now, s)
}

// lookBusy finds out whether guests are busy. Where the last look was long ago they are taken for busy until the next one.
func (c *Controller) lookBusy(now time.Time, s Served) {
	since := now.Sub(c.since)
	if since < busyLook {
		return
	}
	c.busy = since >= 4*busyLook || float64(s.Requests-c.then.Requests) >= Busy*since.Seconds()
	c.then, c.since = s, now
	if c.busy {
		c.calm = now
	}
}

// cost is how much of guests' time went into what they had, in seconds.
func (c *Controller) cost(s Served) float64 {
	return s.Took.Seconds() + float64(s.Requests)*c.Rules.PerRequest + float64(s.Bytes)*c.Rules.PerGuestByte
}

// share is which part of the time work may take; 1 and more is all of it.
func (c *Controller) share() float64 { return c.Rules.Room / max(c.load, 1e-9) }

// Load is the part of the time in which guests wait for their disks, 0 to 1.
func (c *Controller) Load() float64 { return c.load }

// Busy says that guests use their disks, on average.
func (c *Controller) Busy() bool { return c.busy }

// Calm is how long they haven't been busy.
func (c *Controller) Calm(now time.Time) time.Duration {
	if c.busy {
		return 0
	}
	return max(0, now.Sub(c.calm))
}

// Took notes that n bytes were read, in so long; what is done with them costs more.
func (c *Controller) Took(n int64, d time.Duration) {
	if n <= 0 {
		return
	}
	// At most what is paid for at the floor by the time that n bytes take there, with guests that are as busy as can be.
	most := c.Rules.Room * float64(n) / float64(max(c.Rules.Floor, 1))
	c.debt += min(d.Seconds()+float64(n)*c.Rules.PerByte, most)
}

// Delay is how long nothing more should be read: ask again by then. 0 is not at all.
func (c *Controller) Delay() time.Duration {
	share := c.share()
	if c.debt <= 0 || share >= 1 {
		return 0
	}
	return max(10*time.Microsecond, min(ask, time.Duration(c.debt/share*float64(time.Second))))
}
