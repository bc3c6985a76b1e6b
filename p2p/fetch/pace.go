package fetch

import "time"

const (
	// standing is how long what is asked for in the background may wait in the path's buffers: a demand waits behind it. While
	// there are demands it is half a round trip, but not less than brief.
	standing, brief = 20 * time.Millisecond, 2 * time.Millisecond
	// span is how long the least round trip is believed.
	span = 10 * time.Second

	firstWindow, leastWindow, mostWindow = 128 << 10, 16 << 10, 64 << 20
	leastPiece, fastPiece                = 8 << 10, 32 << 10

	// patience is for how long all answers must be late before that is taken for too much on its way: a busy computer makes many late now and then.
	patience = 100 * time.Millisecond
)

// pace bounds how much may be on its way from a holder in the background: what fills the path and waits standing in its
// buffers, no more. It grows while answers come soon and shrinks when they come late, in proportion. Once in a span it lets
// the path run dry, to learn the round trip anew. Not safe for concurrent use.
type pace struct {
	window int64 // bytes
	flying int64 // bytes asked for and not answered
	steady bool  // it was too much once
	// late is since when all answers have come late; zero: the last one didn't.
	late time.Time
	dry  bool // nothing is asked for until nothing is flying

	least, before time.Duration // the least round trip of this span and of the one before, 0 if there is none
	began         time.Time     // of this span

	tight bool      // there are demands
	since time.Time // it is so
}

// base is the round trip of an idle path.
func (p *pace) base() time.Duration {
	switch {
	case p.least == 0:
		return p.before
	case p.before == 0:
		return p.least
	}
	return min(p.least, p.before)
}

// sample takes the time that an answer took.
func (p *pace) sample(now time.Time, took time.Duration) {
	took = max(took, time.Microsecond)
	if p.began.IsZero() || now.Sub(p.began) > span {
		p.before, p.least, p.began, p.dry = p.least, 0, now, !p.began.IsZero()
	}
	if p.least == 0 || took < p.least {
		p.least = took
	}
}

// piece is how much is asked for at once: little enough for a window to be several. Each costs the processors of both ends, so on a fast
// path it is more.
func (p *pace) piece(tight bool) int64 {
	limit := p.limit(tight)
	n := limit / 8
	if n >= fastPiece {
		n = limit / 4
	}
	return max(leastPiece, min(MaxWant, n)) / Block * Block
}

// stands is how long the background may wait in the path's buffers.
func (p *pace) stands(tight bool) time.Duration {
	if !tight {
		return standing
	}
	return min(standing, max(brief, p.base()/2))
}

// limit is how much may be flying now.
func (p *pace) limit(tight bool) int64 {
	base := p.base()
	if base == 0 {
		return p.window
	}
	return max(leastWindow, int64(float64(p.window)*float64(base+p.stands(tight))/float64(base+standing)))
}

// room says whether n bytes more may be asked for.
func (p *pace) room(n int64, tight bool) bool {
	return p.flying == 0 || !p.dry && p.flying+n <= p.limit(tight)
}

// fill is how full the window would be with n bytes more.
func (p *pace) fill(n int64) float64 { return float64(p.flying+n) / float64(p.window) }

func (p *pace) take(n int64) { p.flying += n }

// give says that n bytes have arrived after some time; 0 if they haven't.
func (p *pace) give(now time.Time, n int64, took time.Duration, tight bool) {
	if p.tight != tight {
		p.tight, p.since = tight, now
	}
	full := p.flying+max(n, p.piece(tight)) > p.limit(tight)
	if p.flying -= n; p.flying == 0 {
		p.dry, p.late = false, time.Time{}
	}
	base := p.base()
	if took == 0 || base == 0 {
		return
	}
	// What was asked for while more might stand before it isn't late by what may now.
	stands := standing
	if tight && now.Add(-took).After(p.since) {
		stands = p.stands(true)
	} else if tight {
		full = false
	}
	late := took - base - stands
	switch {
	case late <= 0:
		p.late = time.Time{}
	case p.late.IsZero():
		p.late = now
	}
	// Not all come late: somebody may have been busy, and by how much this one is late says little.
	busy := late > 0 && now.Sub(p.late) < patience
	switch {
	case busy && (!p.steady || took <= base+standing):
	case busy:
		p.window -= n * int64(min(took-base-standing, brief)) / int64(4*standing)
	case late > 0 && !p.steady:
		p.steady = true
		p.window = int64(float64(p.window) * float64(base+stands) / float64(took))
	case late > 0 && took > base+standing:
		p.window -= n * int64(min(took-base-standing, standing)) / int64(4*standing)
	case late > 0:
		// On a short path a little more is no sign of too much.
	case full && !p.steady:
		// Twice as much each round trip, also while only a part of the window is used.
		p.window += n * p.window / p.limit(tight)
	case full:
		p.window += n * int64(-late) / int64(4*stands)
	}
	p.window = max(leastWindow, min(mostWindow, p.window))
}
