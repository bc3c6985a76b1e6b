package vmdisk

import (
	"context"
	"fmt"
	"slices"
	"time"
)

const maxPeerName = 255

func checkPeer(peer string) error {
	if peer == "" || len(peer) > maxPeerName {
		return fmt.Errorf("peer name of %d bytes: %w", len(peer), ErrRange)
	}
	return nil
}

// Attach starts the feed of a peer whose replica is r. The disk must be active.
//
// A replica that is whole and whose position this disk knows gets what it lacks; one whose position is older than
// it once reported, or that isn't known, gets everything (see Compare). If much is to be sent, it comes as a copy, which goes on after
// a lost connection. One that isn't whole goes on with its first copy if that is known, or with what was found out about what it offers (Compare), else begins one. Errors: ErrInactive, ErrAttached, ErrWrongDisk, ErrSize, and
// ErrDiverged if the replica has, or may have, what this disk's history lacks, and isn't where it was when it was compared.
func (d *Store) Attach(peer string, r ReplicaState) (*Feed, error) {
	if err := checkPeer(peer); err != nil {
		return nil, err
	}
	f, err := d.attach(peer, r)
	if err != nil {
		return nil, fmt.Errorf("attach %s: %w", peer, err)
	}
	// Stored at once, so that the regions that are logged from now on count for this peer after a crash.
	if err := d.storePeers(); err != nil {
		f.Close()
		return nil, fmt.Errorf("attach %s: %w", peer, err)
	}
	return f, nil
}

func (d *Store) attach(name string, r ReplicaState) (*Feed, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.err != nil:
		return nil, d.err
	case d.closed:
		return nil, ErrClosed
	case !d.active:
		return nil, ErrInactive
	case d.hydration.Load() != nil:
		return nil, ErrHydrating
	case r.Disk != d.id:
		return nil, fmt.Errorf("%s instead of %s: %w", r.Disk, d.id, ErrWrongDisk)
	case r.Size != 0 && r.Size < d.Size():
		return nil, fmt.Errorf("of %d bytes, the disk has %d: %w", r.Size, d.Size(), ErrSize)
	case r.Complete && !d.accepts(d.peers[name], r):
		return nil, fmt.Errorf("replica at %s, disk at %s: %w", r.Position, d.position, ErrDiverged)
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
	f := &Feed{d: d, p: p, turn: make(chan struct{}, 1), wake: make(chan struct{}, 1), done: make(chan struct{}), needBarrier: true}
	f.soon = time.AfterFunc(wakeAfter, f.rouse)
	f.meet(r)
	p.feed, p.changed = f, true
	f.signal()
	return f, nil
}

// meet compares what is known of the peer with what its replica says. The caller holds d.mu.
func (f *Feed) meet(r ReplicaState) {
	p, at := f.p, r.Checkpoint
	if !r.Complete {
		r.Position, at = Position{}, r.Position
	}
	if r.Complete && p.offered() {
		p.lostCopy() // it has been replaced by something else
	}
	older := r.Position.Compare(p.acked) < 0
	switch {
	case !older && at == restMark && p.resumes(r.Copy, at):
		// It can be written only under another name: whoever else has compared it must not go on from there. A checkpoint comes first: what the
		// replica says of itself later, if it has lost this copy, is older than that.
		p.beginCopy()
		p.mark, f.begin, f.unsaved = Position{}, true, f.d.o.checkpointEvery
	case !older && p.resumes(r.Copy, at):
		p.mark, f.floor = at, maxPosition(at, r.Position)
		f.begin = r.Complete
	case !r.Complete || older:
		p.everything(f.d.blocks())
		f.floor = r.Position
		if !r.Complete {
			p.beginCopy()
			f.begin = true
		}
	default:
		// The barrier that ends a copy is newer than all its checkpoints.
		if p.copy != [16]byte{} && r.Position.Compare(p.mark) <= 0 {
			p.lostCopy()
		}
		p.noCopy()
		f.floor = r.Position
	}
	p.acked = r.Position
}

// inHistory says whether this disk's history went through p. The caller holds d.mu.
func (d *Store) inHistory(p Position) bool {
	if p.Term == d.position.Term {
		return p.Barrier <= d.position.Barrier
	}
	end, known := d.ends[p.Term]
	return p.Term < d.position.Term && known && p.Barrier <= end
}

// Drain makes a last barrier and waits until the peer has acknowledged it and lacks nothing; it returns that
// position. It ends only if nothing is written meanwhile: fence the disk first. Afterwards, while the disk is
// fenced, its position changes only if another peer is drained. Errors: ErrDetached, ErrFailed, that of ctx.
func (d *Store) Drain(ctx context.Context, peer string) (Position, error) {
	changed, stop := d.Watch(peer)
	defer stop()
	var drained *Feed
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if drained != nil {
			drained.draining--
		}
	}()
	for {
		d.mu.Lock()
		p := d.peers[peer]
		if p == nil || p.feed == nil || drained != nil && p.feed != drained || d.err != nil {
			err := d.err
			if err == nil {
				err = ErrDetached
			}
			d.mu.Unlock()
			return Position{}, fmt.Errorf("drain to %s: %w", peer, err)
		}
		f := p.feed
		if drained == nil {
			drained = f
			f.draining++
			f.signal()
		}
		if f.ready() && f.floor.Compare(d.position) < 0 {
			// To drain another peer has given the disk a new position since this one's last barrier, and nothing else would tell it.
			f.needBarrier = true
		}
		pos, done := p.acked, d.progress(p).Complete && !f.needBarrier
		again := f.ready() && (d.wrote || f.needBarrier)
		d.mu.Unlock()
		if done {
			return pos, nil
		}
		if again && ctx.Err() == nil {
			if err := d.barrier(); err != nil {
				return Position{}, fmt.Errorf("drain to %s: %w", peer, err)
			}
			continue
		}
		select {
		case <-ctx.Done():
			return Position{}, fmt.Errorf("drain to %s: %w", peer, ctx.Err())
		case <-changed:
		}
	}
}

// Watch returns a channel that is woken when something changed for the peer, and what ends that. An empty name
// is all peers. A wake-up may stand for many changes.
func (d *Store) Watch(peer string) (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.watchers[c] = peer
	return c, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.watchers, c)
	}
}

// notify wakes the watchers of a peer. The caller holds d.mu.
func (d *Store) notify(peer string) {
	for c, p := range d.watchers {
		if p == peer || p == "" {
			select {
			case c <- struct{}{}:
			default:
			}
		}
	}
}

// Peers says what is known of each peer, in the order of their names.
func (d *Store) Peers() []PeerInfo {
	d.mu.Lock()
	var out []PeerInfo
	var counts []func() int64
	for _, name := range slices.Sorted(keys(d.peers)) {
		p := d.peers[name]
		out, counts = append(out, PeerInfo{Peer: name, Progress: d.progress(p)}), append(counts, p.lacks())
	}
	d.mu.Unlock()
	for i, count := range counts {
		out[i].Remaining = count()
	}
	return out
}

// Forget ends the feed of a peer, if any, and drops what is known of it.
func (d *Store) Forget(peer string) error {
	d.saveMu.Lock()
	defer d.saveMu.Unlock()
	d.mu.Lock()
	p := d.peers[peer]
	if p != nil {
		p.detach()
	}
	delete(d.peers, peer)
	d.mu.Unlock()
	if p == nil {
		return nil
	}
	if err := d.removeSets(peer); err != nil {
		return fmt.Errorf("forget %s: %w", peer, err)
	}
	return nil
}
