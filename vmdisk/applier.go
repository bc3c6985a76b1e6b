package vmdisk

import (
	"errors"
	"fmt"
	"sync"
	"syscall"

	"tagalong.org/tagalong/vmdisk/layer"
)

// Applier lets a replica follow its owner. Its methods may be called from any goroutine, but order matters: it
// is that of the owner's operations. After an error every further call fails; Close it and start again.
type Applier struct {
	d   *Store
	mu  sync.Mutex
	in  *layer.Layer // where a catch-up goes, from Begin to Barrier
	err error
	// settle says that the epoch log is to be emptied after the next epoch.
	settle bool
	// end is where the owner's disk ends, if it was told; clipped says that what is beyond is zeros, or is becoming that.
	end     int64
	clipped bool
}

// Within tells that the owner's disk has so many bytes: what this replica has beyond them becomes zeros with what is applied. Without it the owner's disk is no smaller than
// this one.
func (a *Applier) Within(bytes int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.end, a.clipped = bytes, false
}

// clip makes zeros of what is beyond the owner's end, with all else that comes. The caller holds a.mu, and is about to apply something.
func (a *Applier) clip() error {
	off, size := a.end, a.d.Size()
	if a.clipped || off <= 0 || off >= size {
		return nil
	}
	a.d.rd.RLock()
	data, err := a.d.stack.nextData(off)
	a.d.rd.RUnlock()
	if err == nil && data < size {
		_, err = a.zero(off, size-off)
	}
	a.clipped = err == nil
	return err
}

// Apply begins to follow an owner. There is at most one applier. Errors: ErrActive, also if this disk was active under
// a term that it has not given away; ErrApplying; ErrFailed; syscall.ENOSPC. The disk's Ends are forgotten.
func (d *Store) Apply() (*Applier, error) {
	d.role.Lock()
	defer d.role.Unlock()
	owned := d.j.snapshot().owned()
	d.mu.Lock()
	var err error
	switch {
	case d.closed:
		err = ErrClosed
	case d.err != nil:
		err = d.err
	case d.hydration.Load() != nil:
		err = ErrHydrating
	case d.active || owned:
		err = ErrActive
	case d.applier != nil:
		err = ErrApplying
	}
	d.mu.Unlock()
	if err == nil {
		err = d.settle()
	}
	if err == nil {
		err = d.forgetEnds()
	}
	if err != nil {
		return nil, fmt.Errorf("apply: %w", err)
	}
	a := &Applier{d: d}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.applier = a
	return a, nil
}

// forgetEnds forgets the history, durably: what is applied from now on may be of another branch of it, and a replica of a branch that was given up
// must never be taken for one that is merely behind. Who becomes the owner learns the ends from the owner before (ImportDirty). Without them
// replicas of older terms are compared.
func (d *Store) forgetEnds() error {
	if len(d.Ends()) == 0 {
		return nil
	}
	if err := d.j.commit(func(st *state) { clear(st.ends) }); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ends = map[uint64]uint64{}
	return nil
}

// ReplicaState is what this disk has, for its owner.
func (d *Store) ReplicaState() ReplicaState {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := ReplicaState{Disk: d.id, Size: d.Size(), Complete: d.complete, Position: d.position, Copy: d.copy, Checkpoint: d.checkpoint}
	if y := d.hydration.Load(); y != nil {
		s.Position = y.before // all that is sure to be here
	}
	return s
}

// State is what this replica has, for its owner.
func (a *Applier) State() ReplicaState { return a.d.ReplicaState() }

// do runs one call; its error is final.
func (a *Applier) do(what string, fn func() error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		return fmt.Errorf("%s: %w", what, a.err)
	}
	a.d.mu.Lock()
	err := a.d.err
	a.d.mu.Unlock()
	if err == nil {
		err = fn()
	}
	if err != nil {
		a.err = err
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// Begin starts a copy, or goes on with the one of that name. That of an incomplete replica goes straight into the disk, over what is there. A whole
// one stays what it is until the next Barrier; what was written since the last one is dropped. Errors: ErrMerging (Await waits for that), those
// of Write.
func (a *Applier) Begin(copy [16]byte) error {
	return a.do("begin copy", func() error {
		st := a.State()
		a.clipped = false // an epoch in the making is dropped
		switch {
		case copy == [16]byte{}:
			return fmt.Errorf("without a name: %w", ErrRange)
		case st.Complete:
			return a.catchUp(copy)
		case copy == st.Copy && st.Position != restMark:
			return nil
		}
		err := a.d.j.commit(func(s *state) { s.copy, s.position = copy, Position{} })
		if err != nil {
			return err
		}
		a.d.became(false, copy, Position{})
		return nil
	})
}

// became notes what the journal now says. Callers hold the applier.
func (d *Store) became(complete bool, copy [16]byte, pos Position) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if complete && d.complete && d.unapplied == nil && pos != (Position{}) {
		d.follows(d.position)
		d.marks(d.position)
		d.trail.at = pos // what it is made of is told next
	}
	d.complete, d.copy, d.position = complete, copy, pos
	d.reconsider()
}

// span checks the range of an operation: whole blocks within the disk. whole says that the replica is whole.
func (a *Applier) span(off, n int64) (whole bool, err error) {
	if err := a.d.bounds(off, n); err != nil {
		return false, err
	}
	if n == 0 || off%Block != 0 || n%Block != 0 {
		return false, fmt.Errorf("%d bytes at %d aren't whole blocks: %w", n, off, ErrRange)
	}
	st := a.State()
	if !st.begun() {
		return false, ErrNoCopy
	}
	return st.Complete, nil
}

// begun says that the replica may be written. What was offered may not, before a copy is begun: its name would stand for something else.
func (s ReplicaState) begun() bool {
	return s.Complete || s.Copy != [16]byte{} && s.Position != restMark
}

// Write stores whole blocks, at most MaxOp bytes. They count from the next Barrier on. p is the caller's again when it
// returns. Errors: ErrRange, ErrNoCopy, syscall.ENOSPC and others of the files.
func (a *Applier) Write(off int64, p []byte) error {
	return a.do("apply write", func() error {
		n := int64(len(p))
		whole, err := a.span(off, n)
		if err == nil {
			err = a.clip()
		}
		if err != nil {
			return err
		}
		if n > MaxOp {
			return fmt.Errorf("%d bytes at once: %w", n, ErrRange)
		}
		if !whole {
			if err := a.d.room(off, n); err != nil {
				return err
			}
			return a.d.stack.writeAt(p, off)
		}
		// Both the log, or the layer, and base.raw may need it.
		ok, err := a.d.space.take(2 * n)
		if !ok && err == nil && a.d.loseCuts(syscall.ENOSPC, true) {
			ok, err = a.d.space.take(2 * n)
		}
		if !ok {
			return errors.Join(err, a.d.noRoom())
		}
		if a.in != nil {
			return a.d.troubled("write layer", a.in.WriteAt(p, off))
		}
		return a.d.epochs.add(frame{kind: frameWrite, off: uint64(off), n: uint64(n)}, p)
	})
}

// Zero makes whole blocks zeros, giving their space back. Errors are those of Write.
func (a *Applier) Zero(off, n int64) error {
	return a.do("apply zeros", func() error {
		err := a.clip()
		if err == nil {
			_, err = a.zero(off, n)
		}
		return err
	})
}

// zero is Zero for who is in do. whole says that it isn't in place.
func (a *Applier) zero(off, n int64) (whole bool, err error) {
	whole, err = a.span(off, n)
	switch {
	case err != nil:
		return whole, err
	case !whole:
		return whole, a.d.stack.zeroAt(off, n, false)
	case a.in != nil:
		return whole, a.d.troubled("write layer", a.in.ZeroAt(off, n, false))
	}
	return whole, a.d.epochs.add(frame{kind: frameZero, off: uint64(off), n: uint64(n)}, nil)
}

// Checkpoint makes durable what of a copy came so far, and that this is at pos. Errors: ErrComplete if no copy was begun to a
// whole replica, ErrNoCopy, ErrOldPosition.
func (a *Applier) Checkpoint(pos Position) error {
	return a.do("checkpoint", func() error {
		st := a.State()
		if st.begun() {
			if err := a.clip(); err != nil {
				return err
			}
		}
		switch {
		case st.Complete && a.in == nil:
			return ErrComplete
		case st.Complete && (pos.Compare(st.Position) <= 0 || pos.Compare(st.Checkpoint) < 0):
			return fmt.Errorf("%s, the replica is at %s and its copy at %s: %w", pos, st.Position, st.Checkpoint, ErrOldPosition)
		case st.Complete:
			return a.checkpointIncoming(pos)
		case !st.begun():
			return ErrNoCopy
		case pos.Compare(st.Position) < 0:
			return fmt.Errorf("%s after %s: %w", pos, st.Position, ErrOldPosition)
		}
		if err := a.d.syncAll(); err != nil {
			return err
		}
		if err := a.d.record(replicaRecord(false, st.Copy, pos)); err != nil {
			return err
		}
		a.d.became(false, st.Copy, pos)
		return nil
	})
}

// syncAll makes what was applied durable, in all layers.
func (d *Store) syncAll() error {
	d.syncMu.Lock()
	defer d.syncMu.Unlock()
	if err := d.stack.sync(); err != nil {
		return d.failed("make durable", err)
	}
	return nil
}

// failed is fail for who doesn't hold mu.
func (d *Store) failed(what string, err error) error {
	_ = d.troubled(what, err)
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fail(what, err)
}

// Barrier ends an epoch: what was written since the last is the disk at pos, durably when it returns, and from then on
// what is read. The first barrier after Begin ends the copy, and makes an incomplete replica complete. Errors: ErrOldTerm, ErrOldPosition, ErrNoCopy,
// ErrFailed, syscall.ENOSPC.
func (a *Applier) Barrier(pos Position) error {
	return a.do("barrier", func() error {
		st, e := a.State(), a.d.epochs
		a.d.mu.Lock()
		given := a.d.given
		a.d.mu.Unlock()
		empty := len(e.buf) == 0 && e.size == e.committed.at
		if st.begun() && (!st.Complete || pos.Compare(st.Position) > 0) {
			if err := a.clip(); err != nil {
				return err
			}
		}
		switch c := pos.Compare(st.Position); {
		case c == 0 && st.Complete && a.in == nil && empty:
			return nil
		case pos.Term <= given || pos.Term < st.Position.Term:
			return fmt.Errorf("%s, the replica is at %s and gave term %d away: %w", pos, st.Position, given, ErrOldTerm)
		case c < 0, c == 0 && st.Complete:
			// A first copy may be checkpointed at the position that it ends with.
			return fmt.Errorf("%s, the replica is at %s: %w", pos, st.Position, ErrOldPosition)
		case st.Complete && a.in != nil && pos.Compare(st.Checkpoint) < 0:
			return fmt.Errorf("%s, the copy is at %s: %w", pos, st.Checkpoint, ErrOldPosition)
		case st.Complete && a.in != nil:
			return a.commitIncoming(pos)
		case st.Complete:
			return a.commit(pos)
		case !st.begun():
			return ErrNoCopy
		}
		if err := a.d.syncAll(); err != nil {
			return err
		}
		err := a.d.j.commit(func(s *state) { s.complete, s.copy, s.position = true, [16]byte{}, pos })
		if err != nil {
			return err
		}
		a.d.became(true, [16]byte{}, pos)
		return nil
	})
}

// commit makes the epoch durable in the log, then applies it.
func (a *Applier) commit(pos Position) error {
	d, e := a.d, a.d.epochs
	// An unfinished catch-up is of an older state from now on.
	if err := d.dropIncoming(); err != nil {
		return err
	}
	if err := e.commit(pos); err != nil {
		return err
	}
	if err := e.f.Sync(); err != nil {
		return d.failed("sync "+epochsName, err)
	}
	e.accept(pos)
	d.gate.RLock()
	d.rd.Lock()
	d.became(true, [16]byte{}, pos)
	err := d.applyEpochs()
	d.rd.Unlock()
	d.gate.RUnlock()
	switch {
	case err != nil:
	case a.settle:
		a.settle, err = false, d.settle()
	case e.size > d.o.EpochLogBytes:
		err = d.settleTo(func() error { return e.restart(d.o.EpochLogBytes / 4 * 5) })
	}
	return err
}

// applyEpochs brings base.raw to the last commit. Until that has worked nothing can be read. The caller holds rd, or is
// alone.
func (d *Store) applyEpochs() error {
	e := d.epochs
	end, err := e.pending(func(fr frame, data []byte, after mark) error {
		if fr.kind == frameCommit {
			return nil
		}
		d.hashes.touch(int64(fr.off), int64(fr.n))
		d.preserve(int64(fr.off)/Block, int64(fr.off+fr.n)/Block)
		d.trod(int64(fr.off)/Block, int64(fr.off+fr.n)/Block)
		err := d.applyFrame(fr, data)
		if outOfSpace(err) && d.loseCuts(err, true) {
			err = d.applyFrame(fr, data)
		}
		return err
	})
	if err == nil && end.at != e.committed.at {
		err = fmt.Errorf("%s: frame at byte %d: %w", epochsName, end.at, ErrCorrupt)
	}
	if err != nil {
		err = fmt.Errorf("apply epoch: %w", d.troubled("apply epoch", err))
	} else {
		e.applied = e.committed
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unapplied = err
	d.reconsider()
	return err
}

func (d *Store) applyFrame(fr frame, data []byte) error {
	if fr.kind == frameZero {
		return d.stack.zeroAt(int64(fr.off), int64(fr.n), false)
	}
	return d.stack.writeAt(data, int64(fr.off))
}

// settle applies all committed epochs, makes base.raw durable and empties the log. Without an applier, or from it.
func (d *Store) settle() error {
	if d.epochs.empty() {
		return nil
	}
	return d.settleTo(d.epochs.clear)
}

// settleTo is settle with another way to empty the log, which isn't empty.
func (d *Store) settleTo(empty func() error) error {
	e := d.epochs
	d.gate.RLock()
	d.rd.Lock()
	err := d.applyEpochs()
	d.rd.Unlock()
	d.gate.RUnlock()
	if err != nil {
		return err
	}
	if err := d.syncAll(); err != nil {
		return err
	}
	if err := d.hashes.settle(); err != nil {
		return err
	}
	if err := d.j.commit(func(s *state) { s.position = maxPosition(s.position, e.last) }); err != nil {
		return err
	}
	if err := empty(); err != nil {
		return d.failed("empty "+epochsName, err)
	}
	return nil
}

func maxPosition(p, q Position) Position {
	if p.Compare(q) < 0 {
		return q
	}
	return p
}

// Close ends following. An epoch without its barrier is dropped; committed ones are put into base.raw. It may be
// called more than once.
func (a *Applier) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := a.d
	d.mu.Lock()
	mine, failed := d.applier == a, d.err != nil
	d.mu.Unlock()
	if !mine {
		return nil
	}
	a.err = ErrClosed
	var err error
	if !failed {
		d.epochs.rollback()
		err = d.settle()
	}
	d.mu.Lock()
	d.applier = nil
	d.mu.Unlock()
	if err != nil {
		return fmt.Errorf("close applier: %w", err)
	}
	return nil
}
