package postal_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"tagalong.org/tagalong/app/postal"
)

func at(n uint64) postal.Position { return postal.Position{Term: 1, Barrier: n} }

// desk is the input of a device "desk" at home that owns "work", beside devices of the office.
func desk(now time.Duration, barrier uint64, told map[string]postal.Position) postal.Input {
	return postal.Input{
		Now: now, Self: "desk", Acting: true,
		Devices: []postal.Device{
			{ID: "nas", Site: "home", Here: true, Connected: true},
			{ID: "o1", Site: "office", Connected: true},
			{ID: "o2", Site: "office", Connected: true, Post: true},
			{ID: "o3", Site: "office", Connected: true},
		},
		VMs: []postal.VM{{ID: "work", Owner: "desk", At: at(barrier), Mirrored: true, May: true, Fed: map[string]bool{"nas": true}, Told: told}},
	}
}

func everybody(n uint64) map[string]postal.Position {
	return map[string]postal.Position{"nas": at(n), "o1": at(n), "o2": at(n), "o3": at(n)}
}

// orders are the orders of a tick, in words.
func orders(m *postal.Machine, in postal.Input) string {
	var out []string
	list, served := m.Tick(in)
	for _, o := range list {
		s := o.VM + ">" + o.Device
		if o.Stop {
			s += " stop"
		}
		if o.Onward {
			s += " onward"
		}
		out = append(out, s)
	}
	for _, s := range served {
		out = append(out, s+" served")
	}
	return strings.Join(out, ", ")
}

// TestWho pushes: each case changes the desk's input, with everybody long overdue, or not.
func TestWho(t *testing.T) {
	const long, longer = 16 * time.Minute, 31 * time.Minute
	for name, c := range map[string]struct {
		after  time.Duration
		change func(in *postal.Input)
		want   string
	}{
		"to the postmaster":               {long, func(*postal.Input) {}, "work>o2"},
		"nobody is behind":                {long, func(in *postal.Input) { in.VMs[0].Told = everybody(9) }, ""},
		"others than the postmaster wait": {long, func(in *postal.Input) { in.VMs[0].Told["o2"] = at(9) }, ""},
		"but not for ever":                {longer, func(in *postal.Input) { in.VMs[0].Told["o2"] = at(9) }, "work>o1"},
		"the postmaster is away":          {long, func(in *postal.Input) { in.Devices[2].Connected = false }, "work>o1"},
		"the site has none":               {long, func(in *postal.Input) { in.Devices[2].Post = false }, "work>o1"},
		"two sites":                       {long, func(in *postal.Input) { in.Devices[3].Site = "attic" }, "work>o2, work>o3"},
		"it may not":                      {long, func(in *postal.Input) { in.VMs[0].May = false }, ""},
		"it isn't the postmaster":         {long, func(in *postal.Input) { in.Acting = false }, ""},
		"the postmaster does nothing":     {longer, func(in *postal.Input) { in.Acting = false }, "work>o2"},
		"no copy here":                    {long, func(in *postal.Input) { in.VMs[0].At = postal.Position{} }, ""},
		"everybody is away": {long, func(in *postal.Input) {
			for i := range in.Devices {
				in.Devices[i].Connected = false
			}
		}, ""},
		"the owner is of that site": {long, func(in *postal.Input) {
			in.Self, in.VMs[0].Owner, in.VMs[0].Mirrored = "desk", "o2", false
			in.VMs[0].Fed = nil
		}, "work>nas onward"},
		"the owner has left": {long, func(in *postal.Input) {
			in.VMs[0].Owner, in.VMs[0].Fed = "gone", nil
			in.Devices = append(in.Devices, postal.Device{ID: "gone", Site: "gone"})
		}, "work>nas onward, work>o2"},
		"the owner, here, mirrors": {time.Minute, func(in *postal.Input) {
			in.VMs[0].Owner, in.VMs[0].Fed = "laptop", nil
			in.Devices = append(in.Devices, postal.Device{ID: "laptop", Site: "home", Here: true, Connected: true})
		}, "work>o2"},
		"the owner, here, fails to": {long, func(in *postal.Input) {
			in.VMs[0].Owner, in.VMs[0].Fed = "laptop", nil
			in.Devices = append(in.Devices, postal.Device{ID: "laptop", Site: "home", Here: true, Connected: true})
		}, "work>nas onward, work>o2"},
		"changes come from elsewhere": {long, func(in *postal.Input) {
			in.VMs[0].Owner, in.VMs[0].Fed, in.VMs[0].Mirrored = "far", nil, false
			in.Devices = append(in.Devices, postal.Device{ID: "far", Site: "far", Connected: true})
		}, "work>nas onward"},
		"changes come from elsewhere, but don't": {longer, func(in *postal.Input) {
			in.VMs[0].Owner, in.VMs[0].Fed, in.VMs[0].Mirrored = "far", nil, false
			in.Devices = append(in.Devices, postal.Device{ID: "far", Site: "far", Connected: true})
		}, "work>nas onward, work>o2"},
	} {
		t.Run(name, func(t *testing.T) {
			m := postal.New(postal.Usual)
			in := desk(0, 1, everybody(1))
			c.change(&in)
			first := orders(m, in)
			in = desk(time.Second, 9, everybody(1))
			c.change(&in)
			if got := orders(m, in); strings.Contains(got+first, ">o") {
				t.Fatalf("at once: %s, %s", first, got)
			}
			for _, d := range in.Devices { // pushes that began at once are over
				m.Ended("work", d.ID, in.Now, postal.Result{Busy: true})
			}
			in = desk(c.after, 10, everybody(1)) // it was written a moment ago
			c.change(&in)
			if in.VMs[0].At != (postal.Position{}) {
				in.VMs[0].At = at(9)
			}
			m2 := orders(m, in)
			if m2 != c.want {
				t.Errorf("%q, want %q", m2, c.want)
			}
		})
	}
}

// TestWhen: the guest writes without a break, rests, and writes again.
func TestWhen(t *testing.T) {
	m := postal.New(postal.Usual)
	now, barrier, reached := time.Duration(0), uint64(1), uint64(1)
	var begun []time.Duration
	step := func(writes bool) {
		now += time.Second
		if writes {
			barrier++
		}
		if orders(m, desk(now, barrier, everybody(reached))) == "work>o2" {
			begun = append(begun, now)
			reached = barrier
			m.Ended("work", "o2", now, postal.Result{Reached: at(barrier)})
		}
	}
	for range int((20 * time.Minute).Seconds()) {
		step(true)
	}
	if len(begun) != 1 || begun[0] < postal.Usual.Overdue || begun[0] > postal.Usual.Overdue+2*time.Second {
		t.Fatalf("of a busy guest pushes began at %v", begun)
	}
	rests := now
	for range 60 {
		step(false)
	}
	if len(begun) != 2 || begun[1]-rests < postal.Usual.Rest-2*time.Second || begun[1]-rests > postal.Usual.Rest+2*time.Second {
		t.Fatalf("the guest rested from %v on, pushes began at %v", rests, begun)
	}
	step(true)
	for range 600 {
		step(false)
	}
	if len(begun) != 3 || begun[2]-begun[1] < postal.Usual.Gap || begun[2]-begun[1] > postal.Usual.Gap+2*time.Second {
		t.Fatalf("pushes began at %v", begun)
	}
}

// TestFailures: what fails is tried again, less and less often, anew when the device comes back, and around the postmaster when it is overdue.
func TestFailures(t *testing.T) {
	m := postal.New(postal.Usual)
	now := time.Duration(0)
	orders(m, desk(now, 1, everybody(1)))
	var tries []time.Duration
	now = time.Second
	orders(m, desk(now, 2, everybody(1)))
	for now < 14*time.Minute {
		now += time.Second
		if orders(m, desk(now, 2, everybody(1))) == "work>o2" {
			tries = append(tries, now)
			m.Ended("work", "o2", now, postal.Result{Failed: true})
		}
	}
	if len(tries) < 5 || len(tries) > 12 || tries[1]-tries[0] > 10*time.Second || tries[len(tries)-1]-tries[len(tries)-2] < time.Minute {
		t.Errorf("tried at %v", tries)
	}
	gone := desk(now, 2, everybody(1))
	gone.Devices[2].Connected, gone.Devices[1].Connected, gone.Devices[3].Connected = false, false, false
	orders(m, gone)
	if got := orders(m, desk(now+time.Second, 2, everybody(1))); got != "work>o2" {
		t.Errorf("when it came back: %q", got)
	}
	m.Ended("work", "o2", now+time.Second, postal.Result{Failed: true})
	if got := orders(m, desk(15*time.Minute+2*time.Second, 2, everybody(1))); got != "work>o1" {
		t.Errorf("when it was overdue: %q", got)
	}
}

// TestStop: what mustn't go on is ended.
func TestStop(t *testing.T) {
	for name, change := range map[string]func(in *postal.Input){
		"may not":           func(in *postal.Input) { in.VMs[0].May = false },
		"it is the owner":   func(in *postal.Input) { in.VMs[0].Owner = "o2" },
		"it is mirrored to": func(in *postal.Input) { in.VMs[0].Fed["o2"] = true },
		"no copy":           func(in *postal.Input) { in.VMs[0].At = postal.Position{} },
		"removed":           func(in *postal.Input) { in.Devices = slices.Delete(in.Devices, 2, 3) },
		"no such VM":        func(in *postal.Input) { in.VMs = nil },
	} {
		m := postal.New(postal.Usual)
		in := desk(0, 2, everybody(1))
		in.VMs[0].Asked = true
		if got := orders(m, in); got != "work>o2" {
			t.Fatalf("%s: began with %q", name, got)
		}
		if got := orders(m, desk(time.Second, 2, everybody(1))); got != "" {
			t.Errorf("%s: %q while it goes on", name, got)
		}
		in = desk(2*time.Second, 2, everybody(1))
		change(&in)
		if got := orders(m, in); !strings.Contains(got, "work>o2 stop") {
			t.Errorf("%s: %q", name, got)
		}
		m.Ended("work", "o2", 2*time.Second, postal.Result{Busy: true})
	}
}

// TestAsked: the person's wish goes before idleness, and is served when there is nothing left to do.
func TestAsked(t *testing.T) {
	m := postal.New(postal.Usual)
	ask := func(now time.Duration, told map[string]postal.Position) string {
		in := desk(now, 2, told)
		in.VMs[0].Asked = true
		return orders(m, in)
	}
	if got := ask(0, everybody(1)); got != "work>o2" {
		t.Fatal(got)
	}
	if got := ask(time.Second, everybody(1)); got != "" {
		t.Errorf("while it goes on: %q", got)
	}
	m.Ended("work", "o2", 2*time.Second, postal.Result{Reached: at(2)})
	if got := ask(3*time.Second, everybody(2)); got != "work served" {
		t.Errorf("in the end: %q", got)
	}
}

// TestALostCopyIsPushedAgain: as soon as the owner tells that a device has none any more, though a push from here had brought it there.
func TestALostCopyIsPushedAgain(t *testing.T) {
	m := postal.New(postal.Usual)
	none := func(now time.Duration, told map[string]postal.Position, none ...string) string {
		in := desk(now, 2, told)
		in.VMs[0].None = map[string]bool{}
		for _, id := range none {
			in.VMs[0].None[id] = true
			delete(in.VMs[0].Told, id)
		}
		return orders(m, in)
	}
	if got := none(0, everybody(2), "o2"); got != "work>o2" {
		t.Fatalf("a first copy: %q", got)
	}
	m.Ended("work", "o2", time.Second, postal.Result{Reached: at(2)})
	if got := none(2*time.Second, everybody(2), "o2"); got != "" {
		t.Errorf("before the owner has told of it: %q", got)
	}
	if got := none(time.Minute, everybody(2)); got != "" {
		t.Errorf("when it has told of it: %q", got)
	}
	if got := none(2*time.Minute, everybody(2), "o2"); got != "work>o2" {
		t.Errorf("when it has told that it is lost: %q", got)
	}
}

// TestAskedOfAnother: the device that the person asks pushes, though another one is postmaster; but not one that changes don't come to.
func TestAskedOfAnother(t *testing.T) {
	for _, mirrored := range []bool{true, false} {
		m := postal.New(postal.Usual)
		in := desk(0, 2, everybody(1))
		in.Acting, in.VMs[0].Asked, in.VMs[0].Mirrored = false, true, mirrored
		want := ""
		if mirrored {
			want = "work>o2"
		}
		if got := orders(m, in); got != want {
			t.Errorf("mirrored %v: %q", mirrored, got)
		}
	}
}

// TestALongPush: what took long to get to a site isn't sent there again to the devices to which its postmaster is still to push it on. Who stays behind what
// the postmaster has gets it in the end, though the guest writes on and the postmaster gets more.
func TestALongPush(t *testing.T) {
	const minute = time.Minute
	m := postal.New(postal.Usual)
	told := everybody(1)
	tick := func(now time.Duration, barrier uint64) string { return orders(m, desk(now, barrier, told)) }
	if got := tick(0, 2) + tick(minute, 2); got != "work>o2" {
		t.Fatalf("at rest: %q", got)
	}
	// It takes an hour. What the owner's fleet does meanwhile makes no difference.
	if got := tick(59*minute, 3); got != "" {
		t.Fatalf("while it goes on: %q", got)
	}
	m.Ended("work", "o2", 60*minute, postal.Result{Reached: at(3)})
	for _, now := range []time.Duration{60 * minute, 75 * minute, 89 * minute} {
		if got := tick(now, 3); got != "" {
			t.Errorf("while the postmaster pushes it on, at %v: %q", now, got)
		}
	}
	told["o1"] = at(3)
	if got := tick(90*minute, 3); got != "work>o3" {
		t.Errorf("to who doesn't get it: %q", got)
	}
	m.Ended("work", "o3", 91*minute, postal.Result{Reached: at(3)})

	// Now the postmaster gets more and more. o1 gets each from it a little later, o3 nothing.
	now, own := 95*minute, ""
	for barrier := uint64(4); barrier < 12 && own == ""; barrier++ {
		if got := tick(now, barrier) + tick(now+minute, barrier); got != "work>o2" {
			t.Fatalf("at %v: %q", now, got)
		}
		now += 10 * minute
		m.Ended("work", "o2", now-5*minute, postal.Result{Reached: at(barrier)})
		told["o1"] = at(barrier - 1)
		own = tick(now, barrier)
	}
	if own != "work>o3" {
		t.Errorf("while the postmaster gets more and more: %q", own)
	}
}

// A random fleet: whatever fails, is away, or comes back, each device of each site gets what there is, in bounded time once it can, at most one push a
// site goes on at a time, and nothing is pushed to who has it.
func TestRandomSchedules(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 5))
			m := postal.New(postal.Usual)
			reached := everybody(1)
			up := map[string]bool{"nas": true, "o1": true, "o2": true, "o3": true}
			post := "o2"
			running := map[string]uint64{}
			barrier := uint64(1)
			var now time.Duration
			// The last third is calm: all are there, and nothing fails.
			for i := range 6000 {
				calm := i >= 4000
				now += time.Duration(1+r.IntN(3)) * time.Second
				if !calm && r.IntN(4) == 0 {
					barrier++
				}
				if r.IntN(50) == 0 || calm {
					for d := range up {
						up[d] = calm || r.IntN(3) > 0
					}
				}
				if r.IntN(300) == 0 {
					post = []string{"o1", "o2", "o3", ""}[r.IntN(4)]
				}
				in := desk(now, barrier, reached)
				in.VMs[0].May = calm || r.IntN(10) > 0
				in.VMs[0].Asked = r.IntN(500) == 0
				for i := range in.Devices {
					in.Devices[i].Connected = up[in.Devices[i].ID]
					in.Devices[i].Post = in.Devices[i].ID == post
				}
				list, _ := m.Tick(in)
				for _, o := range list {
					if o.Stop {
						if _, is := running[o.Device]; !is {
							t.Fatalf("%v: nothing to stop at %s", now, o.Device)
						}
						delete(running, o.Device)
						m.Ended("work", o.Device, now, postal.Result{Busy: true})
						continue
					}
					if _, is := running[o.Device]; is || !up[o.Device] || reached[o.Device] == at(barrier) || o.Device == "nas" || !in.VMs[0].May {
						t.Fatalf("%v: %+v", now, o)
					}
					running[o.Device] = barrier
				}
				if len(running) > 1 {
					t.Fatalf("%v: %v go on at a time", now, running)
				}
				for d, b := range running {
					switch {
					case !up[d] || !calm && r.IntN(20) == 0:
						delete(running, d)
						m.Ended("work", d, now, postal.Result{Failed: true})
					case r.IntN(10) == 0:
						delete(running, d)
						reached[d] = at(b)
						m.Ended("work", d, now, postal.Result{Reached: at(b)})
						if d == post { // which brings it to the others, mostly
							for o := range reached {
								if up[o] && r.IntN(5) > 0 && reached[o].Compare(at(b)) < 0 {
									reached[o] = at(b)
								}
							}
						}
					}
				}
			}
			for d, p := range reached {
				if d != "nas" && p != at(barrier) {
					t.Errorf("%s was left at %v, the disk is at %v", d, p, at(barrier))
				}
			}
		})
	}
}
