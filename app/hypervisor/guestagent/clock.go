package guestagent

import (
	"context"
	"fmt"
	"time"
)

const (
	// samples is how often the clock is asked for; the quickest answer says most.
	samples = 3
	// tries is how often a clock is set before it is given up: each leaves it as near as the way there was as quick as the one before, which on a busy computer it
	// often isn't.
	tries = 8
)

// Reading is how far a guest's clock is from this device's.
type Reading struct {
	// Off is what the guest's clock shows beyond this device's; below zero it is late.
	Off time.Duration
	// Within is how far Off may be wrong: half the time that the answer took.
	Within time.Duration
}

// Compare asks for the guest's clock.
func (c *Conn) Compare(ctx context.Context) (Reading, error) {
	var best Reading
	for i := range samples {
		before := time.Now()
		guest, err := c.Time(ctx)
		if err != nil {
			return Reading{}, err
		}
		took := time.Since(before)
		r := Reading{Off: guest.Sub(before.Add(took / 2)), Within: took / 2}
		if i == 0 || r.Within < best.Within {
			best = r
		}
	}
	return best, nil
}

// wrong says that a clock is off for certain, and by more than tolerance.
func (r Reading) wrong(tolerance time.Duration) bool { return r.Off.Abs() > tolerance+r.Within }

// SetClock sets the guest's clock if it is off by more than tolerance, and returns how far it was off before and is now. Errors: ErrRefused, also if the agent
// says that it has set a clock which it hasn't touched, ErrOff, ErrSilent, ErrProtocol.
func (c *Conn) SetClock(ctx context.Context, tolerance time.Duration) (before, after Reading, err error) {
	if before, err = c.Compare(ctx); err != nil {
		return before, before, err
	}
	after = before
	for range tries {
		if !after.wrong(tolerance) {
			return before, after, nil
		}
		if err := c.SetTime(ctx, time.Now().Add(after.Within)); err != nil {
			return before, after, err
		}
		if after, err = c.Compare(ctx); err != nil {
			return before, after, err
		}
	}
	switch {
	case !after.wrong(tolerance):
		return before, after, nil
	case (after.Off - before.Off).Abs() <= before.Within+after.Within+tolerance:
		return before, after, fmt.Errorf("%w: the clock is off by %v as before", ErrRefused, after.Off)
	}
	return before, after, fmt.Errorf("%w: by %v", ErrOff, after.Off)
}
