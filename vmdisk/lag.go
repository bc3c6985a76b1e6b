package vmdisk

import (
	"iter"

	"tagalong.org/tagalong/vmdisk/blockset"
)

// Lag is what a peer's replica lacks of this disk, as it was at one moment. It takes little memory until the disk changes; Release gives
// that back. Not safe for concurrent use.
type Lag struct {
	// Acked is the newest position that the peer reported.
	Acked Position
	// Of is this disk's position: a replica at Acked differs from the disk at Of at most in the blocks of Runs, and, if Acked is outside of this disk's
	// history, in what a larger one has beyond this disk's end.
	Of Position
	// Settled says that nothing was written after Of.
	Settled bool
	// Guessed says that the blocks may have many that the peer doesn't lack.
	Guessed bool
	parts   []*blockset.Set
}

// Lag says what a peer lacks, feed or none; ok is false if nothing is known of it, or this disk isn't active: what it knows is of a term
// that is over, and it has changed since. What it acknowledged of an unfinished copy it lacks all
// the same: it is at Acked until it has all of it.
func (d *Store) Lag(peer string) (lag *Lag, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.peers[peer]
	if p == nil || !d.active {
		return nil, false
	}
	lag = &Lag{Acked: p.acked, Of: d.position, Settled: !d.unflushed(), Guessed: p.guessed}
	for _, s := range []*blockset.Set{p.todo, p.kept, p.cur, p.out, p.ticked} {
		if !s.Empty() {
			lag.parts = append(lag.parts, s.Clone())
		}
	}
	if p.comparison != nil && !p.comparison.written.Empty() {
		lag.parts = append(lag.parts, p.comparison.written.Clone())
	}
	return lag, true
}

// Runs are the blocks that the peer lacks, in order: the first of a run, and their count. Runs don't touch.
func (l *Lag) Runs() iter.Seq2[uint64, uint64] {
	if len(l.parts) == 0 {
		return func(func(uint64, uint64) bool) {}
	}
	for _, s := range l.parts[1:] {
		l.parts[0].Or(s)
		s.Reset()
	}
	l.parts = l.parts[:1]
	return func(yield func(uint64, uint64) bool) {
		for a, b := range l.parts[0].Runs() {
			if !yield(uint64(a), uint64(b-a)) {
				return
			}
		}
	}
}

// Release ends it.
func (l *Lag) Release() {
	for _, s := range l.parts {
		s.Reset()
	}
	l.parts = nil
}
