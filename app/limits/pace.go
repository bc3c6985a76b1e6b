package limits

import (
	"context"

	"tagalong.org/tagalong/vmdisk/throttle"
)

// grain is how many bytes one may move before it is the next one's turn.
const grain = 4 << 10

// Pace is a rate that all pushes of one direction share, in turns of 4 KiB, however much each wants at once. Its methods may be called from
// any goroutine.
type Pace struct {
	limit *throttle.Limit
	turn  chan struct{} // who has put something in has the turn; those who wait get it in order
}

func newPace() *Pace { return &Pace{limit: throttle.New(0), turn: make(chan struct{}, 1)} }

// Wait returns when n more bytes may be moved, or with ctx's error. A new rate counts at once.
func (p *Pace) Wait(ctx context.Context, n int64) error {
	for n > 0 && p.limit.Rate() != 0 {
		select {
		case p.turn <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		part := min(n, grain)
		err := p.limit.Wait(ctx, part)
		<-p.turn
		if err != nil {
			return err
		}
		n -= part
	}
	return ctx.Err()
}

// Rate in bytes a second; 0 is without limit.
func (p *Pace) Rate() int64 { return p.limit.Rate() }

func (p *Pace) set(rate int64) {
	if p.limit.Rate() != rate {
		p.limit.Set(rate)
	}
}
