package app

import (
	"context"
	"time"

	"tagalong.org/tagalong/vmdisk/throttle"
)

const (
	// recordRate is how many bytes a second the disks of this device may read, all together, to record hashes of what has been quiet, and recordBusy
	// is that while guests use their disks. Hashing takes about 0.8 ms of one core for each MiB: 0.6 % of it at most.
	recordRate = 8 << 20
	recordBusy = 1 << 20
	// recordLook is how often it is looked whether this device is on its battery still: then nothing is recorded.
	recordLook = 10 * time.Second
)

// recordPace is the vmdisk.Pace of all disks' recording. Its method may be called from any goroutine.
type recordPace struct {
	battery func() bool
	busy    func() bool // guests use their disks
	limit   *throttle.Limit
}

func (e *Engine) newRecordPace() *recordPace {
	return &recordPace{e.onBattery, e.courtesy.busy, throttle.New(recordRate)}
}

// Wait implements vmdisk.Pace.
func (p *recordPace) Wait(ctx context.Context, n int64) error {
	for p.battery() {
		t := time.NewTimer(recordLook)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
	}
	rate := int64(recordRate)
	if p.busy() {
		rate = recordBusy
	}
	if p.limit.Rate() != rate {
		p.limit.Set(rate)
	}
	return p.limit.Wait(ctx, n)
}
