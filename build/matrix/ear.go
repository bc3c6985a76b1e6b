//go:build linux

package matrix

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"tagalong.org/tagalong/build/guest/console"
	"tagalong.org/tagalong/build/story"
)

// ear hears one guest on one PC.
type ear struct {
	pc      string
	console *console.Console
	ticks   *console.Timeline
	began   time.Duration // the time line's start, since the beginning
	run     string
	ready   bool // run is known
}

// listen hears every guest on a PC, one after the other, until ctx ends.
func (w *world) listen(ctx context.Context, p *story.PC) {
	for ctx.Err() == nil {
		e := &ear{pc: p.Name, ticks: console.NewTimeline(), began: time.Since(w.began)}
		c, err := console.Dial(ctx, p.Name, w.runFile(p, "console.sock"), e.ticks)
		if err != nil {
			return
		}
		e.console = c
		w.mu.Lock()
		w.ears = append(w.ears, e)
		w.mu.Unlock()
		w.hear(ctx, e)
		if err := c.Close(); err != nil && !errors.Is(err, console.ErrClosed) {
			w.fail(err)
		}
		w.note(e)
	}
}

// hear follows one guest until its line ends.
func (w *world) hear(ctx context.Context, e *ear) {
	boot, err := e.console.WaitReady(ctx)
	if err != nil {
		return // it never ran here, or not for long
	}
	if w.met(e, boot) {
		if err := e.console.SetRate(ctx, w.o.Rate); err != nil && !errors.Is(err, console.ErrClosed) && ctx.Err() == nil {
			w.say("the guest on %s takes no rate: %v", e.pc, err)
		}
	}
	for {
		w.note(e)
		select {
		case <-ctx.Done():
			return
		case <-e.console.Done():
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// met judges what a guest found at its start, and says whether it hasn't been met before.
func (w *world) met(e *ear, boot console.Boot) (fresh bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fresh = true
	for _, o := range w.ears {
		fresh = fresh && !(o.ready && o.run == boot.Run)
	}
	e.run, e.ready = boot.Run, true
	if !fresh {
		return false
	}
	w.say("the guest starts on %s (run %s): %d records, the last is %d", e.pc, boot.Run, boot.Records, boot.Last)
	if boot.Lost != 0 || boot.Bad != 0 || boot.Last < w.durable {
		w.failLocked(fmt.Errorf("the guest that started on %s found %+v, but record %d was durable", e.pc, boot, w.durable))
	}
	return true
}

// note takes over what a guest has told.
func (w *world) note(e *ear) {
	_, durable := e.console.Progress()
	bad := e.console.Bad()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.durable = max(w.durable, durable)
	if len(bad) > 0 {
		w.failLocked(fmt.Errorf("the guest on %s complains: %s", e.pc, strings.Join(bad, "; ")))
	}
}

// heard is the ear of the guest that is on a PC, nil if there is none that has ever run there.
func (w *world) heard(pc string) *ear {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := len(w.ears) - 1; i >= 0; i-- {
		if e := w.ears[i]; e.pc == pc {
			select {
			case <-e.console.Done():
				return nil
			default:
			}
			if e.ready {
				return e
			}
			return nil
		}
	}
	return nil
}

// stretches is everything that was heard.
func (w *world) stretches() []story.Stretch {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []story.Stretch
	for _, e := range w.ears {
		ticks := e.ticks.Ticks()
		if !e.ready || len(ticks) == 0 {
			continue
		}
		first, last := ticks[0], ticks[len(ticks)-1]
		all = append(all, story.Stretch{PC: e.pc, Run: e.run, From: e.began + first.At, To: e.began + last.At, First: first.N, Last: last.N})
	}
	return all
}
