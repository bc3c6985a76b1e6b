package scrub

import (
	"encoding/json"
	"slices"
	"testing"
	"time"
)

const (
	span = 100
	size = 3*span + 1
)

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// steps does all steps that are due, in order, and returns where they began.
func steps(s *State, now *time.Time, may []string, fared func(from int64, only []string) map[string]bool) (begun []int64) {
	for range 20 {
		from, only, due := s.Next(4, size, span, *now, may)
		if !due {
			return begun
		}
		begun = append(begun, from)
		*now = now.Add(Tick)
		s.Stepped(from, min(size, from+span), size, span, *now, fared(from, only))
		b, _ := json.Marshal(s)
		*s = State{}
		_ = json.Unmarshal(b, s) // a restart after each step changes nothing
	}
	return append(begun, -1)
}

// Who was away gets what it missed made up for, who differs doesn't, and the next round comes a week later.
func TestARoundAndWhatWasMissed(t *testing.T) {
	s, now := &State{Version: Version}, start
	got := steps(s, &now, nil, func(from int64, _ []string) map[string]bool {
		out := map[string]bool{"a": true, "bad": from != span}
		if from != span && from != 2*span {
			out["away"] = true
		}
		return out
	})
	if !slices.Equal(got, []int64{0, span, 2 * span, 3 * span}) || !s.Verified["a"].Equal(start) || len(s.Verified) != 1 || !s.Ended.Equal(now) {
		t.Fatalf("%v, %+v", got, s)
	}
	got = steps(s, &now, []string{"a", "away", "bad"}, func(_ int64, only []string) map[string]bool {
		if !slices.Equal(only, []string{"away"}) {
			t.Errorf("made up for %v", only)
		}
		return map[string]bool{"away": true}
	})
	if !slices.Equal(got, []int64{span, 2 * span}) || !s.Verified["away"].Equal(start) || len(s.Verified) != 2 {
		t.Errorf("%v, %+v", got, s)
	}
	if _, _, due := s.Next(4, size, span, s.Ended.Add(Every-1), []string{"a"}); due {
		t.Error("the next round comes early")
	}
	again := s.Ended.Add(Every)
	if from, only, due := s.Next(4, size, span, again, nil); !due || from != 0 || only != nil || !s.Began.Equal(again) {
		t.Error("the next round doesn't come")
	}
	if len(s.Verified) != 2 {
		t.Error("what was verified is forgotten")
	}
}

// A VM that was elsewhere begins anew where it was under way, and isn't verified again at once where it wasn't.
func TestAnotherTerm(t *testing.T) {
	s := &State{Version: Version}
	_, _, _ = s.Next(4, size, span, start, nil)
	s.Stepped(0, span, size, span, start, map[string]bool{"a": true})
	if from, _, due := s.Next(6, size, span, start, nil); !due || from != 0 || len(s.Equal) != 0 {
		t.Errorf("from %d, %v", from, due)
	}
	s = &State{Version: Version}
	s.Whole(start, start, []string{"a"})
	if _, _, due := s.Next(6, size, span, start.Add(time.Hour), []string{"a", "b"}); due || !s.Verified["a"].Equal(start) {
		t.Error("again at once")
	}
	// A clock that was set back doesn't put it off for years.
	if _, _, due := s.Next(6, size, span, start.Add(-time.Hour), nil); !due {
		t.Error("put off by the clock")
	}
}

func TestPace(t *testing.T) {
	p, now, requests := Pace{Busy: 64}, start, int64(1000)
	count := func(ticks int, each int64) (n int) {
		for range ticks {
			now, requests = now.Add(Tick), requests+each
			if p.Tick(now, requests) {
				n++
			}
		}
		return n
	}
	p.Tick(now, requests)
	if n := count(7, 0); n != 0 {
		t.Errorf("%d steps before anybody could know", n)
	}
	if n := count(20, 10); n != 20 {
		t.Errorf("%d steps in 20 calm ticks", n)
	}
	if n := count(60, 1000); n != 0 {
		t.Errorf("%d steps while guests are busy", n)
	}
	// A burst now and then, slow on average: one every 30 s or so, as 8 ticks are 32 s.
	n := 0
	for range 10 {
		n += count(1, 1000) + count(7, 0)
	}
	if n < 5 || n > 10 {
		t.Errorf("%d steps in 320 s of a guest with bursts", n)
	}
	p.Rest(now, requests)
	if n := count(7, 0); n != 0 {
		t.Errorf("%d steps after a rest", n)
	}
}
