// Package handover decides, for the giver of a VM, how long to wait for the taker's copy of the disk: until it is whole, if that takes a few
// seconds, and not at all if it takes longer; then the VM goes on there at once, and what is lacking is fetched as it is needed.
//
// It is pure: the caller says how the copy stands and how long it has waited, and asks again. A copy that was never whole can't stand for the
// disk, and one that is being compared is about to be known better: both are waited for, however long that takes.
//
// To test: go test ./app/handover
package handover

import "time"

// Copy is how the taker's copy stands, as the giver's disk knows it.
type Copy struct {
	// Live says that every write reaches it as it happens, Comparing that it is being found out what it lacks.
	Live, Comparing bool
	// Standing says that it is the whole disk at some position, and that what it lacks of the present one is known.
	Standing bool
	// Feeding says that it gets what it lacks, Remaining bytes at most, at Rate bytes a second; 0 is unknown.
	Feeding   bool
	Remaining int64
	Rate      int64
	// Waited is for how long it has been waited for already.
	Waited time.Duration
}

// Rule is what is waited for. The zero Rule waits for nothing that needn't be.
type Rule struct {
	// Patience is how long the rest may take for the copy to be waited for, while the guest runs.
	Patience time.Duration
	// Measure is how long a rate is watched before it is believed.
	Measure time.Duration
	// Near is how little may be missing, in bytes, for the hand-off to go on at once: a busy guest would otherwise keep itself from leaving.
	Near int64
	// Stand is how long a guest may stand still for the last of its writes, and StandStopped for how long they are waited for if there is none.
	Stand, StandStopped time.Duration
}

// Usual is the Rule of an engine.
var Usual = Rule{Patience: 5 * time.Second, Measure: time.Second, Near: 64 << 20, Stand: time.Second, StandStopped: 5 * time.Second}

// GoOn says whether the hand-off goes on now: the memory leaves, or the disk is sealed if there is none.
func (r Rule) GoOn(c Copy) bool {
	switch {
	case c.Live:
		return true
	case !c.Standing || c.Comparing:
		return false
	case c.Feeding && c.Remaining <= r.Near:
		return true
	case c.Waited < r.Measure:
		return false
	}
	left, known := c.Left()
	return !known || left > r.Patience || c.Waited > 3*r.Patience
}

// Drain says for how long the fenced disk's last writes are waited for, before the taker is told what it lacks instead. forever says that
// they must be, as nothing can be told; 0 is not at all.
func (r Rule) Drain(c Copy, live bool) (limit time.Duration, forever bool) {
	if !c.Standing {
		return 0, true
	}
	most := r.StandStopped
	if live {
		most = r.Stand
	}
	left, known := c.Left()
	if !c.Feeding && !c.Live || known && left > most {
		return 0, false
	}
	return most, false
}

// aYear is longer than anybody waits; a line that hardly moves gives times that no Duration holds.
const aYear = 365 * 24 * time.Hour

// Left is how long the rest takes.
func (c Copy) Left() (left time.Duration, known bool) {
	switch {
	case c.Remaining <= 0:
		return 0, true
	case c.Rate <= 0:
		return 0, false
	}
	if seconds := float64(c.Remaining) / float64(c.Rate); seconds < aYear.Seconds() {
		return time.Duration(seconds * float64(time.Second)), true
	}
	return aYear, true
}
