// Package herald decides what a person is told of syncs, and when: that a long one has begun, is half-way and done, that a device fell
// behind, that a running VM waits for what is on no device that can be reached.
//
// It is a pure state machine: snapshots of the copies go in, news come out, time comes with each Tick. It reads no clock, touches nothing
// and belongs to one goroutine. What it must not forget when the engine restarts is its Memory, which the caller keeps before it tells
// the news: a crash in between loses one of them, and tells none twice.
//
// Who tells. The engine of the VM's owner, as the person sits where the VM runs; and that of the device whose copy it is, as the person
// may sit there, or go there next. Any other device is silent (Copy.Mine).
//
// What is one thing. Everything that a device gets meanwhile is one sync, of however many VMs; it is over when the device has had
// everything for a moment. Links that come and go, an engine that restarts and a VM that writes on don't make it another. What fell behind is a
// thing of its own, until it has caught up. Of each thing every kind of news is told at most once, and of a copy either that its
// sync began or that it fell behind, not both. The next thing of the same kind on the same device is told only Pause after the one before, if
// it still matters then.
//
// What is long. Nothing that takes less than Long is told, but for what makes a guest wait.
//
// Test it with: go test ./app/herald
package herald

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"tagalong.org/tagalong/app/api"
)

// The pace of telling.
const (
	// Long is how long a sync must take to be told of, and a device can't keep up.
	Long = time.Minute
	// Pause is the least time between two news of the same kind about the same device.
	Pause = 10 * time.Minute
	// Forget is for how long a copy may be missing from the snapshots (an engine that starts, a switch) without being another.
	Forget = 10 * time.Minute

	// judge is for how long a sync is watched before its expected time is believed.
	judge = 10 * time.Second
	// soon isn't worth a word any more.
	soon = 30 * time.Second
	// settle is for how long a device must have everything before it is done.
	settle = 5 * time.Second
	// patience is how long a guest's read may wait before that is told.
	patience = 5 * time.Second
	// maxStep bounds what counts as time between two ticks: in a longer one this device slept, and saw nothing.
	maxStep = 10 * time.Second
)

// State is how a copy stands, for the person.
type State int

// The states of a copy.
const (
	Unknown State = iota // nobody can say, or the device is away: nothing begins, goes on or ends
	Whole                // it has everything
	Moving               // it gets what it lacks
	Resting              // it lacks something, and gets it later: it is done if its Mark is another than when it began
)

// Copy is one device's copy of one VM in a snapshot.
type Copy struct {
	VM, VMName, Device, DeviceName string
	// Hydration: the device runs the VM, and gets what is elsewhere. From are the names of the devices needed for that; of one that is over, those
	// that were needed last.
	Hydration bool
	From      []string
	State     State
	// Remaining is in bytes, Rate in bytes a second, 0 if unknown; ETA is 0 if unknown.
	Remaining, Rate int64
	ETA             time.Duration
	// Overrun is when it couldn't keep up, zero if it can; Since bounds how old what it lacks is, zero if that is unknown.
	Overrun, Since time.Time
	// Mark changes when the copy has come further.
	Mark api.Position
	// Waits: of a hydration, that nobody is there to get it from; Blocked, that the guest waits for it.
	Waits, Blocked bool
	// Mine says that this device tells of it.
	Mine bool
}

// what a thing is.
type what string

const (
	aSync      what = "sync"
	aLag       what = "lag"
	aHydration what = "hydration"
	aWait      what = "wait" // no thing: only remembered when it was told
)

// kinds are in the order of telling.
var kinds = []what{aHydration, aSync, aLag}

// topic is what there is one thing at a time of.
type topic struct {
	device string
	what   what
}

// thing is what is under way of a topic.
type thing struct {
	told bool // that it began, or that the device fell behind
	half bool
	wait bool // that it waits
}

// place is where a copy is.
type place struct {
	vm, device string
	hydration  bool
}

// track follows a copy that isn't whole, or hasn't been for a moment.
type track struct {
	Copy
	what   what
	told   bool // its thing was told while it was part of it
	named  bool // by name
	start  api.Position
	seen   time.Time
	active time.Duration // how long it moved so far
	fallen time.Duration // how long it couldn't keep up, without a break
	calm   time.Duration // how long it has had everything, without a break
	stuck  time.Duration // how long it waits, without a break
	peak   int64         // the most that it lacked
}

// Herald is the machine. Make one with New.
type Herald struct {
	last   time.Time
	things map[topic]*thing
	tracks map[place]*track
	// told is when it was last told of a topic that something began.
	told  map[topic]time.Time
	dirty bool
}

// New returns a machine that remembers what Memory of an earlier one gave; nil is nothing. An error says that it can't be read: the
// machine is a fresh one then, and works.
func New(memory []byte) (*Herald, error) {
	h := &Herald{things: map[topic]*thing{}, tracks: map[place]*track{}, told: map[topic]time.Time{}}
	return h, h.remember(memory)
}

// Tick takes a snapshot of all copies in, and returns the news that are due now. The copies stay the caller's.
func (h *Herald) Tick(now time.Time, copies []Copy) []api.SyncNews {
	step := time.Duration(0)
	if !h.last.IsZero() {
		step = min(max(0, now.Sub(h.last)), maxStep)
	}
	h.last = now
	for _, c := range copies {
		h.follow(now, step, c)
	}
	for p, t := range h.tracks {
		switch {
		case t.seen.Equal(now):
			continue
		case t.seen.IsZero() || t.seen.After(now): // remembered, or the clock was set back
			t.seen = now
		case now.Sub(t.seen) > Forget:
			h.drop(p)
			continue
		}
		t.State, t.calm, t.stuck = Unknown, 0, 0
	}
	var news []api.SyncNews
	for _, at := range h.topics() {
		news = append(news, h.decide(now, at)...)
	}
	for at, when := range h.told {
		if when.After(now) {
			h.told[at] = now
		} else if now.Sub(when) > Pause {
			delete(h.told, at)
			h.dirty = true
		}
	}
	return news
}

// follow keeps the track of a copy.
func (h *Herald) follow(now time.Time, step time.Duration, c Copy) {
	p := place{c.VM, c.Device, c.Hydration}
	t := h.tracks[p]
	if t == nil {
		if c.State != Moving && !c.Waits {
			return
		}
		t = &track{Copy: c, what: aSync, start: c.Mark}
		if c.Hydration {
			t.what = aHydration
		}
		h.tracks[p] = t
		step = 0 // it began within it
	}
	c.From = slices.Clone(c.From)
	if c.Hydration && c.State == Whole {
		c.From = t.From // those that were needed for it may leave now
	}
	t.Copy, t.seen = c, now
	if t.what == aSync && !t.told && !c.Overrun.IsZero() {
		t.what = aLag
	}
	if at := (topic{c.Device, t.what}); h.things[at] == nil {
		h.things[at] = &thing{}
	}
	t.peak = max(t.peak, c.Remaining)
	if c.State == Moving {
		t.active += step
	}
	grow(&t.fallen, step, c.State == Moving && !c.Overrun.IsZero())
	grow(&t.stuck, step, c.Waits)
	grow(&t.calm, step, c.State == Whole || c.State == Resting && c.Mark != t.start)
}

// grow counts for how long something holds without a break.
func grow(d *time.Duration, step time.Duration, holds bool) {
	if holds {
		*d += step
	} else {
		*d = 0
	}
}

// topics are all that something is under way of, in an order of their own.
func (h *Herald) topics() []topic {
	return slices.SortedFunc(maps.Keys(h.things), func(a, b topic) int {
		return cmp.Or(cmp.Compare(a.device, b.device), cmp.Compare(slices.Index(kinds, a.what), slices.Index(kinds, b.what)))
	})
}

// of are the tracks of a topic, by the VMs' names.
func (h *Herald) of(at topic) []*track {
	var list []*track
	for _, t := range h.tracks {
		if t.Device == at.device && t.what == at.what {
			list = append(list, t)
		}
	}
	slices.SortFunc(list, func(a, b *track) int { return cmp.Or(cmp.Compare(a.VMName, b.VMName), cmp.Compare(a.VM, b.VM)) })
	return list
}

// decide finds what is to be told of a topic now, and ends what is over.
func (h *Herald) decide(now time.Time, at topic) (news []api.SyncNews) {
	g, tracks := h.things[at], h.of(at)
	mine := only(tracks, func(t *track) bool { return t.Mine })
	if len(only(tracks, func(t *track) bool { return t.calm < settle })) == 0 { // also if no track is left
		if ended := only(mine, func(t *track) bool { return t.named || t.told && t.active >= judge }); g.told && len(ended) > 0 {
			news = append(news, newsOf(api.SyncDone, at, ended))
		}
		h.end(at, tracks)
		return news
	}
	due := only(mine, func(t *track) bool { return t.matters(now) })
	switch {
	case !g.told && h.cool(now, at) && len(due) > 0:
		kind := api.SyncBegun
		if at.what == aLag {
			kind = api.SyncBehind
		}
		due = only(mine, func(t *track) bool { return t.matters(now) || t.State == Moving && t.ETA >= soon })
		for _, t := range due {
			t.named = true
		}
		news = append(news, newsOf(kind, at, due))
		g.told, h.told[at], h.dirty = true, now, true
	case g.told && !g.half && at.what != aLag && len(mine) > 0 && halfWay(mine):
		news = append(news, newsOf(api.SyncHalf, at, mine))
		g.half, h.dirty = true, true
	}
	news = append(news, h.waits(now, at, g, mine)...)
	for _, t := range mine {
		if g.told && !t.told {
			t.told, h.dirty = true, true // what joins what was told is part of it
		}
	}
	return news
}

// waits tells that a running VM waits. Only after Pause without, it may be told again of the same hydration.
func (h *Herald) waits(now time.Time, at topic, g *thing, mine []*track) []api.SyncNews {
	told := topic{at.device, aWait}
	if stuck := only(mine, (*track).waitsLong); len(stuck) > 0 && !g.wait && h.cool(now, told) {
		g.wait, h.told[told], h.dirty = true, now, true
		return []api.SyncNews{newsOf(api.SyncWaits, at, stuck)}
	}
	if g.wait && len(only(mine, func(t *track) bool { return t.Waits })) > 0 {
		h.told[told] = now
	}
	if g.wait && h.cool(now, told) {
		g.wait, h.dirty = false, true
	}
	return nil
}

// only are those of the list that are so.
func only(list []*track, is func(*track) bool) (some []*track) {
	for _, t := range list {
		if is(t) {
			some = append(some, t)
		}
	}
	return some
}

// matters says that a person wants to know of a copy that isn't whole.
func (t *track) matters(now time.Time) bool {
	switch {
	case t.State != Moving:
		return false
	case t.what == aLag:
		return t.fallen >= Long && (t.Since.IsZero() || now.Sub(t.Since) >= soon)
	case t.active >= Long:
		return t.ETA == 0 || t.ETA >= soon
	}
	return t.active >= judge && t.ETA >= Long
}

func (t *track) waitsLong() bool {
	return t.stuck >= patience && (t.Blocked || t.stuck >= Long)
}

// halfWay says that half of what there was at most is done, and the rest still takes long.
func halfWay(tracks []*track) bool {
	var peak, left, rate int64
	for _, t := range tracks {
		if t.State == Unknown {
			return false
		}
		peak, left, rate = peak+t.peak, left+t.Remaining, rate+t.Rate
	}
	return left <= peak/2 && rate > 0 && timeLeft(left, rate) >= Long
}

func timeLeft(left, rate int64) time.Duration {
	return time.Duration(float64(left) / float64(rate) * float64(time.Second)).Round(time.Second)
}

// cool says that the last news of that kind are long enough ago.
func (h *Herald) cool(now time.Time, at topic) bool {
	last, ok := h.told[at]
	return !ok || now.Sub(last) >= Pause
}

// end forgets a thing and its tracks.
func (h *Herald) end(at topic, tracks []*track) {
	for _, t := range tracks {
		delete(h.tracks, place{t.VM, t.Device, t.Hydration})
	}
	h.dirty = h.dirty || *h.things[at] != thing{}
	delete(h.things, at)
}

func (h *Herald) drop(p place) {
	h.dirty = h.dirty || h.tracks[p].told
	delete(h.tracks, p)
}

// newsOf is about those tracks, of which there is one at least.
func newsOf(kind api.SyncKind, at topic, tracks []*track) api.SyncNews {
	n := api.SyncNews{Kind: kind, Device: at.device, DeviceName: tracks[0].DeviceName, Hydration: at.what == aHydration, Lag: at.what == aLag}
	for _, t := range tracks {
		n.VMs = append(n.VMs, api.SyncVM{ID: t.VM, Name: t.VMName})
		n.Remaining += t.Remaining
		n.Rate += t.Rate
		for _, name := range t.From {
			if !slices.Contains(n.From, name) {
				n.From = append(n.From, name)
			}
		}
	}
	if n.Remaining > 0 && n.Rate > 0 {
		n.ETA = timeLeft(n.Remaining, n.Rate)
	}
	return n
}
