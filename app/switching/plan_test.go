package switching

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

const mib = 1 << 20

// pages is a guest's memory on its way, as a hypervisor carries it: what was written is noted and looked at when a pass has ended.
type pages struct {
	memory, set float64 // bytes: all, and those that are written over and over
	dirty       float64 // bytes a second that it writes
	link        float64 // bytes a second
	left        float64 // of this pass
	written     float64 // different bytes written since the pass began
	sent        float64
	passes      int
	claimed     int64 // the speed that the line says of itself, if not 0
}

// run lets it be for a while: so many bytes may leave, and the guest runs or stands still. It returns how long that took.
func (m *pages) run(portion float64, stands bool, look time.Duration) time.Duration {
	const overhead = 300 * time.Microsecond // of asking
	took := min(time.Duration(portion/m.link*1e9), look) + overhead
	if m.passes == 0 {
		m.passes, m.left = 1, m.memory
	}
	leaves := min(portion, took.Seconds()*m.link)
	m.sent += leaves
	if m.left -= leaves; m.left <= 0 {
		m.left = m.written
		m.written = 0
		m.passes++
	}
	if !stands && m.set > 0 {
		// What is written anew hits what has been written already, the more the more there is.
		m.written = m.set - (m.set-m.written)*math.Exp(-m.dirty*took.Seconds()/m.set)
	}
	return took
}

// moved is how a plan's teleport ended.
type moved struct {
	steps []string
	pause time.Duration // for which it really stood still
	took  time.Duration
	end   Act
	last  Standing
}

func (m *pages) move(t *testing.T, allowed time.Duration, early bool) moved {
	t.Helper()
	plan, now := NewPlan(Usual, allowed, early), time.Unix(1000, 0)
	began := now
	var r moved
	for range 3_000_000 {
		o := plan.Next(Sight{Now: now, Passes: m.passes, Remaining: int64(m.left), Sent: int64(m.sent), Speed: m.claimed})
		r.last = plan.Standing()
		if o.Stepped {
			r.steps = append(r.steps, fmt.Sprintf("%s %d%% %s", r.last.Step, r.last.Slow, r.last.Allowed))
		}
		if o.Act != LetOut {
			r.end, r.took = o.Act, now.Sub(began)
			r.pause = time.Duration((m.left+m.written+float64(Usual.Devices))/m.link*1e9) + Usual.Seal
			return r
		}
		if o.Portion <= 0 {
			t.Fatalf("nothing may leave: %+v", o)
		}
		now = now.Add(m.run(float64(o.Portion), o.Stand, Usual.LookEvery))
	}
	t.Fatalf("it never ends: %+v, %+v", plan, m)
	return r
}

func TestGuestsGetAway(t *testing.T) {
	for name, c := range map[string]struct {
		pages
		allowed time.Duration
		steps   string
		end     Act
		most    time.Duration // the pause
	}{
		"idle, on a LAN":       {pages{memory: 512 * mib, set: 2 * mib, dirty: mib, link: 110 * mib}, 0, "", Stop, 100 * time.Millisecond},
		"busy, on a LAN":       {pages{memory: 512 * mib, set: 128 * mib, dirty: 16 * mib, link: 110 * mib}, 0, "", Stop, 100 * time.Millisecond},
		"very busy, on a LAN":  {pages{memory: 1024 * mib, set: 512 * mib, dirty: 300 * mib, link: 110 * mib}, 0, "slowed 60% 300ms, slowed 85% 300ms", Stop, 320 * time.Millisecond},
		"idle, far away":       {pages{memory: 64 * mib, set: mib / 4, dirty: mib / 10, link: 875e3}, 0, "longer 0% 1s", Stop, time.Second},
		"busy, far away":       {pages{memory: 64 * mib, set: 32 * mib, dirty: mib, link: 875e3}, 0, "slowed 60% 300ms, slowed 85% 300ms, longer 85% 1s", Stop, 1050 * time.Millisecond},
		"far too busy":         {pages{memory: 64 * mib, set: 32 * mib, dirty: 100 * mib, link: 875e3}, 0, "slowed 60% 300ms, slowed 85% 300ms, longer 85% 1s, longer 85% 3s", GiveUp, time.Hour},
		"the person may wait":  {pages{memory: 64 * mib, set: 32 * mib, dirty: 100 * mib, link: 875e3}, time.Minute, "", Stop, time.Minute},
		"the person is strict": {pages{memory: 512 * mib, set: 128 * mib, dirty: 80 * mib, link: 110 * mib}, 60 * time.Millisecond, "slowed 30% 60ms", Stop, 65 * time.Millisecond},
		"nothing is written":   {pages{memory: 256 * mib, link: 110 * mib}, 0, "", Stop, 100 * time.Millisecond},
		"a fast line":          {pages{memory: 512 * mib, set: 128 * mib, dirty: 8 * mib, link: 110 * mib, claimed: 4000 * mib}, 0, "", Stop, 80 * time.Millisecond},
		"very fast":            {pages{memory: 4096 * mib, set: 64 * mib, dirty: 100 * mib, link: 1100 * mib}, 0, "", Stop, 100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			m := c.pages
			r := m.move(t, c.allowed, false)
			steps := strings.Join(r.steps, ", ")
			t.Logf("%d passes in %s, pause %s of %s, steps %q, estimate %+v", m.passes, r.took.Round(time.Millisecond), r.pause.Round(time.Millisecond), r.last.Allowed, steps, r.last.Estimate)
			if r.end != c.end || steps != c.steps {
				t.Errorf("it ended as %d after %q, not %d after %q", r.end, steps, c.end, c.steps)
			}
			if r.end == Stop && r.pause > c.most {
				t.Errorf("it stood still for %s", r.pause)
			}
		})
	}
}

// TestThePauseIsBounded tries guests and lines of all kinds: one that is stopped stands still for hardly longer than allowed, and one that is not
// would have stood still for longer.
func TestThePauseIsBounded(t *testing.T) {
	for _, link := range []float64{200e3, 875e3, 3e6, 12e6, 110e6, 1e9} {
		for _, dirty := range []float64{0, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9} {
			for _, set := range []float64{1e5, 1e6, 3e7} {
				m := pages{memory: 1e8, set: set, dirty: dirty, link: link}
				r := m.move(t, 0, false)
				most := r.last.Allowed + r.last.Allowed/4 + 20*time.Millisecond
				if r.end == Stop && r.pause > most {
					t.Errorf("link %.0g, dirty %.0g, set %.0g: it stood still for %s, allowed was %s, expected %s", link, dirty, set, r.pause, r.last.Allowed, r.last.Pause)
				}
				if r.end == GiveUp && r.last.Allowed != slices.Max(Usual.Longer) {
					t.Errorf("link %.0g, dirty %.0g, set %.0g: it gave up at %+v", link, dirty, set, r.last)
				}
			}
		}
	}
}

func TestAnIdleGuestIsStoppedEarly(t *testing.T) {
	m := pages{memory: 256 * mib, link: 110 * mib, passes: 1, left: 256 * mib}
	if r := m.move(t, 0, true); r.end != Stop || m.passes != 1 || m.left > float64(Usual.EarlyStop) {
		t.Errorf("it ended as %d in pass %d with %.0f left", r.end, m.passes, m.left)
	}
}

func TestWithoutASpeed(t *testing.T) {
	plan := NewPlan(Usual, 0, false)
	for _, c := range []struct {
		left int64
		want Act
	}{{100 * mib, LetOut}, {5 * mib, LetOut}, {4 * mib, Stop}} {
		if o := plan.Next(Sight{Now: time.Unix(1, 0), Passes: 2, Remaining: c.left}); o.Act != c.want {
			t.Errorf("with %d left: %+v", c.left, o)
		}
	}
}

// TestASlowedGuestStandsForItsPart looks at a slowed guest every millisecond.
func TestASlowedGuestStandsForItsPart(t *testing.T) {
	plan := NewPlan(Usual, 0, false)
	plan.slow, plan.since = 2, time.Unix(1, 0)
	stands := 0
	for i := range 1000 {
		if plan.letOut(Sight{Now: time.Unix(1, 0).Add(time.Duration(i) * time.Millisecond)}, false).Stand {
			stands++
		}
	}
	if stands != 600 {
		t.Errorf("slowed down by 60 %%, it stands for %d of 1000 ms", stands)
	}
}

func TestASpeedSeenWithLittleIsNotBelieved(t *testing.T) {
	plan := NewPlan(Usual, 0, false)
	s := Sight{Now: time.Unix(1000, 0), Passes: Usual.MinPasses, Remaining: Usual.ParkBelow + 1, Sent: Usual.Known - 1, Speed: 1000}
	if o := plan.Next(s); o.Act != LetOut || plan.Standing().Rate != 0 {
		t.Errorf("%+v, %+v", o, plan.Standing())
	}
	s.Remaining, s.Now = 0, s.Now.Add(time.Second)
	if o := plan.Next(s); o.Act != Stop {
		t.Errorf("a guest with nothing left isn't stopped: %+v", o)
	}
	s.Sent = Usual.Known
	if o := plan.Next(s); o.Act == Stop || plan.Standing().Rate != 1000 {
		t.Errorf("what is known by now isn't heeded: %+v, %+v", o, plan.Standing())
	}
}
