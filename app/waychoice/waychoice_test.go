package waychoice

import (
	"testing"
	"time"

	"tagalong.org/tagalong/app/handover"
)

const mib = 1 << 20

func TestChoose(t *testing.T) {
	home := int64(800 << 10) // bytes a second, about 7 Mbit/s
	usual := Facts{Memory: 200 * mib, Rate: home, RoundTrip: 40 * time.Millisecond, Allowed: 3 * time.Second}
	with := func(change func(f *Facts)) Facts {
		f := usual
		change(&f)
		return f
	}
	for name, c := range map[string]struct {
		Facts
		way Way
		why Reason
	}{
		"nothing is known":                  {Facts{}, Teleport, Usual},
		"a local network":                   {with(func(f *Facts) { f.Rate, f.Dirty = 100*mib, 30*mib }), Teleport, Usual},
		"idle, far away":                    {usual, Teleport, Usual},
		"it writes a little":                {with(func(f *Facts) { f.Dirty = home / 2 }), Teleport, Usual},
		"slowed down it fits":               {with(func(f *Facts) { f.Dirty = 2 * home }), Teleport, Usual},
		"it writes far too much":            {with(func(f *Facts) { f.Dirty = 30 * home }), Suspend, TooBusy},
		"it was tried":                      {with(func(f *Facts) { f.Seen = 20 * time.Second }), Suspend, TooBusy},
		"it was tried, and may stand still": {with(func(f *Facts) { f.Seen, f.Allowed = 20*time.Second, time.Minute }), Teleport, Usual},
		"no teleport":                       {with(func(f *Facts) { f.Never = []Way{Teleport} }), Suspend, Impossible},
		"no teleport, no suspension":        {with(func(f *Facts) { f.Never = []Way{Teleport, Suspend} }), PostCopy, Impossible},
		"too busy, and nothing else goes":   {with(func(f *Facts) { f.Dirty, f.Never = 30*home, []Way{Suspend, PostCopy} }), "", ""},
		"its memory after it isn't chosen for being a little sooner": {with(func(f *Facts) { f.Dirty, f.Disk = 30*home, 10*mib }), Suspend, TooBusy},
		"its memory after it is there far sooner":                    {with(func(f *Facts) { f.Memory, f.Dirty, f.Disk = 4*mib, 30*home, 500*mib }), PostCopy, MuchSooner},
		"the same, and it can't be":                                  {with(func(f *Facts) { f.Memory, f.Dirty, f.Disk, f.Never = 4*mib, 30*home, 500*mib, []Way{PostCopy} }), Suspend, TooBusy},
	} {
		got := Choose(c.Facts)
		if got.Way != c.way || got.Why != c.why {
			t.Errorf("%s: %q because %q, of %+v", name, got.Way, got.Why, got.Ways)
		}
		if len(got.Ways) != 3 {
			t.Errorf("%s: %d ways", name, len(got.Ways))
		}
		for _, e := range got.Ways {
			if e.Pause > e.There || e.There > e.Full && c.Rate > 0 || e.Bytes < c.Memory {
				t.Errorf("%s: %+v", name, e)
			}
		}
	}
}

// The figures are those that a person would work out.
func TestFigures(t *testing.T) {
	f := Facts{Memory: 100 * mib, Disk: 10 * mib, Rate: mib, Dirty: mib / 2, RoundTrip: 40 * time.Millisecond, Allowed: 3 * time.Second}
	c := Choose(f)
	for i, want := range []struct{ there, pause, full time.Duration }{
		{200 * time.Second, 390 * time.Millisecond, 210 * time.Second},
		{100 * time.Second, 390 * time.Millisecond, 160 * time.Second},
		{111 * time.Second, 111 * time.Second, 111 * time.Second},
	} {
		e := c.Ways[i]
		for _, p := range [][2]time.Duration{{e.There, want.there}, {e.Pause, want.pause}, {e.Full, want.full}} {
			if d := p[0] - p[1]; d < -p[1]/20 || d > p[1]/20 {
				t.Errorf("%s: %v, not about %v", e.Way, p[0], p[1])
			}
		}
	}
}

func TestHandOver(t *testing.T) {
	lacks := handover.Copy{Standing: true, Feeding: true, Remaining: 101 * mib, Rate: mib, Waited: time.Minute}
	with := func(change func(c *handover.Copy)) handover.Copy {
		c := lacks
		change(&c)
		return c
	}
	for name, c := range map[string]struct {
		handover.Copy
		want bool
	}{
		"all is there":                     {with(func(c *handover.Copy) { c.Live = true }), true},
		"the memory is on its way":         {lacks, false},
		"much of the disk too":             {with(func(c *handover.Copy) { c.Remaining = 180 * mib }), false},
		"more of the disk than memory":     {with(func(c *handover.Copy) { c.Remaining = 300 * mib }), true},
		"the rate isn't believed":          {with(func(c *handover.Copy) { c.Remaining, c.Waited = 300*mib, time.Second }), false},
		"the rate isn't known":             {with(func(c *handover.Copy) { c.Remaining, c.Rate = 300*mib, 0 }), false},
		"never whole":                      {with(func(c *handover.Copy) { c.Remaining, c.Standing = 300*mib, false }), false},
		"compared":                         {with(func(c *handover.Copy) { c.Remaining, c.Comparing = 300*mib, true }), false},
		"a lot, but the line is fast":      {with(func(c *handover.Copy) { c.Remaining, c.Rate = 1000*mib, 100*mib }), false},
		"so much that the line isn't fast": {with(func(c *handover.Copy) { c.Remaining, c.Rate = 5000*mib, 100*mib }), true},
	} {
		if got := HandOver(c.Copy, 100*mib); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
