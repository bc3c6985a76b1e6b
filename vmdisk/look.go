package vmdisk

import (
	"context"
	"fmt"

	"tagalong.org/tagalong/vmdisk/blockset"
)

// Look lets an owner compare its disk with replicas while the guest goes on: it notes what is written from its beginning on. Of a range
// that a peer has (Reached), and that isn't Written afterwards, the disk and the peer's replica were the same all the while from the
// one call to the other, whatever was written elsewhere: if the two were read in between and differ, one of them is damaged.
//
// Of a peer that nothing feeds (Standing) the same holds for what it doesn't lack.
//
// A Look follows the disk of one owner's term, also while that hydrates; methods may be called from any goroutine. Memory: a block set.
type Look struct {
	d *Store
	// Guarded by d.mu.
	written *blockset.Set
	ended   bool
}

// Look begins one, which the caller must Close, and makes a barrier, so that peers are told soon of what was written before. Errors:
// ErrInactive, ErrFailed, ErrClosed.
func (d *Store) Look() (*Look, error) {
	l := &Look{d: d}
	d.mu.Lock()
	err := d.acting()
	if err == nil {
		l.written = d.sets.New(blockset.Most)
		if d.looks == nil {
			d.looks = map[*Look]struct{}{}
		}
		d.looks[l] = struct{}{}
	}
	d.mu.Unlock()
	if err == nil {
		if err = d.barrier(); err != nil {
			l.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("look: %w", err)
	}
	return l, nil
}

// acting says why this isn't an owner's disk, if it isn't. The caller holds d.mu.
func (d *Store) acting() error {
	switch {
	case d.err != nil:
		return d.err
	case d.closed:
		return ErrClosed
	case !d.active:
		return ErrInactive
	}
	return nil
}

// owned says why this isn't an owner's whole disk, if it isn't. The caller holds d.mu.
func (d *Store) owned() error {
	err := d.acting()
	if err == nil && d.hydration.Load() != nil {
		err = ErrHydrating
	}
	return err
}

// Close ends the look. It may be called more than once.
func (l *Look) Close() {
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	if l.ended {
		return
	}
	l.ended = true
	delete(l.d.looks, l)
	l.written.Reset()
}

// blocks are those that n > 0 bytes at off touch.
func (l *Look) blocks(off, n int64) (a, b int64, err error) {
	err = l.d.bounds(off, n)
	if err == nil && n == 0 {
		err = fmt.Errorf("nothing at %d: %w", off, ErrRange)
	}
	return off / Block, (off + n + Block - 1) / Block, err
}

// Written says whether any of the n bytes at off was written, or began to be, between the look's beginning and this call. Errors: ErrRange;
// ErrClosed after Close; ErrInactive, ErrFailed and the like if the disk isn't this owner's any more.
func (l *Look) Written(off, n int64) (bool, error) {
	a, b, err := l.blocks(off, n)
	if err != nil {
		return false, fmt.Errorf("look: %w", err)
	}
	// A write notes its blocks while it claims them, after it has changed them: who reads what it left must wait for the note.
	c := l.d.claims.take(a, b)
	defer c.release()
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	return l.has(a, b)
}

// has is Written for who holds d.mu.
func (l *Look) has(a, b int64) (bool, error) {
	err := l.d.acting()
	if l.ended {
		err = ErrClosed
	}
	if err != nil {
		return false, fmt.Errorf("look: %w", err)
	}
	return l.written.Next(a, true) < b, nil
}

// Reached waits until the peer has acknowledged, durably, what the n bytes at off were when the look began. It is false, at once, if they were
// written since. Errors: ErrDetached if nothing feeds the peer, that of ctx, those of Written.
func (l *Look) Reached(ctx context.Context, peer string, off, n int64) (bool, error) {
	a, b, err := l.blocks(off, n)
	if err != nil {
		return false, fmt.Errorf("look: %w", err)
	}
	changed, stop := l.d.Watch(peer)
	defer stop()
	for {
		there, written, err := l.reached(peer, a, b)
		if err != nil || written || there {
			return there && !written, err
		}
		select {
		case <-ctx.Done():
			return false, fmt.Errorf("look: %s: %w", peer, ctx.Err())
		case <-changed:
		}
	}
}

func (l *Look) reached(peer string, a, b int64) (there, written bool, err error) {
	d := l.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if written, err = l.has(a, b); err != nil || written {
		return false, written, err
	}
	p := d.peers[peer]
	if p == nil || p.feed == nil {
		return false, false, fmt.Errorf("look: %s: %w", peer, ErrDetached)
	}
	there = p.acked != Position{}
	for _, lacks := range []*blockset.Set{p.todo, p.kept, p.cur, p.out} {
		there = there && lacks.Next(a, true) >= b
	}
	if p.copy != [16]byte{} {
		// What it acknowledged of a copy isn't in its replica before the copy's end.
		there = there && p.ticked.Next(a, true) >= b
	}
	return there, false, nil
}

// Resend makes ranges, each an offset and a length in bytes, of whole blocks, something that the peer lacks: it gets them again as they are
// here, in order with all else, when it is attached. That is durable when it returns. For a peer whose replica is known to be damaged there. Errors:
// ErrDetached if nothing is known of the peer, ErrRange, ErrInactive, ErrHydrating, ErrFailed, those of the files.
func (d *Store) Resend(peer string, ranges [][2]int64) error {
	err := d.resend(peer, ranges)
	if err == nil {
		err = d.storePeers()
	}
	if err != nil {
		return fmt.Errorf("resend to %s: %w", peer, err)
	}
	return nil
}

func (d *Store) resend(name string, ranges [][2]int64) error {
	for _, r := range ranges {
		if err := d.bounds(r[0], r[1]); err != nil {
			return err
		}
		if r[1] == 0 || r[0]%Block != 0 || r[1]%Block != 0 {
			return fmt.Errorf("%d bytes at %d aren't whole blocks: %w", r[1], r[0], ErrRange)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.owned(); err != nil {
		return err
	}
	p := d.peers[name]
	if p == nil {
		return ErrDetached
	}
	for _, r := range ranges {
		p.todo.Add(r[0]/Block, (r[0]+r[1])/Block)
	}
	p.changed = true
	if f := p.feed; f != nil {
		f.live = false
		f.signal()
	}
	return nil
}
