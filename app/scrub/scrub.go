// Package scrub decides what the background verification of a VM does next, and when: pure, with the time told. What it keeps of a VM (State) is
// stored by its caller, the engine, which does the comparing.
//
// A round goes through all of a disk, a span (256 MiB) a step, once a week. A copy that can't be compared with some spans, because its device is away or
// because of what is set about syncing, gets these made up for when it can be, until the next round begins; so it is verified though its device is
// seldom there. A copy that differs isn't made up for: it has been told.
//
// What is made up for takes a step every 30 s at most.
//
// Pace lets guests go first: a span every 30 s at most where guests have been slow on average for that long, and a span a tick once they have been calm all that
// time; a tick is 4 s, so that an idle device on mains does 64 MiB a second and a terabyte in 4.6 hours.
//
// Damage remembers what was found until it is seen to be over, and Meter says how fast a round gets on.
//
// To test: go test ./app/scrub
package scrub

import "time"

const (
	// Every is how long after a whole round the next one begins.
	Every = 7 * 24 * time.Hour
	// Version of State.
	Version = 2
)

// State is what is kept of a VM's verifications, by its owner. It is a value of that device only, in JSON.
type State struct {
	Version int `json:"version"`
	// Term and From say how far the round under way is, in bytes, that began at Began; there is none if From is 0. Term is that of the last round, if
	// there is none.
	Term  uint64    `json:"term"`
	From  int64     `json:"from"`
	Began time.Time `json:"began"`
	// Equal has, by device, a bit for each span of that round in which its copy was equal, or was made so, the lowest first; Differs the devices whose
	// copies weren't in some.
	Equal   map[string][]byte `json:"equal,omitempty"`
	Differs map[string]bool   `json:"differs,omitempty"`
	// Ended is when a whole round last ended, Verified when the last one began that found a device's copy equal.
	Ended    time.Time            `json:"ended"`
	Verified map[string]time.Time `json:"verified,omitempty"`
}

// Readable says whether s, as it was stored, is of this version and makes sense.
func (s *State) Readable() bool { return s.Version == Version && s.From >= 0 }

// Next says where the next step begins, on a disk of size bytes in spans of so many, owned under term, and for which devices it is: nil is all. may are
// the devices that could be compared now.
func (s *State) Next(term uint64, size, span int64, now time.Time, may []string) (from int64, only []string, due bool) {
	if s.Term != term || s.From >= size {
		s.Term, s.From, s.Equal, s.Differs = term, 0, nil, nil // it was elsewhere meanwhile
	}
	switch {
	case s.From > 0:
		return s.From, nil, true
	case s.Ended.IsZero(), now.Sub(s.Ended) >= Every, s.Ended.After(now):
		s.Began, s.Equal, s.Differs = now, map[string][]byte{}, map[string]bool{}
		return 0, nil, true
	case s.Equal == nil:
		return 0, nil, false
	}
	for off := int64(0); off < size; off += span {
		for _, device := range may {
			if !s.Differs[device] && !s.has(device, off/span) {
				only = append(only, device)
			}
		}
		if only != nil {
			return off, only, true
		}
	}
	return 0, nil, false
}

// Progress is how far the round under way is, in bytes, on a disk of that size that is owned under term; 0 if none is.
func (s *State) Progress(term uint64, size int64) int64 {
	if s.Term != term || s.From >= size {
		return 0
	}
	return s.From
}

// Stepped notes a step from one byte to another, of which equal says how the copies fared that were compared.
func (s *State) Stepped(from, next, size, span int64, now time.Time, equal map[string]bool) {
	if s.Equal == nil {
		s.Equal = map[string][]byte{}
	}
	if s.Differs == nil {
		s.Differs = map[string]bool{}
	}
	for device, is := range equal {
		if !is {
			s.Differs[device] = true
			continue
		}
		bits := s.Equal[device]
		for int64(len(bits))*8 <= from/span {
			bits = append(bits, 0)
		}
		bits[from/span/8] |= 1 << (from / span % 8)
		s.Equal[device] = bits
	}
	if from == s.From {
		if s.From = next; next >= size {
			s.From, s.Ended = 0, now
		}
	}
	if s.From > 0 {
		return
	}
	for device := range s.Equal {
		if s.whole(device, size, span) && !s.Differs[device] {
			s.verified(device, s.Began)
		}
	}
}

// Whole notes a round that went through all at once, begun at a time: the devices whose copies are equal.
func (s *State) Whole(began, ended time.Time, equal []string) {
	s.From, s.Equal, s.Differs, s.Ended = 0, nil, nil, ended
	for _, device := range equal {
		s.verified(device, began)
	}
}

func (s *State) verified(device string, began time.Time) {
	if s.Verified == nil {
		s.Verified = map[string]time.Time{}
	}
	s.Verified[device] = began
}

func (s *State) has(device string, span int64) bool {
	bits := s.Equal[device]
	return span/8 < int64(len(bits)) && bits[span/8]&(1<<(span%8)) != 0
}

func (s *State) whole(device string, size, span int64) bool {
	for off := int64(0); off < size; off += span {
		if !s.has(device, off/span) {
			return false
		}
	}
	return true
}

const (
	// Tick is how often Pace is asked.
	Tick = 4 * time.Second
	// calm is how long guests must be calm before every tick has its step.
	calm = 30 * time.Second
)

// Pace says at which ticks there is a step. Busy is from how many requests of guests a second on they are taken to use their disks. The zero Pace begins
// with a calm time.
type Pace struct {
	Busy   int64
	before int64
	at     time.Time
	quiet  time.Time // guests are calm since then
	used   bool      // because they weren't before, as far as that was seen
	last   time.Time // of the last step, or of the beginning
	then   int64     // requests at last
}

// Tick is told how many requests there were so far, and says whether it is time for a step.
func (p *Pace) Tick(now time.Time, requests int64) bool {
	if p.at.IsZero() {
		p.before, p.at, p.quiet, p.last, p.then = requests, now, now, now, requests
		return false
	}
	slow := func(before int64, since time.Duration) bool {
		return requests >= before && float64(requests-before) < float64(p.Busy)*since.Seconds()
	}
	if !slow(p.before, now.Sub(p.at)) {
		p.quiet, p.used = now, true
	}
	p.before, p.at = requests, now
	step := p.calm(now)
	if long := now.Sub(p.last); long >= calm {
		step = step || slow(p.then, long)
		p.last, p.then = now, requests
	}
	return step
}

// calm says that guests have been so for long enough that every tick has its step.
func (p *Pace) calm(now time.Time) bool { return now.Sub(p.quiet) >= calm }

// Slowed says that there are fewer steps because guests were seen to use their disks.
func (p *Pace) Slowed(now time.Time) bool { return p.used && !p.calm(now) }

// Rest says that there must be none now, whatever guests do.
func (p *Pace) Rest(now time.Time, requests int64) {
	*p = Pace{Busy: p.Busy, before: requests, at: now, quiet: now, last: now, then: requests}
}
