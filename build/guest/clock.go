//go:build linux

package main

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"tagalong.org/tagalong/build/guest/ticklog"
)

// tickMemory is how many ticks are remembered: eleven minutes.
const tickMemory = 1 << 16

// gapLimit is from when on a pause by the guest's own clock counts, in
// microseconds.
const gapLimit = 100_000

// clock prints a tick every tickEvery. A late one isn't made up for: the next
// comes a whole tickEvery later, so that the ticks show the pause.
type clock struct {
	out *output
	log *ticklog.Log
}

func newClock(out *output) *clock {
	return &clock{out: out, log: ticklog.New(tickMemory, gapLimit)}
}

func (c *clock) serve(ctx context.Context) error {
	next := time.Now()
	for {
		t := c.log.Add(monoMicros(), time.Now().UnixMicro())
		c.out.Printf("T %d %d %d", t.N, t.Mono, t.Wall)
		next = next.Add(tickEvery)
		if late := time.Since(next); late > 0 {
			next = next.Add(late)
		}
		if err := sleep(ctx, time.Until(next)); err != nil {
			return err
		}
	}
}

// monoMicros is the guest's monotonic clock in microseconds.
func monoMicros() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return ts.Nano() / 1000
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
