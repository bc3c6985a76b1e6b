package herald

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"tagalong.org/tagalong/app/api"
)

// truth is what has happened to one copy, worked out from the schedule alone.
type truth struct {
	copy  *Copy
	calm  time.Duration        // how long it has been whole
	told  map[api.SyncKind]int // since it was whole for long enough
	whole bool                 // it was when last seen
}

// Whatever the links, the guests, the owners and the engine do: of one while in which a copy lacked something it is told at most once that a
// sync began or that it fell behind, never both; half-way and done at most once, after that; and done only of what has everything.
func TestNothingIsToldTwice(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
		h, _ := New(nil)
		var kept []byte
		all := map[place]*truth{}
		var order []*truth
		for _, vm := range []string{"v", "w"} {
			for _, device := range []string{"a", "b"} {
				for _, hydrates := range []bool{false, true} {
					c := &Copy{VM: vm, VMName: vm, Device: device, DeviceName: device, Hydration: hydrates, State: Whole, Mine: true}
					tr := &truth{copy: c, whole: true, told: map[api.SyncKind]int{}}
					all[place{vm, device, hydrates}] = tr
					order = append(order, tr)
				}
			}
		}
		lastBegun := map[topic]time.Time{}
		for range rapid.IntRange(1, 60).Draw(rt, "turns") {
			tr := rapid.SampledFrom(order).Draw(rt, "copy")
			c := tr.copy
			switch rapid.IntRange(0, 9).Draw(rt, "what happens") {
			case 0, 1, 2:
				c.State, c.Remaining, c.Rate = Moving, rapid.SampledFrom([]int64{mib, gib}).Draw(rt, "left"), rapid.SampledFrom([]int64{0, mib, 100 * mib}).Draw(rt, "rate")
				c.ETA = 0
				if c.Rate > 0 {
					c.ETA = timeLeft(c.Remaining, c.Rate)
				}
			case 3, 4:
				c.State, c.Remaining, c.Rate, c.ETA, c.Overrun = Whole, 0, 0, 0, time.Time{}
			case 5:
				c.State = Unknown
			case 6:
				c.Overrun = rapid.SampledFrom([]time.Time{{}, now}).Draw(rt, "overrun")
			case 7:
				c.Mine = !c.Mine
			case 8: // the engine restarts
				var err error
				if h, err = New(kept); err != nil {
					rt.Fatal(err)
				}
			case 9:
				c.Waits = c.Hydration && !c.Waits
			}
			if c.State == Whole {
				c.Waits = false
			}
			step := rapid.SampledFrom([]time.Duration{time.Second, 2 * time.Second, 2 * time.Second, 3 * time.Minute}).Draw(rt, "step")
			hidden := rapid.IntRange(0, 9).Draw(rt, "hidden") == 0 && step < maxStep // no copy is found for moments
			for range rapid.IntRange(1, 60).Draw(rt, "ticks") {
				now = now.Add(step)
				var snapshot []Copy
				for _, tr := range order {
					c := tr.copy
					if hidden && now.Second()%10 < 4 {
						tr.calm = 0
						continue
					}
					if c.State == Moving && c.Rate > 0 {
						c.Remaining = max(mib, c.Remaining-c.Rate) // it never ends by itself
						c.ETA = timeLeft(c.Remaining, c.Rate)
					}
					snapshot = append(snapshot, *c)
					if tr.whole = c.State == Whole; tr.whole {
						tr.calm += step
					} else {
						tr.calm = 0
					}
				}
				news := h.Tick(now, snapshot)
				if b := h.Memory(); b != nil {
					kept = b
					h.Kept()
				}
				for _, n := range news {
					check(rt, n, all, lastBegun, now)
				}
				for _, tr := range order {
					if tr.whole && tr.calm >= settle {
						clear(tr.told)
					}
				}
			}
		}
	})
}

// check holds news against what has happened.
func check(rt *rapid.T, n api.SyncNews, all map[place]*truth, last map[topic]time.Time, now time.Time) {
	if len(n.VMs) == 0 {
		rt.Fatalf("%+v is about nothing", n)
	}
	at := topic{n.Device, what(n.Kind)}
	if n.Hydration {
		at.what += " here"
	}
	if n.Kind == api.SyncBegun || n.Kind == api.SyncBehind || n.Kind == api.SyncWaits {
		if was, ok := last[at]; ok && now.Sub(was) < Pause {
			rt.Fatalf("%+v comes %v after the one before", n, now.Sub(was))
		}
		last[at] = now
	}
	for _, vm := range n.VMs {
		tr := all[place{vm.ID, n.Device, n.Hydration}]
		if !tr.copy.Mine {
			rt.Fatalf("%+v is another device's to tell", n)
		}
		tr.told[n.Kind]++
		began := tr.told[api.SyncBegun] + tr.told[api.SyncBehind]
		switch {
		case n.Kind == api.SyncWaits:
			if !tr.copy.Waits {
				rt.Fatalf("%+v: it doesn't", n)
			}
		case began > 1:
			rt.Fatalf("%+v: told of %v", n, tr.told)
		case n.Kind == api.SyncHalf && tr.told[n.Kind] > 1, n.Kind == api.SyncDone && tr.told[n.Kind] > 1:
			rt.Fatalf("%+v: twice", n)
		case n.Kind == api.SyncDone && !tr.whole:
			rt.Fatalf("%+v: it lacks something", n)
		case n.Kind == api.SyncBehind && (tr.copy.State != Moving || tr.copy.Hydration):
			rt.Fatalf("%+v of %+v", n, tr.copy)
		}
	}
}
