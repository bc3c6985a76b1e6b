package handover

import (
	"testing"
	"time"
)

func TestGoOn(t *testing.T) {
	standing := Copy{Standing: true, Feeding: true, Remaining: 1 << 30}
	with := func(change func(c *Copy)) Copy {
		c := standing
		change(&c)
		return c
	}
	for name, c := range map[string]struct {
		Copy
		want bool
	}{
		"every write arrives":              {with(func(c *Copy) { c.Live = true }), true},
		"never whole":                      {with(func(c *Copy) { c.Standing, c.Rate, c.Waited = false, 1, time.Hour }), false},
		"being compared":                   {with(func(c *Copy) { c.Comparing, c.Waited = true, time.Hour }), false},
		"little is missing":                {with(func(c *Copy) { c.Remaining = 64 << 20 }), true},
		"little, but nothing comes":        {with(func(c *Copy) { c.Remaining, c.Feeding = 1, false }), false},
		"the rate isn't believed yet":      {with(func(c *Copy) { c.Rate, c.Waited = 1, time.Second-1 }), false},
		"it takes long":                    {with(func(c *Copy) { c.Rate, c.Waited = 100<<20, time.Second }), true},
		"it takes a few seconds":           {with(func(c *Copy) { c.Rate, c.Waited = 250<<20, time.Second }), false},
		"a few seconds, again and again":   {with(func(c *Copy) { c.Rate, c.Waited = 250<<20, 16*time.Second }), true},
		"nothing comes, and it was waited": {with(func(c *Copy) { c.Feeding, c.Waited = false, time.Second }), true},
	} {
		if got := Usual.GoOn(c.Copy); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestDrain(t *testing.T) {
	for name, c := range map[string]struct {
		Copy
		live    bool
		limit   time.Duration
		forever bool
	}{
		"never whole":          {Copy{Feeding: true, Remaining: 1 << 30}, true, 0, true},
		"every write":          {Copy{Standing: true, Live: true}, true, time.Second, false},
		"it takes ages":        {Copy{Standing: true, Feeding: true, Remaining: 1 << 40, Rate: 1}, true, 0, false},
		"it takes too long":    {Copy{Standing: true, Feeding: true, Remaining: 64 << 20, Rate: 1 << 20}, true, 0, false},
		"short enough":         {Copy{Standing: true, Feeding: true, Remaining: 64 << 20, Rate: 100 << 20}, true, time.Second, false},
		"nobody stands":        {Copy{Standing: true, Feeding: true, Remaining: 4 << 20, Rate: 1 << 20}, false, 5 * time.Second, false},
		"nothing comes":        {Copy{Standing: true, Remaining: 4096}, false, 0, false},
		"the rate isn't known": {Copy{Standing: true, Feeding: true, Remaining: 1 << 20}, true, time.Second, false},
	} {
		limit, forever := Usual.Drain(c.Copy, c.live)
		if limit != c.limit || forever != c.forever {
			t.Errorf("%s: %v, %v", name, limit, forever)
		}
	}
}
