package vmdisk

import (
	"errors"
	"fmt"
	"time"
)

const (
	// reserveStep is how many barrier numbers are reserved at a time; reserveRoom is how many must be left.
	reserveStep = 1 << 16
	reserveRoom = 1 << 10
	// barrierBytes is how much may be written before the disk makes a barrier for its peers by itself, however soon: so a replica's log goes on over what
	// it has, most of it still in the processor's cache or at least in memory, instead of taking new space for a second of a fast guest.
	barrierBytes = 16 << 20
)

// round is one barrier in the making; all who ask for one before its cut share it.
type round struct {
	done chan struct{}
	err  error // after done

	cut    *Cut // to be taken at this barrier, or nil
	taken  bool // the disk was active; cutErr says whether the cut is
	cutErr error
}

// Flush makes all writes that returned before durable. If something was written since the last, this
// makes the next barrier. Flushing a disk that isn't active does nothing. Errors: ErrFailed, ErrClosed.
func (d *Store) Flush() error {
	if err := d.barrier(); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	return nil
}

// Name gives what an active disk holds a position of the term that it is active under, if it has one of an earlier term only: after a new
// term began, and nothing was written since. What is bound to a position (a saved memory) can then be bound to one that stays. Errors are those of Flush.
func (d *Store) Name() (Position, error) {
	d.mu.Lock()
	d.naming = true
	d.mu.Unlock()
	if err := d.barrier(); err != nil {
		return Position{}, fmt.Errorf("name: %w", err)
	}
	return d.Position(), nil
}

// barrier joins the next round, or leads it.
func (d *Store) barrier() error {
	d.mu.Lock()
	r := d.next
	if r != nil {
		d.mu.Unlock()
		<-r.done
		return r.err
	}
	r = &round{done: make(chan struct{})}
	d.next = r
	d.mu.Unlock()
	d.syncMu.Lock()
	r.err = d.runRound(r)
	d.syncMu.Unlock()
	close(r.done)
	return r.err
}

// runRound cuts the order of writes: no write is under way at that moment, so each is before or after it, here and in
// the queues. What is before is then made durable; the barriers leave the queues only after that.
func (d *Store) runRound(r *round) error {
	for {
		spare := r.spare()
		rerr := d.reserveNumbers(spare)
		d.gate.Lock()
		d.mu.Lock()
		if rerr == nil && d.active && d.err == nil && d.counter+spare >= d.reserved {
			d.mu.Unlock()
			d.gate.Unlock()
			continue // checkpoints took the numbers meanwhile
		}
		pos, wrote, fresh, err := d.cut(r, rerr)
		if r.cut != nil && err == nil && d.active {
			r.taken, r.cutErr = true, d.cutFor(r.cut, pos)
		}
		d.mu.Unlock()
		d.gate.Unlock()
		if err != nil || !wrote && !fresh {
			return err
		}
		var unnamed error
		if wrote {
			err = d.troubled("sync", d.stack.sync())
		} else {
			// A new name for old content: without a write to tell of it, a restart would not know the name.
			unnamed = d.record(replicaRecord(true, [16]byte{}, pos))
		}
		d.mu.Lock()
		switch {
		case err != nil:
			err = d.fail("sync "+baseName, err)
		case unnamed != nil:
			err, d.syncing = fmt.Errorf("name barrier: %w", unnamed), false
			d.withdraw(r)
		default:
			if d.trail.at == d.position || d.trail.begins(pos) {
				d.trail.at = pos
			}
			d.position, d.syncing = pos, false
		}
		d.mu.Unlock()
		return err
	}
}

// withdraw takes the barriers of r out of the queues, with all else that is there. The caller holds d.mu.
func (d *Store) withdraw(r *round) {
	for _, p := range d.peers {
		if f := p.feed; f != nil && f.queue.has(r) {
			f.dropQueue()
			f.rouse()
		}
		d.notify(p.name) // the position that was about to change stays
	}
}

// cut ends the joining of round r and queues its barriers. fresh says that the barrier has a new
// number. rerr is why no further numbers could be reserved: it counts only when there are none left. The caller holds gate and mu.
func (d *Store) cut(r *round, rerr error) (pos Position, wrote, fresh bool, err error) {
	d.next = nil
	switch {
	case d.err != nil:
		return pos, false, false, d.err
	case !d.active && d.closed:
		return pos, false, false, ErrClosed
	case !d.active:
		return pos, false, false, nil
	case rerr != nil && d.counter+r.spare() >= d.reserved:
		return pos, false, false, rerr
	}
	wrote, pos = d.wrote, d.position
	needed := d.naming && pos.Term != d.term
	if r.cut != nil && r.cut.feed != nil && r.cut.feed.mayCut() {
		needed = true
		d.counter += r.spare() // the barrier's number is above those of the checkpoints on the way to it
	}
	fresh, d.naming = wrote || needed, false
	for _, p := range d.peers {
		f := p.feed
		if f == nil || !f.ready() || !f.needBarrier {
			continue
		}
		needed = true
		// The peer must be able to tell the barrier from what it has.
		if c := f.floor.Compare(pos); c > 0 || c == 0 && f.sent || pos.Term != d.term {
			fresh = true
		}
	}
	if !wrote && !needed {
		d.follows(pos)
		return pos, false, false, nil
	}
	if fresh {
		d.counter++
		pos = Position{d.term, d.counter}
	}
	d.follows(pos)
	d.marks(pos)
	now := d.o.now()
	for _, p := range d.peers {
		if f := p.feed; f != nil && f.ready() && (fresh || f.needBarrier) {
			f.pushBarrier(pos, r, now)
		}
	}
	d.wrote, d.written, d.syncing = false, 0, wrote || fresh
	return pos, wrote, fresh, nil
}

// fail makes err final. The caller holds d.mu.
func (d *Store) fail(what string, err error) error {
	if d.err == nil {
		d.err = fmt.Errorf("%s: %w: %w", what, ErrFailed, err)
		d.reconsider()
		d.log.Error("Disk failed, it must be opened again", "disk", d.id, "step", what, "err", err)
		for _, p := range d.peers {
			if p.feed != nil {
				p.feed.signal()
			}
		}
	}
	return d.err
}

// reserveNumbers makes sure, durably, that enough barrier numbers are reserved, and so many more.
func (d *Store) reserveNumbers(more uint64) error {
	d.mu.Lock()
	active, need := d.active && d.err == nil, d.reserved < d.counter+reserveRoom+more
	upTo := d.counter + reserveStep + more
	d.mu.Unlock()
	if !active || !need {
		return nil
	}
	if err := d.record(reserveRecord(upTo)); err != nil {
		return fmt.Errorf("reserve barriers: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reserved = max(d.reserved, upTo)
	return nil
}

// record appends to the journal, durably.
func (d *Store) record(r record) error {
	seq, err := d.j.append(r)
	if err != nil {
		return err
	}
	return d.j.syncTo(seq)
}

// keepHouse makes barriers that are overdue and stores the dirty sets, until stop.
func (d *Store) keepHouse(stop <-chan struct{}) {
	ticks, stopTicks := ticker(d.o.BarrierEvery / 4)
	defer stopTicks()
	saves, stopSaves := ticker(d.o.SaveEvery)
	defer stopSaves()
	for {
		var err error
		select {
		case <-stop:
			return
		case <-ticks:
			err = d.overdue()
		case <-d.ripe:
			err = d.overdue()
		case <-saves:
			err = errors.Join(d.mark(), d.save(), d.whole())
		case reason := <-d.trouble:
			if d.o.Troubled != nil {
				d.o.Troubled(reason)
			}
		}
		if err != nil && !errors.Is(err, ErrFailed) && !errors.Is(err, ErrClosed) {
			d.log.Warn("Housekeeping of the disk failed, it is tried again", "disk", d.id, "err", err)
		}
	}
}

// ticker ticks every so often, or never if that isn't positive.
func ticker(every time.Duration) (<-chan time.Time, func()) {
	if every <= 0 {
		return nil, func() {}
	}
	t := time.NewTicker(every)
	return t.C, t.Stop
}

// ripens counts what is written, and has a barrier made when it is much. The caller holds d.mu.
func (d *Store) ripens(n int64) {
	before := d.written
	d.written += n
	if before < barrierBytes && d.written >= barrierBytes && d.o.BarrierEvery > 0 && d.queueing.Load() > 0 {
		select {
		case d.ripe <- struct{}{}:
		default:
		}
	}
}

// overdue makes a barrier if peers wait too long for one, or for too much.
func (d *Store) overdue() error {
	d.mu.Lock()
	due := d.active && !d.fenced && d.wrote && d.queueing.Load() > 0 && (d.written >= barrierBytes || time.Since(d.wroteAt) >= d.o.BarrierEvery)
	d.mu.Unlock()
	if !due {
		return nil
	}
	return d.barrier()
}
