package app

import (
	"context"
	"time"

	"tagalong.org/tagalong/app/courtesy"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/p2p/push"
)

// Guests go before all that reads much in the background on this device (package courtesy). But they don't where the person, or the guest itself, waits for
// just that: a VM that is about to be given away, or whose flushes wait for a second copy, is copied at full speed.

// guestsServed is what guests had of the disks that this device serves now.
func (e *Engine) guestsServed() (all courtesy.Served) {
	for _, v := range e.allVMs() {
		v.mu.Lock()
		x := v.export
		v.mu.Unlock()
		if x != nil {
			for _, server := range x.servers {
				s := server.Stats()
				all.Requests += s.Reads + s.Writes + s.Flushes + s.Trims + s.Zeroes
				all.Bytes += s.ReadBytes + s.WriteBytes
				all.Took += s.Took
				all.Open += s.Open
			}
		}
	}
	return all
}

// processorsServed is how many processors the guests have that run here.
func (e *Engine) processorsServed() (n int) {
	for _, v := range e.allVMs() {
		if v.currentGuest() == nil {
			continue
		}
		r, ok := v.record()
		spec, err := specOf(r)
		if !ok || err != nil {
			n += maxCPUs // who knows
			continue
		}
		n += max(spec.CPUs, 1)
	}
	return n
}

// copyTurns is the vmdisk.Turns of a VM's disk.
type copyTurns struct {
	e  *Engine
	id string
}

func (v *vm) copyTurns() copyTurns { return copyTurns{v.e, v.id} }

// awaited says that somebody waits for the copies of this disk.
func (t copyTurns) awaited() bool {
	v := t.e.vm(t.id)
	return v != nil && (v.hurried() || v.second.Two())
}

// Delay implements vmdisk.Turns.
func (t copyTurns) Delay() time.Duration {
	if t.awaited() {
		return 0
	}
	return t.e.courtesy.Delay()
}

// politely returns what to wait on before so many bytes are read, until ctx ends.
func (t copyTurns) politely(ctx context.Context) func(n int64) error {
	return func(n int64) error {
		if t.awaited() {
			return ctx.Err()
		}
		return t.e.courtesy.Wait(ctx, n)
	}
}

// Took implements vmdisk.Turns.
func (t copyTurns) Took(n int64, d time.Duration) { t.e.courtesy.Took(n, d) }

// hurried says that somebody waits until a device has all of this disk: a hand-off to it is under way, be it that the taker waits for its first copy still.
func (v *vm) hurried() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.wanted) > 0 || v.state == baton.Offering || v.state == baton.Sending
}

// pushCost is what it costs to hash and compress a byte for a push, beside what courtesy counts, in nanoseconds.
const pushCost = 8

// pushSource lends a cut to a push, and lets guests go first.
type pushSource struct {
	push.Source
	ctx context.Context
	e   *Engine
}

// ReadAt implements push.Source.
func (s pushSource) ReadAt(p []byte, off int64) error {
	if err := s.e.courtesy.Turn(s.ctx); err != nil {
		return err
	}
	began := time.Now()
	err := s.Source.ReadAt(p, off)
	s.e.courtesy.Took(int64(len(p)), time.Since(began)+time.Duration(pushCost*len(p)))
	return err
}
