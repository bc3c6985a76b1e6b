package switching

import "time"

// Rule bounds how a running guest's memory leaves, and how it is kept from being written faster than that. The zero Rule is not useful; see
// [Usual].
type Rule struct {
	// MinPasses is how often the whole memory is gone through at least before the guest is stopped.
	MinPasses int
	// MaxPasses is after how many passes a pause that is short enough isn't made shorter any more.
	MaxPasses int
	// ParkBelow is how little memory may be left before the guest is stopped, in bytes, while the line's speed isn't known.
	ParkBelow int64
	// HoldBelow is how little of a pass may be left, in bytes, before the hypervisor can't be held back any more: a guest that writes
	// nothing would end the teleport by itself.
	HoldBelow int64
	// MinPortion and MaxPortion bound how much memory may leave before the progress is looked at again, in bytes; PortionShare is the part of what
	// remains in a pass that it is in between. What a hypervisor holds in buffers runs ahead of that, so it gets less the nearer the end of a pass is:
	// a guest that writes next to nothing would end the teleport by itself there, all the more easily the faster the memory leaves.
	MinPortion, MaxPortion, PortionShare int64
	// EarlyStop is how much may be left, in bytes, when a guest is stopped within the first pass because it was too idle to be
	// caught in a later one.
	EarlyStop int64
	// LookEvery is how long a portion may take before the progress is looked at again: a stream that never stands still while it is
	// looked at is faster.
	LookEvery time.Duration
	// CatchUpPoll is how often the taker's copy of the disk is looked at.
	CatchUpPoll time.Duration
	// TellEvery is how often progress is told at most.
	TellEvery time.Duration

	// Pause is for how long the guest may stand still where the person hasn't said anything else, and Longer is what is allowed in turn if
	// that can't be kept.
	Pause  time.Duration
	Longer []time.Duration
	// Small is how short a time for the rest of the memory is not worth another pass.
	Small time.Duration
	// Devices is how many bytes the devices' state takes (297,547 of QEMU 7.2 with hardware generation 2 and one disk), Seal how long the disk's last words,
	// the baton and loading take where computers have nothing else to do (31 to 44 ms in the traces of three switches).
	Devices int64
	Seal    time.Duration
	// Stalls is in how many passes in a row memory must be written about as fast as it leaves before something is done about it.
	Stalls int
	// Gain is which share of the memory before must be left after a pass at most, in percent, for the pass to have been worth it.
	Gain int64
	// Slow is by how many percent the guest is slowed down in turn: for which part of each SlowPeriod it stands still.
	Slow       []int
	SlowPeriod time.Duration
	// Known is how many bytes must have left before a speed is believed: one that was seen with less is that of the beginning.
	Known int64
	// SpeedOver is over how long the line's speed is looked at, in pieces of SpeedEvery.
	SpeedOver, SpeedEvery time.Duration
}

// Usual is the Rule of an engine.
var Usual = Rule{
	MinPasses: 2, MaxPasses: 12, ParkBelow: 4 << 20, HoldBelow: 256 << 10, EarlyStop: 16 << 20,
	MinPortion: 64 << 10, MaxPortion: 16 << 20, PortionShare: 4,
	LookEvery: 10 * time.Millisecond, CatchUpPoll: 20 * time.Millisecond, TellEvery: 250 * time.Millisecond,
	Pause: 300 * time.Millisecond, Longer: []time.Duration{time.Second, 3 * time.Second}, Small: 20 * time.Millisecond,
	Devices: 320 << 10, Seal: 30 * time.Millisecond, Stalls: 2, Gain: 70,
	Slow: []int{30, 60, 85}, SlowPeriod: 100 * time.Millisecond,
	Known: 1 << 20, SpeedOver: 3 * time.Second, SpeedEvery: 250 * time.Millisecond,
}

// Sight is what is seen of a guest's memory on its way.
type Sight struct {
	Now       time.Time
	Passes    int   // how often the whole memory was looked through
	Remaining int64 // bytes, as of the beginning of this pass
	Sent      int64 // bytes of memory that have left
	// OnWay is how many bytes of those the taker doesn't have yet.
	OnWay int64
	// Speed is how fast the line carries memory, in bytes a second, if it knows by itself; 0 is to be found out from Sent.
	Speed int64
	// Disk is how long the taker's copy of the disk takes for its last writes.
	Disk time.Duration
}

// Act is what to do next.
type Act int

// What a Plan may order.
const (
	LetOut Act = iota // let a portion of memory leave, and look again
	Stop              // stop the guest: what is left leaves while it stands still
	GiveUp            // memory is written faster than it leaves, and nothing that is allowed helps
)

// Order is what to do next.
type Order struct {
	Act     Act
	Portion int64 // LetOut: bytes that may leave
	// Stand says that a slowed guest is to stand still now, until the order changes.
	Stand bool
	// Stepped says that something is done now that the person should read of: see Plan.Standing.
	Stepped bool
}

// portion is how much may leave before the next look.
func (r Rule) portion(remaining int64) int64 {
	return min(max(remaining/r.PortionShare, r.MinPortion), r.MaxPortion)
}
