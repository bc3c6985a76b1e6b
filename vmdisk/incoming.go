package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"tagalong.org/tagalong/vmdisk/layer"
)

// maxStack is how many layers may wait to be merged before no further catch-up begins.
const maxStack = 8

// Await waits until Begin doesn't fail for want of merging: until fewer layers wait for it. Others of the applier's methods may be called meanwhile. Errors:
// ErrMerging if merging doesn't get on, ErrClosed, ErrFailed, ctx's cause.
func (a *Applier) Await(ctx context.Context) error {
	d := a.d
	for {
		d.mu.Lock()
		turn := d.mergeTurn
		d.mu.Unlock()
		if err := d.broken(); err != nil {
			return fmt.Errorf("await merging: %w", err)
		}
		d.rd.RLock()
		depth := len(d.stack.layers)
		d.rd.RUnlock()
		if depth < maxStack {
			return nil
		}
		d.wakeMerge() // it may be resting from an error
		select {
		case <-ctx.Done():
			return fmt.Errorf("await merging: %w", context.Cause(ctx))
		case <-d.stop:
			return fmt.Errorf("await merging: %w", ErrClosed)
		case <-turn.ended:
			if turn.err != nil {
				return fmt.Errorf("await merging: %w: %w", ErrMerging, turn.err)
			}
		}
	}
}

// catchUp begins, or goes on with, a copy to a whole replica: into a layer that isn't part of the disk before the next Barrier. An
// epoch in the making is dropped; the owner sends it again. The caller holds the applier.
func (a *Applier) catchUp(copy [16]byte) error {
	d := a.d
	d.epochs.rollback()
	if d.incoming != nil && a.State().Copy == copy {
		a.in = d.incoming
		return nil
	}
	if err := d.dropIncoming(); err != nil {
		return err
	}
	a.in = nil
	d.rd.RLock()
	depth := len(d.stack.layers)
	d.rd.RUnlock()
	if depth >= maxStack {
		return fmt.Errorf("%d layers: %w", depth, ErrMerging)
	}
	r := newLayerRef(roleIncoming, layer.Incoming)
	r.copy = copy
	l, err := layer.Create(d.layerConfig(r))
	if err != nil {
		return d.troubled("create layer", err)
	}
	d.incoming = l
	if err := d.j.commit(func(st *state) { st.layers = append(st.layers, r) }); err != nil {
		return errors.Join(err, d.dropIncoming())
	}
	a.in = l
	d.becameIncoming(copy, Position{})
	return nil
}

// becameIncoming notes how far an unfinished catch-up is.
func (d *Store) becameIncoming(copy [16]byte, at Position) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.copy, d.checkpoint = copy, at
}

// dropIncoming gives an unfinished catch-up up. The caller holds the applier, or role where there is none.
func (d *Store) dropIncoming() error {
	l := d.incoming
	if l == nil {
		return nil
	}
	if err := d.j.commit(withoutIncoming); err != nil {
		return fmt.Errorf("drop %s: %w", l.Name(), err)
	}
	d.lostIncoming()
	return nil
}

func withoutIncoming(st *state) {
	st.layers = slices.DeleteFunc(st.layers, func(r layerRef) bool { return r.role == roleIncoming })
}

// lostIncoming ends what the journal doesn't name any more.
func (d *Store) lostIncoming() {
	if l := d.incoming; l != nil {
		d.incoming = nil
		d.becameIncoming([16]byte{}, Position{})
		d.dropFiles(l)
	}
}

// syncIncoming makes what came in durable. If it fails for good, the layer is of no use any more.
func (a *Applier) syncIncoming() error {
	err := a.d.troubled("sync layer", a.in.Sync())
	if errors.Is(err, layer.ErrFailed) {
		err = errors.Join(err, a.d.dropIncoming())
		a.in = nil
	}
	return err
}

// checkpointIncoming makes it durable that the copy is at pos.
func (a *Applier) checkpointIncoming(pos Position) error {
	if err := a.syncIncoming(); err != nil {
		return err
	}
	refs := a.d.j.snapshot().layers
	var copy [16]byte
	for i := range refs {
		if refs[i].role == roleIncoming {
			refs[i].position, copy = pos, refs[i].copy
		}
	}
	if err := a.d.record(layersRecord(refs)); err != nil {
		return err
	}
	a.d.becameIncoming(copy, pos)
	return nil
}

// commitIncoming makes the copy part of the disk, which is at pos then: in one step of the journal. It is merged
// later.
func (a *Applier) commitIncoming(pos Position) error {
	d := a.d
	// The log's epochs are older than the copy, and the journal is about to say that they are applied.
	if err := d.settle(); err != nil {
		return err
	}
	if err := a.syncIncoming(); err != nil {
		return err
	}
	l := a.in
	has := l.Blocks()
	// Only this applier changes the disk, so that most of what cuts need can be kept before anyone has to wait.
	for x := has.Next(0, true); x < has.Blocks(); {
		y := min(has.Next(x, false), x+maxRunBlocks)
		d.rd.RLock()
		d.preserve(x, y)
		d.rd.RUnlock()
		x = has.Next(y, true)
	}
	d.syncMu.Lock()
	defer d.syncMu.Unlock()
	err := d.j.commit(func(st *state) {
		st.position = pos
		i := slices.IndexFunc(st.layers, func(r layerRef) bool { return r.role == roleIncoming })
		if i < 0 {
			return
		}
		r := st.layers[i]
		r.role, r.copy, r.position = rolePart, [16]byte{}, Position{}
		st.layers = append([]layerRef{r}, slices.Delete(st.layers, i, i+1)...)
	})
	if err != nil {
		return err
	}
	d.gate.Lock()
	defer d.gate.Unlock()
	d.rd.Lock()
	defer d.rd.Unlock()
	if d.cuts.open.Load() != nil {
		for x := has.Next(0, true); x < has.Blocks(); {
			y := has.Next(x, false)
			d.preserve(x, y) // what a cut needs that was taken meanwhile
			x = has.Next(y, true)
		}
	}
	d.stack.layers = append([]*layer.Layer{l}, d.stack.layers...)
	d.incoming, a.in = nil, nil
	d.becameIncoming([16]byte{}, Position{})
	d.became(true, [16]byte{}, pos)
	for a, b := range has.Runs() {
		d.trod(a, b)
	}
	d.wakeMerge()
	return nil
}
