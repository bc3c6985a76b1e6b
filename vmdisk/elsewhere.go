package vmdisk

import "time"

// Elsewhere is how far a disk's content is durable on other devices.
type Elsewhere struct {
	// Newest is the newest position of this disk's history that a peer has reported as durable there; zero if there is none. One that is outside of it, as
	// that of a side that has lost, holds nothing of what was written here, whatever its number.
	Newest Position
	// Whole says that a peer is known to have a whole copy, of this history or of another.
	Whole bool
	// Active says that the disk is active here, Hydrating that it isn't whole: then no peer can follow.
	Active, Hydrating bool
}

// Elsewhere says how far this disk's content is durable on other devices. It costs little: nothing is counted. What a watcher of all peers
// (Watch) is woken for is all that can raise Newest to this disk's position.
func (d *Store) Elsewhere() Elsewhere {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := Elsewhere{Active: d.active && !d.closed, Hydrating: d.hydration.Load() != nil}
	for _, p := range d.peers {
		if p.acked == (Position{}) {
			continue
		}
		e.Whole = true
		if d.inHistory(p.acked) {
			e.Newest = maxPosition(e.Newest, p.acked)
		}
	}
	return e
}

// Hurry tells that somebody waits until a peer has what is durable here. Those that keep up get it now, not with their next burst (MirrorEvery); one that
// is behind, and of which little is left, gets its next barrier now instead of touchEvery after the last.
func (d *Store) Hurry() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.peers {
		if p.feed == nil {
			continue
		}
		if p.standing.behind {
			p.standing.touched = time.Time{}
		}
		p.feed.hurry()
	}
}
