//go:build linux

package matrix

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/build/guest/console"
	"tagalong.org/tagalong/build/holds"
	"tagalong.org/tagalong/build/story"
)

// tally is what became of many switches.
type tally struct {
	Done, Stayed, Killed int
	Pauses               []time.Duration // as the engines tell them
	Took                 []time.Duration // from the click to the end of one without a kill
	Moments              []moment        // of the kills that weren't at a step
}

// moment is when after the click an engine was killed that wasn't held anywhere, and what became of it.
type moment struct {
	After time.Duration
	Giver bool // whose engine it was
	Went  bool
}

func (m moment) String() string {
	side, went := "taker", "stayed"
	if m.Giver {
		side = "giver"
	}
	if m.Went {
		went = "went"
	}
	return fmt.Sprintf("%s after %d ms (%s)", side, m.After.Milliseconds(), went)
}

// lasts is how long a switch takes that nothing befalls, from what was seen so far.
func (s tally) lasts() time.Duration {
	if len(s.Took) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(s.Took))[len(s.Took)/2]
}

func (s tally) String() string {
	text := fmt.Sprintf("in a row: %d switches went, in %d the VM stayed where it was; in %d an engine was killed", s.Done, s.Stayed, s.Killed)
	if n := len(s.Took); n > 0 {
		pauses, took := slices.Sorted(slices.Values(s.Pauses)), slices.Sorted(slices.Values(s.Took))
		text += fmt.Sprintf("; without a kill the guest stood still for %d ms (median) to %d ms, and from the click to the end it was %.1f s (median) to %.1f s",
			pauses[n/2].Milliseconds(), pauses[n-1].Milliseconds(), took[n/2].Seconds(), took[n-1].Seconds())
	}
	if len(s.Moments) > 0 {
		text += fmt.Sprintf("; killed at moments of no choice: %v", s.Moments)
	}
	return text
}

// doom is what is to befall one switch of a row.
type doom int

const (
	spared   doom = iota
	atStep        // an engine is killed while the switch stands at a step
	anywhere      // an engine is killed at a moment of the switch that is chosen without looking
)

// inARow presses the button n times, there and back, and kills an engine in one of so many, from the second on: any of the two, at any step or,
// as often, at any moment of the time that a switch takes. Steps pass in milliseconds, and such a moment hits those between them.
func (w *world) inARow(ctx context.Context, n, oneOf int, r *rand.Rand) (tally, error) {
	var sum tally
	at, err := w.rest(ctx)
	for i := 0; i < n && err == nil; i++ {
		to, fate := 1-at, spared
		if r.IntN(oneOf) == 0 && len(sum.Took) > 0 {
			fate = atStep + doom(r.IntN(2))
		}
		var from int
		if from, err = w.press(ctx, to, fate, r, &sum); err != nil {
			return sum, fmt.Errorf("switch %d of %d, to %s: %w", i+1, n, names[to], err)
		}
		if from == to {
			sum.Done++
		} else {
			sum.Stayed++
		}
		if fate == anywhere {
			sum.Moments[len(sum.Moments)-1].Went = from == to
		}
		at = from
	}
	return sum, err
}

// press presses the button on a PC, kills an engine meanwhile if that is to be, and waits until it is clear where the VM runs: that is returned.
func (w *world) press(ctx context.Context, to int, fate doom, r *rand.Rand, sum *tally) (int, error) {
	var held *holds.Hold
	victim := r.IntN(2)
	if fate == atStep {
		side, step := phases[r.IntN(len(phases)-1)].step()
		on := to
		if side == "giver" {
			on = 1 - to
		}
		held = w.holds[names[on]].Arm(step)
	}
	clicked := time.Now()
	id, err := w.click(ctx, to, api.WayChosen)
	if err != nil {
		return 0, err
	}
	if fate != spared {
		if fate == atStep {
			err = w.awaitHold(ctx, held, "of a kill")
		} else {
			err = sum.moment(ctx, clicked, victim != to, r)
		}
		if err == nil {
			sum.Killed++
			err = kill(ctx, w.fleet.PCs[victim])
		}
		for _, h := range w.holds {
			h.Disarm()
		}
		if err != nil {
			return 0, err
		}
	}
	v, err := w.until(ctx, "the VM doesn't run", func(v [2]api.VM) string {
		i, ok := owner(v)
		switch {
		case !ok:
			return "not one owner"
		case v[i].State != api.VMRunning || v[1-i].State == api.VMSwitching:
			return "it is " + string(v[i].State)
		case v[0].Switch != nil && !v[0].Switch.Phase.Ended(), v[1].Switch != nil && !v[1].Switch.Phase.Ended():
			return "its switch hasn't ended"
		}
		return ""
	})
	if err != nil {
		return 0, err
	}
	at, _ := owner(v)
	if s := v[to].Switch; fate == spared && (s == nil || s.ID != id || s.Phase != api.PhaseDone) {
		return at, fmt.Errorf("nothing befell it, but:\n%s", told(v))
	} else if fate == spared {
		sum.Took, sum.Pauses = append(sum.Took, time.Since(clicked)), append(sum.Pauses, s.Pause)
	}
	return at, nil
}

// moment waits for a moment that lies anywhere in the time that a switch takes which began at clicked, and notes it.
func (s *tally) moment(ctx context.Context, clicked time.Time, giver bool, r *rand.Rand) error {
	after := time.Duration(r.Int64N(int64(s.lasts())))
	s.Moments = append(s.Moments, moment{After: after, Giver: giver})
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Until(clicked.Add(after))):
		return nil
	}
}

// click presses the button as soon as it works: an engine may just have been started again. way is how the VM is to come.
func (w *world) click(ctx context.Context, to int, way api.Way) (id string, err error) {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline) && ctx.Err() == nil; {
		var s *api.Switch
		ask, cancel := context.WithTimeout(ctx, 2*askFor)
		s, err = w.fleet.PCs[to].Client.Switch(ask, api.SwitchVM{VM: vmName, Way: way})
		cancel()
		if err == nil {
			return s.ID, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return "", fmt.Errorf("the button doesn't work: %w", err)
}

// farewell shuts the guest down when all is at rest, and hears the last witnesses: the copies are the same, each boots, and nothing ever ran twice.
func (w *world) farewell(ctx context.Context) error {
	at, err := w.rest(ctx)
	if err != nil {
		return err
	}
	if err := w.verified(ctx, at); err != nil {
		return err
	}
	down, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	e := w.heard(names[at])
	if _, err := e.console.PowerOff(down); err != nil && !errors.Is(err, console.ErrClosed) {
		return fmt.Errorf("shut the guest down: %w", err)
	}
	_, err = w.until(ctx, "the copies aren't level", func(v [2]api.VM) string {
		switch o := v[at]; {
		case o.State != api.VMStopped:
			return "the VM is " + string(o.State)
		case len(o.Replicas) != 1 || o.Replicas[0].Remaining != 0 || o.Replicas[0].Position != o.Position:
			return "something is missing"
		}
		return ""
	})
	if err != nil {
		return err
	}
	w.note(e)
	n, err := w.fleet.SameDisks(ctx, vmName, names[:]...)
	if err != nil {
		return err
	}
	w.mu.Lock()
	durable := w.durable
	w.mu.Unlock()
	w.say("the copies are the same, %d bytes each; the last record is %d", n, durable)
	booted := make(chan error)
	for _, p := range w.fleet.PCs {
		go func() {
			boot, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			booted <- w.fleet.BootCopy(boot, p, w.vm, durable)
		}()
	}
	for range w.fleet.PCs {
		err = errors.Join(err, <-booted)
	}
	for i, p := range w.fleet.PCs {
		err = errors.Join(err, sound(p))
		if w.seen[i].Load() == 0 {
			err = errors.Join(err, fmt.Errorf("the monitor on %s never said that a guest runs: it is no witness", p.Name))
		}
	}
	return errors.Join(err, w.failure(), story.DoubleRuns(w.stretches()))
}

// sound says whether a PC's engine has never crashed: it ends only if it is asked or killed, or says in a sentence why it can't start.
func sound(p *story.PC) error {
	log, err := os.ReadFile(p.Log())
	if err != nil {
		return err
	}
	for _, word := range []string{"\npanic: ", "\nfatal error: ", "\nSIG", "DATA RACE"} {
		if _, rest, found := strings.Cut(string(log), word); found {
			return fmt.Errorf("the engine on %s has crashed: %s%s", p.Name, word[1:], rest[:min(len(rest), 4000)])
		}
	}
	return nil
}
