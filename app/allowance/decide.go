package allowance

import (
	"fmt"
	"slices"
	"time"
)

// Around is what this device runs on and is connected by, as far as it is known. The zero value, "unknown", forbids nothing.
type Around struct {
	Metered   bool
	OnBattery bool
	// Percent is how full the battery is; 0 or less is unknown.
	Percent int
}

// State is all that the decision goes by, but the time.
type State struct {
	Settings Settings
	// Unreadable says that what the person set is there but can't be read: then Settings doesn't count.
	Unreadable bool
	Paused     bool
	// PausedUntil is when the pause ends; zero is when the person ends it.
	PausedUntil time.Time
	// Asked says that the person wishes to have it now.
	Asked bool
	// Looking says that Around isn't known yet, but will be soon.
	Looking bool
	Around  Around
}

// Reason is why it is as it is.
type Reason string

// The reasons. The first six forbid, the others don't.
const (
	Unreadable Reason = "unreadable"  // the settings can't be read
	Paused     Reason = "paused"      // by the person
	Looking    Reason = "looking"     // it isn't known yet what the connection costs
	OnMetered  Reason = "metered"     // the connection costs by the byte
	LowBattery Reason = "low-battery" // the battery has to last
	Scheduled  Reason = "schedule"    // these times of the week are left out
	Asked      Reason = "asked"       // the person wishes it, whatever else there is
	SlowTimes  Reason = "slow-times"  // times of the week have a limit
	SlowOnce   Reason = "on-battery"  // slowly, as on battery
	Limited    Reason = "limited"     // the person's limit
	Free       Reason = ""
)

// Allowance is what applies at a moment.
type Allowance struct {
	May bool
	Why Reason
	// Up and Down are bytes a second, 0 is without limit. They count only if May.
	Up, Down int64
	// Until is when something of this changes by time alone; zero if that isn't within a week, or never.
	Until time.Time
	// Percent and Below are of the battery, where Why is LowBattery.
	Percent, Below int
}

// At decides about a moment. Its location is the zone of the times of the week.
func (s State) At(now time.Time) Allowance {
	a := s.at(now)
	var edges []time.Time
	note := func(t time.Time) { edges = append(edges, t) }
	if s.Paused && s.PausedUntil.After(now) {
		note(s.PausedUntil)
	}
	for _, w := range s.Settings.Schedule {
		w.edges(now, note)
	}
	slices.SortFunc(edges, time.Time.Compare)
	for _, t := range edges {
		if s.at(t.In(now.Location())) != a {
			a.Until = t.In(now.Location())
			break
		}
	}
	return a
}

// at is At without Until.
func (s State) at(now time.Time) Allowance {
	forbid := func(why Reason) Allowance { return Allowance{Why: why} }
	if s.Unreadable {
		return forbid(Unreadable)
	}
	set := &s.Settings
	if !s.Asked {
		switch low := s.lowBattery(); {
		case s.Paused && (s.PausedUntil.IsZero() || now.Before(s.PausedUntil)):
			return forbid(Paused)
		case s.Looking && set.Metered != AllowMetered:
			return forbid(Looking)
		case s.Around.Metered && set.Metered != AllowMetered:
			return forbid(OnMetered)
		case low:
			return Allowance{Why: LowBattery, Percent: s.Around.Percent, Below: set.Battery.Below}
		case !inTimes(set.Schedule, now):
			return forbid(Scheduled)
		}
	}
	a := Allowance{May: true, Up: set.Up, Down: set.Down}
	if a.Up != 0 || a.Down != 0 {
		a.Why = Limited
	}
	for _, w := range set.Schedule {
		if w.Do == Limit && w.contains(now) {
			a.slow(w.Up, w.Down, SlowTimes)
		}
	}
	if s.Around.OnBattery && !set.Battery.Ignore && !s.Asked {
		a.slow(set.Battery.Rate, set.Battery.Rate, SlowOnce)
	}
	if s.Asked {
		a.Why = Asked
	}
	return a
}

func (s State) lowBattery() bool {
	b := s.Settings.Battery
	return s.Around.OnBattery && !b.Ignore && s.Around.Percent > 0 && s.Around.Percent < b.Below
}

// inTimes says whether the times of the week let something be pushed.
func inTimes(schedule []Window, now time.Time) bool {
	restricted, in := false, false
	for _, w := range schedule {
		switch {
		case w.Do == Off && w.contains(now):
			return false
		case w.Do == Only:
			restricted, in = true, in || w.contains(now)
		}
	}
	return in || !restricted
}

// slow takes limits that apply too; why is told if one of them is less than what is there.
func (a *Allowance) slow(up, down int64, why Reason) {
	for _, r := range []struct {
		have *int64
		more int64
	}{{&a.Up, up}, {&a.Down, down}} {
		if r.more != 0 && (*r.have == 0 || r.more < *r.have) {
			*r.have, a.Why = r.more, why
		}
	}
}

// Sentence says it to a person, as of now; "" where nothing holds anything back.
func (a Allowance) Sentence(now time.Time) string {
	until := ""
	if !a.Until.IsZero() {
		until = " until " + clock(a.Until, now)
	}
	switch a.Why {
	case Unreadable:
		return "What you set about syncing can't be read."
	case Paused:
		return "Sync is paused" + until + "."
	case Looking:
		return "It isn't known yet whether this connection is metered."
	case OnMetered:
		return "This connection is metered."
	case LowBattery:
		return fmt.Sprintf("The battery is at %d %%, below %d %%.", a.Percent, a.Below)
	case Scheduled:
		return "The schedule leaves this time out" + until + "."
	case Asked:
		return "You asked for it now."
	case SlowTimes:
		return "The schedule has a limit" + until + "."
	case SlowOnce:
		return "Slowly, to save the battery."
	case Limited:
		return "There is a limit."
	}
	return ""
}

// clock writes a moment of the next week.
func clock(t, now time.Time) string {
	t = t.In(now.Location())
	if t.Sub(now) > 18*time.Hour {
		return t.Format("Mon 15:04")
	}
	return t.Format("15:04")
}
