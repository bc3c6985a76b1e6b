package herald

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
)

const (
	mib = int64(1) << 20
	gib = int64(1) << 30
)

// show ticks a herald every two seconds, over a story of copies, and notes what it tells.
type show struct {
	t      *testing.T
	h      *Herald
	now    time.Time
	copies []*Copy
	kept   []byte
	told   []string
	news   []api.SyncNews
}

func newShow(t *testing.T, copies ...*Copy) *show {
	h, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &show{t: t, h: h, now: time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC), copies: copies}
}

// a copy of VM w on device L, of which this device tells, unless changed.
func copyOf(vm string) *Copy {
	return &Copy{VM: vm, VMName: strings.ToUpper(vm), Device: "l", DeviceName: "Laptop", State: Whole, Mine: true}
}

// moves lets a copy get what it lacks, at so many bytes a second.
func moves(c *Copy, left, rate int64) {
	c.State, c.Remaining, c.Rate, c.ETA = Moving, left, rate, 0
	if rate > 0 {
		c.ETA = time.Duration(left / rate * int64(time.Second))
	}
}

func rests(c *Copy, s State) { c.State, c.Rate, c.ETA = s, 0, 0 }

// pass lets time go by: what moves gets what it lacks, as fast as it is said to.
func (s *show) pass(d time.Duration) *show {
	for ; d > 0; d -= 2 * time.Second {
		s.now = s.now.Add(2 * time.Second)
		for _, c := range s.copies {
			if c.State == Moving && c.Rate > 0 {
				left := c.Remaining - 2*c.Rate
				if moves(c, max(0, left), c.Rate); left <= 0 {
					rests(c, Whole)
				}
			}
		}
		s.tick()
	}
	return s
}

func (s *show) tick() {
	now := make([]Copy, 0, len(s.copies))
	for _, c := range s.copies {
		now = append(now, *c)
	}
	news := s.h.Tick(s.now, now)
	if b := s.h.Memory(); b != nil {
		s.kept = b
		s.h.Kept()
	}
	for _, n := range news {
		words := string(n.Kind)
		for _, vm := range n.VMs {
			words += " " + vm.ID
		}
		if n.Device != "l" {
			words += " on " + n.Device
		}
		if n.Hydration {
			words += " here"
		}
		if n.Lag && n.Kind == api.SyncDone {
			words += " after a lag"
		}
		s.told, s.news = append(s.told, words), append(s.news, n)
		if text := Text(n); text == "" || strings.Contains(text, "%!") {
			s.t.Errorf("%+v reads %q", n, text)
		}
	}
}

// restart is one of the engine: only the memory stays, as it was kept.
func (s *show) restart() *show {
	h, err := New(s.kept)
	if err != nil {
		s.t.Fatalf("%s: %v", s.kept, err)
	}
	s.h = h
	return s
}

func (s *show) want(news ...string) {
	s.t.Helper()
	if !slices.Equal(s.told, news) {
		s.t.Errorf("told %q, want %q", s.told, news)
	}
}

func TestScenarios(t *testing.T) {
	for name, play := range map[string]func(t *testing.T){
		"a short one": func(t *testing.T) {
			w := copyOf("w")
			s := newShow(t, w)
			moves(w, 50*mib, mib)
			s.pass(5 * time.Minute).want()
		},
		"a long one": func(t *testing.T) {
			w := copyOf("w")
			s := newShow(t, w)
			moves(w, 600*mib, mib)
			s.pass(8 * time.Second).want()
			s.pass(20*time.Minute).want("begun w", "half w", "done w")
			if n := s.news[0]; n.Remaining < 580*mib || n.Rate != mib || n.ETA < 9*time.Minute || n.DeviceName != "Laptop" || n.VMs[0].Name != "W" {
				t.Errorf("%+v", n)
			}
			if n := s.news[1]; n.Remaining > 300*mib || n.Remaining < 290*mib {
				t.Errorf("half-way: %+v", n)
			}
		},
		"one whose half-way isn't worth a word": func(t *testing.T) {
			w := copyOf("w")
			s := newShow(t, w)
			moves(w, 90*mib, mib)
			s.pass(5*time.Minute).want("begun w", "done w")
		},
		"one of unknown speed": func(t *testing.T) {
			w := copyOf("w")
			s := newShow(t, w)
			moves(w, gib, 0)
			s.pass(50 * time.Second).want()
			s.pass(20 * time.Second).want("begun w")
			rests(w, Whole)
			s.pass(time.Minute).want("begun w", "done w")
		},
		"one that looks long for a moment": func(t *testing.T) {
			w := copyOf("w")
			s := newShow(t, w)
			moves(w, 100*mib, mib)
			s.pass(6 * time.Second)
			w.Rate = 50 * mib
			s.pass(5 * time.Minute).want()
		},
		"a link that flaps": func(t *testing.T) {
			w := copyOf("w")
			s := newShow(t, w)
			for range 200 {
				moves(w, 600*mib, mib)
				s.pass(6 * time.Second)
				rests(w, Unknown)
				s.pass(8 * time.Second)
			}
			s.want("begun w")
			for range 20 { // it has everything, and then not, as the guest writes
				rests(w, Whole)
				s.pass(2 * time.Second)
				moves(w, 20*mib, mib)
				s.pass(4 * time.Second)
			}
			s.want("begun w")
			s.pass(time.Minute).want("begun w", "done w")
		},
		"a laptop that sleeps": func(t *testing.T) {
			w := copyOf("w")
			s := newShow(t, w)
			moves(w, 20*mib, 0) // the night between two ticks isn't time that it took
			s.pass(4 * time.Second)
			s.now = s.now.Add(9 * time.Hour)
			s.pass(20 * time.Second)
			rests(w, Whole)
			s.pass(time.Minute).want()
			moves(w, 600*mib, mib)
			s.pass(2 * time.Minute).want("begun w")
			s.now = s.now.Add(9 * time.Hour)
			s.pass(10*time.Minute).want("begun w", "half w", "done w")
		},
		"a guest that writes faster than the link, for hours": func(t *testing.T) {
			w := copyOf("w")
			s := newShow(t, w)
			w.Overrun, w.Since = s.now, s.now
			for range 3 * 60 * 30 {
				w.State, w.Remaining, w.Rate, w.ETA = Moving, w.Remaining+4*mib, mib, time.Duration(w.Remaining/mib)*time.Second
				s.pass(2 * time.Second)
			}
			s.want("behind w")
			w.Overrun = time.Time{} // it writes no more
			moves(w, 200*mib, mib)
			s.pass(10*time.Minute).want("behind w", "done w after a lag")
		},
		"one that falls behind for moments, again and again": func(t *testing.T) {
			w := copyOf("w")
			s := newShow(t, w)
			for range 300 {
				w.Overrun = s.now
				moves(w, 4*mib, 0)
				s.pass(20 * time.Second)
				w.Overrun = time.Time{}
				rests(w, Whole)
				s.pass(20 * time.Second)
			}
			s.want()
		},
		"one that lags by a second for hours": func(t *testing.T) {
			w := copyOf("w")
			s := newShow(t, w)
			w.Overrun = s.now
			for range 1000 {
				moves(w, mib, 0)
				w.Since = s.now.Add(-time.Second)
				s.pass(2 * time.Second)
			}
			s.want()
		},
		"a sync that is overrun meanwhile is still one": func(t *testing.T) {
			w := copyOf("w")
			s := newShow(t, w)
			moves(w, 600*mib, mib)
			s.pass(time.Minute)
			w.Overrun = s.now
			s.pass(20*time.Minute).want("begun w", "half w", "done w")
		},
		"falling behind again soon": func(t *testing.T) {
			w := copyOf("w")
			s := newShow(t, w)
			for range 3 {
				w.Overrun = s.now
				moves(w, 4*gib, 0)
				s.pass(90 * time.Second)
				w.Overrun = time.Time{}
				rests(w, Whole)
				s.pass(30 * time.Second)
			}
			s.want("behind w", "done w after a lag")
			s.pass(Pause)
			w.Overrun = s.now
			moves(w, 4*gib, 0)
			s.pass(90*time.Second).want("behind w", "done w after a lag", "behind w")
		},
		"several VMs to one device": func(t *testing.T) {
			w, p, q := copyOf("w"), copyOf("p"), copyOf("q")
			s := newShow(t, w, p, q)
			moves(w, 600*mib, mib)
			moves(p, 300*mib, mib)
			s.pass(2 * time.Minute)
			moves(q, 200*mib, mib) // joins
			s.pass(30*time.Minute).want("begun p w", "half p q w", "done p q w")
			if n := s.news[0]; n.Rate != 2*mib || n.Remaining < 870*mib || n.ETA < 7*time.Minute {
				t.Errorf("%+v", n)
			}
		},
		"devices are things of their own": func(t *testing.T) {
			w, a := copyOf("w"), copyOf("w")
			a.Device, a.DeviceName = "a", "Attic"
			s := newShow(t, w, a)
			moves(w, 90*mib, mib)
			moves(a, 90*mib, mib)
			s.pass(5*time.Minute).want("begun w on a", "begun w", "done w on a", "done w")
		},
		"a lag beside a sync": func(t *testing.T) {
			w, p := copyOf("w"), copyOf("p")
			s := newShow(t, w, p)
			moves(w, 900*mib, mib)
			s.pass(30 * time.Second)
			p.Overrun = s.now
			moves(p, gib, 0)
			s.pass(2*time.Minute).want("begun w", "behind p")
			s.pass(30*time.Minute).want("begun w", "behind p", "half w", "done w")
		},
		"a device that is removed": func(t *testing.T) {
			w := copyOf("w")
			s := newShow(t, w)
			moves(w, 600*mib, mib)
			s.pass(time.Minute)
			s.copies = nil
			s.pass(time.Hour).want("begun w")
			if len(s.h.things)+len(s.h.tracks)+len(s.h.told) > 0 {
				t.Errorf("%+v is kept", s.h)
			}
		},
		"a VM that is removed beside another": func(t *testing.T) {
			w, p := copyOf("w"), copyOf("p")
			s := newShow(t, w, p)
			moves(w, 600*mib, mib)
			moves(p, 600*mib, mib)
			s.pass(time.Minute)
			s.copies = s.copies[:1]
			s.pass(30*time.Minute).want("begun p w", "done w")
		},
		"a restart of the engine": func(t *testing.T) {
			w := copyOf("w")
			s := newShow(t, w)
			moves(w, 900*mib, mib)
			s.pass(time.Minute).restart().pass(4 * time.Minute).restart()
			s.copies = nil // it has yet to find its VMs
			s.pass(20 * time.Second)
			s.copies = []*Copy{w}
			rests(w, Unknown)
			s.pass(20 * time.Second)
			moves(w, 600*mib, mib)
			s.pass(5*time.Minute).want("begun w", "half w")
			s.restart().pass(30*time.Minute).want("begun w", "half w", "done w")
			s.restart().pass(time.Hour).want("begun w", "half w", "done w")
		},
		"a restart of the engine while a device is behind": func(t *testing.T) {
			w := copyOf("w")
			s := newShow(t, w)
			w.Overrun = s.now
			moves(w, gib, 0)
			s.pass(2 * time.Minute).restart()
			w.Overrun = time.Time{} // only the disk knew
			moves(w, gib, mib)
			s.pass(time.Hour).want("behind w", "done w after a lag")
		},
		"a switch takes the owner away and back": func(t *testing.T) {
			w := copyOf("w")
			s := newShow(t, w)
			moves(w, 900*mib, mib)
			s.pass(time.Minute)
			w.Mine = false
			s.pass(time.Minute)
			w.Mine = true
			s.pass(time.Hour).want("begun w", "half w", "done w")
		},
		"what another device tells": func(t *testing.T) {
			w := copyOf("w")
			w.Mine = false
			s := newShow(t, w)
			moves(w, 900*mib, mib)
			s.pass(time.Hour).want()
		},
		"a push that arrives, though the guest went on": func(t *testing.T) {
			w := copyOf("w")
			s := newShow(t, w)
			moves(w, 300*mib, mib)
			s.pass(4 * time.Minute)
			rests(w, Resting) // cut short: no further than it was
			s.pass(time.Hour).want("begun w", "half w")
			moves(w, 100*mib, mib)
			s.pass(time.Minute)
			w.Mark.Barrier++
			rests(w, Resting)
			s.pass(time.Minute).want("begun w", "half w", "done w")
			if n := s.news[2]; n.Remaining == 0 {
				t.Errorf("%+v: it lacks what was written since", n)
			}
		},
		"hydration": func(t *testing.T) {
			w := copyOf("w")
			w.Hydration, w.From = true, []string{"Desk"}
			s := newShow(t, w)
			moves(w, 600*mib, mib)
			s.pass(10*time.Minute).want("begun w here", "half w here")
			w.From = nil // whoever has the whole disk asks nobody
			s.pass(10*time.Minute).want("begun w here", "half w here", "done w here")
			if !slices.Equal(s.news[0].From, []string{"Desk"}) {
				t.Errorf("%+v", s.news[0])
			}
			if n := s.news[2]; !slices.Equal(n.From, []string{"Desk"}) || !strings.Contains(Text(n), "Desk can be switched off") {
				t.Errorf("%+v reads %q", n, Text(n))
			}
		},
		"hydration without a holder": func(t *testing.T) {
			w := copyOf("w")
			w.Hydration, w.From = true, []string{"Desk"}
			s := newShow(t, w)
			moves(w, 20*mib, mib)
			s.pass(4 * time.Second)
			rests(w, Unknown)
			w.Waits = true
			s.pass(30 * time.Second).want()
			s.pass(40 * time.Second).want("waits w here")
			w.Waits = false
			s.pass(2 * time.Minute)
			w.Waits, w.Blocked = true, true
			s.pass(time.Hour).want("waits w here") // a link that flaps
			w.Waits, w.Blocked = false, false
			s.pass(Pause + time.Minute)
			w.Waits, w.Blocked = true, true
			s.restart().pass(20*time.Second).want("waits w here", "waits w here")
			w.Waits, w.Blocked = false, false
			moves(w, 10*mib, mib)
			s.pass(time.Hour).want("waits w here", "waits w here")
		},
	} {
		t.Run(name, play)
	}
}

// What can't be read is said to be, and leaves a machine that works.
func TestMemoryThatCantBeRead(t *testing.T) {
	for memory, version := range map[string]bool{`{"v":2,"things":{}}`: true, `{`: false, `{"v":0}`: false, `[]`: false, `{"v":1,"things":[{"what":"x"}]}`: false,
		`{"v":1,"copies":[{"what":"wait"}]}`: false, `{"v":1,"copies":[{"what":"sync","peak":-1}]}`: false, fmt.Sprintf("%*s", MaxMemory+1, "{}"): false} {
		h, err := New([]byte(memory))
		if err == nil || strings.Contains(err.Error(), "%!") || version != strings.Contains(err.Error(), ErrVersion.Error()) {
			t.Errorf("%.40s: %v", memory, err)
		}
		if len(h.things)+len(h.tracks)+len(h.told) > 0 {
			t.Errorf("%.40s: half of it was taken", memory)
		}
		h.Tick(time.Now(), nil)
	}
}

func FuzzMemory(f *testing.F) {
	f.Add([]byte(`{"v":1,"things":[{"device":"l","what":"sync","told":true}],"copies":[{"vm":"w","device":"l","what":"sync","peak":5}],"told":[{"device":"l","what":"sync","at":"2026-05-04T12:00:00Z"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, _ := New(b)
		now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
		c := Copy{VM: "w", Device: "l", State: Moving, Mine: true, Remaining: 5}
		for range 40 {
			now = now.Add(5 * time.Second)
			h.Tick(now, []Copy{c})
		}
		if m := h.Memory(); m != nil {
			if _, err := New(m); err != nil {
				t.Fatalf("%s: %v", m, err)
			}
		}
	})
}
