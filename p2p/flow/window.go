package flow

import "time"

const (
	// MaxPiece and MinPiece bound what is written at once, in bytes: a rate limit and the window are kept at this grain.
	MaxPiece = 64 << 10
	MinPiece = 4 << 10
	// AckEvery is after how many bytes the receiver says that it got them. The smallest window less the smallest piece has room for it.
	AckEvery = 4 << 10

	minWindow   = 32 << 10 // bytes
	firstWindow = 64 << 10
	maxWindow   = 16 << 20
	// leastTrip is the shortest way that is counted with, so that what the ends take for their work fits in.
	leastTrip = 10 * time.Millisecond
	// forget is for how long a measured trip is believed at least, forgetRate for how long a rate; at most it is twice that. A rate is found out all the
	// time, if one is kept up to; a trip only while little is on its way.
	forget     = 10 * time.Second
	forgetRate = 2 * time.Second
	// flatRounds is after how many trips without a rate that is higher by a quarter the link is known.
	flatRounds = 3
)

// Window decides how many bytes may be on their way at once: a quarter more than the link holds, and 8 KiB. Less would leave it idle at times, more
// would only wait in front of it, and with it whatever a person waits for. What the link holds is its rate times its trip, both measured from
// what the receiver says to have got (the idea is BBR's). The trip is only seen when nothing waits; so from time to time little is sent for one trip.
//
// Pure: time is what the caller says, from any beginning. The zero value is a window over a link of which nothing is known. Not safe for concurrent use.
type Window struct {
	marks     []mark // sent and not acknowledged, in order
	got       int64
	gotAt     time.Duration
	gotSent   time.Duration // when the last of what was got had been sent
	sent      int64
	rate      [2]float64       // bytes a second: the most of this period, and of the last
	rated     time.Duration    // when this one began
	trip      [2]time.Duration // the least
	period    time.Duration    // when this one began
	full      float64          // the rate that the last faster round brought
	flat      int              // rounds since that brought hardly more
	roundEnds int64
	draining  bool
	drainedAt int64 // the first byte that is sent while little is on its way
}

// mark is the end of one write, and what was known when it was sent.
type mark struct {
	end, begin int64
	at         time.Duration
	got        int64
	gotAt      time.Duration
	gotSent    time.Duration
	full       bool // hardly more could have been on its way
}

// Limit is how many bytes may be on their way.
func (w *Window) Limit() int64 {
	rate, trip := w.Speed(), w.least()
	if rate == 0 {
		return firstWindow
	}
	holds := rate * max(trip, leastTrip).Seconds()
	if w.draining {
		return min(max(int64(holds/2), minWindow/4), maxWindow/2)
	}
	gain := 1.25
	if w.flat < flatRounds {
		gain = 3 // the rate is only what was sent; there may be room for much more
	}
	// Acknowledgements come late by up to AckEvery, and the receiver may be slow by as much.
	return min(max(int64(gain*holds)+2*AckEvery, minWindow), maxWindow)
}

// took notes how long a byte's way there and the word of it took.
func (w *Window) took(trip time.Duration) {
	if trip > 0 && (w.trip[0] == 0 || trip < w.trip[0]) {
		w.trip[0] = trip
	}
}

// Piece is the most to be written at once.
func (w *Window) Piece() int64 { return min(MaxPiece, max(MinPiece, w.Limit()/8)) }

// Speed of the link in bytes a second; 0 is unknown.
func (w *Window) Speed() float64 { return max(w.rate[0], w.rate[1]) }

func (w *Window) least() time.Duration {
	switch {
	case w.trip[0] == 0:
		return w.trip[1]
	case w.trip[1] == 0:
		return w.trip[0]
	}
	return min(w.trip[0], w.trip[1])
}

// Room is how many bytes may be sent now.
func (w *Window) Room() int64 { return w.Limit() - (w.sent - w.got) }

// Send notes that n bytes are sent now.
func (w *Window) Send(now time.Duration, n int64) {
	if w.sent == w.got {
		w.gotAt, w.gotSent = now, now // nothing was on its way: a new measure begins
	}
	if w.draining && w.drainedAt < 0 {
		w.drainedAt = w.sent
	}
	begin := w.sent
	w.sent += n
	w.marks = append(w.marks, mark{w.sent, begin, now, w.got, w.gotAt, w.gotSent, w.Room() < w.Piece()})
}

// Ack notes that the receiver has got the first n bytes of all. It says false if it can't have.
func (w *Window) Ack(now time.Duration, n int64) bool {
	if n < w.got || n > w.sent {
		return false
	}
	if n == w.got {
		return true
	}
	w.got, w.gotAt = n, now
	i := 0
	for i < len(w.marks) && w.marks[i].end <= n {
		i++
	}
	if i < len(w.marks) && w.marks[i].begin < n {
		w.took(now - w.marks[i].at) // the beginning of a long write is there before its end
	}
	if i == 0 {
		return true
	}
	m := w.marks[i-1]
	w.gotSent = m.at
	w.marks = append(w.marks[:0], w.marks[i:]...)
	if now-w.period >= forget {
		w.period = now
		w.trip = [2]time.Duration{0, w.trip[0]}
		w.draining, w.drainedAt = true, -1
	}
	if now-w.rated >= forgetRate && w.rate[0] > 0 {
		w.rated = now
		w.rate = [2]float64{0, w.rate[0]}
	}
	w.took(now - m.at)
	// Acknowledgements that were held up come faster than the link is: what they are for wasn't sent faster (the idea is BBR's, too).
	if span := max(now-m.gotAt, m.at-m.gotSent); span > 0 {
		// Who had nothing to send measures himself, and not the link.
		if rate := float64(n-m.got) / span.Seconds(); m.full && !w.draining || rate > w.Speed() {
			w.rate[0] = max(w.rate[0], rate)
		}
	}
	if n >= w.roundEnds {
		w.roundEnds = w.sent
		if rate := w.Speed(); rate >= 1.25*w.full {
			w.full, w.flat = rate, 0
		} else if w.flat++; w.flat == flatRounds {
			w.draining, w.drainedAt = true, -1 // what was sent to find the rate out waits on the way, and hides how long that is
		}
	}
	if w.draining && w.drainedAt >= 0 && m.begin >= w.drainedAt {
		w.draining = false
	}
	return true
}

// Sent is how many bytes were sent.
func (w *Window) Sent() int64 { return w.sent }

// Got is how many bytes the receiver has said that it got.
func (w *Window) Got() int64 { return w.got }

// Trip is how long it takes there and back, as far as is known: 0 is unknown.
func (w *Window) Trip() time.Duration { return w.least() }
