package allowance

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"
	_ "time/tzdata" // the zones, whatever this computer has
)

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	l, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func times(t *testing.T, text string) Times {
	t.Helper()
	x, err := ParseTimes(text)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func moment(t *testing.T, text string, l *time.Location) time.Time {
	t.Helper()
	at, err := time.ParseInLocation("2006-01-02 15:04", text, l)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestWhatCounts(t *testing.T) {
	now := moment(t, "2026-11-23 12:00", time.UTC) // a Monday
	set := func(change func(*Settings)) Settings {
		s := Default()
		change(&s)
		return s
	}
	night := Window{Times: times(t, "22:00-6:00"), Do: Only}
	noon := Window{Times: times(t, "mon-fri 8:00-18:00"), Do: Limit, Up: 5000}
	off := Window{Times: times(t, "mon 11:00-13:00"), Do: Off}
	limited := set(func(s *Settings) { s.Up, s.Down = 9000, 8000 })
	for _, c := range []struct {
		what  string
		state State
		want  Allowance
	}{
		{"nothing", State{Settings: Default()}, Allowance{May: true}},
		{"limits", State{Settings: limited}, Allowance{May: true, Why: Limited, Up: 9000, Down: 8000}},
		{"unreadable", State{Unreadable: true, Asked: true, Settings: Default()}, Allowance{Why: Unreadable}},
		{"paused", State{Settings: Default(), Paused: true}, Allowance{Why: Paused}},
		{"paused for a time", State{Settings: Default(), Paused: true, PausedUntil: now.Add(time.Hour)}, Allowance{Why: Paused, Until: now.Add(time.Hour)}},
		{"a pause that is over", State{Settings: Default(), Paused: true, PausedUntil: now}, Allowance{May: true}},
		{"paused and asked", State{Settings: Default(), Paused: true, Asked: true}, Allowance{May: true, Why: Asked}},
		{"looking", State{Settings: Default(), Looking: true}, Allowance{Why: Looking}},
		{"looking, and asked", State{Settings: Default(), Looking: true, Asked: true}, Allowance{May: true, Why: Asked}},
		{"looking, and metered is allowed", State{Settings: set(func(s *Settings) { s.Metered = AllowMetered }), Looking: true}, Allowance{May: true}},
		{"metered", State{Settings: Default(), Around: Around{Metered: true}}, Allowance{Why: OnMetered}},
		{"metered, allowed", State{Settings: set(func(s *Settings) { s.Metered = AllowMetered }), Around: Around{Metered: true}}, Allowance{May: true}},
		{"metered and asked, with limits", State{Settings: limited, Asked: true, Around: Around{Metered: true}}, Allowance{May: true, Why: Asked, Up: 9000, Down: 8000}},
		{"a low battery", State{Settings: Default(), Around: Around{OnBattery: true, Percent: 29}}, Allowance{Why: LowBattery, Percent: 29, Below: 30}},
		{"a low battery that charges", State{Settings: Default(), Around: Around{Percent: 3}}, Allowance{May: true}},
		{"a battery", State{Settings: Default(), Around: Around{OnBattery: true, Percent: 30}}, Allowance{May: true, Why: SlowOnce, Up: 1 << 20, Down: 1 << 20}},
		{"a battery of unknown charge", State{Settings: Default(), Around: Around{OnBattery: true}}, Allowance{May: true, Why: SlowOnce, Up: 1 << 20, Down: 1 << 20}},
		{"a battery and a lower limit", State{Settings: limited, Around: Around{OnBattery: true}}, Allowance{May: true, Why: Limited, Up: 9000, Down: 8000}},
		{"a battery, asked", State{Settings: limited, Asked: true, Around: Around{OnBattery: true, Percent: 2}}, Allowance{May: true, Why: Asked, Up: 9000, Down: 8000}},
		{"a battery, asked, without limits", State{Settings: Default(), Asked: true, Around: Around{OnBattery: true}}, Allowance{May: true, Why: Asked}},
		{"a battery that doesn't matter", State{Settings: set(func(s *Settings) { s.Battery.Ignore = true }), Around: Around{OnBattery: true, Percent: 2}}, Allowance{May: true}},
		{"metered, on a low battery, paused", State{Settings: Default(), Paused: true, Around: Around{Metered: true, OnBattery: true, Percent: 2}}, Allowance{Why: Paused}},
		{"out of its times", State{Settings: set(func(s *Settings) { s.Schedule = []Window{night} })}, Allowance{Why: Scheduled, Until: now.Add(10 * time.Hour)}},
		{"in one of two times", State{Settings: set(func(s *Settings) { s.Schedule = []Window{night, {Times: times(t, "12:00-13:00"), Do: Only}} })},
			Allowance{May: true, Until: now.Add(time.Hour)}},
		{"in its times, but off", State{Settings: set(func(s *Settings) { s.Schedule = []Window{{Times: times(t, "12:00-13:00"), Do: Only}, off} })},
			Allowance{Why: Scheduled, Until: now.Add(24 * time.Hour)}},
		{"limited times", State{Settings: set(func(s *Settings) { s.Schedule = []Window{noon} })}, Allowance{May: true, Why: SlowTimes, Up: 5000, Until: now.Add(6 * time.Hour)}},
		{"limited times, asked", State{Asked: true, Settings: set(func(s *Settings) { s.Schedule = []Window{noon, off} })},
			Allowance{May: true, Why: Asked, Up: 5000, Until: now.Add(6 * time.Hour)}},
		{"limited times with a lower limit", State{Settings: set(func(s *Settings) { s.Schedule = []Window{noon}; s.Up = 2000 })}, Allowance{May: true, Why: Limited, Up: 2000}},
	} {
		if err := c.state.Settings.Check(); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		got := c.state.At(now)
		if !got.Until.Equal(c.want.Until) {
			t.Errorf("%s: until %v, want %v", c.what, got.Until, c.want.Until)
		}
		got.Until, c.want.Until = time.Time{}, time.Time{}
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", c.what, got, c.want)
		}
		if sentence := got.Sentence(now); (sentence == "") != (got.Why == Free) {
			t.Errorf("%s: %q", c.what, sentence)
		}
	}
}

// What a person reads names the moment that it ends, by their clock.
func TestSentence(t *testing.T) {
	now := moment(t, "2026-11-23 12:00", zone(t, "Europe/Berlin"))
	for want, s := range map[string]State{
		"Sync is paused until 14:00.":                    {Settings: Default(), Paused: true, PausedUntil: now.Add(2 * time.Hour).UTC()},
		"Sync is paused until Wed 12:00.":                {Settings: Default(), Paused: true, PausedUntil: now.Add(48 * time.Hour).UTC()},
		"Sync is paused.":                                {Settings: Default(), Paused: true},
		"The schedule leaves this time out until 22:00.": {Settings: Settings{Metered: AvoidMetered, Schedule: []Window{{Times: times(t, "22:00-6:00"), Do: Only}}}},
		"The battery is at 7 %, below 30 %.":             {Settings: Default(), Around: Around{OnBattery: true, Percent: 7}},
		"What you set about syncing can't be read.":      {Unreadable: true},
	} {
		if got := s.At(now).Sentence(now); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// The clocks change: what the wall shows counts, and the moment that is told is a real one.
func TestClocksChange(t *testing.T) {
	berlin := zone(t, "Europe/Berlin")
	only := func(text string) State {
		return State{Settings: Settings{Metered: AvoidMetered, Schedule: []Window{{Times: times(t, text), Do: Only}}}}
	}
	for _, c := range []struct {
		what, window, now string // now in UTC
		may               bool
		until             string // in UTC
	}{
		{"a short night", "22:00-6:00", "2026-03-28 20:59", false, "2026-03-28 21:00"},
		{"a short night's end", "22:00-6:00", "2026-03-28 21:00", true, "2026-03-29 04:00"},
		{"a long night", "22:00-6:00", "2026-10-24 20:00", true, "2026-10-25 05:00"},
		{"an hour that is left out: the next day's", "2:10-2:50", "2026-03-28 12:00", false, "2026-03-30 00:10"},
		{"times that begin in the hour that is left out", "2:30-5:00", "2026-03-28 12:00", false, "2026-03-29 01:00"},
		{"an hour that comes twice: first", "2:10-2:50", "2026-10-24 12:00", false, "2026-10-25 00:10"},
		{"its end", "2:10-2:50", "2026-10-25 00:20", true, "2026-10-25 00:50"},
		{"and again", "2:10-2:50", "2026-10-25 00:55", false, "2026-10-25 01:10"},
		{"its second end", "2:10-2:50", "2026-10-25 01:20", true, "2026-10-25 01:50"},
		{"times that are left as the clocks are set back", "2:00-2:59", "2026-10-25 00:30", true, "2026-10-25 00:59"},
		{"a whole day", "sun 0:00-24:00", "2026-10-24 22:00", true, "2026-10-25 23:00"},
		{"a whole short day", "sun 0:00-24:00", "2026-03-28 23:00", true, "2026-03-29 22:00"},
	} {
		a := only(c.window).At(moment(t, c.now, time.UTC).In(berlin))
		if want := moment(t, c.until, time.UTC); a.May != c.may || !a.Until.Equal(want) {
			t.Errorf("%s: %v until %v, want %v until %v", c.what, a.May, a.Until.UTC(), c.may, want)
		}
	}
	// The same moment elsewhere.
	at := moment(t, "2026-11-23 20:30", time.UTC)
	for name, may := range map[string]bool{"Europe/London": false, "Europe/Berlin": false, "Europe/Athens": true, "Asia/Kathmandu": true, "America/Los_Angeles": false} {
		if got := only("22:00-6:00").At(at.In(zone(t, name))); got.May != may {
			t.Errorf("%s: %v", name, got.May)
		}
	}
}

// Until is the first moment that a look at every minute finds, whatever the schedule and the zone.
func TestUntilIsTheNextChange(t *testing.T) {
	zones := []*time.Location{zone(t, "Europe/Berlin"), zone(t, "Australia/Lord_Howe"), zone(t, "America/New_York"), time.UTC}
	starts := []string{"2026-03-27 13:00", "2026-10-23 09:17", "2026-04-03 22:05", "2026-10-02 11:11", "2026-03-06 05:00", "2026-10-30 23:59"}
	for seed := range uint64(120) {
		r := rand.New(rand.NewPCG(seed, 5))
		s := State{Settings: Default()}
		for range 1 + r.IntN(3) {
			w := Window{Times: Times{Days: Days(1 + r.IntN(127)), From: r.IntN(day), To: 1 + r.IntN(day)}, Do: []Action{Off, Only, Limit}[r.IntN(3)]}
			if w.Do == Limit {
				w.Up = int64(MinRate + r.IntN(5000))
			}
			if r.IntN(2) == 0 {
				w.From, w.To = 60+r.IntN(180), 60+r.IntN(181) // where clocks change
			}
			if w.From == w.To {
				w.To++
			}
			s.Settings.Schedule = append(s.Settings.Schedule, w)
		}
		if err := s.Settings.Check(); err != nil {
			t.Fatal(err)
		}
		now := moment(t, starts[r.IntN(len(starts))], time.UTC).Add(time.Duration(r.IntN(1440)) * time.Minute).In(zones[r.IntN(len(zones))])
		var want time.Time
		was := s.at(now)
		for at := now.Add(time.Minute); at.Sub(now) <= 7*24*time.Hour; at = at.Add(time.Minute) {
			if s.at(at) != was {
				want = at
				break
			}
		}
		got := s.At(now).Until
		if want.IsZero() && got.Sub(now) > 7*24*time.Hour {
			continue
		}
		if !got.Equal(want) {
			t.Fatalf("seed %d: from %v: %v, want %v, with %+v", seed, now, got, want, s.Settings.Schedule)
		}
	}
}

func TestParseTimes(t *testing.T) {
	for text, want := range map[string]string{
		"22:00-6:00":             "22:00-06:00",
		"Mon-Fri 8:00-18:30":     "mon-fri 08:00-18:30",
		"sat,sun 0:00-24:00":     "sat-sun 00:00-24:00",
		"sun 23:00-24:00":        "sun 23:00-24:00",
		"fri-mon 9:00-10:00":     "mon,fri-sun 09:00-10:00",
		"mon,wed,fri 9:00-10:00": "mon,wed,fri 09:00-10:00",
		"mon-sun 9:00-10:00":     "09:00-10:00",
		" tue   09:05-0:00 ":     "tue 09:05-00:00",
	} {
		got, err := ParseTimes(text)
		if err != nil || got.String() != want {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
			continue
		}
		if again, err := ParseTimes(got.String()); err != nil || again != got {
			t.Errorf("%q: again %+v, %v", text, again, err)
		}
	}
	for _, text := range []string{"", "mon", "8:00", "8-9", "8:00-8:00", "24:00-1:00", "8:0-9:00", "8:00-9:60", "8:00-24:01", "25:00-26:00", "-1:00-2:00",
		"moon 8:00-9:00", "mon- 8:00-9:00", ", 8:00-9:00", "mon 8:00-9:00 x", "8:00–9:00", "008:00-9:00"} {
		if got, err := ParseTimes(text); !errors.Is(err, ErrTimes) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

func TestCheck(t *testing.T) {
	for what, change := range map[string]func(*Settings){
		"too slow":            func(s *Settings) { s.Up = 5 },
		"negative":            func(s *Settings) { s.Down = -1 },
		"too fast":            func(s *Settings) { s.Down = MaxRate + 1 },
		"unknown word":        func(s *Settings) { s.Metered = "" },
		"a hundred and one":   func(s *Settings) { s.Battery.Below = 101 },
		"the battery's rate":  func(s *Settings) { s.Battery.Rate = 1 },
		"no days":             func(s *Settings) { s.Schedule = []Window{{Times: Times{0, 1, 2}, Do: Off}} },
		"no day":              func(s *Settings) { s.Schedule = []Window{{Times: Times{255, 1, 2}, Do: Off}} },
		"no time":             func(s *Settings) { s.Schedule = []Window{{Times: Times{1, 2, 2}, Do: Off}} },
		"too late":            func(s *Settings) { s.Schedule = []Window{{Times: Times{1, 2, 1441}, Do: Off}} },
		"no action":           func(s *Settings) { s.Schedule = []Window{{Times: Times{1, 1, 2}}} },
		"a limit of nothing":  func(s *Settings) { s.Schedule = []Window{{Times: Times{1, 1, 2}, Do: Limit}} },
		"off with a rate":     func(s *Settings) { s.Schedule = []Window{{Times: Times{1, 1, 2}, Do: Off, Up: 4000}} },
		"a limit too slow":    func(s *Settings) { s.Schedule = []Window{{Times: Times{1, 1, 2}, Do: Limit, Down: 40}} },
		"too many for memory": func(s *Settings) { s.Schedule = make([]Window, 65) },
	} {
		s := Default()
		change(&s)
		if err := s.Check(); !errors.Is(err, ErrSettings) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
