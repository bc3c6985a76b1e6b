package app

import (
	"context"
	"fmt"
	"time"

	"tagalong.org/tagalong/app/handover"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/p2p/handoff"
	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/vmdisk"
)

// taker is how the taker's copy stands, as this disk knows it.
func (r *outgoingRun) taker() (c handover.Copy, copied int64) {
	c.Waited = time.Since(r.begun)
	if feed := r.v.feed(r.peer); feed != nil {
		p := feed.progress()
		c.Rate, copied = p.rate, p.copied
	}
	disk := r.v.currentDisk()
	if disk == nil {
		return c, copied
	}
	for _, p := range disk.Peers() {
		if p.Peer == r.peer {
			c.Live, c.Comparing = p.Phase == vmdisk.Live, p.Phase == vmdisk.Comparing
			c.Feeding = p.Phase == vmdisk.CatchingUp || p.Phase == vmdisk.Behind
			c.Standing, c.Remaining = p.Acked != vmdisk.Position{}, p.Remaining
		}
	}
	return c, copied
}

// catchUp waits until every write reaches the taker as it happens, or little is missing there; or until that would take too long: then the
// taker goes on without the rest.
func (r *outgoingRun) catchUp(ctx context.Context) error {
	v := r.v
	v.switchPhase(phaseCatchUp)
	var last int64
	for {
		c, copied := r.taker()
		if v.e.handover.GoOn(c) {
			return nil
		}
		if copied != last {
			last = copied
			v.post(ctx, baton.Event{Kind: baton.EvProgress})
		}
		v.switchBytes(0, copied, c.Remaining)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(catchUpPoll):
		}
	}
}

// seal fences the disk and waits until the taker has its very last write durably, or knows, durably, what it lacks.
func (r *outgoingRun) seal(ctx context.Context) (vmdisk.Position, error) {
	disk := r.v.currentDisk()
	if disk == nil {
		return vmdisk.Position{}, errVMClosed
	}
	if err := disk.Fence(); err != nil {
		return vmdisk.Position{}, fmt.Errorf("fence the disk: %w", err)
	}
	c, _ := r.taker()
	limit, forever := r.v.e.handover.Drain(c, r.live)
	if limit > 0 || forever {
		pos, err := r.drain(ctx, disk, limit)
		if err == nil || forever || ctx.Err() != nil {
			return pos, err
		}
		r.v.log.Info("The taker's copy isn't whole in time", "attempt", r.attempt, "error", err)
	}
	return r.tell(ctx, disk)
}

// drain sends the last writes. limit 0 is as long as it takes.
func (r *outgoingRun) drain(ctx context.Context, disk *vmdisk.Store, limit time.Duration) (vmdisk.Position, error) {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	pos, err := disk.Drain(ctx, r.peer)
	if err != nil {
		return pos, fmt.Errorf("send the disk's last writes: %w", err)
	}
	return pos, nil
}

// tell names the fenced disk's position for good and tells the taker what its copy lacks of it. What it is being fed meanwhile would only
// keep the words from arriving.
func (r *outgoingRun) tell(ctx context.Context, disk *vmdisk.Store) (vmdisk.Position, error) {
	v := r.v
	v.holdBack(r.peer)
	// Of a term before, it could be one that the taker has given away: of a side of its own that lost to this one.
	if _, err := disk.Name(); err != nil {
		return vmdisk.Position{}, fmt.Errorf("name what the disk holds: %w", err)
	}
	if err := disk.Seal(); err != nil {
		return vmdisk.Position{}, fmt.Errorf("seal the disk: %w", err)
	}
	sets, err := disk.ExportDirty()
	pos := disk.Position()
	if err != nil {
		return pos, fmt.Errorf("describe what the replicas lack: %w", err)
	}
	s, err := v.e.host.Open(ctx, r.peer, handoff.SetsProtocol)
	if err == nil {
		progress := func() { v.post(ctx, baton.Event{Kind: baton.EvProgress}) }
		err = handoff.SendSets(ctx, s, handoff.Sets{VM: v.id, Attempt: r.attempt, Position: replica.Position(pos), Sets: sets}, progress)
	}
	if err != nil {
		return pos, fmt.Errorf("tell the taker what it lacks: %w", err)
	}
	c, _ := r.taker()
	v.log.Info("The taker goes on without all of the disk", "attempt", r.attempt, "lacking", c.Remaining, "told", len(sets))
	r.mu.Lock()
	r.told = true
	r.mu.Unlock()
	return pos, nil
}

// hasTold says that the taker knows already what the transfer would tell it.
func (r *outgoingRun) hasTold() bool {
	if r == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.told
}
