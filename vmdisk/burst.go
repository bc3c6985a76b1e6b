package vmdisk

import "time"

const (
	// burstBytes and burstBarriers are what barriers are left out of at most, so that a replica's epoch stays short.
	burstBytes    = 1 << 20
	burstBarriers = 64
)

// burst is the rule by which what a live peer gets leaves in bursts: with each barrier a burst ends, and the next begins Options.MirrorEvery later, or when there
// is much to send, or somebody waits for the peer. The first barrier after a rest leaves at once. A guest that flushes a thousand times a second would else wake
// every device as often; so it wakes them now and then, and of the barriers of a burst only the newest leaves: at the others the peer would make
// durable what is overwritten, or added to, in the same breath.
//
// It belongs to a feed; Store.mu guards it.
type burst struct {
	under    bool       // something left since the last barrier
	ended    time.Time  // when the last one did
	hurried  bool       // somebody waits for the peer
	barriers []Position // in the queue
	bytes    int64      // emitted since the last barrier that was
	left     int        // barriers left out since then
}

// rest is how long nothing leaves the queue yet. The caller holds d.mu.
func (f *Feed) rest() time.Duration {
	b := &f.burst
	if !f.live || b.under || b.hurried || f.draining > 0 || f.queued >= wakeBytes {
		return 0
	}
	return max(0, b.ended.Add(f.d.o.MirrorEvery).Sub(f.d.o.now()))
}

// popped tells what leaves, and says whether it may be left out: a barrier that a newer one follows, which may leave too. The caller holds d.mu.
func (f *Feed) popped(op *Op) (out bool) {
	b, every := &f.burst, f.d.o.MirrorEvery
	if op.Kind != OpBarrier {
		b.under, b.bytes = true, b.bytes+op.cost()
		return false
	}
	b.barriers = b.barriers[1:]
	// A barrier may leave when it is durable here: then the disk's position is that, or beyond.
	if every > 0 && len(b.barriers) > 0 && b.barriers[0].Compare(f.d.position) <= 0 && b.bytes < burstBytes && b.left < burstBarriers {
		b.left++
		return true
	}
	b.under, b.bytes, b.left, b.hurried = false, 0, 0, false
	if every > 0 {
		b.ended = f.d.o.now()
	}
	return false
}

// hurry has what is queued leave at once: somebody waits for the peer. The caller holds d.mu.
func (f *Feed) hurry() {
	f.burst.hurried = true
	f.rouse()
}
