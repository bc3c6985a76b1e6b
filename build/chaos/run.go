//go:build linux

package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/build/story"
)

// every is how often the person, and the witness, looks.
const every = 250 * time.Millisecond

// Run carries a plan out, lets everything heal, and judges. The error is the first thing that was wrong.
func Run(ctx context.Context, o Options) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	w, err := begin(ctx, o)
	defer func() {
		cancel()
		err = errors.Join(err, w.close())
	}()
	if err == nil {
		err = w.carryOut(ctx)
	}
	if err == nil {
		err = w.judge(ctx)
	}
	if err != nil && w.fleet != nil {
		err = fmt.Errorf("%w\n%s", err, w.report(ctx))
	}
	return err
}

// writesWithin is how long most steps wait for a guest that writes: what befalls one that boots says less.
const writesWithin = 30 * time.Second

// carryOut lets the plan's steps happen at their times, or later: when a step takes long, or the guest to boot.
func (w *world) carryOut(ctx context.Context) error {
	w.say("the plan: %v", w.o.Plan)
	began := time.Now()
	for _, s := range w.o.Plan {
		for first := true; first || time.Since(began) < s.At; first = false {
			if err := w.wait(ctx); err != nil {
				return err
			}
		}
		if s.Coin%4 != 0 {
			if err := w.untilItWrites(ctx); err != nil {
				return err
			}
		}
		if err := w.do(ctx, s); err != nil {
			return fmt.Errorf("%v: %w", s, err)
		}
	}
	return nil
}

// untilItWrites waits until the guest has told of a new durable record, unless a wound keeps it from that.
func (w *world) untilItWrites(ctx context.Context) error {
	var line *line
	var told uint64
	for deadline := time.Now().Add(writesWithin); time.Now().Before(deadline); {
		if w.asleep[w.owner] || w.tight(w.owner) {
			return nil
		}
		if l := w.heard(w.owner); l != nil {
			_, durable := l.console.Progress()
			if l == line && durable > told {
				return nil
			}
			if l != line {
				line, told = l, durable
			}
		}
		if err := w.wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// tight says that a PC's disk is full, or nearly.
func (w *world) tight(name string) bool {
	_, err := os.Stat(w.ballast(name))
	return err == nil
}

// wait lets a moment pass, in which the witness looks and the person does what must be done. The error is what was found wrong.
func (w *world) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(every):
	}
	if err := w.healed(ctx, false); err != nil {
		return err
	}
	w.tend(ctx, w.observe(ctx))
	return w.failure()
}

// until waits for a condition.
func (w *world) until(ctx context.Context, limit time.Duration, condition func() bool) error {
	for deadline := time.Now().Add(limit); !condition(); {
		if err := w.wait(ctx); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %v", limit)
		}
	}
	return nil
}

// observe asks every PC that is awake, and notes what the owner's position covers.
func (w *world) observe(ctx context.Context) map[string]api.VM {
	views := map[string]api.VM{}
	var term uint64
	for _, p := range w.fleet.PCs {
		if w.asleep[p.Name] {
			continue
		}
		// What was told before the owner says where it stands is covered by that.
		var h *history
		var durable uint64
		if l := w.heard(p.Name); l != nil {
			_, durable = l.console.Progress()
			h = w.historyHeard(l)
		}
		v, err := w.ask(ctx, p)
		if err != nil {
			continue
		}
		views[p.Name] = v
		if !v.Here {
			continue
		}
		w.mu.Lock()
		if h != nil && durable > 0 {
			h.covered(v.Position, durable)
		}
		if v.Term >= term {
			// A takeover's former owner also says that it has the VM, until it hears.
			term, w.owner = v.Term, p.Name
		}
		w.mu.Unlock()
	}
	return views
}

// tend does what the person would: start the VM where it has stopped, and choose where there are two versions.
func (w *world) tend(ctx context.Context, views map[string]api.VM) {
	if w.forked != nil {
		w.decide(ctx, views)
	}
	v, ok := views[w.owner]
	if !ok || !v.Here || v.Conflict != nil || v.Switch != nil && !v.Switch.Phase.Ended() || w.resting {
		return
	}
	if v.State != api.VMStopped && v.State != api.VMPaused {
		return
	}
	if w.tight(w.owner) {
		return
	}
	if time.Since(w.started) < 2*time.Second {
		return
	}
	w.started = time.Now()
	p := w.fleet.PC(w.owner)
	err := w.tell(ctx, func(ctx context.Context) error { return p.Client.StartVM(ctx, vmName) })
	w.say("the VM is %s on %s: started again: %v", v.State, p.Name, err)
}

// decide ends a takeover: either the former owner had nothing newer and follows, or the person chooses.
func (w *world) decide(ctx context.Context, views map[string]api.VM) {
	if len(w.unreachable) > 0 || len(views) < len(w.fleet.PCs) {
		return
	}
	f := w.forked
	w.mu.Lock()
	started := f.started
	w.mu.Unlock()
	var conflict *api.Conflict
	two := false
	for _, v := range views {
		if v.Conflict != nil {
			conflict, two = v.Conflict, true
		}
	}
	switch {
	case two && !f.chosen.IsZero() && time.Since(f.chosen) < 30*time.Second:
	case two:
		if i := slices.IndexFunc(conflict.Sides, func(s api.ConflictSide) bool { return !s.Connected && !s.Here }); len(conflict.Sides) < 2 || i >= 0 {
			return
		}
		w.choose(ctx, f, conflict)
	case views[f.old].Here && f.keep != f.old, views[f.old].Term != views[w.owner].Term:
		// It hasn't heard yet, or compares still whether it has something newer: that is a version too, also after a choice between others.
	case f.keep == "" && !started:
		// Nobody knows yet how far the taker is.
	case f.keep == "":
		w.mu.Lock()
		defer w.mu.Unlock()
		if f.theirs.durable > f.taken {
			w.failLocked(fmt.Errorf("%s had told record %d durable and follows %s, which had only %d, without a conflict", f.old, f.theirs.durable, w.owner, f.taken))
		}
		w.say("%s follows %s: nothing was lost", f.old, w.owner)
		w.forked = nil
	default:
		w.mu.Lock()
		defer w.mu.Unlock()
		if f.keep == f.old {
			w.current = f.theirs
		}
		w.say("there is one version again: history %d, on %s", w.current.number, w.owner)
		w.forked = nil
	}
}

// choose keeps one side, and kills an engine while that is carried out.
func (w *world) choose(ctx context.Context, f *fork, c *api.Conflict) {
	coin := w.coin()
	side := c.Sides[coin%uint64(len(c.Sides))]
	on, victim := w.fleet.PCs[coin/2%3], w.fleet.PCs[coin/6%3]
	err := w.tell(ctx, func(ctx context.Context) error {
		_, err := on.Client.Resolve(ctx, api.ResolveConflict{VM: vmName, How: api.ResolveKeep, Keep: side.Branch})
		return err
	})
	w.say("two versions: on %s the person keeps %s's: %v", on.Name, side.OwnerName, err)
	if err != nil {
		return
	}
	f.keep, f.chosen = side.OwnerName, time.Now()
	if coin/18%2 == 0 {
		w.say("kill -9 of the engine on %s meanwhile", victim.Name)
		w.fail(killed(victim))
	}
}

// coin is a number for a choice that wasn't in the plan.
func (w *world) coin() uint64 {
	if len(w.o.Plan) == 0 {
		return 0
	}
	w.tossed++
	return w.o.Plan[w.tossed%len(w.o.Plan)].Coin
}

// report is what one must know of a run that failed.
func (w *world) report(ctx context.Context) string {
	var b strings.Builder
	fmt.Fprintf(&b, "the plan: %v\n", w.o.Plan)
	for _, p := range w.fleet.PCs {
		if w.asleep[p.Name] {
			_ = p.Host.Wake(ctx)
		}
		v, err := w.ask(ctx, p)
		fmt.Fprintf(&b, "%s says: %s, here %v, owner %s, term %d, position %v, conflict %v, problem %v, replicas %+v (%v)\n",
			p.Name, v.State, v.Here, v.OwnerName, v.Term, v.Position, v.Conflict != nil, v.Problem, v.Replicas, err)
	}
	for _, s := range w.stretches() {
		fmt.Fprintf(&b, "heard: run %s, history %d on %s: ticks %d to %d, from %.1fs to %.1fs\n", s.Run, s.History, s.PC, s.First, s.Last, s.From.Seconds(), s.To.Seconds())
	}
	for _, p := range w.fleet.PCs {
		fmt.Fprintf(&b, "--- what the engine on %s complained of, the end ---\n%s\n", p.Name, complaints(p, 60))
	}
	return b.String()
}

// complaints is the end of what an engine logged above the everyday.
func complaints(p *story.PC, lines int) string {
	var all []string
	for line := range strings.Lines(p.LastWords()) {
		if !strings.Contains(line, "INFO") && !strings.Contains(line, "DEBUG") {
			all = append(all, strings.TrimSuffix(line, "\n"))
		}
	}
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
