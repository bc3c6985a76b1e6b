package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tagalong.org/tagalong/vmdisk/blockset"
)

// recordEvery is how long a region is left alone at least, after it left the activity log or the epoch log, before its hashes are recorded.
const recordEvery = 3 * time.Minute

// unrecorded are the regions that may have no slot and aren't known to need none, by how long they have been quiet. Guarded by hashes.mu.
type unrecorded struct {
	fresh *blockset.Set // since the last turn
	ripe  *blockset.Set // since the one before
	due   *blockset.Set
}

// newUnrecorded has all regions due: what is recorded of them isn't known.
func newUnrecorded(regions int64) unrecorded {
	n := int64(maxRegions)
	u := unrecorded{blockset.New(n), blockset.New(n), blockset.New(n)}
	u.due.Add(0, regions)
	return u
}

// again says that regions lost their slots, or never had any, just now.
func (u *unrecorded) again(regions *blockset.Set) {
	for a := regions.Next(0, true); a < regions.Blocks(); {
		b := regions.Next(a, false)
		u.ripe.Remove(a, b)
		u.due.Remove(a, b)
		u.fresh.Add(a, b)
		a = regions.Next(b, true)
	}
}

// all says it of all of so many regions.
func (u *unrecorded) all(regions int64) {
	u.ripe.Reset()
	u.due.Reset()
	u.fresh.Add(0, regions)
}

// turn makes what wasn't written for a whole turn due.
func (u *unrecorded) turn() {
	u.due.Or(u.ripe)
	u.ripe.Reset()
	u.fresh, u.ripe = u.ripe, u.fresh
}

// recordQuiet records the hashes of what is quiet, paced by Options.Record, until the disk is closed.
func (d *Store) recordQuiet() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	d.wg.Go(func() {
		select {
		case <-d.stop:
			cancel()
		case <-ctx.Done():
		}
	})
	turn := time.NewTicker(recordEvery)
	defer turn.Stop()
	for {
		select {
		case <-d.stop:
			return
		case <-turn.C:
		}
		err := d.settleSoon()
		if err == nil {
			d.hashes.turn()
			err = d.recordDue(ctx, d.o.Record)
		}
		switch {
		case err == nil, ctx.Err() != nil, errors.Is(err, ErrIncomplete):
		case errors.Is(err, ErrClosed), errors.Is(err, ErrFailed):
			return
		default:
			d.log.Warn("Recording hashes of the disk's content stopped, it goes on later", "disk", d.id, "err", err)
		}
	}
}

// Record does at once, and for all that isn't being written just now, what the disk does by itself while Options.Record is set: where
// base.raw has no hashes it reads it and records some. A replica's epochs go into base.raw before. One Record or Scrub runs at a time;
// others wait. Errors: ErrIncomplete, ErrClosed, ErrFailed, that of ctx, syscall.ENOSPC and others of the files; what was recorded counts.
func (d *Store) Record(ctx context.Context) error {
	d.scrubMu.Lock()
	defer d.scrubMu.Unlock()
	err := d.broken()
	if err == nil {
		err = d.settleSoon()
	}
	if err == nil {
		d.hashes.turn()
		d.hashes.turn()
		err = d.recordDue(ctx, nil)
	}
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	return nil
}

// recordDue records what is due. What is written meanwhile stays due, or will be again.
func (d *Store) recordDue(ctx context.Context, pace Pace) error {
	s := d.scrubber(ScrubOptions{Throttle: pace})
	recorded := false
	for r := d.hashes.due(0); int64(r) < regionsOf(d.Size()); r = d.hashes.due(r + 1) {
		next, err := s.next(r)
		if err == nil && next > r {
			d.hashes.over(r, next) // nothing is there; what is written there later is fresh
			r = next - 1
			continue
		}
		wrote := false
		if err == nil {
			wrote, err = s.recordRegion(ctx, r)
		}
		if recorded = recorded || wrote; err != nil {
			return errors.Join(err, d.keepRecorded(recorded))
		}
	}
	return d.keepRecorded(recorded)
}

// keepRecorded makes durable what was recorded. No slot needs it: it tells whether the drive has taken them.
func (d *Store) keepRecorded(any bool) error {
	if !any {
		return nil
	}
	return d.hashes.sync()
}

// recordRegion records the hashes of a region that has none, if nothing is known against it. What can't be read marks the disk, and isn't tried
// again until it is written, or the disk is opened again.
func (s *scrubber) recordRegion(ctx context.Context, r uint32) (recorded bool, err error) {
	if s.o.Throttle != nil {
		if err := s.o.Throttle.Wait(ctx, slotSize); err != nil {
			return false, err
		}
	}
	look := s.hashes.watch(r)
	var fresh *slot
	slot, _, err := s.hashes.read(r)
	if err == nil && slot == nil && s.hashes.calm(look, s.busy) {
		found, _, bad, rerr := s.read(ctx, r)
		if err = rerr; err == nil && len(bad) == 0 && found.data != 0 {
			fresh = &found
		}
	}
	still, derr := s.hashes.done(look, s.busy, fresh)
	if err = errors.Join(err, derr); err != nil {
		return false, err
	}
	if still {
		// It may have been forgotten since: then it isn't due any more, but fresh.
		s.hashes.over(r, r+1)
	}
	return still && fresh != nil, nil
}

// settleSoon has a replica's epochs put into base.raw, at the next barrier, or at once between two epochs: as long as a region is in the epoch log nothing
// can be recorded of it, and a log that is slow to fill would keep it for hours.
func (d *Store) settleSoon() error {
	d.mu.Lock()
	a := d.applier
	d.mu.Unlock()
	if a == nil {
		return nil
	}
	err := a.do("settle", func() error {
		e := d.epochs
		if e.empty() {
			return nil
		}
		if len(e.buf) > 0 || e.size != e.committed.at {
			a.settle = true
			return nil
		}
		return d.settle()
	})
	if errors.Is(err, ErrClosed) {
		return nil // it settles when it is closed
	}
	return err
}

// turn makes regions due that weren't written for a whole turn.
func (h *hashes) turn() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.unrecorded.turn()
}

// due is the first region from r on that is due, or one beyond all.
func (h *hashes) due(r uint32) uint32 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return uint32(h.unrecorded.due.Next(int64(r), true))
}

// over says that there is nothing left to be recorded in the regions [a, b), or was when they were looked at.
func (h *hashes) over(a, b uint32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.unrecorded.due.Remove(int64(a), int64(b))
}

// calm says that a region was left alone since its reading began, and isn't about to be written.
func (h *hashes) calm(l *reading, busy func(uint32) bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !l.lost && !busy(l.region)
}

// count notes that a region has a slot, with that data. The caller holds mu.
func (h *hashes) count(r uint32, data uint64) {
	if !h.counted.Has(int64(r)) {
		h.counted.Add(int64(r), int64(r)+1)
		h.recorded += unitBytes(h.size, r, data)
	}
}

// uncount notes that it hasn't any more. The caller holds mu.
func (h *hashes) uncount(r uint32, data uint64) {
	if h.counted.Has(int64(r)) {
		h.counted.Remove(int64(r), int64(r)+1)
		h.recorded -= unitBytes(h.size, r, data)
	}
}

// bytes is how much is recorded, as far as it was seen since the file was opened.
func (h *hashes) bytes() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.recorded
}
