//go:build linux

package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/build/guest/console"
	"tagalong.org/tagalong/build/lab"
	"tagalong.org/tagalong/build/story"
)

// lacked is how many records of 4 KiB the other site's copy lacks when the VM goes there: 16 s of the home's uplink.
const lacked = 3500

// vanished is how much must come from one holder, in bytes, after the other has vanished, for it to be what wasn't on its way before.
const vanished = 1 << 20

// TestHalfSynced takes a VM to another site, onto a copy that lacks what was written lately, behind 7 Mbit/s and 40 ms. The guest boots there on blocks that
// haven't arrived: with nobody there who has them it waits, and the person is told; with both it goes on; and when one of them vanishes in the midst
// of that the other takes over, without an error to the guest. On the way back the person rolls back instead.
func TestHalfSynced(t *testing.T) {
	t.Parallel()
	// The first copy isn't what this is about.
	ctx, f := fleetAt(t, lab.WAN{Rate: 1e9, RoundTrip: lab.HomeWAN.RoundTrip, Queue: 100 * time.Millisecond},
		lab.Site{Name: "home", Hosts: []string{desk, nas}}, lab.Site{Name: "office", Hosts: []string{laptop}})
	link := f.Lab.Link("home", "office")
	must(t, f.Make(ctx, desk, work))
	c := booted(ctx, t, f, desk, work, 0)
	must(t, f.AwaitLive(ctx, desk, work, 1))
	_, err := f.UntilVM(ctx, f.PC(desk), work, "all copies once whole", func(v api.VM) bool {
		for _, r := range v.Replicas {
			if r.Position == (api.Position{}) {
				return false
			}
		}
		return len(v.Replicas) == 2
	})
	must(t, err)
	must(t, link.Shape(ctx, lab.HomeWAN))
	wroteMuch(ctx, t, f, c, lacked)
	durable, err := f.Stop(ctx, desk, work)
	must(t, err)
	goesTo(ctx, t, f, desk, laptop, nas)

	// Nobody is there who has the rest.
	v, err := f.PC(laptop).VM(ctx, work)
	must(t, err)
	lacks := v.Hydration
	if lacks == nil || len(lacks.From) != 2 {
		t.Fatalf("the laptop says that it lacks %+v", lacks)
	}
	for _, h := range lacks.From {
		if h.DeviceName != desk && h.DeviceName != nas || h.Needed {
			t.Errorf("what is lacking is said to be on %+v", h)
		}
	}
	told := waitsTold(ctx, t, f.PC(laptop))
	link.Cut()
	f.Say("the provider is down")
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
	v, err = f.UntilVM(ctx, f.PC(laptop), work, "waiting, with its guest", func(v api.VM) bool {
		return v.Hydration != nil && v.Hydration.Waiting && v.Hydration.Reads > 0 && v.State == api.VMRunning
	})
	must(t, err)
	f.Say("the guest waits for some of %d bytes", v.Hydration.Remaining)
	if text := <-told; !strings.Contains(text, desk) || !strings.Contains(text, nas) || !strings.Contains(text, "roll back") {
		t.Errorf("the person is told: %s", text)
	}
	said, err := f.PC(laptop).Run(ctx, "status")
	must(t, err)
	f.Say("tagalong status:\n%s", said)
	if !strings.Contains(said, "but on "+desk+", "+nas) || !strings.Contains(said, "vm rollback "+work) {
		t.Error("tagalong status doesn't say who could help, or what else can be done")
	}

	// They are there again, and one vanishes while the guest reads.
	link.Heal()
	f.Say("the provider is up")
	before := v.Hydration.Remaining
	v, err = f.UntilVM(ctx, f.PC(laptop), work, "reading what comes", func(v api.VM) bool {
		return v.Hydration == nil || v.Hydration.Remaining < before-before/8 && v.Hydration.Reads > 0
	})
	must(t, err)
	if v.Hydration == nil {
		t.Fatal("all came before anybody could vanish")
	}
	must(t, f.Lab.Host(desk).Mute(ctx))
	f.Say("%s vanishes, %d bytes are lacking, of which the guest waits for some", desk, v.Hydration.Remaining)
	fromDesk, fromNAS := fetchedFrom(v, desk), fetchedFrom(v, nas)
	v, err = f.UntilVM(ctx, f.PC(laptop), work, "getting the rest from the NAS", func(v api.VM) bool {
		return v.Hydration == nil || fetchedFrom(v, nas) > fromNAS+vanished
	})
	must(t, err)
	if v.Hydration == nil {
		t.Fatalf("it isn't known from where the rest came: before, %d bytes were from %s and %d from %s", fromDesk, desk, fromNAS, nas)
	}
	now, ok := <-booting
	if !ok || now <= durable {
		t.Fatalf("the guest wrote record %d, %d was durable", now, durable)
	}
	v, err = f.UntilVM(ctx, f.PC(laptop), work, "whole", func(v api.VM) bool { return v.Hydration == nil })
	must(t, err)
	if v.State != api.VMRunning {
		t.Errorf("the VM is %s", v.State)
	}

	// Back home, with the rest out of reach once more, the person goes back to what the NAS has.
	must(t, f.Lab.Host(desk).Heal(ctx))
	c, err = f.Listen(ctx, laptop, work)
	must(t, err)
	wroteMuch(ctx, t, f, c, lacked)
	theirs, err := f.Stop(ctx, laptop, work)
	must(t, err)
	goesTo(ctx, t, f, laptop, nas, "")
	link.Cut()
	_, err = f.UntilVM(ctx, f.PC(nas), work, "waiting", func(v api.VM) bool { return v.Hydration != nil && v.Hydration.Waiting })
	must(t, err)
	preview, err := f.PC(nas).Client.Rollback(ctx, work)
	must(t, err)
	f.Say("before it is rolled back the person reads: %+v", *preview)
	if preview.Remaining == 0 || len(preview.Holders) != 1 || preview.Holders[0].DeviceName != laptop {
		t.Errorf("the person reads %+v", preview)
	}
	must(t, f.PC(nas).Client.RollBack(ctx, api.RollBackVM{VM: work, Token: preview.Token}))
	c, boot, err := f.Boot(ctx, nas, work)
	must(t, err)
	if boot.Lost != 0 || boot.Bad != 0 || boot.Last < durable || boot.Last >= theirs {
		t.Errorf("rolled back, the guest found %+v; record %d was durable here, %d on the laptop", boot, durable, theirs)
	}
	wrote(ctx, t, f, c)
	link.Heal()
	_, err = f.UntilVM(ctx, f.PC(laptop), work, "a conflict: its version isn't lost", func(v api.VM) bool {
		return v.Conflict != nil && len(v.Conflict.Sides) == 2
	})
	must(t, err)
}

// wroteMuch has a guest write n records, as fast as it can.
func wroteMuch(ctx context.Context, t *testing.T, f *story.Fleet, c *console.Console, n uint64) {
	t.Helper()
	_, err := c.Sync(ctx) // a line that was just opened doesn't know how far the guest is
	must(t, err)
	must(t, c.SetRate(ctx, console.Rate{Records: 2000, Fsync: 32, Mem: 1, Set: 16}))
	_, err = f.Write(ctx, c, n)
	must(t, err)
	must(t, c.SetRate(ctx, console.Rate{Records: 20, Fsync: 4, Mem: 1, Set: 16}))
}

// goesTo switches a stopped VM to a PC at another site, whose copy lacks something that the other one near the giver has, if there is another.
func goesTo(ctx context.Context, t *testing.T, f *story.Fleet, from, to, near string) {
	t.Helper()
	_, err := f.UntilVM(ctx, f.PC(from), work, "stopped, and whole on all but "+to, func(v api.VM) bool {
		for _, r := range v.Replicas {
			if r.DeviceName == to && r.Remaining == 0 || r.DeviceName == near && (r.Remaining != 0 || r.State != api.ReplicaLive) {
				return false
			}
		}
		return v.State == api.VMStopped
	})
	must(t, err)
	_, err = f.UntilVM(ctx, f.PC(to), work, "known as stopped", func(v api.VM) bool { return v.State == api.VMStopped })
	must(t, err)
	begun, err := f.PC(to).Client.Switch(ctx, api.SwitchVM{VM: work})
	must(t, err)
	v, err := f.UntilVM(ctx, f.PC(to), work, "switched", func(v api.VM) bool {
		return v.Switch != nil && v.Switch.ID == begun.ID && v.Switch.Phase.Ended()
	})
	must(t, err)
	if v.Switch.Phase != api.PhaseDone {
		t.Fatalf("the switch to %s: %s, %v", to, v.Switch.Phase, v.Switch.Error)
	}
	if v.Hydration == nil || v.Hydration.Remaining < lacked*4096/2 {
		t.Fatalf("%s says that it lacks %+v", to, v.Hydration)
	}
	f.Say("%s is on %s, lacking %d bytes", work, to, v.Hydration.Remaining)
}

// waitsTold is what the person is told when a VM begins to wait for what isn't there.
func waitsTold(ctx context.Context, t *testing.T, p *story.PC) <-chan string {
	t.Helper()
	return toldOf(ctx, t, p, "vm.waits")
}

// fetchedFrom is how much of what a VM lacked has come from a device.
func fetchedFrom(v api.VM, name string) int64 {
	for _, h := range v.Hydration.From {
		if h.DeviceName == name {
			return h.Fetched
		}
	}
	return 0
}
