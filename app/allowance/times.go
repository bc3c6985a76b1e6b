package allowance

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ErrTimes: a text doesn't name times of the week.
var ErrTimes = errors.New("allowance: not times of the week")

const day = 24 * 60 // minutes

// Days are days of the week: the bit d is time.Weekday(d).
type Days uint8

// everyDay is the whole week.
const everyDay Days = 1<<7 - 1

// Times are the same minutes of some days, by the clock on the wall.
type Times struct {
	Days Days
	// From (included) and To (excluded) are minutes of the day; To may be 1440. If To isn't after From, they end on the next day.
	From, To int
}

func (t Times) check() error {
	if t.Days == 0 || t.Days > everyDay || t.From < 0 || t.From >= day || t.To < 0 || t.To > day || t.From == t.To {
		return fmt.Errorf("days %07b, minutes %d to %d: %w", t.Days, t.From, t.To, ErrSettings)
	}
	return nil
}

// contains says whether the wall clock shows one of these times.
func (t Times) contains(at time.Time) bool {
	today, minute := at.Weekday(), at.Hour()*60+at.Minute()
	if t.From < t.To {
		return t.Days.has(today) && minute >= t.From && minute < t.To
	}
	return t.Days.has(today) && minute >= t.From || t.Days.has((today+6)%7) && minute < t.To
}

func (d Days) has(w time.Weekday) bool { return d&(1<<w) != 0 }

// names of the days, in the order of people's weeks.
var names = []struct {
	day  time.Weekday
	text string
}{{1, "mon"}, {2, "tue"}, {3, "wed"}, {4, "thu"}, {5, "fri"}, {6, "sat"}, {0, "sun"}}

// ParseTimes reads what String writes: "mon-fri 08:00-18:00", "sat,sun 9:30-12:00", "22:00-6:00" of every day, "fri-mon 0:00-24:00".
func ParseTimes(text string) (Times, error) {
	fail := func(what string) (Times, error) { return Times{}, fmt.Errorf("%s in %q: %w", what, text, ErrTimes) }
	words := strings.Fields(strings.ToLower(text))
	t := Times{Days: everyDay}
	switch len(words) {
	case 1:
	case 2:
		t.Days = 0
		for part := range strings.SplitSeq(words[0], ",") {
			from, to, span := strings.Cut(part, "-")
			if !span {
				to = from
			}
			a, b := indexOf(from), indexOf(to)
			if a < 0 || b < 0 {
				return fail("no day " + part)
			}
			for i := a; ; i = (i + 1) % 7 {
				t.Days |= 1 << names[i].day
				if i == b {
					break
				}
			}
		}
		words = words[1:]
	default:
		return fail("too much or nothing")
	}
	from, to, span := strings.Cut(words[0], "-")
	a, okA := minuteOf(from)
	b, okB := minuteOf(to)
	if !span || !okA || !okB || a == day {
		return fail("no times of day")
	}
	t.From, t.To = a, b
	if t.check() != nil {
		return fail("no time at all")
	}
	return t, nil
}

// String is short and can be parsed.
func (t Times) String() string {
	var days []string
	for i := 0; i < len(names) && t.Days != everyDay; i++ {
		if !t.Days.has(names[i].day) {
			continue
		}
		j := i
		for j+1 < len(names) && t.Days.has(names[j+1].day) {
			j++
		}
		if j > i {
			days = append(days, names[i].text+"-"+names[j].text)
		} else {
			days = append(days, names[i].text)
		}
		i = j
	}
	text := fmt.Sprintf("%02d:%02d-%02d:%02d", t.From/60, t.From%60, t.To/60, t.To%60)
	if len(days) > 0 {
		text = strings.Join(days, ",") + " " + text
	}
	return text
}

func indexOf(name string) int {
	for i, n := range names {
		if n.text == name {
			return i
		}
	}
	return -1
}

// minuteOf reads "7:05" as minutes of the day.
func minuteOf(s string) (int, bool) {
	hour, minute, ok := strings.Cut(s, ":")
	h, errH := strconv.ParseUint(hour, 10, 8)
	m, errM := strconv.ParseUint(minute, 10, 8)
	n := int(h)*60 + int(m)
	return n, ok && errH == nil && errM == nil && len(hour) <= 2 && len(minute) == 2 && m < 60 && n <= day
}

// edges calls with moments after now, up to eight days on, at which the wall clock may come to or leave these times: all real ones are among them.
// A wall clock time that comes twice as clocks are set back is told twice, one that is left out not at all; the clocks' change itself is another.
func (t Times) edges(now time.Time, tell func(time.Time)) {
	_, offset := now.Zone()
	offsets := []int{offset}
	_, change := now.ZoneBounds()
	if last := now.AddDate(0, 0, 8); !change.IsZero() && change.Before(last) {
		tell(change)
		_, after := change.Zone()
		offsets = append(offsets, after)
	}
	y, m, d := now.Date()
	for i := -1; i <= 8; i++ {
		for _, minute := range []int{t.From, t.To} {
			wall := time.Date(y, m, d+i, 0, minute, 0, 0, time.UTC)
			for _, o := range offsets {
				at := wall.Add(-time.Duration(o) * time.Second).In(now.Location())
				if _, is := at.Zone(); is == o && at.After(now) {
					tell(at)
				}
			}
		}
	}
}
