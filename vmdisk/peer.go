package vmdisk

import (
	"crypto/rand"
	"time"

	"tagalong.org/tagalong/vmdisk/blockset"
)

// peer is what the owner knows of one peer's replica. Guarded by Store.mu.
//
// The peer lacks at most todo ∪ kept ∪ cur ∪ out, if it has what of the copy it acknowledged. todo is still to be sent; kept too, as the feed's cut has
// it; cur and out were sent or are in the feed's queue: those in out before the barrier or checkpoint tag, those in cur perhaps later.
// An acknowledgement of tag clears out, and so never a bit that was set again since.
type peer struct {
	name           string
	todo, cur, out *blockset.Set
	kept           *blockset.Set // empty while the feed has no cut
	tag            Position
	acked          Position
	// copy is the unfinished copy, zero if there is none; mark is its last checkpoint that the peer acknowledged, and ticked has the
	// blocks that it acknowledged with checkpoints. If the copy gets lost, the peer, at acked, lacks those too.
	copy   [16]byte
	mark   Position
	ticked *blockset.Set
	// half names what the peer's replica, which isn't whole, offers (Store.Offer), while it isn't wholly compared: todo is what it lacks if it has
	// that, and ticked what was found equal. It is kept in memory only; when all is compared it is the copy.
	half [16]byte
	// term and at say when this set counts: while this disk is owner under term, or from the moment when it
	// becomes owner at position at.
	term uint64
	at   Position
	feed *Feed
	// standing says whether it keeps up; it outlives the feed, not the process.
	standing standing
	// age is how old what it lacks is.
	age age
	// comparison is the one under way; there is none while there is a feed.
	comparison *Comparison
	// guessed: todo has what the peer may well have, because it isn't known.
	guessed bool
	changed bool // since it was stored
}

// newPeer is a peer that lacks nothing. The caller holds d.mu, as for all that changes sets.
func (d *Store) newPeer(name string) *peer {
	return &peer{name: name, todo: d.sets.New(blockset.Most), cur: d.sets.New(blockset.Most), out: d.sets.New(blockset.Most), kept: d.sets.New(blockset.Most), ticked: d.sets.New(blockset.Most), changed: true}
}

// flip starts a new generation at pos, if the peer has acknowledged the last.
func (p *peer) flip(pos Position) {
	if p.out.Empty() {
		p.cur, p.out, p.tag = p.out, p.cur, pos
	}
}

// recall makes everything that is under way something to be sent again.
func (p *peer) recall() {
	for _, s := range []*blockset.Set{p.cur, p.out, p.kept} {
		p.todo.Or(s)
		s.Reset()
	}
}

// lacks tells the number of bytes that the peer may lack. On a big disk it can take a while to count them: what it returns must be
// called once, and not with d.mu.
func (p *peer) lacks() func() int64 {
	if a, b, c, k := p.todo.Count(), p.cur.Count(), p.out.Count(), p.kept.Count(); max(a, b, c, k) == a+b+c+k { // at most one has any
		return func() int64 { return (a + b + c + k) * Block }
	}
	todo, cur, out, kept := p.todo.Clone(), p.cur.Clone(), p.out.Clone(), p.kept.Clone()
	return func() int64 {
		todo.Or(kept)
		kept.Reset()
		n := blockset.UnionCount(todo, cur, out) * Block
		todo.Reset()
		cur.Reset()
		out.Reset()
		return n
	}
}

func (p *peer) clean() bool {
	return p.todo.Empty() && p.kept.Empty() && p.cur.Empty() && p.out.Empty()
}

// everything says that the peer may lack all of a disk of so many blocks.
func (p *peer) everything(blocks int64) {
	p.cur.Reset()
	p.out.Reset()
	p.kept.Reset()
	p.todo.Add(0, blocks)
	p.acked, p.guessed, p.changed = Position{}, true, true
	p.age = age{} // nobody knows
	p.noCopy()
}

// detach ends the feed, or the comparison, if there is one.
func (p *peer) detach() {
	if p.feed != nil {
		p.feed.close()
	}
	p.comparison.close()
}

// noCopy says that there is no copy, any more or yet.
func (p *peer) noCopy() {
	p.ticked.Reset()
	p.copy, p.mark, p.half = [16]byte{}, Position{}, [16]byte{}
}

// lostCopy says that the peer has nothing of the copy.
func (p *peer) lostCopy() {
	p.todo.Or(p.ticked)
	p.noCopy()
}

// beginCopy names a new copy. What is under way is to be sent again.
func (p *peer) beginCopy() {
	p.recall()
	_, _ = rand.Read(p.copy[:]) // never fails
	p.changed = true
}

// dirty is a copy of all that the peer may lack, to be Reset when it isn't needed any more.
func (p *peer) dirty() *blockset.Set {
	m := p.todo.Clone()
	m.Or(p.kept)
	m.Or(p.cur)
	m.Or(p.out)
	return m
}

// Phase says how a peer follows.
type Phase int

// The phases.
const (
	// Detached: there is no feed; what changes is noted.
	Detached Phase = 0
	// Copying: a first copy is under way; the replica is of no use before it ends.
	Copying Phase = 1
	// CatchingUp: the peer gets what it lacks; its replica stays at its old position until that is whole.
	CatchingUp Phase = 2
	// Live: the peer gets every write at once.
	Live Phase = 3
	// Comparing: it is being found out what the peer lacks; it is no feed yet.
	Comparing Phase = 4
	// Behind: the peer couldn't keep up. It gets what it lacks, and every write at once only when it has kept up with that for a while.
	Behind Phase = 5
)

// String is the phase in words.
func (p Phase) String() string {
	switch p {
	case Copying:
		return "copying"
	case CatchingUp:
		return "catching up"
	case Live:
		return "live"
	case Comparing:
		return "comparing"
	case Behind:
		return "behind"
	}
	return "detached"
}

// Progress says how far a peer is.
type Progress struct {
	Phase Phase
	// Remaining is how many bytes aren't known to be durable there.
	Remaining int64
	// Since: what isn't known to be durable there was written then or later. Zero if that is nothing, or if it isn't known: of what was
	// lacking before this disk was opened or became active, and of a peer that gets everything.
	Since time.Time
	// Fell is when the peer fell behind, zero if it isn't.
	Fell time.Time
	// Queued is how many bytes wait in memory to be sent.
	Queued int64
	// Acked is the newest position that the peer reported.
	Acked Position
	// Complete says that the peer has acknowledged everything that was written so far.
	Complete bool
}

// PeerInfo is what the disk knows of a peer, attached or not.
type PeerInfo struct {
	Peer string
	Progress
}

// progress is all but Remaining. The caller holds d.mu.
func (d *Store) progress(p *peer) Progress {
	g := Progress{Acked: p.acked, Since: p.age.since}
	f := p.feed
	if f == nil {
		if p.comparison != nil {
			g.Phase = Comparing
		}
		return g
	}
	g.Queued = f.queued
	switch {
	case p.copy != [16]byte{} && p.acked == Position{}:
		g.Phase = Copying
	case p.standing.behind:
		g.Phase, g.Fell = Behind, p.standing.since
	case f.live:
		g.Phase = Live
	default:
		g.Phase = CatchingUp
	}
	g.Complete = g.Phase == Live && p.clean() && !d.unflushed() && p.acked == d.position
	return g
}

// track notes that the blocks [a, b) changed: bufs is their content in order; without it they must be read again. The caller holds the claim. The references to bufs stay the caller's.
func (d *Store) track(a, b int64, bufs []*buffer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	first := !d.wrote
	if first {
		d.wrote, d.wroteAt = true, time.Now()
	}
	d.pristine = false
	d.ripens((b - a) * Block)
	lack := d.lack[:0]
	for l := range d.looks {
		lack = append(lack, l.written)
	}
	if s := d.trail.present(); s != nil {
		lack = append(lack, s)
	}
	for _, p := range d.peers {
		p.changed = true
		if p.age.since.IsZero() && p.clean() && p.copy == [16]byte{} {
			p.age.since = d.o.now()
		}
		f := p.feed
		idle := f != nil && f.queue.n == 0
		if p.comparison != nil {
			lack = append(lack, p.comparison.written)
		}
		if f == nil || !f.queueing || bufs == nil || !f.pushWrite(a, b, bufs) {
			lack = append(lack, p.todo)
			if f != nil && f.live {
				f.live = false
				d.notify(p.name)
			}
		}
		if f != nil {
			f.written(idle)
			if first {
				d.notify(p.name) // it isn't complete any more
			}
		}
	}
	blockset.AddAll(lack, a, b)
	clear(lack)
	d.lack = lack
}
