package app

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tagalong.org/tagalong/vmdisk/throttle"
)

// Nothing is recorded on battery, little while guests work, and what waits ends with its disk.
func TestRecordPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var battery, busy atomic.Bool
		p := &recordPace{battery.Load, busy.Load, throttle.New(recordRate)}
		took := func(n int64) time.Duration {
			began := time.Now()
			for range n / (64 << 10) {
				if err := p.Wait(t.Context(), 64<<10); err != nil {
					t.Fatal(err)
				}
			}
			return time.Since(began)
		}
		if got := took(8 * recordRate); got < 7*time.Second || got > 9*time.Second {
			t.Errorf("idle: %s for eight seconds' worth", got)
		}
		busy.Store(true)
		if got := took(8 * recordBusy); got < 7*time.Second || got > 9*time.Second {
			t.Errorf("busy: %s for eight seconds' worth", got)
		}
		busy.Store(false)
		battery.Store(true)
		time.AfterFunc(time.Hour, func() { battery.Store(false) })
		if got := took(64 << 10); got < time.Hour || got > time.Hour+2*recordLook {
			t.Errorf("an hour of battery: %s", got)
		}
		battery.Store(true)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		if err := p.Wait(ctx, 1); !errors.Is(err, context.Canceled) {
			t.Errorf("ended: %v", err)
		}
	})
}
