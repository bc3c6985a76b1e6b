package ui

import (
	"context"
	"log/slog"
	"time"

	"tagalong.org/tagalong/app/api"
)

// reader is what following the engine needs of its client.
type reader interface {
	Status(ctx context.Context) (*api.Status, error)
	Watch(ctx context.Context, after uint64) (<-chan api.Event, error)
}

// The pace of a follower.
const (
	// minGap is the least time between two readings, however many events there are.
	minGap = 500 * time.Millisecond
	// busyGap is the most while something is under way, so that bars and clocks move without events.
	busyGap = time.Second
	// idleGap is the most at rest, so that "5 minutes ago" grows older.
	idleGap = 15 * time.Second
	// firstPause and maxPause bound the wait before the next try when nobody answers.
	firstPause = time.Second
	maxPause   = 5 * time.Second
	// startTime is how long a started engine may take to answer; startGap is how often it is asked.
	startTime = 30 * time.Second
	startGap  = 200 * time.Millisecond
)

// news is what a follower found out: a link, the status if there is one, and what the engine wants the person told of.
type news struct {
	Link   link
	Status *api.Status
	Err    *api.Error
	Sync   *api.SyncNews
	Damage *api.Verification // that one in the background found
}

// follower reads the engine's status whenever it may have changed, for ever. It starts the engine
// once if none has ever answered, and again only when the person asks for it: one who stopped the
// engine on purpose must not see it come back by itself.
type follower struct {
	client reader
	start  func() error // nil: never start one
	tell   func(news)   // called in turn, from Run's goroutine only
	log    *slog.Logger
	// again wakes the follower up: read now, or start the engine if none answers. Both have room for
	// one wish; a second one while the first waits would change nothing.
	readAgain  chan struct{}
	startAgain chan struct{}
}

func newFollower(c reader, start func() error, log *slog.Logger, tell func(news)) *follower {
	return &follower{client: c, start: start, tell: tell, log: log,
		readAgain: make(chan struct{}, 1), startAgain: make(chan struct{}, 1)}
}

// Poke asks for a reading soon. It never blocks.
func (f *follower) Poke() { wish(f.readAgain) }

// StartEngine asks to start the engine if none answers. It never blocks.
func (f *follower) StartEngine() { wish(f.startAgain) }

func wish(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run follows until ctx ends.
func (f *follower) Run(ctx context.Context) {
	mayStart, had, pause := f.start != nil, false, firstPause
	for ctx.Err() == nil {
		st, err := f.client.Status(ctx)
		if err == nil {
			mayStart, had, pause = false, true, firstPause
			err = f.stay(ctx, st)
		}
		if ctx.Err() != nil {
			return
		}
		e := api.AsError(err)
		if e.Code == api.CodeNoEngine && mayStart {
			mayStart = false
			f.tell(news{Link: linkStarting})
			if e = f.startAndWait(ctx); e == nil {
				continue
			}
		}
		bad := linkNone
		if had {
			bad = linkLost
		}
		f.log.Debug("Engine doesn't answer", "code", string(e.Code), "cause", e.Cause)
		f.tell(news{Link: bad, Err: e})
		if f.rest(ctx, pause) {
			mayStart = f.start != nil
		}
		pause = min(maxPause, pause*2)
	}
}

// rest waits before the next try; true when the person asked to start the engine.
func (f *follower) rest(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-f.readAgain:
	case <-f.startAgain:
		return true
	}
	return false
}

// startAndWait starts the engine and waits until it answers.
func (f *follower) startAndWait(ctx context.Context) *api.Error {
	if err := f.start(); err != nil {
		f.log.Warn("Engine could not be started", "error", err)
		return api.AsError(err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	tick := time.NewTicker(startGap)
	defer tick.Stop()
	for {
		_, err := f.client.Status(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return &api.Error{Code: api.CodeNoEngine, Sentence: t("start.silent"), Next: t("start.silent.next"), Cause: err.Error()}
		case <-tick.C:
		}
	}
}

// stay tells what the engine says until it stops answering, and returns why it did.
func (f *follower) stay(ctx context.Context, st *api.Status) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := f.client.Watch(ctx, st.Seq)
	if err != nil {
		return err
	}
	// The engine may say more after cancel; whoever sends must not be left waiting for us.
	defer func() {
		cancel()
		drain(events)
	}()
	f.tell(news{Link: linkUp, Status: st})
	last, seen := time.Now(), st.Seq
	timer := time.NewTimer(gap(st))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case ev, ok := <-events:
			if !ok {
				// That need not mean that the engine went: it cuts off slow watchers, too.
				events = nil
			} else {
				seen = ev.Seq
			}
			if ev.Sync != nil || ev.Damage != nil {
				f.tell(news{Link: linkUp, Sync: ev.Sync, Damage: ev.Damage})
			}
			timer.Reset(max(0, minGap-time.Since(last)))
		case <-f.readAgain:
			timer.Reset(max(0, minGap-time.Since(last)))
		case <-timer.C:
			if st, err = f.client.Status(ctx); err != nil {
				return err
			}
			if events == nil {
				// From where it was cut off: what is worth a notification is told by an event only.
				if events, err = f.client.Watch(ctx, seen); err != nil {
					return err
				}
			}
			last = time.Now()
			f.tell(news{Link: linkUp, Status: st})
			timer.Reset(gap(st))
		}
	}
}

func drain(events <-chan api.Event) {
	if events == nil {
		return
	}
	for range events {
		// What it still says is of no use to anybody.
	}
}

// gap is how long a status may stand without events.
func gap(st *api.Status) time.Duration {
	if st.Pairing != nil && !st.Pairing.Done {
		return busyGap
	}
	for i := range st.Jobs {
		if !st.Jobs[i].Done {
			return busyGap
		}
	}
	for i := range st.VMs {
		vm := &st.VMs[i]
		if vm.Switch != nil && !vm.Switch.Phase.Ended() {
			return busyGap
		}
		for _, r := range vm.Replicas {
			if r.State == api.ReplicaCopying || r.State == api.ReplicaBehind || r.State == api.ReplicaPushing {
				return busyGap
			}
		}
	}
	return idleGap
}
