package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"tagalong.org/tagalong/vmdisk/blockset"
	"tagalong.org/tagalong/vmdisk/hydrate"
	"tagalong.org/tagalong/vmdisk/layer"
)

// fetchedSync is after how many fetched bytes they are made durable.
const fetchedSync = 64 << 20

// hydration is what a disk that isn't whole has beside the others: it is at its position only with the stale blocks
// fetched. What is fetched and what the guest writes go into layers of their own, so that the disk can still be rolled
// back to the position before.
type hydration struct {
	h                *hydrate.Hydrator
	ref              staleRef
	before           Position
	fetched, written *layer.Layer
	layers           []layerRef     // of the two, top first
	unsynced         atomic.Int64   // bytes in fetched
	runs             sync.WaitGroup // of Hydrate
	ended            bool           // under Store.mu: no Hydrate begins any more
}

// wait returns when none of n bytes at off is stale.
func (y *hydration) wait(off, n int64) error {
	err := y.h.Wait(context.Background(), off, n)
	switch {
	case errors.Is(err, hydrate.ErrNoSource):
		return fmt.Errorf("%w: %w", ErrStale, err)
	case errors.Is(err, hydrate.ErrClosed):
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	return err
}

// fresh waits until none of n bytes at off is stale, and returns with rd held for reading if there is no error.
func (d *Store) fresh(off, n int64) error {
	for {
		y := d.hydration.Load()
		if y != nil {
			if err := y.wait(off, n); err != nil {
				return err
			}
		}
		d.rd.RLock()
		if now := d.hydration.Load(); now == nil || now == y {
			return nil
		}
		d.rd.RUnlock()
	}
}

// edges waits until the blocks that a write covers in part aren't stale, and says whose they were.
func (d *Store) edges(off, n int64) (*hydration, error) {
	y := d.hydration.Load()
	if y == nil {
		return nil, nil
	}
	for _, at := range [2]int64{off, off + n} {
		if at%Block == 0 {
			continue
		}
		if err := y.wait(at, 1); err != nil {
			return nil, err
		}
	}
	return y, nil
}

// Stale says whether any of n bytes at off is stale: then reading them waits for a source.
func (d *Store) Stale(off, n int64) bool {
	y := d.hydration.Load()
	return y != nil && d.bounds(off, n) == nil && y.h.Stale(off, n)
}

// Prefetch waits until none of n bytes at off is stale. Errors: ErrRange, ErrStale, ErrClosed.
func (d *Store) Prefetch(off, n int64) error {
	err := d.bounds(off, n)
	if y := d.hydration.Load(); err == nil && y != nil {
		err = y.wait(off, n)
	}
	if err != nil {
		return fmt.Errorf("prefetch: %w", err)
	}
	return nil
}

// EndWaiting makes every read that waits for stale blocks, now or later, end with ErrClosed, and a Hydrate too: whoever is about to close
// the disk, or to end what reads it, needn't wait for a holder. Nothing is lost; the disk has to be opened again. Without stale blocks it
// does nothing.
func (d *Store) EndWaiting() {
	if y := d.hydration.Load(); y != nil {
		y.h.Close()
	}
}

// Pull says whether Hydrate fetches what nobody waits for, until the disk is closed or rolled back; it does at first. What is read is fetched in any
// case. Without stale blocks it does nothing.
func (d *Store) Pull(on bool) {
	if y := d.hydration.Load(); y != nil {
		y.h.Pull(on)
	}
}

// Lacking is a copy of the set of stale blocks; nil if the disk is whole.
func (d *Store) Lacking() *blockset.Set {
	y := d.hydration.Load()
	if y == nil {
		return nil
	}
	return y.h.Left()
}

// Hydration says how far Hydrate is; ok is false if the disk is whole.
func (d *Store) Hydration() (p hydrate.Progress, ok bool) {
	y := d.hydration.Load()
	if y == nil {
		return p, false
	}
	return y.h.Progress(), true
}

// SetStale makes a replica the disk at position at, though it lacks blocks: those in the encoded set (blockset) of what the
// owner's disk at that position has and this one, at its own position, doesn't. That is durable when it returns; an
// unfinished catch-up is dropped. From then on the disk reads as at that position: a read of a stale block waits until
// Hydrate has fetched it. It can be activated, and Rollback undoes it. Errors: ErrActive (also if it was active under a term
// that it has not given away), ErrApplying, ErrIncomplete, ErrHydrating, ErrMalformed, ErrOldPosition. The term of at may be one that this
// disk has given away: a number may have been given of a side that lost, and who gave this disk the VM knows its history.
func (d *Store) SetStale(set []byte, at Position) error {
	d.role.Lock()
	defer d.role.Unlock()
	if err := d.setStale(set, at); err != nil {
		return fmt.Errorf("set stale blocks of %s: %w", at, err)
	}
	d.log.Info("Disk lacks blocks of its position", "disk", d.id, "position", at.String(), "bytes", d.Info().Stale)
	return nil
}

func (d *Store) setStale(b []byte, at Position) error {
	set, err := decodeBlocks(b, d.blocks())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	before, err := d.mayLack(at)
	if err == nil {
		err = d.settle()
	}
	if err != nil {
		return err
	}
	var y *hydration
	if !set.Empty() {
		if y, err = d.newHydration(set, before); err != nil {
			return err
		}
	}
	err = d.step("name stale blocks", func(st *state) {
		withoutIncoming(st)
		clear(st.ends) // as forgetEnds
		st.position = at
		if y != nil {
			st.layers = append(slices.Clone(y.layers), st.layers...)
			st.stale = y.ref
		}
	})
	if err != nil {
		if y != nil {
			err = errors.Join(err, y.fetched.Close(), y.written.Close()) // the files go when the disk is opened
		}
		return err
	}
	d.lostIncoming()
	d.restack(func() {
		if y != nil {
			d.stack.layers = append([]*layer.Layer{y.written, y.fetched}, d.stack.layers...)
			d.stack.sink = y.written
			d.hydration.Store(y)
			d.stopCuts(ErrHydrating)
		}
		d.position, d.ends = at, map[uint64]uint64{}
	})
	return nil
}

// mayLack says whether the disk can be told what it lacks of position at, and where it is.
func (d *Store) mayLack(at Position) (before Position, err error) {
	st := d.j.snapshot()
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		err = ErrClosed
	case d.err != nil:
		err = d.err
	case d.hydration.Load() != nil:
		err = ErrHydrating
	case d.active || st.owned():
		err = ErrActive
	case d.applier != nil:
		err = ErrApplying
	case !d.complete:
		err = ErrIncomplete
	case at.Compare(d.position) < 0:
		err = fmt.Errorf("the disk is at %s: %w", d.position, ErrOldPosition)
	case len(st.layers)+2 > maxLayers:
		err = fmt.Errorf("%d layers wait to be merged: %w", len(st.layers), ErrRange)
	}
	return d.position, err
}

// restack changes the stack, or what goes with it, while nothing reads or writes. change is called with mu held.
func (d *Store) restack(change func()) {
	d.syncMu.Lock()
	defer d.syncMu.Unlock()
	d.gate.Lock()
	defer d.gate.Unlock()
	d.rd.Lock()
	defer d.rd.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	change()
}

// newHydration makes the files of a hydration, durably. Without a journal that names them they are swept.
func (d *Store) newHydration(set *blockset.Set, before Position) (*hydration, error) {
	y := &hydration{ref: newStaleRef(before), before: before}
	if err := d.storeStale(y.ref, set); err != nil {
		return nil, err
	}
	var err error
	y.layers = []layerRef{newLayerRef(roleHydrating, layer.Written), newLayerRef(roleHydrating, layer.Fetched)}
	if y.fetched, err = layer.Create(d.layerConfig(y.layers[1])); err == nil {
		if y.written, err = layer.Create(d.layerConfig(y.layers[0])); err != nil {
			err = errors.Join(err, y.fetched.Remove())
		}
	}
	if err == nil {
		err = d.fs.SyncDir()
	}
	if err != nil {
		return nil, errors.Join(err, d.fs.Remove(y.ref.name()))
	}
	y.h = hydrate.New(set, d.o.hydrate())
	return y, nil
}

// openHydration takes up again what the journal says, after openLayers.
func (d *Store) openHydration(names []string) error {
	st := d.j.snapshot()
	d.sweepStale(names, st.stale)
	if st.stale.serial == 0 {
		return nil
	}
	y := &hydration{ref: st.stale, before: st.stale.before}
	for _, r := range st.layers {
		i := slices.IndexFunc(d.stack.layers, func(l *layer.Layer) bool { return l.Name() == r.name() })
		if r.role != roleHydrating || i < 0 {
			continue
		}
		y.layers = append(y.layers, r)
		if r.kind == layer.Fetched {
			y.fetched = d.stack.layers[i]
		} else {
			y.written = d.stack.layers[i]
		}
	}
	if y.fetched == nil || y.written == nil || d.stack.layers[0] != y.written {
		return fmt.Errorf("%s: the layers of a disk that isn't whole aren't named: %w", journalName, ErrCorrupt)
	}
	set, err := d.loadStale(st.stale)
	if err != nil {
		return err
	}
	for _, l := range [2]*layer.Layer{y.fetched, y.written} {
		has := l.Blocks()
		for a := has.Next(0, true); a < has.Blocks(); {
			b := has.Next(a, false)
			set.Remove(a, b)
			a = has.Next(b, true)
		}
	}
	y.h = hydrate.New(set, d.o.hydrate())
	d.stack.sink = y.written
	d.hydration.Store(y)
	return nil
}

func (o Options) hydrate() hydrate.Options {
	return hydrate.Options{Patience: o.Patience, Log: o.Log}
}

// Hydrate fetches from src what is stale until the disk is whole, durably, and then returns nil; the source is needed until
// then. It may be ended by ctx and called again, with another source too, also after a restart. Reads and writes go on
// meanwhile. Errors: hydrate.ErrGone if the source said so, hydrate.ErrRunning, ErrClosed, ErrFailed, that of ctx.
func (d *Store) Hydrate(ctx context.Context, src hydrate.Source) error {
	if err := d.hydrate(ctx, src); err != nil {
		return fmt.Errorf("hydrate disk: %w", err)
	}
	return nil
}

func (d *Store) hydrate(ctx context.Context, src hydrate.Source) error {
	d.mu.Lock()
	y := d.hydration.Load()
	if d.closed || d.err != nil || y == nil || y.ended {
		err := d.err
		if d.closed || y != nil && y.ended {
			err = ErrClosed
		}
		d.mu.Unlock()
		return err
	}
	d.wg.Add(1)
	y.runs.Add(1)
	d.mu.Unlock()
	err := y.h.Run(ctx, src, sink{d, y})
	// What is here needn't be fetched again.
	serr := d.syncFetched(y)
	if errors.Is(err, hydrate.ErrClosed) {
		err = fmt.Errorf("%w: %w", ErrClosed, err)
	}
	y.runs.Done()
	if err = errors.Join(err, serr); err == nil {
		err = d.whole()
	}
	d.wg.Done()
	return err
}

// syncFetched makes durable what was fetched.
func (d *Store) syncFetched(y *hydration) error {
	y.unsynced.Store(0)
	if err := y.fetched.Sync(); err != nil {
		return d.failed("sync "+y.fetched.Name(), d.troubled("sync", err))
	}
	return nil
}

// sink stores what is fetched.
type sink struct {
	d *Store
	y *hydration
}

// Put implements hydrate.Sink.
func (s sink) Put(off int64, p []byte) error {
	if err := s.d.broken(); err != nil {
		return err
	}
	for n := 0; len(p) > 0; p, off = p[n:], off+int64(n) {
		zero := isZero(p[:Block])
		for n = Block; n < len(p) && isZero(p[n:n+Block]) == zero; n += Block {
			continue
		}
		if err := s.put(off, p[:n], zero); err != nil {
			return err
		}
		if !zero && s.y.unsynced.Add(int64(n)) >= fetchedSync {
			if err := s.d.syncFetched(s.y); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s sink) put(off int64, p []byte, zero bool) error {
	if zero {
		return s.d.troubled("store what was fetched", s.y.fetched.ZeroAt(off, int64(len(p)), false))
	}
	if ok, err := s.d.space.take(int64(len(p))); err != nil {
		return err
	} else if !ok {
		return s.d.noRoom()
	}
	return s.d.troubled("store what was fetched", s.y.fetched.WriteAt(p, off))
}
