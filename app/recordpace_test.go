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
		var calm atomic.Bool
		p := &recordPace{battery.Load, busy.Load, func(time.Duration) bool { return calm.Load() }, throttle.New(recordRate)}
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
		calm.Store(true)
		if got := took(8 * recordCalm); got < 7*time.Second || got > 9*time.Second {
			t.Errorf("calm: %s for eight seconds' worth", got)
		}
		busy.Store(true) // it begins just now
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

// Nothing is calm before it was looked at for so long, nor while something comes or goes, nor where it wasn't looked at.
func TestALull(t *testing.T) {
	moved, now := int64(0), time.Now()
	l := &lull{moved: func() int64 { return moved }}
	// after looks every second for so long, in which so much moves a second.
	after := func(long time.Duration, perSecond int64) bool {
		calm := false
		for end := now.Add(long); now.Before(end); {
			now, moved = now.Add(time.Second), moved+perSecond
			calm = l.calm(now, recordLull)
		}
		return calm
	}
	for i, x := range []struct {
		long      time.Duration
		perSecond int64
		calm      bool
	}{
		{recordLull, 0, false}, {5 * time.Second, lullRate / 2, true}, {recordLull, lullRate / 2, true},
		{time.Second, 2 * lullRate, false}, {recordLull - time.Second, 0, false}, {time.Second, 0, true}, {3 * recordLull, 2 * lullRate, false},
		{recordLull, 0, true},
	} {
		if got := after(x.long, x.perSecond); got != x.calm {
			t.Errorf("step %d: %t", i, got)
		}
	}
	now = now.Add(2 * lullGap)
	if l.calm(now, recordLull) {
		t.Error("nobody looked, and it is said to be calm")
	}
	moved = 0 // a device has gone
	if after(recordLull-time.Second, 0) {
		t.Error("after a count that fell it is calm at once")
	}
}
