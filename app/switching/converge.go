package switching

import (
	"context"
	"fmt"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/holdpoint"
	"tagalong.org/tagalong/app/hypervisor"
)

// TooBusyError says that the guest writes memory faster than it leaves, and would stand still for longer than allowed, were it stopped.
type TooBusyError struct{ Standing }

func (e *TooBusyError) Error() string {
	return fmt.Sprintf("switching: the guest writes %d bytes of memory a second, and %d leave: it would stand still for %s, not %s",
		e.Dirty, e.Rate, e.Pause.Round(time.Millisecond), e.Allowed)
}

// Report is how far the memory is.
type Report struct {
	Memory    int64 // bytes that have left
	Disk      int64 // bytes of the disk that were copied since its connection began
	Remaining int64 // bytes that are left, of both
	Standing
	// ToFull is how long the disk takes to be whole at the taker's; 0 if that isn't known, or it is.
	ToFull time.Duration
}

// converge lets memory out in portions, so that the hypervisor never finishes by itself, until the guest is to be stopped, and stops it. It
// returns since when the guest stands still.
func (g *Giver) converge(ctx context.Context, guest Guest, out hypervisor.Outgoing, line Line) (time.Time, error) {
	plan := NewPlan(g.Rule, g.Pause, g.Early)
	plan.ahead = g.PostCopy
	slowed := &slowed{out: out, clock: g.Clock}
	var told time.Time
	first := true
	for {
		p, err := out.Progress(ctx)
		if err != nil {
			return time.Time{}, err
		}
		if first {
			first = false
			holdpoint.At(ctx, holdpoint.Memory)
		}
		now := g.Clock.Now()
		c, copied := g.taker()
		sent := line.Sent()
		order := plan.Next(Sight{
			Now: now, Passes: p.Passes, Remaining: p.Remaining, Sent: sent, OnWay: max(0, sent-line.Arrived()), Speed: line.Speed(), Disk: g.lastWrites(c),
		})
		standing := plan.Standing()
		if order.Stepped || order.Act != LetOut || now.Sub(told) > g.Rule.TellEvery {
			told = now
			g.moved(ctx, sent+copied)
			toFull, _ := c.Left()
			g.Tell.Report(Report{Memory: sent, Disk: copied, Remaining: p.Remaining, Standing: standing, ToFull: toFull})
		}
		switch order.Act {
		case GiveUp:
			return time.Time{}, &TooBusyError{standing}
		case Stop:
			g.Log.Info("The guest is stopped", "passes", p.Passes, "left", standing.Memory, "rate", standing.Rate, "dirty", standing.Dirty, "estimate", standing.Pause)
			g.Tell.Phase(api.PhaseHandOff)
			return slowed.stop(ctx, guest, g.Tell)
		}
		if order.Stepped {
			g.Log.Info("Memory doesn't leave faster than it is written", "step", standing.Step, "slowed", standing.Slow, "allowed", standing.Allowed,
				"passes", p.Passes, "left", standing.Memory, "rate", standing.Rate, "dirty", standing.Dirty, "estimate", standing.Pause)
		}
		line.Allow(order.Portion)
		if err := slowed.be(ctx, order.Stand); err != nil {
			return time.Time{}, err
		}
		line.Spent(ctx, g.Rule.LookEvery)
		if ctx.Err() != nil {
			return time.Time{}, ctx.Err()
		}
	}
}

// moved says so if something has.
func (g *Giver) moved(ctx context.Context, bytes int64) {
	if bytes != g.bytes {
		g.bytes = bytes
		g.Tell.Moved(ctx)
	}
}

// slowed is a guest that stands still for a part of the time.
type slowed struct {
	out    hypervisor.Outgoing
	clock  Clock
	stands bool
	since  time.Time
}

// be has the guest stand still, or go on.
func (s *slowed) be(ctx context.Context, still bool) error {
	if still == s.stands {
		return nil
	}
	now := s.clock.Now()
	var err error
	if still {
		err = s.out.Rest(ctx)
	} else {
		err = s.out.GoOn(ctx)
	}
	if err != nil {
		return fmt.Errorf("slow the guest down: %w", err)
	}
	s.stands, s.since = still, now
	return nil
}

// stop stops it for good, and returns since when it stands still.
func (s *slowed) stop(ctx context.Context, guest Guest, tell Teller) (time.Time, error) {
	since := s.clock.Now()
	if s.stands {
		since = s.since
	}
	tell.Stopped(since)
	if err := guest.Stop(ctx); err != nil {
		return since, fmt.Errorf("stop the guest: %w", err)
	}
	return since, nil
}
