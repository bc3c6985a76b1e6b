package vmdisk

import (
	"fmt"
)

// Renew lets an active disk, fenced or not, go on under term instead of the lower one that it is active under. That is durable when
// it returns, and atomic: a write comes before it or after it, and those that come meanwhile wait for one commit of the
// journal. The old term ends at the last barrier; what was written since has the new term's first. What is known of the peers still
// counts, but feeds and comparisons end: attach again. Renewing the present term does nothing. Errors: ErrInactive, ErrFenced (given
// away), ErrOldTerm, ErrFailed.
func (d *Store) Renew(term uint64) error {
	d.role.Lock()
	defer d.role.Unlock()
	if err := d.renew(term); err != nil {
		return fmt.Errorf("renew as term %d: %w", term, err)
	}
	d.log.Info("Disk goes on under a new term", "disk", d.id, "term", term, "position", d.Position().String())
	return nil
}

func (d *Store) renew(term uint64) error {
	st := d.j.snapshot()
	d.mu.Lock()
	var err error
	switch {
	case d.closed:
		err = ErrClosed
	case d.err != nil:
		err = d.err
	case !d.active:
		err = ErrInactive
	case d.term == term:
		d.mu.Unlock()
		return nil
	case term <= st.given:
		err = fmt.Errorf("term %d was given away: %w", st.given, ErrFenced)
	case term < max(d.term, st.newest()):
		err = fmt.Errorf("active under %d: %w", d.term, ErrOldTerm)
	}
	d.mu.Unlock()
	if err != nil {
		return err
	}
	// No save and no round may be under way when the term changes.
	d.saveMu.Lock()
	defer d.saveMu.Unlock()
	if err := d.barrier(); err != nil {
		return err
	}
	d.syncMu.Lock()
	defer d.syncMu.Unlock()
	d.mu.Lock()
	pos := d.position
	for _, p := range d.peers {
		// With this the sets that are stored count under either term: it isn't known yet which one a crash leaves. What is written
		// after they were stored stays in the activity log.
		p.at, p.changed = pos, true
	}
	d.mu.Unlock()
	if err := d.storeLocked(); err != nil {
		return err
	}
	d.gate.Lock()
	defer d.gate.Unlock()
	err = d.step("renew term", func(st *state) {
		st.end(pos)
		st.activated, st.position = term, pos
		st.exact = len(st.regions) == 0
	})
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ends, d.term = d.j.snapshot().ends, term
	for _, p := range d.peers {
		p.detach()
		p.term, p.changed = term, true
	}
	return nil
}
