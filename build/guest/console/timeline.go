package console

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// maxTicks bounds a time line: eleven hours of ticks, 40 MB.
const maxTicks = 4 << 20

// Tick is one beat of the guest as it arrived here.
type Tick struct {
	N       uint64        // counts from 1 at the guest's start
	Mono    int64         // the guest's monotonic clock, microseconds
	Wall    int64         // the guest's wall clock, microseconds since 1970
	At      time.Duration // its arrival, since the time line's start
	Console string        // whose line it came on
}

// Gap is the pause between two ticks that follow each other.
type Gap struct {
	From, To Tick
}

// Pause is how long the guest was silent, by the host's clock.
func (g Gap) Pause() time.Duration { return g.To.At - g.From.At }

// Switched says that the guest went on at another console.
func (g Gap) Switched() bool { return g.From.Console != g.To.Console }

func (g Gap) String() string {
	return fmt.Sprintf("%v from tick %d at %s to tick %d at %s", g.Pause().Round(time.Millisecond), g.From.N, g.From.Console, g.To.N, g.To.Console)
}

// Timeline collects the ticks of one run of a guest over all its consoles. For
// a guest that started anew, take a new one. It is safe for concurrent use.
type Timeline struct {
	start time.Time

	mu     sync.Mutex
	ticks  []Tick
	tracks []*track
}

// track is one console's share: besides its ticks, the line it broke off in and
// the one it came into.
type track struct {
	name   string
	any    bool          // something arrived
	head   string        // the first line, perhaps the end of one
	headAt time.Duration // its arrival
	tail   string        // the line that hasn't ended
}

// NewTimeline makes an empty time line that starts now.
func NewTimeline() *Timeline { return &Timeline{start: time.Now()} }

// now is the host's monotonic clock.
func (t *Timeline) now() time.Duration { return time.Since(t.start) }

// Now is the time on the line, to compare with Tick.At.
func (t *Timeline) Now() time.Duration { return t.now() }

func (t *Timeline) open(name string) *track {
	t.mu.Lock()
	defer t.mu.Unlock()
	tr := &track{name: name}
	t.tracks = append(t.tracks, tr)
	return tr
}

// firstLine remembers a track's first line, and says whether this is it.
func (t *Timeline) firstLine(tr *track, at time.Duration, text string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if tr.any {
		return false
	}
	tr.any, tr.head, tr.headAt = true, text, at
	return true
}

func (t *Timeline) setTail(tr *track, tail string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	tr.tail = tail
}

func (t *Timeline) add(tr *track, at time.Duration, tick Tick) {
	tick.At, tick.Console = at, tr.name
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.ticks) < maxTicks {
		t.ticks = append(t.ticks, tick)
	}
}

// Ticks is all ticks in the guest's order, a torn one put together where both
// halves arrived.
func (t *Timeline) Ticks() []Tick {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := append(slices.Clone(t.ticks), t.stitched()...)
	slices.SortStableFunc(all, func(a, b Tick) int {
		return cmp.Or(cmp.Compare(a.N, b.N), cmp.Compare(a.At, b.At))
	})
	return all
}

// stitched joins where one console broke off with where the next one came in. Only a
// join that gives the one tick missing there counts.
func (t *Timeline) stitched() []Tick {
	var found []Tick
	for i, from := range t.tracks {
		if from.tail == "" || !from.any {
			continue
		}
		// A head that came later is the other half of another tick, even where it would fit.
		var to *track
		for j, tr := range t.tracks {
			if i != j && tr.any && tr.headAt >= from.headAt && (to == nil || tr.headAt < to.headAt) {
				to = tr
			}
		}
		if to == nil {
			continue
		}
		if _, whole := parseTick(to.head); whole {
			continue
		}
		tick, ok := parseTick(from.tail + to.head)
		if !ok {
			continue
		}
		tick.At, tick.Console = to.headAt, to.name
		if t.has(tick.N-1) && !t.has(tick.N) {
			found = append(found, tick)
		}
	}
	return found
}

func (t *Timeline) has(n uint64) bool {
	return slices.ContainsFunc(t.ticks, func(k Tick) bool { return k.N == n })
}

// Gaps is all pauses of at least limit, in the guest's order. Where ticks are
// missing, the pause spans them.
func (t *Timeline) Gaps(limit time.Duration) []Gap {
	var gaps []Gap
	for a, b := range pairs(t.Ticks()) {
		if g := (Gap{From: a, To: b}); g.Pause() >= limit {
			gaps = append(gaps, g)
		}
	}
	return gaps
}

// MaxGap is the longest pause; ok is false with less than two ticks.
func (t *Timeline) MaxGap() (g Gap, ok bool) {
	for a, b := range pairs(t.Ticks()) {
		if n := (Gap{From: a, To: b}); !ok || n.Pause() > g.Pause() {
			g, ok = n, true
		}
	}
	return g, ok
}

// SwitchGaps is the pauses over which the guest went from one console to
// another.
func (t *Timeline) SwitchGaps() []Gap {
	var gaps []Gap
	for a, b := range pairs(t.Ticks()) {
		if g := (Gap{From: a, To: b}); g.Switched() {
			gaps = append(gaps, g)
		}
	}
	return gaps
}

// Missing is the numbers between the first and the last tick that never came, at
// most 1000 of them.
func (t *Timeline) Missing() []uint64 {
	var missing []uint64
	for a, b := range pairs(t.Ticks()) {
		for n := a.N + 1; n < b.N && len(missing) < 1000; n++ {
			missing = append(missing, n)
		}
	}
	return missing
}

// Doubled is the numbers that came more than once: the guest ran twice.
func (t *Timeline) Doubled() []uint64 {
	var doubled []uint64
	ticks := t.Ticks()
	for i := 1; i < len(ticks); i++ {
		if n := ticks[i].N; n == ticks[i-1].N && (len(doubled) == 0 || doubled[len(doubled)-1] != n) {
			doubled = append(doubled, n)
		}
	}
	return doubled
}

// Last is the newest tick; ok is false if there is none.
func (t *Timeline) Last() (tick Tick, ok bool) {
	ticks := t.Ticks()
	if len(ticks) == 0 {
		return Tick{}, false
	}
	return ticks[len(ticks)-1], true
}

// pairs walks over ticks and their followers, leaving doubles out.
func pairs(ticks []Tick) func(yield func(a, b Tick) bool) {
	return func(yield func(a, b Tick) bool) {
		for i := 1; i < len(ticks); i++ {
			if ticks[i-1].N != ticks[i].N && !yield(ticks[i-1], ticks[i]) {
				return
			}
		}
	}
}

// parseTick reads a T line.
func parseTick(text string) (Tick, bool) {
	f := strings.Fields(text)
	if len(f) != 4 || f[0] != "T" {
		return Tick{}, false
	}
	n, err1 := strconv.ParseUint(f[1], 10, 64)
	mono, err2 := strconv.ParseInt(f[2], 10, 64)
	wall, err3 := strconv.ParseInt(f[3], 10, 64)
	if err1 != nil || err2 != nil || err3 != nil || n == 0 {
		return Tick{}, false
	}
	return Tick{N: n, Mono: mono, Wall: wall}, true
}
