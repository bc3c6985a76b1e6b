package switching

import (
	"context"
	"fmt"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/handover"
	"tagalong.org/tagalong/vmdisk"
)

// taker is how the taker's copy stands, as this disk knows it.
func (g *Giver) taker() (handover.Copy, int64) {
	c, copied := g.Replica.Copy()
	c.Waited = g.Clock.Now().Sub(g.begun)
	return c, copied
}

// lastWrites is how long the taker's copy takes for what it lacks, as far as that is waited for while the guest stands still.
func (g *Giver) lastWrites(c handover.Copy) time.Duration {
	limit, _ := g.Copy.Drain(c, g.Live)
	left, _ := c.Left()
	return min(limit, left)
}

// catchUp waits until every write reaches the taker as it happens, or little is missing there; or until that would take too long: then the
// taker goes on without the rest.
func (g *Giver) catchUp(ctx context.Context) error {
	g.Tell.Phase(api.PhaseCatchUp)
	var last int64
	for {
		c, copied := g.taker()
		if g.Copy.GoOn(c) {
			return nil
		}
		if copied != last {
			last = copied
			g.Tell.Moved(ctx)
		}
		left, _ := c.Left()
		g.Tell.Report(Report{Disk: copied, Remaining: c.Remaining, ToFull: left})
		if err := g.Clock.Wait(ctx, g.Rule.CatchUpPoll); err != nil {
			return err
		}
	}
}

// seal fences the disk and waits until the taker has its very last write durably, or knows, durably, what it lacks.
func (g *Giver) seal(ctx context.Context) (vmdisk.Position, error) {
	disk := g.Place.Disk()
	if disk == nil {
		return vmdisk.Position{}, ErrClosed
	}
	if err := disk.Fence(); err != nil {
		return vmdisk.Position{}, fmt.Errorf("fence the disk: %w", err)
	}
	c, _ := g.taker()
	limit, forever := g.Copy.Drain(c, g.Live)
	if limit > 0 || forever {
		pos, err := g.drain(ctx, disk, limit)
		if err == nil || forever || ctx.Err() != nil {
			return pos, err
		}
		g.Log.Info("The taker's copy isn't whole in time", "attempt", g.Attempt, "error", err)
	}
	return g.tellLacking(ctx, disk)
}

// drain sends the last writes. limit 0 is as long as it takes.
func (g *Giver) drain(ctx context.Context, disk Disk, limit time.Duration) (vmdisk.Position, error) {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	pos, err := disk.Drain(ctx, g.Taker)
	if err != nil {
		return pos, fmt.Errorf("send the disk's last writes: %w", err)
	}
	return pos, nil
}

// tellLacking names the fenced disk's position for good and tells the taker what its copy lacks of it. What it is being fed meanwhile would only
// keep the words from arriving.
func (g *Giver) tellLacking(ctx context.Context, disk Disk) (vmdisk.Position, error) {
	g.Replica.HoldBack()
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
	if err := g.Replica.Tell(ctx, pos, sets, func() { g.Tell.Moved(ctx) }); err != nil {
		return pos, fmt.Errorf("tell the taker what it lacks: %w", err)
	}
	c, _ := g.taker()
	g.Log.Info("The taker goes on without all of the disk", "attempt", g.Attempt, "lacking", c.Remaining, "told", len(sets))
	g.mu.Lock()
	g.told = true
	g.mu.Unlock()
	return pos, nil
}

// CopyOf is how a device's copy stands by what its owner's disk knows of all; Rate and Waited are the caller's to fill in.
func CopyOf(peers []vmdisk.PeerInfo, device string) (c handover.Copy) {
	for _, p := range peers {
		if p.Peer == device {
			c.Live, c.Comparing = p.Phase == vmdisk.Live, p.Phase == vmdisk.Comparing
			c.Feeding = p.Phase == vmdisk.CatchingUp || p.Phase == vmdisk.Behind
			c.Standing, c.Remaining = p.Acked != vmdisk.Position{}, p.Remaining
		}
	}
	return c
}
