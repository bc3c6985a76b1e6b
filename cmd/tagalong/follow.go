package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"tagalong.org/tagalong/app/api"
)

// The rhythm of following: snapshots are read at least every slowly, and after events as often as
// every quickly. An engine that restarts is waited for.
const (
	slowly      = time.Second
	quickly     = 100 * time.Millisecond
	restartWait = 30 * time.Second
)

// follower watches something long to its end, by snapshots and events, over restarts of the
// engine. Its functions are called one at a time.
type follower struct {
	client *api.Client
	// after is the last event that is old news.
	after uint64
	// read looks at a snapshot, heard at an event; over ends the watch. An event that isn't fresh
	// is older than the last snapshot: what it says may still tell an end, but not progress.
	read  func(*api.Status) (over bool, err error)
	heard func(ev api.Event, fresh bool) (over bool, err error)
	// interrupted is called at the n-th interrupt, from 1; an error ends the watch with it. The
	// system's demand to end counts twice.
	interrupted func(ctx context.Context, n int) error
}

// follow returns when read or heard say that it is over, or with the first error.
func (f *follower) follow(ctx context.Context) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	var events <-chan api.Event
	interrupts, lost, seen := 0, time.Time{}, uint64(0)
	for {
		if events == nil {
			// A failure shows in the snapshot below.
			events, _ = f.client.Watch(ctx, f.after)
		}
		st, err := f.client.Status(ctx)
		switch {
		case err == nil:
			lost, seen = time.Time{}, st.Seq
			if over, err := f.read(st); over || err != nil {
				return err
			}
		case api.AsError(err).Code != api.CodeNoEngine:
			return err
		case lost.IsZero():
			lost = time.Now()
		case time.Since(lost) > restartWait:
			return err
		}

		pause := time.NewTimer(slowly)
		soon := false
		for waiting := true; waiting; {
			hurry := false
			select {
			case ev, ok := <-events:
				hurry = true
				if !ok {
					events = nil // silent until it is opened again after the pause
					break
				}
				f.after = ev.Seq
				if over, err := f.heard(ev, ev.Seq > seen); over || err != nil {
					return err
				}
			case sig := <-signals:
				hurry = true
				interrupts++
				if sig != os.Interrupt {
					interrupts++
				}
				if err := f.interrupted(ctx, interrupts); err != nil {
					return err
				}
			case <-pause.C:
				waiting = false
			}
			if hurry && !soon { // only the first of a burst moves the next reading
				soon = true
				pause.Reset(quickly)
			}
		}
		pause.Stop()
	}
}
