package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"tagalong.org/tagalong/vmdisk/blockset"
	"tagalong.org/tagalong/vmdisk/layer"
)

const (
	// mergeBlocks is what one step of a merge copies: a write that overlaps waits for it.
	mergeBlocks = MaxOp / Block
	// mergeHole is that of a hole, of which nothing is read or written, in blocks.
	mergeHole = (1 << 30) / Block
	// mergeSync is how much is merged before base.raw is synced, so that no flush finds much to do, in blocks.
	mergeSync = (64 << 20) / Block
	// mergeRest is how little must be left for writers to be stopped, in blocks.
	mergeRest  = (4 << 20) / Block
	mergeRetry = 10 * time.Second
)

// merge is the bottom layer on its way into base.raw. Copying is idempotent: until the journal says that
// the layer is gone it is the layer that counts, and a crash makes the merge begin anew.
type merge struct {
	l    *layer.Layer
	mu   sync.Mutex
	left *blockset.Set // still to be copied
}

// again notes that the layer was written since.
func (m *merge) again(a, b int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left.Add(a, b)
}

func (m *merge) count() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.left.Count()
}

// next is the next run to be copied: all hole, or short.
func (m *merge) next(from int64) (a, b int64, ok bool) {
	m.mu.Lock()
	a, b, ok = m.left.Run(from, mergeHole)
	m.mu.Unlock()
	if short := a + mergeBlocks; ok && b > short {
		if data, err := m.l.NextData(a * Block); err == nil && data > short*Block {
			b = min(b, data/Block)
		} else {
			b = short
		}
	}
	return a, b, ok
}

// take says which of the blocks from a on, before b, are left, and takes them off.
func (m *merge) take(a, b int64) (int64, int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a = min(b, m.left.Next(a, true))
	b = min(b, m.left.Next(a, false))
	m.left.Remove(a, b)
	return a, b
}

// mergeLayers merges layers into base.raw whenever there are some, until the disk is closed.
func (d *Store) mergeLayers() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	d.wg.Go(func() {
		select {
		case <-d.stop:
			cancel()
		case <-ctx.Done():
		}
	})
	for {
		more, err := d.mergeBottom(ctx)
		switch {
		case err == nil && more:
			continue
		case errors.Is(err, ErrFailed), errors.Is(err, ErrClosed), ctx.Err() != nil:
			return
		case err != nil:
			d.log.Warn("Merging a layer stopped, it goes on later", "disk", d.id, "err", d.troubled("merge", err))
		}
		var retry <-chan time.Time
		if err != nil {
			retry = time.After(mergeRetry)
		}
		select {
		case <-d.stop:
			return
		case <-d.mergeWake:
		case <-retry:
		}
	}
}

// wakeMerge tells that there may be a layer to be merged.
func (d *Store) wakeMerge() {
	select {
	case d.mergeWake <- struct{}{}:
	default:
	}
}

// mergeTurn is the merging of one layer, as who waits for it sees it.
type mergeTurn struct {
	ended chan struct{}
	err   error // valid once ended is closed
}

func newMergeTurn() *mergeTurn { return &mergeTurn{ended: make(chan struct{})} }

// turned tells who waits that a layer was merged, or wasn't.
func (d *Store) turned(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mergeTurn.err = err
	close(d.mergeTurn.ended)
	d.mergeTurn = newMergeTurn()
}

// mergeBottom merges the lowest layer, if it may be. more says that one was merged.
func (d *Store) mergeBottom(ctx context.Context) (more bool, err error) {
	m := d.beginMerge()
	if m == nil {
		return false, nil
	}
	defer func() { d.turned(err) }()
	rest, before := int64(mergeRest), m.count()
	for {
		if err := d.mergePass(ctx, m); err != nil {
			return false, err
		}
		left := m.count()
		if left <= rest {
			break
		}
		// A guest that writes as fast as this copies is stopped for longer, rather than never.
		if left > before/2 {
			rest *= 2
		}
		before = left
	}
	if err := d.endMerge(m); err != nil {
		return false, fmt.Errorf("merge %s: %w", m.l.Name(), err)
	}
	return true, nil
}

// beginMerge starts over with the lowest layer, if it may be merged.
func (d *Store) beginMerge() *merge {
	st := d.j.snapshot()
	d.gate.Lock()
	defer d.gate.Unlock()
	d.rd.Lock()
	defer d.rd.Unlock()
	n := len(d.stack.layers)
	if n == 0 {
		return nil
	}
	l := d.stack.layers[n-1]
	if !slices.ContainsFunc(st.layers, func(r layerRef) bool { return r.role == rolePart && r.name() == l.Name() }) {
		return nil
	}
	if d.stack.merge == nil || d.stack.merge.l != l {
		d.stack.merge = &merge{l: l, left: l.Blocks()}
	}
	return d.stack.merge
}

// mergePass copies what is left, once.
func (d *Store) mergePass(ctx context.Context, m *merge) error {
	var unsynced int64
	for from := int64(0); ; {
		a, b, ok := m.next(from)
		if !ok || a < from {
			break // round
		}
		if err := d.o.Background.Wait(ctx, min(b-a, mergeBlocks)*Block); err != nil {
			return err
		}
		if err := d.broken(); err != nil {
			return err
		}
		from = b
		c := d.claims.take(a, b)
		d.rd.RLock()
		a, b = m.take(a, b)
		err := d.mergeRun(m, a, b)
		d.rd.RUnlock()
		c.release()
		if err != nil {
			return fmt.Errorf("merge %s: %w", m.l.Name(), err)
		}
		if unsynced += b - a; unsynced >= mergeSync {
			unsynced = 0
			if err := d.stack.base.Sync(); err != nil {
				return d.failed("sync "+baseName, err)
			}
		}
	}
	if err := d.stack.base.Sync(); err != nil {
		return d.failed("sync "+baseName, err)
	}
	return nil
}

// mergeRun copies the blocks [a, b) of the layer into base.raw. What fails is left.
func (d *Store) mergeRun(m *merge, a, b int64) (err error) {
	if a == b {
		return nil
	}
	defer func() {
		if err != nil {
			m.again(a, b)
		}
	}()
	off, n := a*Block, (b-a)*Block
	d.hashes.touch(off, n)
	if data, err := m.l.NextData(off); err == nil && data >= off+n {
		return d.stack.base.Punch(off, n)
	}
	if n > mergeBlocks*Block { // it was a hole when it was looked at
		m.again(a+mergeBlocks, b)
		b, n = a+mergeBlocks, mergeBlocks*Block
	}
	buf := newBuffer(int(n))
	defer buf.release()
	if err := m.l.ReadAt(buf.data, off); err != nil {
		return err
	}
	if isZero(buf.data) {
		return d.stack.base.Punch(off, n)
	}
	if ok, err := d.space.take(n); err != nil {
		return err
	} else if !ok {
		hole, err := d.stack.base.NextHole(off)
		if err != nil {
			return err
		}
		if hole < off+n {
			return d.noRoom()
		}
	}
	_, err = d.stack.base.WriteAt(buf.data, off)
	return err
}

// endMerge copies the last blocks while nothing is written, and drops the layer in one step.
func (d *Store) endMerge(m *merge) error {
	d.syncMu.Lock()
	defer d.syncMu.Unlock()
	d.gate.Lock()
	defer d.gate.Unlock()
	if err := d.broken(); err != nil {
		return err
	}
	for {
		a, b, ok := m.next(0)
		if !ok {
			break
		}
		m.take(a, b)
		if err := d.mergeRun(m, a, b); err != nil {
			return err
		}
	}
	if err := d.stack.base.Sync(); err != nil {
		return d.failed("sync "+baseName, err)
	}
	if err := d.hashes.settle(); err != nil {
		return err
	}
	err := d.j.commit(func(st *state) {
		st.layers = slices.DeleteFunc(st.layers, func(r layerRef) bool { return r.name() == m.l.Name() })
	})
	if err != nil {
		return err
	}
	d.rd.Lock()
	d.stack.layers = slices.DeleteFunc(slices.Clone(d.stack.layers), func(l *layer.Layer) bool { return l == m.l })
	d.stack.merge = nil
	d.rd.Unlock()
	d.dropFiles(m.l)
	d.log.Info("Layer merged into the base", "disk", d.id, "layer", m.l.Name())
	return nil
}

// broken is why the disk refuses to work, if it does.
func (d *Store) broken() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return ErrClosed
	}
	return d.err
}
