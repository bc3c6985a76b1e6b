package waychoice

import (
	"slices"
	"time"
)

// Way is how a VM that runs gets to another device.
type Way string

// The ways.
const (
	Teleport Way = "teleport" // it runs on, its memory comes first
	PostCopy Way = "postcopy" // it runs on, its memory comes after it
	Suspend  Way = "suspend"  // it is suspended, its memory comes, and it goes on there
)

// What the ways take beside the bytes, at a guess.
const (
	devices = 256 << 10              // bytes of the devices' state
	turn    = 100 * time.Millisecond // for the disk's last words and the baton
	store   = 200 << 20              // bytes of memory a second that are saved, or loaded
	// gain is the share of a line's speed, in percent, up to which memory that is written anew gets less with each pass; slow is how much of that speed
	// a guest that is slowed down as far as it is allowed to writes, in percent of what it did.
	gain, slow = 70, 15
	// better is by how much a way that can lose memory must be the sooner one to be chosen, as a factor.
	better = 4
	// aLongTime is what a span is at most.
	aLongTime = 1000 * time.Hour
)

// Facts are what is known. What isn't is 0.
type Facts struct {
	// Memory is what there is to move, in bytes: what the guest has touched. Disk is what the taker's copy lacks.
	Memory, Disk int64
	// Rate is how many bytes of memory the line carries a second, RoundTrip its round trip. Dirty is how many bytes the guest writes anew a second.
	Rate, Dirty int64
	RoundTrip   time.Duration
	// Allowed is for how long the guest may stand still in the end, at most.
	Allowed time.Duration
	// Seen is for how long the guest would have stood still at the end of an attempt that came to nothing because of that.
	Seen time.Duration
	// Never are the ways that can't be taken, whatever the figures are.
	Never []Way
}

// Estimate is what a way would take. What can't be told is 0.
type Estimate struct {
	Way Way
	// Possible says that it would work, as far as is known.
	Possible bool
	// Bytes is what would be moved, of memory and disk, uncompressed.
	Bytes int64
	// There is how long until the VM runs there, Pause for how long of that it stands still, Full how long until it is as fast as it was.
	There, Pause, Full time.Duration
}

// Reason is why a way is the best.
type Reason string

// The reasons.
const (
	Usual      Reason = "usual"      // nothing speaks against a teleport
	TooBusy    Reason = "too busy"   // it would stand still for longer than it may
	Impossible Reason = "impossible" // the better ones can't be taken
	MuchSooner Reason = "sooner"     // it runs there far sooner, and no other keeps to the pause
)

// Choice is the best way, why, and what each would take. Way is "" if none is possible.
type Choice struct {
	Way  Way
	Why  Reason
	Ways []Estimate
}

// Choose chooses. A teleport is the best where it keeps to the pause that is allowed; else the VM is suspended. That its memory comes after it is chosen
// only where nothing else is possible, or it is there far sooner: should the device that it left die meanwhile, its memory is lost.
func Choose(f Facts) Choice {
	teleport, after, suspend := f.teleport(), f.postCopy(), f.suspend()
	c := Choice{Ways: []Estimate{teleport, after, suspend}}
	switch {
	case teleport.Possible:
		c.Way, c.Why = Teleport, Usual
	case after.Possible && suspend.Possible && after.There > 0 && suspend.There > better*after.There:
		c.Way, c.Why = PostCopy, MuchSooner
	case suspend.Possible:
		c.Way, c.Why = Suspend, f.against()
	case after.Possible:
		c.Way, c.Why = PostCopy, Impossible
	}
	return c
}

// against is what speaks against a teleport.
func (f Facts) against() Reason {
	if f.never(Teleport) {
		return Impossible
	}
	return TooBusy
}

func (f Facts) never(w Way) bool { return slices.Contains(f.Never, w) }

func (f Facts) teleport() Estimate {
	e := Estimate{Way: Teleport, Possible: !f.never(Teleport), Bytes: f.Memory}
	if f.Rate <= 0 {
		return e
	}
	least := span(devices, f.Rate) + turn + f.RoundTrip
	dirty := f.Dirty
	if dirty*100 >= f.Rate*gain {
		dirty = dirty * slow / 100 // it is slowed down
	}
	if dirty*100 < f.Rate*gain {
		// Each pass brings what was written in the one before.
		e.Bytes = int64(float64(f.Memory) * float64(f.Rate) / float64(f.Rate-dirty))
		e.Pause = min(least, max(f.Allowed, least))
	} else {
		e.Bytes = 2 * f.Memory
		e.Pause = span(f.Memory, f.Rate)
	}
	if f.Seen > f.Allowed {
		e.Pause = f.Seen // it was tried
	}
	e.Possible = e.Possible && (f.Allowed == 0 || e.Pause <= f.Allowed)
	e.There = span(e.Bytes, f.Rate) + e.Pause
	e.Full = e.There + span(f.Disk, f.Rate)
	e.Bytes += f.Disk
	return e
}

func (f Facts) postCopy() Estimate {
	e := Estimate{Way: PostCopy, Possible: !f.never(PostCopy), Bytes: f.Memory}
	if f.Rate <= 0 {
		return e
	}
	e.Pause = span(devices, f.Rate) + turn + f.RoundTrip
	// One pass while it runs, then it goes; what it wrote in that time comes after it.
	pass := span(f.Memory, f.Rate)
	again := min(f.Memory, int64(float64(f.Dirty)*pass.Seconds()))
	e.Bytes += again + f.Disk
	e.There = pass + e.Pause
	e.Full = e.There + span(again+f.Disk, f.Rate)
	return e
}

func (f Facts) suspend() Estimate {
	e := Estimate{Way: Suspend, Possible: !f.never(Suspend), Bytes: f.Memory + f.Disk}
	if f.Rate <= 0 {
		return e
	}
	wait := min(span(f.Disk, f.Rate), max(diskWait, span(f.Memory, f.Rate))) // see HandOver
	e.There = 2*span(f.Memory, store) + span(f.Memory, f.Rate) + wait + turn + f.RoundTrip
	e.Pause = e.There
	e.Full = max(e.There, 2*span(f.Memory, store)+span(f.Memory+f.Disk, f.Rate))
	return e
}

// span is how long bytes take at a rate.
func span(bytes, rate int64) time.Duration {
	if s := float64(bytes) / float64(rate); s < aLongTime.Seconds() {
		return time.Duration(s * float64(time.Second))
	}
	return aLongTime
}
