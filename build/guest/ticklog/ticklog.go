// Package ticklog is the clock witness of the test guest: it remembers the last
// ticks in memory and says whether one is missing, doubled or late.
//
// What it guarantees: Report looks at every remembered tick again, so memory
// that came out of a teleport old is found. What it does not: the guest's own
// clock stands still while the guest does; how long a pause was for the person
// is measured outside, by when the ticks arrive.
//
// Test it with: go test ./build/guest/ticklog/
package ticklog

import "sync"

// Tick is one beat; times in microseconds.
type Tick struct {
	N    uint64
	Mono int64 // the guest's monotonic clock
	Wall int64 // the guest's wall clock, since 1970
}

// Log keeps the last ticks. It is safe for concurrent use.
type Log struct {
	gap int64

	mu   sync.Mutex
	ring []Tick
	n    uint64 // ticks so far
}

// Report is what a look at the whole log found.
type Report struct {
	Ticks   uint64 // ticks so far
	Missing int    // numbers that should be remembered and aren't
	Doubled int    // numbers that are remembered in another's place
	Gaps    int    // remembered pauses longer than the limit
	MaxGap  int64  // the longest remembered pause, microseconds
}

// OK says that no tick is missing or doubled.
func (r Report) OK() bool { return r.Missing == 0 && r.Doubled == 0 }

// New makes a log of size ticks; a pause of more than gap microseconds between
// two ticks counts as a gap.
func New(size int, gap int64) *Log {
	return &Log{ring: make([]Tick, max(size, 2)), gap: gap}
}

// Add logs the next tick and returns it.
func (l *Log) Add(mono, wall int64) Tick {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n++
	t := Tick{N: l.n, Mono: mono, Wall: wall}
	l.ring[t.N%uint64(len(l.ring))] = t
	return t
}

// Report checks all that is remembered.
func (l *Log) Report() Report {
	l.mu.Lock()
	defer l.mu.Unlock()
	size := uint64(len(l.ring))
	r := Report{Ticks: l.n}
	var prev Tick
	first := uint64(1)
	if l.n > size {
		first = l.n - size + 1
	}
	for n := first; n <= l.n; n++ {
		t := l.ring[n%size]
		if t.N != n {
			r.Missing++
			if t.N != 0 {
				r.Doubled++
			}
			prev = Tick{}
			continue
		}
		if prev.N != 0 {
			d := t.Mono - prev.Mono
			r.MaxGap = max(r.MaxGap, d)
			if d > l.gap {
				r.Gaps++
			}
		}
		prev = t
	}
	return r
}
