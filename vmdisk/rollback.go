package vmdisk

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"tagalong.org/tagalong/vmdisk/hydrate"
	"tagalong.org/tagalong/vmdisk/layer"
)

// whole makes the disk an ordinary one if nothing is stale any more: its layers become parts that merge down.
func (d *Store) whole() error {
	if d.hydration.Load() == nil {
		return nil
	}
	d.syncMu.Lock()
	defer d.syncMu.Unlock()
	y := d.hydration.Load()
	if y == nil || y.h.Progress().Left > 0 {
		return nil
	}
	// Most is made durable before writers are stopped.
	if err := d.syncHydrating(y); err != nil {
		return err
	}
	d.gate.Lock()
	defer d.gate.Unlock()
	if err := d.broken(); err != nil {
		return err
	}
	// When the journal doesn't name the stale set any more, each of its blocks must be in one of the layers, durably: else
	// what is below them would be read.
	if err := d.syncHydrating(y); err != nil {
		return err
	}
	err := d.step("name layers", func(st *state) {
		for i, r := range st.layers {
			if r.role == roleHydrating {
				st.layers[i].role = rolePart
			}
		}
		st.stale = staleRef{}
	})
	if err != nil {
		return err
	}
	d.rd.Lock()
	d.stack.sink = nil
	d.hydration.Store(nil)
	d.rd.Unlock()
	y.h.Close()
	d.dropStale(y)
	d.wakeMerge()
	d.log.Info("Disk is whole", "disk", d.id)
	return nil
}

// step commits to the journal what the disk is. If it isn't known afterwards what the journal says, the disk has failed.
func (d *Store) step(what string, change func(*state)) error {
	err := d.j.commit(change)
	if errors.Is(err, ErrFailed) {
		return d.failed(what, err)
	}
	return err
}

// syncHydrating makes both layers durable. The caller holds syncMu.
func (d *Store) syncHydrating(y *hydration) error {
	if err := d.syncFetched(y); err != nil {
		return err
	}
	if err := y.written.Sync(); err != nil {
		return d.failed("sync "+y.written.Name(), d.troubled("sync", err))
	}
	return nil
}

// dropStale deletes the stored set of a hydration that the journal doesn't name any more.
func (d *Store) dropStale(y *hydration) { d.sweepStale([]string{y.ref.name()}, staleRef{}) }

// Rollback drops what was fetched and what the guest has written since SetStale: the disk is again what it was before, at
// the position Info.Before, in one durable step. The term that it was active under counts as given away, and what was known
// of the peers is forgotten. The disk must be inactive or fenced; it is inactive afterwards. A Hydrate under way ends with
// ErrClosed. lost is how many bytes of the disk the guest had written. Errors: ErrWhole, ErrNotFenced, ErrFailed.
func (d *Store) Rollback() (lost int64, err error) {
	d.role.Lock()
	defer d.role.Unlock()
	lost, err = d.rollback()
	if err != nil {
		return 0, fmt.Errorf("roll back: %w", err)
	}
	d.log.Warn("Disk was rolled back", "disk", d.id, "position", d.Position().String(), "lost", lost)
	return lost, nil
}

func (d *Store) rollback() (lost int64, err error) {
	y, err := d.endHydration()
	if err != nil {
		return 0, err
	}
	lost = y.written.Present() * Block
	d.saveMu.Lock()
	defer d.saveMu.Unlock()
	if err := d.rollbackJournal(y); err != nil {
		// As if nothing had been tried.
		again := &hydration{ref: y.ref, before: y.before, fetched: y.fetched, written: y.written, layers: y.layers}
		again.h = hydrate.New(y.h.Left(), d.o.hydrate())
		d.restack(func() { d.hydration.Store(again) })
		return 0, err
	}
	d.al.forget()
	d.mu.Lock()
	gone := slices.Collect(maps.Keys(d.peers))
	for _, p := range d.peers {
		p.detach()
	}
	clear(d.peers)
	d.mu.Unlock()
	// The disk is what it was, whatever fails now: dirty sets count only from the position that they have.
	err = d.removeSets(gone...)
	d.dropFiles(y.written)
	d.dropFiles(y.fetched)
	d.dropStale(y)
	return lost, err
}

// endHydration ends what is under way for a hydration that is to be dropped.
func (d *Store) endHydration() (*hydration, error) {
	d.mu.Lock()
	y := d.hydration.Load()
	var err error
	switch {
	case d.closed:
		err = ErrClosed
	case d.err != nil:
		err = d.err
	case y == nil:
		err = ErrWhole
	case d.active && !d.fenced:
		err = ErrNotFenced
	default:
		y.ended = true
	}
	d.mu.Unlock()
	if err != nil {
		return nil, err
	}
	y.h.Close()
	y.runs.Wait()
	return y, nil
}

// rollbackJournal takes the one step, here and on disk.
func (d *Store) rollbackJournal(y *hydration) error {
	d.syncMu.Lock()
	defer d.syncMu.Unlock()
	d.gate.Lock()
	defer d.gate.Unlock()
	if d.hydration.Load() != y {
		return ErrWhole // it has just become that
	}
	err := d.step("roll back", func(st *state) {
		st.layers = slices.DeleteFunc(st.layers, func(r layerRef) bool { return r.role == roleHydrating })
		st.stale, st.position, st.exact = staleRef{}, y.before, true
		st.given = max(st.given, st.activated)
		clear(st.regions)
		maps.DeleteFunc(st.ends, func(term, _ uint64) bool { return term >= y.before.Term })
	})
	if err != nil {
		return err
	}
	st := d.j.snapshot()
	d.rd.Lock()
	defer d.rd.Unlock()
	d.stack.layers = slices.DeleteFunc(slices.Clone(d.stack.layers), func(l *layer.Layer) bool {
		return l == y.written || l == y.fetched
	})
	d.stack.sink = nil
	d.hydration.Store(nil)
	d.epochs.last = y.before
	d.mu.Lock()
	defer d.mu.Unlock()
	d.active, d.fenced, d.wrote, d.syncing = false, false, false, false
	d.position, d.given, d.ends = y.before, st.given, st.ends
	d.reconsider()
	return nil
}
