package vmdisk

import (
	"crypto/rand"
	"errors"
	"fmt"
)

// restMark is the position of an incomplete replica that was offered and not written since: all that it holds is durable, and Copy is the name
// of exactly that. No checkpoint has a position of term 0.
var restMark = Position{0, 1}

// Offer is what a replica that isn't whole holds, be it seeded (Seed) or of a first copy that nobody goes on with: held as it is, so that
// its owner can find out what of it is equal (Store.Compare). It is no position of the disk, and nothing else may be done with it.
// There is one at a time, and no applier meanwhile. Methods may be called from any goroutine.
type Offer struct {
	a     *Applier
	state ReplicaState
}

var _ Reader = (*Offer)(nil)

// Offer holds a replica that isn't whole. What it holds is durable when it returns, and has the name State().Copy, which it keeps until something
// is written: then whoever found out something about it knows nothing any more. It must be closed. Errors: ErrComplete,
// ErrNoCopy if nothing was ever written into it, and those of Apply.
func (d *Store) Offer() (*Offer, error) {
	a, err := d.Apply()
	if err != nil {
		return nil, fmt.Errorf("offer: %w", err)
	}
	if err = a.do("offer", a.rest); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return &Offer{a, a.State()}, nil
}

// rest makes what is there durable, and then gives it a name of its own.
func (a *Applier) rest() error {
	st := a.State()
	switch {
	case st.Complete:
		return ErrComplete
	case st.Copy == [16]byte{}:
		return ErrNoCopy
	case st.Position == restMark:
		return nil // nothing was written since
	}
	if err := a.d.syncAll(); err != nil {
		return err
	}
	var name [16]byte
	_, _ = rand.Read(name[:]) // never fails
	if err := a.d.j.commit(func(s *state) { s.copy, s.position = name, restMark }); err != nil {
		return err
	}
	a.d.became(false, name, restMark)
	return nil
}

// State is what the owner must be told.
func (o *Offer) State() ReplicaState { return o.state }

// Size of the disk in bytes.
func (o *Offer) Size() int64 { return o.a.d.Size() }

// ReadAt fills p from off. Errors: ErrRange, ErrClosed, that of the file.
func (o *Offer) ReadAt(p []byte, off int64) error { return o.a.d.peek(p, off) }

// Extents is Reader.Extents.
func (o *Offer) Extents(off, n int64) ([]Extent, error) { return o.a.d.peekExtents(off, n) }

// Close ends it; it may be called more than once.
func (o *Offer) Close() error {
	if err := o.a.Close(); err != nil {
		return fmt.Errorf("offer: %w", err)
	}
	return nil
}

// peek reads what is there, whole or not.
func (d *Store) peek(p []byte, off int64) error {
	if err := d.bounds(off, int64(len(p))); err != nil {
		return err
	}
	d.rd.RLock()
	defer d.rd.RUnlock()
	if err := d.mayPeek(); err != nil {
		return err
	}
	return d.troubled("read", d.stack.readAt(p, off))
}

// Peek fills p from off with what is here, be it the disk's content or not: of a disk that isn't whole, or lacks blocks, it may be anything. It waits for
// nothing and fetches nothing. For who knows by its hash what he looks for. Errors: ErrRange, ErrClosed, those of the files.
func (d *Store) Peek(p []byte, off int64) error { return d.peek(p, off) }

// peekExtents is Extents of what is there, whole or not.
func (d *Store) peekExtents(off, n int64) ([]Extent, error) {
	if err := d.bounds(off, n); err != nil {
		return nil, err
	}
	d.rd.RLock()
	defer d.rd.RUnlock()
	if err := d.mayPeek(); err != nil {
		return nil, err
	}
	return d.stack.extents(nil, off, off+n)
}

// mayPeek says whether the files are open. The caller holds rd.
func (d *Store) mayPeek() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return ErrClosed
	}
	return nil
}
