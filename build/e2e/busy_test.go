//go:build linux

package e2e

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/build/guest/console"
	"tagalong.org/tagalong/build/lab"
	"tagalong.org/tagalong/build/story"
)

// tooBusy writes memory, which can't be compressed, at many times what a home's uplink carries, and all of it again and again: no slowing down makes
// it fit.
var tooBusy = console.Rate{Records: 2, Fsync: 1, Mem: 24, Set: 4, Noise: true}

// TestTooBusyFarAway asks for a VM over 7 Mbit/s and 40 ms whose guest writes memory faster than that. The person reads each step that is taken, in turn, and in
// the end for how long it would stand still; the guest is as fast as before. Allowed that long, the switch is done, within it.
func TestTooBusyFarAway(t *testing.T) {
	t.Parallel()
	// The first copy isn't what this is about.
	ctx, f := fleetAt(t, lab.WAN{Rate: 1e9, RoundTrip: lab.HomeWAN.RoundTrip, Queue: 100 * time.Millisecond},
		lab.Site{Name: "home", Hosts: []string{desk}}, lab.Site{Name: "office", Hosts: []string{laptop}})
	home, office := f.PC(desk), f.PC(laptop)
	job, err := home.Client.CreateVM(ctx, api.CreateVM{Name: work, CPUs: 1, MemoryMiB: 160, Image: built.image, Format: "raw"})
	must(t, err)
	must(t, f.AwaitJob(ctx, desk, job))
	_, err = f.UntilVM(ctx, home, work, "once whole at the office", func(v api.VM) bool {
		return len(v.Replicas) == 1 && v.Replicas[0].Position != (api.Position{})
	})
	must(t, err)
	c := booted(ctx, t, f, desk, work, 0)
	must(t, c.SetRate(ctx, tooBusy))
	must(t, f.Lab.Link("home", "office").Shape(ctx, lab.HomeWAN))

	told := stepsTold(ctx, t, office)
	ended := switchedTo(ctx, t, f, laptop, 0)
	if ended.Phase != api.PhaseFailed || ended.Error == nil || ended.OfferPause <= 3*time.Second {
		t.Fatalf("it ended as %s (%v), offering %v", ended.Phase, ended.Error, ended.OfferPause)
	}
	f.Say("the person reads: %v", ended.Error)
	for _, words := range []string{work, desk, "stand still for about", "than the 3.0 s that it may", "a second"} {
		if !strings.Contains(ended.Error.Sentence, words) {
			t.Errorf("the person reads %q, without %q", ended.Error.Sentence, words)
		}
	}
	if !strings.Contains(ended.Error.Next, "--pause "+ended.OfferPause.String()) {
		t.Errorf("the next step is %q, of a pause of %v", ended.Error.Next, ended.OfferPause)
	}
	stepsInTurn(t, <-told)
	unhurt(ctx, t, f, c)

	done := switchedTo(ctx, t, f, laptop, ended.OfferPause)
	if done.Phase != api.PhaseDone {
		t.Fatalf("with %v allowed it ended as %s: %v", ended.OfferPause, done.Phase, done.Error)
	}
	f.Say("allowed %v, it stood still for %v; %d bytes of memory came in %v", ended.OfferPause, done.Pause, done.Memory, done.Ended.Sub(done.Started))
	if done.Pause == 0 || done.Pause > ended.OfferPause {
		t.Errorf("it stood still for %v, %v was allowed", done.Pause, ended.OfferPause)
	}
	c, err = f.Listen(ctx, laptop, work)
	must(t, err)
	must(t, c.SetRate(ctx, console.Rate{Records: 20, Fsync: 4, Mem: 1, Set: 4}))
	wrote(ctx, t, f, c)
}

// switchedTo asks for the VM, and waits for how that ends.
func switchedTo(ctx context.Context, t *testing.T, f *story.Fleet, to string, pause time.Duration) api.Switch {
	t.Helper()
	p := f.PC(to)
	begun, err := p.Client.Switch(ctx, api.SwitchVM{VM: work, Pause: pause})
	must(t, err)
	for {
		v, err := p.VM(ctx, work)
		must(t, err)
		if v.Switch != nil && v.Switch.ID == begun.ID && v.Switch.Phase.Ended() {
			return *v.Switch
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the switch doesn't end: %+v", v.Switch)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// step is one of those that a person reads about.
type step struct {
	Step   api.SwitchStep
	Slowed int
	Pause  time.Duration
	Why    string
}

// stepsTold are the steps of the next switch as its events tell them, when it has ended.
func stepsTold(ctx context.Context, t *testing.T, p *story.PC) <-chan []step {
	t.Helper()
	events, err := p.Client.Watch(ctx, 0)
	must(t, err)
	told := make(chan []step, 1)
	go func() {
		var all []step
		for ev := range events {
			s := ev.Switch
			if s == nil {
				continue
			}
			if ev.Kind == "switch.step" {
				all = append(all, step{s.Step, s.Slowed, s.AllowedPause, ev.Text})
			}
			if s.Phase.Ended() {
				break
			}
		}
		told <- all
	}()
	return told
}

// stepsInTurn fails unless the guest was slowed down more and more first, and then allowed to stand still for longer and longer, with a sentence each time.
func stepsInTurn(t *testing.T, all []step) {
	t.Helper()
	for i, s := range all {
		t.Logf("step %d: %+v", i+1, s)
		if !strings.HasPrefix(s.Why, work+" writes memory ") || !strings.Contains(s.Why, " the connection carries it (") {
			t.Errorf("step %d doesn't say why: %q", i+1, s.Why)
		}
		if i > 0 && (s.Slowed < all[i-1].Slowed || s.Pause < all[i-1].Pause) {
			t.Errorf("step %d does less than the one before", i+1)
		}
	}
	slowed := slices.IndexFunc(all, func(s step) bool { return s.Step == api.StepSlowed && strings.Contains(s.Why, "slowed down by") })
	longer := slices.IndexFunc(all, func(s step) bool {
		return s.Step == api.StepLonger && strings.Contains(s.Why, "may stand still for up to")
	})
	if slowed != 0 || longer < 1 {
		t.Errorf("the steps are %+v", all)
	}
}

// unhurt fails unless the guest runs on as if nothing had been: it isn't slowed down any more, nobody lacks anything.
func unhurt(ctx context.Context, t *testing.T, f *story.Fleet, c *console.Console) {
	t.Helper()
	v, err := f.PC(desk).VM(ctx, work)
	must(t, err)
	if !v.Here || v.State != api.VMRunning || v.Problem != nil {
		t.Fatalf("the VM is %s, here %v: %v", v.State, v.Here, v.Problem)
	}
	must(t, c.SetRate(ctx, console.Rate{Records: 20, Fsync: 4, Mem: 24, Set: 4, Noise: true}))
	wrote(ctx, t, f, c)
	rightClock(ctx, t, f, c, desk, "a switch that came to nothing")
	must(t, c.SetRate(ctx, tooBusy))
}
