//go:build linux

package e2e

import (
	"context"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/build/lab"
	"tagalong.org/tagalong/build/story"
)

// TestMemoryComesAfter switches a VM ahead of its memory: over a fast line first, then over the home's uplink of 7 Mbit/s and 40 ms, where its memory is
// written faster than it could leave; and there the line is lost while memory is still missing. The guest finds its memory and disk whole each time.
func TestMemoryComesAfter(t *testing.T) {
	t.Parallel()
	ctx, f := fleetAt(t, lab.WAN{Rate: 1e9, RoundTrip: time.Millisecond, Queue: 100 * time.Millisecond},
		lab.Site{Name: "home", Hosts: []string{desk}}, lab.Site{Name: "office", Hosts: []string{laptop}})
	link := f.Lab.Link("home", "office")
	must(t, f.Make(ctx, desk, work))
	c := booted(ctx, t, f, desk, work, 0)
	wrote(ctx, t, f, c)
	_, err := f.UntilVM(ctx, f.PC(desk), work, "a copy on the laptop", func(v api.VM) bool {
		return len(v.Replicas) == 1 && v.Replicas[0].Position != (api.Position{})
	})
	must(t, err)
	run := aheadTo(ctx, t, f, desk, laptop)
	whole(ctx, t, f, laptop, desk, run)

	must(t, link.Shape(ctx, lab.HomeWAN))
	f.Say("the line is the home's uplink now")
	run = aheadTo(ctx, t, f, laptop, desk)
	if err := f.PC(desk).Client.SuspendVM(ctx, work); err == nil {
		t.Error("a VM was suspended that lacks memory")
	}
	link.Cut()
	_, err = f.UntilVM(ctx, f.PC(desk), work, "waiting for the rest of its memory", func(v api.VM) bool {
		return v.Trailing == nil || v.Trailing.Waiting
	})
	must(t, err)
	// Each notices by itself that the other is silent.
	v, err := f.UntilVM(ctx, f.PC(laptop), work, "explained where the memory is", func(v api.VM) bool { return !v.Here && v.Problem != nil })
	must(t, err)
	f.Say("the provider is down; %s says: %v", laptop, v.Problem)
	link.Heal()
	f.Say("the provider is up")
	whole(ctx, t, f, desk, laptop, run)
}

// aheadTo switches the VM ahead of its memory, and returns when that began.
func aheadTo(ctx context.Context, t *testing.T, f *story.Fleet, from, to string) time.Time {
	t.Helper()
	began := time.Now()
	begun, err := f.PC(to).Client.Switch(ctx, api.SwitchVM{VM: work, Way: api.WayPostCopy})
	must(t, err)
	v, err := f.UntilVM(ctx, f.PC(to), work, "switched", func(v api.VM) bool {
		return v.Switch != nil && v.Switch.ID == begun.ID && v.Switch.Phase.Ended()
	})
	must(t, err)
	if v.Switch.Phase != api.PhaseDone {
		t.Fatalf("the switch to %s: %s, %v", to, v.Switch.Phase, v.Switch.Error)
	}
	f.Say("%s runs on %s after %.1f s, it stood still for %v, %d bytes of memory had come; still to come: %+v",
		work, to, time.Since(began).Seconds(), v.Switch.Pause, v.Switch.Memory, v.Trailing)
	return began
}

// whole waits until all of the memory is there, and the giver has nothing any more; then the guest checks itself.
func whole(ctx context.Context, t *testing.T, f *story.Fleet, at, from string, began time.Time) {
	t.Helper()
	// An engine that was just started anew has yet to ask.
	v, err := f.UntilVM(ctx, f.PC(at), work, "whole", func(v api.VM) bool { return v.Trailing == nil && v.State == api.VMRunning })
	must(t, err)
	if !v.Here || v.Problem != nil {
		t.Fatalf("it is %s, %v", v.State, v.Problem)
	}
	f.Say("all of its memory is there after %.1f s", time.Since(began).Seconds())
	_, err = f.UntilVM(ctx, f.PC(from), work, "a copy like any other", func(v api.VM) bool {
		return v.State != api.VMSwitching && v.Lending == nil && v.Problem == nil
	})
	must(t, err)
	c, err := f.Listen(ctx, at, work)
	must(t, err)
	_, err = c.Sync(ctx)
	must(t, err)
	wrote(ctx, t, f, c)
	verdict, err := c.Verify(ctx)
	must(t, err)
	if !verdict.OK {
		t.Fatalf("the guest finds itself damaged: %s", verdict.Text)
	}
}
