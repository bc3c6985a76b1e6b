package vmdisk

import (
	"fmt"
	"time"

	"tagalong.org/tagalong/vmdisk/blockset"
)

const (
	// trailMarks is how many marks a trail has at most, markEvery how far apart they are at least that no cut made.
	trailMarks = 32
	markEvery  = 30 * time.Second
)

// trail is what was written to a disk since some of its positions, the marks: on an owner by its guest, on a replica by its owner. It is kept
// in memory only, and begins anew when the disk is opened, or comes to a position in a way that isn't told to it (hydration, a roll-back). The zero
// trail knows nothing. Guarded by Store.mu.
type trail struct {
	at    Position // the disk's, as far as the trail goes
	marks []trailMark
}

// trailMark is a position, and the blocks that were written between it and the next mark. Set may have more.
type trailMark struct {
	pos Position
	at  time.Time
	cut bool // a cut was taken there: pushes end and begin at it
	// own says that all of the span is this disk's guest's: set has every block that was written. What a replica gets may leave out
	// what is the same at both ends of a push and wasn't between them, so of such a span nothing is known but for its beginning.
	own bool
	set *blockset.Set
}

// reset begins anew at pos.
func (t *trail) reset(set *blockset.Set, pos Position, now time.Time, own bool) {
	for _, m := range t.marks {
		m.set.Reset()
	}
	t.marks = append(t.marks[:0], trailMark{pos: pos, at: now, set: set, own: own})
}

// present is where what is written now goes; nil if nothing is known.
func (t *trail) present() *blockset.Set {
	if len(t.marks) == 0 {
		return nil
	}
	return t.marks[len(t.marks)-1].set
}

// begins says that the trail begins at pos.
func (t *trail) begins(pos Position) bool { return len(t.marks) > 0 && t.marks[0].pos == pos }

// due says whether a mark that no cut asks for is to be made.
func (t *trail) due(now time.Time) bool {
	n := len(t.marks)
	return n > 0 && now.Sub(t.marks[n-1].at) >= markEvery && !t.marks[n-1].set.Empty()
}

// mark makes a mark where the disk is now, or is about to be. Nothing may be changing it.
func (t *trail) mark(set func() *blockset.Set, pos Position, now time.Time, cut, own bool) {
	if n := len(t.marks); n > 0 && t.marks[n-1].pos == pos {
		m := &t.marks[n-1]
		m.cut = m.cut || cut
		if m.set.Empty() {
			m.own = own
		}
		return
	}
	t.marks = append(t.marks, trailMark{pos: pos, at: now, cut: cut, set: set(), own: own})
	if len(t.marks) > trailMarks {
		t.thin(now)
	}
}

// thin joins two spans: what is left is the denser the newer it is, and has the marks of cuts, as long as these aren't most.
func (t *trail) thin(now time.Time) {
	worst, least := 1, 0.0
	cuts := 0
	for _, m := range t.marks {
		if m.cut {
			cuts++
		}
	}
	for i := 1; i < len(t.marks)-1; i++ {
		m := t.marks[i]
		if m.cut && cuts <= trailMarks/2 {
			continue
		}
		gap := t.marks[i+1].at.Sub(t.marks[i-1].at).Seconds() / (now.Sub(m.at).Seconds() + 1)
		if least == 0 || gap < least {
			worst, least = i, gap
		}
	}
	t.marks[worst-1].set.Or(t.marks[worst].set)
	t.marks[worst-1].own = t.marks[worst-1].own && t.marks[worst].own
	t.marks[worst].set.Reset()
	t.marks = append(t.marks[:worst], t.marks[worst+1:]...)
}

// between adds to out what was written after from and not after to, and perhaps more. It is false if that isn't known. since is when the
// first of it was written at the earliest.
func (t *trail) between(out *blockset.Set, from, to Position) (since time.Time, ok bool) {
	first := -1
	for i, m := range t.marks {
		if from != (Position{}) && m.pos.Compare(from) <= 0 {
			first = i
		}
	}
	if first < 0 || t.marks[first].pos != from && !t.marks[first].own {
		return since, false
	}
	for _, m := range t.marks[first:] {
		if m.pos.Compare(to) < 0 {
			out.Or(m.set)
		}
	}
	return t.marks[first].at, true
}

// follows has the trail begin anew if it doesn't know how the disk came to its position; it is about to be at pos, and nothing is changing
// it. The caller holds mu.
func (d *Store) follows(pos Position) {
	if t := &d.trail; t.at != d.position || len(t.marks) == 0 {
		t.reset(d.sets.New(blockset.Most), pos, d.o.now(), d.active)
		if pos == d.position {
			t.at = pos
		}
	}
}

// treads says that from here on all that is written is this disk's guest's: what a peer lacks is known from its first barrier on, whoever brings it there. The
// caller holds mu.
func (d *Store) treads() {
	if t := &d.trail; len(t.marks) > 0 && t.at == d.position {
		t.mark(func() *blockset.Set { return d.sets.New(blockset.Most) }, d.position, d.o.now(), false, true)
	}
}

// leaves marks a position for a cut that is being taken there. The caller holds mu, and keeps all changes away.
func (d *Store) leaves(pos Position) {
	d.trail.mark(func() *blockset.Set { return d.sets.New(blockset.Most) }, pos, d.o.now(), true, d.active)
}

// marks marks pos if that is due. The caller holds mu, and keeps all changes away.
func (d *Store) marks(pos Position) {
	if now := d.o.now(); d.trail.due(now) {
		d.trail.mark(func() *blockset.Set { return d.sets.New(blockset.Most) }, pos, now, false, d.active)
	}
}

// trod notes that a replica's blocks [a, b) changed.
func (d *Store) trod(a, b int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := len(d.trail.marks); n > 0 {
		m := &d.trail.marks[n-1]
		m.set.Add(a, b)
		m.own = false
	}
}

// Since is which blocks were written after pos and before the cut; it may have others too. It is false if that isn't known here: pos is too
// old. pos must be of the cut's history, which the caller has to know: a position of another branch would be taken for one of this. The set is the
// caller's.
func (c *Cut) Since(pos Position) (*blockset.Set, bool) {
	d := c.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.trail.at.Compare(c.pos) < 0 || pos.Compare(c.pos) > 0 {
		return nil, false
	}
	out := blockset.New(blockset.Most)
	_, ok := d.trail.between(out, pos, c.pos)
	return out, ok
}

// Heat says how lately something of the n bytes at off was written, of a disk that knows: only the order of the numbers counts, 0 is longest
// ago, or not known.
func (d *Store) Heat(off, n int64) uint64 {
	if n <= 0 || d.bounds(off, n) != nil {
		return 0
	}
	a, b := off/Block, (off+n+Block-1)/Block
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := len(d.trail.marks) - 1; i >= 0; i-- {
		if d.trail.marks[i].set.Next(a, true) < b {
			return uint64(i + 1)
		}
	}
	return 0
}

// Reached tells an owner where the replica of a peer is, to which something else than a feed of this disk brought it: the peer has said
// so. What it lacks from then on is what was written since, as far as that is known, and what it was known to lack. That is durable when it
// returns. Errors: ErrInactive, ErrHydrating, ErrAttached (the feed, or a comparison, finds out itself), ErrWrongDisk, ErrIncomplete, ErrDiverged,
// ErrFailed.
func (d *Store) Reached(peer string, r ReplicaState) error {
	err := checkPeer(peer)
	if err == nil {
		err = d.reached(peer, r)
	}
	if err == nil {
		err = d.storePeers()
	}
	if err != nil {
		return fmt.Errorf("%s reached %s: %w", peer, r.Position, err)
	}
	return nil
}

// Lost tells an owner that a peer has no whole replica any more: the peer has said so. From then on it lacks everything. That is durable when it returns.
// Errors: ErrInactive, ErrHydrating, ErrAttached (the feed, or a comparison, finds out itself), ErrFailed.
func (d *Store) Lost(peer string) error {
	err := checkPeer(peer)
	if err == nil {
		err = d.lost(peer)
	}
	if err == nil {
		err = d.storePeers()
	}
	if err != nil {
		return fmt.Errorf("%s lost its replica: %w", peer, err)
	}
	return nil
}

func (d *Store) lost(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.peers[name]
	switch err := d.owned(); {
	case err != nil:
		return err
	case p != nil && (p.feed != nil || p.comparison != nil):
		return ErrAttached
	case p == nil:
		p = d.newPeer(name)
		p.term, p.at = d.term, d.position
		d.peers[name] = p
	}
	p.everything(d.blocks())
	d.notify(name)
	return nil
}

func (d *Store) reached(name string, r ReplicaState) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.peers[name]
	switch err := d.owned(); {
	case err != nil:
		return err
	case r.Disk != d.id:
		return fmt.Errorf("%s instead of %s: %w", r.Disk, d.id, ErrWrongDisk)
	case !r.Complete:
		return ErrIncomplete
	case !d.inHistory(r.Position):
		return fmt.Errorf("the disk is at %s: %w", d.position, ErrDiverged)
	case p != nil && (p.feed != nil || p.comparison != nil):
		return ErrAttached
	case p != nil && p.acked == r.Position && !p.guessed && p.copy == [16]byte{}:
		return nil
	}
	if p == nil {
		p = d.newPeer(name)
		p.term, p.at = d.term, d.position
		p.everything(d.blocks())
		d.peers[name] = p
	}
	if r.Position.Compare(p.acked) < 0 {
		p.everything(d.blocks()) // it has lost something
	}
	p.lostCopy()
	written := blockset.New(blockset.Most)
	// What was written after the last barrier is in the last span.
	since, ok := d.trail.between(written, r.Position, Position{^uint64(0), 0})
	ok = ok && d.trail.at == d.position
	if r.Position == d.position && !d.unflushed() {
		written.Reset() // it is where this disk is, whatever the trail knows
		ok = true
	}
	if ok {
		// What is to be sent again because it is damaged there counts as written before: a comparison finds it again.
		for x := int64(0); x < blockset.Most; {
			a := written.Next(x, false)
			x = written.Next(a, true)
			p.todo.Remove(a, x)
		}
		p.guessed = false
		if p.age = (age{since: since}); p.todo.Empty() {
			p.age = age{}
		}
	}
	p.acked, p.changed = r.Position, true
	d.notify(name)
	return nil
}
