package vmdisk

import "time"

const (
	// calmFirst is how long little must be left of a peer that fell behind before it gets every write at once again; calmMost is that of
	// one that falls behind again and again.
	calmFirst = 3 * time.Second
	calmMost  = time.Minute
	// relapse is how soon after it came back a peer that falls behind does so again and again.
	relapse = time.Minute
	// touchEvery is how often a peer that is behind, and of which little is left, gets a barrier all the same.
	touchEvery = time.Second
)

// standing is the rule by which a peer falls behind and comes back. One that couldn't keep up (its queue was full) is behind: what is
// written costs a bit, not memory, and blocks that are written again and again are sent once. It comes back when it has everything, or when
// little was left of it without a break for a while: longer each time that it falls behind soon after it came back. So under a steady load
// that is too much for it, it doesn't go back and forth.
//
// While it is behind and little is left it still gets a barrier now and then (touch): what is owed to the rule costs its replica
// no more than touchEvery.
//
// Nothing here reads a clock. The zero standing is that of a peer that keeps up.
type standing struct {
	behind  bool
	since   time.Time     // it fell behind
	calm    time.Time     // since when little is left; zero: much is
	hold    time.Duration // how long it has to be calm
	back    time.Time     // when it last came back
	touched time.Time     // when the last touch began
}

// fall tells that the peer couldn't keep up.
func (s *standing) fall(now time.Time) {
	s.calm = time.Time{}
	if s.behind {
		return
	}
	again := !s.back.IsZero() && now.Sub(s.back) < relapse
	s.behind, s.since, s.touched = true, now, time.Time{}
	if s.hold = min(2*s.hold, calmMost); !again {
		s.hold = calmFirst
	}
}

// look tells whether much is left, of a peer that is behind.
func (s *standing) look(now time.Time, much bool) {
	switch {
	case !s.behind:
	case much:
		s.calm = time.Time{}
	case s.calm.IsZero():
		s.calm = now
	}
}

// rested says whether it may come back; only for one of which little is left.
func (s *standing) rested(now time.Time) bool { return now.Sub(s.calm) >= s.hold }

// touch says whether it gets a barrier now, and begins that.
func (s *standing) touch(now time.Time) bool {
	if now.Sub(s.touched) < touchEvery {
		return false
	}
	s.touched = now
	return true
}

// wait is how long nothing changes by itself; only for one of which little is left. due says that it is to get a barrier when it may: else
// that it may changes nothing.
func (s *standing) wait(now time.Time, due bool) time.Duration {
	if !due {
		return s.hold - now.Sub(s.calm)
	}
	return min(s.hold-now.Sub(s.calm), touchEvery-now.Sub(s.touched))
}

// comeBack ends being behind.
func (s *standing) comeBack(now time.Time) {
	s.behind, s.since, s.calm, s.back = false, time.Time{}, time.Time{}, now
}

// comeBack ends being behind. The caller holds d.mu.
func (f *Feed) comeBack(now time.Time) {
	f.p.standing.comeBack(now)
	f.beginQueueing()
	f.touching, f.live = false, f.p.todo.Empty() && !f.needBarrier
	f.signal()
}
