package site

import (
	"slices"
	"strings"
	"time"
)

// When two devices see each other; see the package's comment.
const (
	// Near is the longest round trip at which devices begin to see each other, Far at which they go on to. In between lies
	// what a radio network's worst hour does to the shortest of many heartbeats.
	Near = 8 * time.Millisecond
	Far  = 20 * time.Millisecond
	// JoinAfter is how long a device must have been near to be listed, LeaveAfter how long it must not have been to be dropped.
	JoinAfter  = 5 * time.Second
	LeaveAfter = 30 * time.Second
)

// Peer is what a device observes of another one now.
type Peer struct {
	ID string
	// Connected says that it answered within the last seconds.
	Connected bool
	// OnLink says that it announced itself on a link that both share, at the address through which the two are connected.
	OnLink bool
	// Trip is the round trip of the connection without what data adds; 0: not known.
	Trip time.Duration
}

// sight is how long what is known of another device.
type sight struct {
	listed bool
	heard  bool // by ourselves, when it was last near
	near   bool
	since  time.Duration // near since then
	last   time.Duration // near for the last time
}

// sights are those of all devices that were ever near.
type sights map[string]*sight

// update takes in what is observed now. What a device says of us is in records, where it should be in pins.
func (all sights) update(now time.Duration, self string, peers []Peer, records map[string]Record, pins map[string]string) {
	waiting := false
	there := make(map[string]bool, len(peers))
	for _, p := range peers {
		there[p.ID] = true
		s := all[p.ID]
		if s == nil {
			s = &sight{}
			all[p.ID] = s
		}
		was := s.near
		s.near = s.isNear(p, self, records, pins)
		switch {
		case pins[p.ID] != pins[self]:
			s.listed = false
		case s.near:
			s.heard, s.last = p.OnLink, now
			if !was {
				s.since = now
			}
		case now-s.last >= LeaveAfter:
			s.listed = false
		}
		waiting = waiting || s.listed && !s.near
	}
	for id, s := range all {
		if !there[id] {
			delete(all, id) // not in the fleet any more
			continue
		}
		if s.near && !s.listed {
			steady := now - s.since
			s.listed = steady >= JoinAfter && !waiting || steady >= LeaveAfter+JoinAfter
		}
	}
}

// isNear says whether what is observed now speaks for being in one place.
func (s *sight) isNear(p Peer, self string, records map[string]Record, pins map[string]string) bool {
	switch {
	case !p.Connected || pins[p.ID] != pins[self]:
		return false
	case pins[self] != "":
		return true
	}
	limit := Near
	if s.listed {
		limit = Far
	}
	if p.Trip <= 0 || p.Trip > limit {
		return false
	}
	r := records[p.ID]
	theirs, _ := r.sees(self)
	return p.OnLink || theirs.Heard
}

// list returns what a record says of them: at most what fits into one.
func (all sights) list() []Seen {
	var out []Seen
	for id, s := range all {
		if s.listed {
			out = append(out, Seen{id, s.heard})
		}
	}
	slices.SortFunc(out, func(a, b Seen) int { return strings.Compare(a.ID, b.ID) })
	return out[:min(len(out), maxSees)]
}
