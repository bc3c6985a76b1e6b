package vmdisk

import (
	"fmt"

	"tagalong.org/tagalong/vmdisk/blockset"
)

// compareAbove is how much of what a peer may lack must be there by guess (all of it, whole regions after a crash) before it is worth
// comparing, in bytes: below it is sooner sent.
const compareAbove = 16 << 20

// Comparison makes what is known of a whole replica exact: whoever reads both disks says what is equal (Equal), and only
// the rest is sent when the peer attaches. It is also the only way to follow this disk for a replica whose position isn't in its history, and to
// use what a replica has that isn't whole (Store.Offer): such a one becomes whole by the rest.
//
// The disk may be written meanwhile: what is written counts as different. The replica must be read as it is at the position that it
// said; what was found out counts for this position, whatever happens to the peer or to the connection, and a
// further Comparison goes on with what is left, also after a restart (of an offer: what was found out counts for its name, and one
// that isn't finished begins anew after a restart). Reading is that of the disk. Methods may be called from any goroutine.
type Comparison struct {
	d *Store
	p *peer
	// Guarded by d.mu.
	written *blockset.Set // since it began
	ended   bool
}

var _ Reader = (*Comparison)(nil)

// WorthComparing says that Attach would send all of the disk, or much that may be there, to the replica r, or would refuse it as
// diverged, and that Compare can help: if r isn't whole, with what it then offers.
func (d *Store) WorthComparing(peer string, r ReplicaState) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.peers[peer]
	if !r.Complete && r.Copy != [16]byte{} && r.Disk == d.id && d.compares() == nil {
		return p == nil || !p.resumes(r.Copy, r.Position)
	}
	if d.comparable(r) != nil {
		return false
	}
	if !d.knows(p, r) {
		return true
	}
	return p.guessed && !p.resumes(r.Copy, r.Checkpoint) && p.todo.Count()*Block > compareAbove
}

// compares says why this disk can't be compared with any, if it can't. The caller holds d.mu.
func (d *Store) compares() error {
	switch {
	case d.err != nil:
		return d.err
	case d.closed:
		return ErrClosed
	case !d.active:
		return ErrInactive
	case d.hydration.Load() != nil:
		return ErrHydrating
	}
	return nil
}

// comparable says why r can't be compared with this disk, if it can't. The caller holds d.mu.
func (d *Store) comparable(r ReplicaState) error {
	if err := d.compares(); err != nil {
		return err
	}
	switch {
	case r.Disk != d.id:
		return fmt.Errorf("%s instead of %s: %w", r.Disk, d.id, ErrWrongDisk)
	case r.Size != 0 && r.Size < d.Size():
		return fmt.Errorf("of %d bytes, the disk has %d: %w", r.Size, d.Size(), ErrSize)
	case !r.Complete && (r.Copy == [16]byte{} || r.Position != restMark):
		return ErrIncomplete
	case !r.Complete:
		return nil
	case !d.inHistory(r.Position) && (r.Position == Position{} || r.Position.Term >= d.term):
		// A disk that never had an owner may be anything, and barriers of this term would not lead on from a position of a later one.
		return fmt.Errorf("replica at %s, disk under term %d: %w", r.Position, d.term, ErrDiverged)
	}
	return nil
}

// knows says that what is known of p holds for the whole replica r: it is where it was, or where this disk's history led
// from there. The caller holds d.mu.
func (d *Store) knows(p *peer, r ReplicaState) bool {
	return p != nil && !p.offered() && (r.Position == p.acked || d.inHistory(r.Position) && r.Position.Compare(p.acked) > 0)
}

// accepts says that the whole replica r may follow this disk: its position is in this disk's history, or it is the very one for which what it
// lacks was found out. The caller holds d.mu.
func (d *Store) accepts(p *peer, r ReplicaState) bool {
	return d.inHistory(r.Position) || d.comparable(r) == nil && d.knows(p, r)
}

// offered says that what is known of the peer holds for what it offered, and for nothing else that it may turn out to have.
func (p *peer) offered() bool { return p.mark.Term == 0 && !p.ticked.Empty() }

// resumes says that what a replica has of an unfinished copy, whose last checkpoint is at, is what is known of it.
func (p *peer) resumes(copy [16]byte, at Position) bool {
	return copy != [16]byte{} && copy == p.copy && at.Compare(p.mark) >= 0
}

// Compare begins to compare the disk, which must be active, with the whole replica r of a peer, or with what one offers. An unfinished copy to it is given
// up. There is one at a time for a peer, and no feed. Errors: ErrInactive, ErrHydrating, ErrAttached, ErrWrongDisk, ErrSize, ErrIncomplete (and nothing
// offered), ErrFailed, and ErrDiverged if the replica is of a term that this disk's doesn't follow, or never had an owner.
func (d *Store) Compare(peer string, r ReplicaState) (*Comparison, error) {
	if err := checkPeer(peer); err != nil {
		return nil, err
	}
	c, err := d.compare(peer, r)
	if err != nil {
		return nil, fmt.Errorf("compare %s: %w", peer, err)
	}
	// What was written before gets its barrier: a block that happens to be again as the replica has it is lacking as of the last one. What is written from now
	// on stays different.
	err = d.barrier()
	if err == nil {
		// As when it attaches: regions that are logged from now on must count for this peer after a crash.
		err = d.storePeers()
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("compare %s: %w", peer, err)
	}
	return c, nil
}

func (d *Store) compare(name string, r ReplicaState) (*Comparison, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.comparable(r); err != nil {
		return nil, err
	}
	p := d.peers[name]
	if p != nil && (p.feed != nil || p.comparison != nil) {
		return nil, ErrAttached
	}
	if p == nil {
		p = d.newPeer(name)
		p.term, p.at = d.term, d.position
		p.everything(d.blocks())
		d.peers[name] = p
	}
	switch {
	case !r.Complete:
		if p.half != r.Copy {
			p.everything(d.blocks())
			p.half = r.Copy
		}
		r.Position = Position{} // none of the disk's
	case d.knows(p, r):
		p.lostCopy()
	default:
		p.everything(d.blocks())
	}
	p.acked, p.changed = r.Position, true
	c := &Comparison{d: d, p: p, written: d.sets.New(blockset.Most)}
	p.comparison = c
	d.notify(name)
	return c, nil
}

// Size of the disk in bytes. The comparison ends when that changes.
func (c *Comparison) Size() int64 { return c.d.Size() }

// ReadAt is Store.ReadAt.
func (c *Comparison) ReadAt(p []byte, off int64) error { return c.d.ReadAt(p, off) }

// Extents is Store.Extents.
func (c *Comparison) Extents(off, n int64) ([]Extent, error) { return c.d.Extents(off, n) }

// Next is the first run of bytes from off on that the replica may lack; n is 0 if there is none.
func (c *Comparison) Next(off int64) (from, n int64) {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	size := c.d.Size()
	if c.ended || off < 0 || off >= size {
		return size, 0
	}
	a := c.p.todo.Next(off/Block, true)
	if a*Block >= size {
		return size, 0
	}
	b := c.p.todo.Next(a, false)
	from = max(off, a*Block)
	return from, b*Block - from
}

// Equal says that the replica has the n bytes at off, whole blocks, as they were read here since the comparison began. What was written
// since then stays different. Errors: ErrDetached if the comparison has ended, ErrRange.
func (c *Comparison) Equal(off, n int64) error {
	d := c.d
	err := d.bounds(off, n)
	if err == nil && (off%Block != 0 || n%Block != 0) {
		err = fmt.Errorf("%d bytes at %d aren't whole blocks: %w", n, off, ErrRange)
	}
	if err != nil {
		return fmt.Errorf("compared: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if c.ended {
		return fmt.Errorf("compared: %w", ErrDetached)
	}
	a, b := off/Block, (off+n)/Block
	c.p.todo.Remove(a, b)
	if c.p.half != [16]byte{} {
		c.p.ticked.Add(a, b)
	}
	for x := c.written.Next(a, true); x < b; {
		y := min(b, c.written.Next(x, false))
		c.p.todo.Add(x, y)
		x = c.written.Next(y, true)
	}
	c.p.changed = true
	d.notify(c.p.name)
	return nil
}

// Remaining is how many bytes the replica may lack, as far as is known now.
func (c *Comparison) Remaining() int64 {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	return c.p.todo.Count() * Block
}

// Finish ends a comparison that went through all of Next: what is left is sent when the peer attaches. It is durable when it
// returns. Errors: ErrDetached if the comparison has ended before, ErrFailed, those of the files.
func (c *Comparison) Finish() error {
	c.d.mu.Lock()
	ended := c.ended
	if !ended {
		c.p.guessed = false
		if c.p.half != [16]byte{} {
			c.p.copy, c.p.mark, c.p.half = c.p.half, restMark, [16]byte{}
		}
		c.close()
	}
	c.d.mu.Unlock()
	if ended {
		return fmt.Errorf("compared: %w", ErrDetached)
	}
	if err := c.d.storePeers(); err != nil {
		return fmt.Errorf("compared: %w", err)
	}
	return nil
}

// Close ends the comparison; what was found out counts. It may be called more than once, and after Finish.
func (c *Comparison) Close() {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	c.close()
}

// close is Close for who holds d.mu. A nil Comparison has ended.
func (c *Comparison) close() {
	if c == nil || c.ended {
		return
	}
	c.ended = true
	c.written.Reset()
	c.p.comparison, c.p.changed = nil, true
	c.d.notify(c.p.name)
}
