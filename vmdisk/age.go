package vmdisk

import "time"

// maxPassed bounds what an age remembers.
const maxPassed = 64

// age bounds how old the oldest write is that a peer lacks, by the moments at which barriers were cut. The zero age is that of a peer
// that lacks nothing, or of which it isn't known.
type age struct {
	// since: what the peer lacks was written then or later. Zero: it lacks nothing, or it isn't known.
	since time.Time
	// passed are barriers that were queued, and when they were cut: what came before is at the peer when it acknowledges one.
	passed []passed
}

type passed struct {
	pos Position
	at  time.Time
}

// pass notes a barrier that was cut at that time. If there are too many every other one is forgotten: what is lacking then seems
// older, never younger.
func (a *age) pass(pos Position, at time.Time) {
	if len(a.passed) == maxPassed {
		for i := range maxPassed / 2 {
			a.passed[i] = a.passed[2*i]
		}
		a.passed = a.passed[:maxPassed/2]
	}
	a.passed = append(a.passed, passed{pos, at})
}

// reach tells that the peer is at pos. all says that it lacks nothing.
func (a *age) reach(pos Position, all bool) {
	n := 0
	for n < len(a.passed) && a.passed[n].pos.Compare(pos) <= 0 {
		a.since = a.passed[n].at
		n++
	}
	a.passed = append(a.passed[:0], a.passed[n:]...)
	if all {
		a.since = time.Time{}
	}
}
