package p2p

import "time"

const (
	// tripSamples is how many quiet heartbeats the round trip of a link is taken from: 16 s of them.
	tripSamples = 32
	// quietBytes is how much may have been under way beside a heartbeat that counts as quiet: a millisecond on 100 Mbit/s.
	quietBytes = 12 << 10
)

// trips is how long the way of one connection is, there and back: the shortest of the last quiet heartbeats. Everything that
// isn't the way itself (queues, a radio that sleeps, a busy processor) only makes a heartbeat slower, so the shortest comes nearest. Heartbeats
// beside data are left out, or a link that is full for an hour would seem long. It is pure, and not safe for concurrent use.
type trips struct {
	last [tripSamples]time.Duration
	n    int // samples that were taken in
}

func (t *trips) add(d time.Duration) {
	t.last[t.n%tripSamples] = max(d, 1)
	t.n++
}

// shortest is 0 while nothing is known.
func (t *trips) shortest() time.Duration {
	var least time.Duration
	for _, d := range t.last[:min(t.n, tripSamples)] {
		if least == 0 || d < least {
			least = d
		}
	}
	return least
}
