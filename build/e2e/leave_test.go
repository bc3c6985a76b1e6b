//go:build linux

package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/build/lab"
	"tagalong.org/tagalong/build/story"
)

// TestTheOldPlaceLeaves takes a VM to another site, onto a copy that lacks what was written lately. The old place reads that it is needed; it is switched off
// all the same: the guest, which boots there meanwhile, waits, and that is explained; when it is back, all goes on. It is told when it may leave: it does,
// and the guest has everything.
func TestTheOldPlaceLeaves(t *testing.T) {
	t.Parallel()
	// The first copy isn't what this is about.
	ctx, f := fleetAt(t, lab.WAN{Rate: 1e9, RoundTrip: lab.HomeWAN.RoundTrip, Queue: 100 * time.Millisecond},
		lab.Site{Name: "home", Hosts: []string{desk}}, lab.Site{Name: "office", Hosts: []string{laptop}})
	must(t, f.Make(ctx, desk, work))
	c := booted(ctx, t, f, desk, work, 0)
	_, err := f.UntilVM(ctx, f.PC(desk), work, "its copy once whole", func(v api.VM) bool {
		return len(v.Replicas) == 1 && v.Replicas[0].Position != api.Position{}
	})
	must(t, err)
	must(t, f.Lab.Link("home", "office").Shape(ctx, lab.HomeWAN))
	wroteMuch(ctx, t, f, c, lacked)
	durable, err := f.Stop(ctx, desk, work)
	must(t, err)
	stay := toldOf(ctx, t, f.PC(desk), "sync.stay")
	goesTo(ctx, t, f, desk, laptop, "")

	// The old place reads that it is needed, and leaves too early.
	v, err := f.UntilVM(ctx, f.PC(desk), work, "needed", func(v api.VM) bool {
		return v.Lending != nil && v.Lending.Needed && v.Lending.Remaining > 0
	})
	must(t, err)
	said, err := f.PC(desk).Run(ctx, "status")
	must(t, err)
	f.Say("%s reads, of %d bytes: %s", desk, v.Lending.Remaining, said)
	if !strings.Contains(said, laptop+" still needs") || !strings.Contains(said, "leave it on") {
		t.Errorf("%s's status doesn't say that it is needed", desk)
	}
	if text := <-stay; !strings.Contains(text, laptop) || !strings.Contains(text, "leave it on") {
		t.Errorf("the person at %s is told: %s", desk, text)
	}
	must(t, f.PC(desk).Stop())
	f.Say("%s is switched off all the same", desk)
	told := waitsTold(ctx, t, f.PC(laptop))
	booting := make(chan uint64, 1)
	go func() {
		defer close(booting)
		c, boot, err := f.Boot(ctx, laptop, work)
		switch {
		case err != nil:
			t.Error(err)
		case boot.Lost != 0 || boot.Bad != 0 || boot.Last < durable:
			t.Errorf("the guest found %+v, but record %d was durable", boot, durable)
		default:
			now, err := f.Write(ctx, c, few)
			if err != nil {
				t.Error(err)
			}
			booting <- now
		}
	}()
	_, err = f.UntilVM(ctx, f.PC(laptop), work, "waiting, with its guest", func(v api.VM) bool {
		return v.Hydration != nil && v.Hydration.Waiting && v.Hydration.Reads > 0 && v.State == api.VMRunning
	})
	must(t, err)
	if text := <-told; !strings.Contains(text, desk) {
		t.Errorf("the person at %s is told: %s", laptop, text)
	}

	// It is back, and told when it may leave.
	must(t, f.PC(desk).Start(ctx))
	leave := toldOf(ctx, t, f.PC(desk), "sync.leave")
	f.Say("%s is back", desk)
	now, ok := <-booting
	if !ok || now <= durable {
		t.Fatalf("the guest wrote record %d, %d was durable", now, durable)
	}
	text := <-leave
	f.Say("%s reads: %s", desk, text)
	if !strings.Contains(text, laptop+" has all of "+work) || !strings.Contains(text, "may be switched off") {
		t.Errorf("the person at %s is told: %s", desk, text)
	}
	v, err = f.PC(desk).VM(ctx, work)
	must(t, err)
	if v.Lending != nil {
		t.Errorf("it is still needed: %+v", v.Lending)
	}
	must(t, f.PC(desk).Stop())
	v, err = f.PC(laptop).VM(ctx, work)
	must(t, err)
	if v.Hydration != nil {
		t.Fatalf("it was told to leave, and %+v is lacking", v.Hydration)
	}
	last, err := f.Stop(ctx, laptop, work)
	must(t, err)
	booted(ctx, t, f, laptop, work, last)
}

// toldOf is the text of the first event of a kind from now on; "nothing" if none comes.
func toldOf(ctx context.Context, t *testing.T, p *story.PC, kind string) <-chan string {
	t.Helper()
	events, err := p.Client.Watch(ctx, 0)
	must(t, err)
	told := make(chan string, 1)
	go func() {
		for ev := range events {
			if ev.Kind == kind {
				told <- ev.Text
				return
			}
		}
		told <- "nothing"
	}()
	return told
}
