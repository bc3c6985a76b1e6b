package second

import "time"

const (
	// TellAfter is how long a flush waits before the person is told.
	TellAfter = time.Second
	// Grace is how long a flush waits before it is refused, so that the guest stands still.
	Grace = 10 * time.Second
	// StopGrace is how long a flush still waits when the guest is being stopped. It lets the hypervisor stop the guest's processors before
	// a refusal can do that, and what is under way to the other device arrive.
	StopGrace = time.Second
	// lookEvery is how often a waiting flush looks for what nobody tells it: why it should wait at all.
	lookEvery = 250 * time.Millisecond
)

// Why is why flushes needn't wait for a second copy.
type Why int

// The reasons.
const (
	// Held: there is none, they wait.
	Held Why = 0
	// Alone: there is no other device in the fleet.
	Alone Why = 1
	// Offline: this device took the VM along and expects no others.
	Offline Why = 2
	// Filling: this device itself still fetches parts of the disk, and no other can follow before it has them.
	Filling Why = 3
	// Uncopied: no other device has ever had a whole copy yet.
	Uncopied Why = 4
	// Off: nobody asked for it.
	Off Why = 5
)

// verdict is what becomes of a flush that is durable here.
type verdict int

const (
	keepWaiting verdict = iota
	answer
	refuse
	hangUp
)

// sight is all that a flush's fate depends on.
type sight struct {
	ended   bool // the export is
	reached bool // another device has it
	active  bool // the disk is
	why     Why
	still   bool // the guest's processors stand still
	failing bool // an earlier flush was refused, and nothing was reached since
	// waited is how long the flush has, stopping how long the guest has been being stopped; less than 0 if it isn't.
	waited, stopping time.Duration
}

// judge says what becomes of the flush now; if it keeps waiting, it must be judged again after at most that time.
func judge(s sight) (verdict, time.Duration) {
	switch {
	case s.ended:
		return hangUp, 0
	case s.reached:
		return answer, 0
	case !s.active:
		return hangUp, 0
	case s.why != Held || s.still:
		return answer, 0
	case s.failing || s.stopping >= StopGrace || s.waited >= Grace:
		return refuse, 0
	}
	again := min(lookEvery, Grace-s.waited)
	if s.stopping >= 0 {
		again = min(again, StopGrace-s.stopping)
	}
	return keepWaiting, again
}
