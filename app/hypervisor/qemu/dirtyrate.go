package qemu

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tagalong.org/tagalong/app/hypervisor"
)

const (
	// dirtySpan is how long QEMU looks, in seconds: the shortest that it knows.
	dirtySpan = 1
	// dirtySamples is how many pages of each GiB it looks at. It hashes each twice: of 8 GiB that is some ten milliseconds of one processor.
	dirtySamples = 2048
	dirtyPoll    = 100 * time.Millisecond
)

// DirtyRate implements hypervisor.Guest. QEMU compares hashes of some of the guest's pages after a second (calc-dirty-rate), under any accelerator, and
// the guest goes on meanwhile. It tells whole MiB a second; a page that is written again and again counts once a second.
func (g *guest) DirtyRate(ctx context.Context) (int64, error) {
	fail := func(err error) (int64, error) { return 0, fmt.Errorf("qemu: look at what the guest writes: %w", err) }
	if err := g.qmp.Do(ctx, "calc-dirty-rate", map[string]any{"calc-time": dirtySpan, "sample-pages": dirtySamples}, nil); err != nil {
		// Somebody else may be asking: what comes of that will do.
		if now, askErr := g.dirtyRate(ctx); askErr != nil || now.Status == "unstarted" {
			return fail(errors.Join(err, askErr))
		}
	}
	for {
		select {
		case <-ctx.Done():
			return fail(ctx.Err())
		case <-g.Exited():
			return fail(hypervisor.ErrNotRunning)
		case <-time.After(dirtyPoll):
		}
		switch now, err := g.dirtyRate(ctx); {
		case err != nil:
			return fail(err)
		case now.Status == "measured":
			return max(now.Rate, 0) << 20, nil
		}
	}
}

type dirtyRate struct {
	Status string `json:"status"`
	Rate   int64  `json:"dirty-rate"` // MiB a second
}

func (g *guest) dirtyRate(ctx context.Context) (d dirtyRate, err error) {
	err = g.qmp.Do(ctx, "query-dirty-rate", nil, &d)
	return d, err
}
