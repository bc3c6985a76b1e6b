package vmdisk

import (
	"fmt"
	"maps"
	"slices"
)

// Activate lets the disk be written under term; that is durable when it returns. After a restart the same
// term may be activated again, if it was not given away. A new term must be higher than every term this disk
// has seen, and drops what is known of peers unless it was imported for the present position, or nobody had the disk since it was noted. Errors:
// ErrOldTerm, ErrFenced (given away), ErrIncomplete, ErrApplying, ErrActive (under another term).
func (d *Store) Activate(term uint64) error {
	d.role.Lock()
	defer d.role.Unlock()
	if err := d.activate(term); err != nil {
		return fmt.Errorf("activate term %d: %w", term, err)
	}
	d.log.Info("Disk is active", "disk", d.id, "term", term, "position", d.Position().String())
	return nil
}

func (d *Store) activate(term uint64) error {
	st := d.j.snapshot()
	d.mu.Lock()
	pos := d.position
	var err error
	switch {
	case d.closed:
		err = ErrClosed
	case d.err != nil:
		err = d.err
	case d.active && d.term == term:
		d.mu.Unlock()
		return nil
	case d.active:
		err = fmt.Errorf("under term %d: %w", d.term, ErrActive)
	case d.applier != nil:
		err = ErrApplying
	case !d.complete:
		err = ErrIncomplete
	case term <= st.given:
		err = fmt.Errorf("term %d was given away: %w", st.given, ErrFenced)
	case term < max(st.newest(), pos.Term):
		err = fmt.Errorf("seen term %d: %w", max(st.newest(), pos.Term), ErrOldTerm)
	}
	restart := term == st.activated
	if err == nil && !restart && term == max(st.newest(), pos.Term) {
		err = fmt.Errorf("another owner had it: %w", ErrOldTerm)
	}
	d.mu.Unlock()
	if err != nil {
		return err
	}
	if err := d.settle(); err != nil {
		return err
	}
	if err := d.keepPeers(st, term, pos); err != nil {
		return err
	}
	if !restart {
		if err := d.hashes.forget(d.al.logged(regionsOf(d.Size()), false)); err != nil {
			return err
		}
	}
	err = d.j.commit(func(st *state) {
		if !restart {
			st.end(pos)
			clear(st.regions) // the sets that still count are stored with them
		}
		st.activated, st.position = term, pos
		withoutIncoming(st)
		// What is written into a region that is still logged leaves no trace in the journal.
		st.exact = len(st.regions) == 0
	})
	if err != nil {
		return err
	}
	if !restart {
		d.al.forget()
	}
	d.al.seal(false)
	d.lostIncoming()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ends = d.j.snapshot().ends
	d.term, d.active, d.fenced, d.pristine = term, true, false, true
	d.counter = max(d.counter, pos.Barrier)
	d.treads()
	d.reconsider()
	return nil
}

// Fence stops the acceptance of writes, which get ErrFenced, and returns when those under way have ended. Feeds go on.
func (d *Store) Fence() error {
	d.role.Lock()
	defer d.role.Unlock()
	d.gate.Lock()
	defer d.gate.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.active {
		return fmt.Errorf("fence: %w", ErrInactive)
	}
	d.fenced = true
	d.reconsider()
	return nil
}

// Seal makes the position of a fenced disk its own for good: what was written gets a barrier, and whoever opens the disk finds it at that
// very position, not at a new one, unless it was unfenced since. Errors: ErrInactive, ErrNotFenced, ErrFailed.
func (d *Store) Seal() error {
	d.role.Lock()
	defer d.role.Unlock()
	if err := d.seal(); err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	return nil
}

func (d *Store) seal() error {
	d.mu.Lock()
	var err error
	switch {
	case d.closed:
		err = ErrClosed
	case !d.active:
		err = ErrInactive
	case !d.fenced:
		err = ErrNotFenced
	}
	d.mu.Unlock()
	if err != nil {
		return err
	}
	if err := d.barrier(); err != nil {
		return err
	}
	// As when the term is given: no round and no save may be under way.
	d.saveMu.Lock()
	defer d.saveMu.Unlock()
	d.syncMu.Lock()
	defer d.syncMu.Unlock()
	pos := d.Position()
	// A write that asked before the fence may only now be about to log its region, which would say that the disk is written.
	d.al.seal(true)
	return d.j.commit(func(st *state) { st.position, st.exact = pos, true })
}

// Unfence accepts writes again, under the same term. Errors: ErrInactive, ErrClosed, ErrFailed, syscall.ENOSPC; then it is fenced still, and may be asked again.
func (d *Store) Unfence() error {
	d.role.Lock()
	defer d.role.Unlock()
	// What is written into a region that is still logged leaves no trace in the journal. That it may be is said by logging one of them once more, which
	// takes a few bytes of the journal's end, and not the space for a second one: a guest that was to be given away goes on though the drive is full.
	if st := d.j.snapshot(); st.owned() && st.exact && len(st.regions) > 0 {
		if err := d.record(regionRecord(recAdded, slices.Sorted(maps.Keys(st.regions))[:1])); err != nil {
			return fmt.Errorf("unfence: %w", err)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return fmt.Errorf("unfence: %w", ErrClosed)
	case !d.active:
		return fmt.Errorf("unfence: %w", ErrInactive)
	}
	d.al.seal(false)
	d.fenced = false
	d.reconsider()
	for _, p := range d.peers {
		if f := p.feed; f != nil {
			if f.live && f.floor.Compare(d.position) < 0 {
				// A position that the disk got while it was fenced wasn't told to this peer, and of an idle guest no write would.
				f.live, f.needBarrier = false, true
			}
			f.signal()
		}
	}
	return nil
}

// Give makes it durable that this disk never writes under term, or a lower one, again. An active disk must be
// fenced; its last writes get a barrier first, its feeds end, and it is a replica from now on. What was known
// of peers can still be exported. A higher term may be activated later. Errors: ErrNotFenced, ErrHydrating, ErrFailed.
func (d *Store) Give(term uint64) error { return d.GiveAt(term, Position{}) }

// GiveAt is Give, of a disk that was fenced and drained at the position at and closed, or lost its process, before it could give the
// term away: opening it has given it a position of its own, since it can't know that nothing was written any more. Who
// calls this knows, and it is at that position again. That is ignored, and this is Give, if the disk is active, has given the term away already,
// isn't whole, or never came that far; so it is if at is zero.
func (d *Store) GiveAt(term uint64, at Position) error {
	d.role.Lock()
	defer d.role.Unlock()
	if err := d.give(term, at); err != nil {
		return fmt.Errorf("give term %d: %w", term, err)
	}
	d.log.Info("Disk gave its term away", "disk", d.id, "term", term, "position", d.Position().String())
	return nil
}

func (d *Store) give(term uint64, at Position) error {
	d.mu.Lock()
	var err error
	switch {
	case d.closed:
		err = ErrClosed
	case d.active && !d.fenced:
		err = ErrNotFenced
	case d.hydration.Load() != nil:
		err = ErrHydrating
	case d.active && term < d.term:
		err = fmt.Errorf("active under %d: %w", d.term, ErrActive)
	}
	active := d.active
	d.mu.Unlock()
	if err != nil {
		return err
	}
	if active {
		if err := d.barrier(); err != nil {
			return err
		}
	}
	// No round and no save may be under way when the disk stops being active.
	d.saveMu.Lock()
	defer d.saveMu.Unlock()
	d.syncMu.Lock()
	defer d.syncMu.Unlock()
	pos := d.Position()
	was := d.j.snapshot()
	drained := !active && at != Position{} && was.owned() && was.activated <= term && was.complete && at.Compare(pos) < 0
	if drained {
		pos = at
	}
	err = d.j.commit(func(st *state) {
		st.given = max(st.given, term)
		if active || drained {
			st.position = pos
		}
		if !st.owned() {
			// The activity log stays: the stored dirty sets are of use only with it.
			st.exact = true
		}
	})
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.peers {
		p.detach()
	}
	d.given = max(d.given, term)
	if drained {
		d.position = pos
	}
	if active {
		d.active, d.fenced = false, false
		d.reconsider()
	}
	return nil
}
