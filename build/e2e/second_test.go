//go:build linux

package e2e

import (
	"path/filepath"
	"testing"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/build/story"
)

// TestASecondCopy has a VM whose flushes wait for a second copy, in a fleet of two. While the other PC is out of reach the guest stands still, without
// seeing an error, and goes on by itself; suspending it doesn't wait for the flush under way; it moves as any other; and what it had been told is
// durable is there when its owner is gone for good.
func TestASecondCopy(t *testing.T) {
	t.Parallel()
	ctx, f := fleetOf(t, desk, laptop)
	must(t, f.Make(ctx, desk, work))
	c := booted(ctx, t, f, desk, work, 0)
	must(t, f.AwaitLive(ctx, desk, work, 1))
	must(t, f.PC(desk).Client.SetVM(ctx, api.SetVM{VM: work, Sync: api.SyncTwo}))
	awaitSecond := func(on string, state api.VMState, second api.SecondState) {
		t.Helper()
		_, err := f.UntilVM(ctx, f.PC(on), work, string(state)+", its second copy "+string(second), func(v api.VM) bool {
			return v.Here && v.State == state && v.Second != nil && v.Second.State == second
		})
		must(t, err)
	}
	awaitSecond(desk, api.VMRunning, api.SecondKept)
	wrote(ctx, t, f, c)

	must(t, f.Cut(ctx, laptop))
	awaitSecond(desk, api.VMPaused, api.SecondPaused)
	v, err := f.PC(desk).VM(ctx, work)
	must(t, err)
	if v.Problem == nil || v.Problem.Code != api.CodeUnreachable {
		t.Errorf("the person reads %+v", v.Problem)
	}
	must(t, f.Heal(ctx, laptop))
	awaitSecond(desk, api.VMRunning, api.SecondKept)
	wrote(ctx, t, f, c)

	must(t, f.Cut(ctx, laptop))
	awaitSecond(desk, api.VMRunning, api.SecondWaiting)
	must(t, f.PC(desk).Client.SuspendVM(ctx, work))
	_, err = f.UntilVM(ctx, f.PC(desk), work, "suspended", func(v api.VM) bool { return v.State == api.VMSuspended })
	must(t, err)
	must(t, f.Heal(ctx, laptop))
	must(t, f.PC(desk).Client.ResumeVM(ctx, work))
	c, err = f.Listen(ctx, desk, work)
	must(t, err)
	wrote(ctx, t, f, c)

	must(t, f.AwaitLive(ctx, desk, work, 1))
	_, err = f.PC(laptop).Client.Switch(ctx, api.SwitchVM{VM: work})
	must(t, err)
	_, err = f.UntilVM(ctx, f.PC(laptop), work, "on the laptop", func(v api.VM) bool { return v.Here && v.State == api.VMRunning })
	must(t, err)
	c, err = f.Listen(ctx, laptop, work)
	must(t, err)
	wrote(ctx, t, f, c)

	must(t, f.Cut(ctx, laptop))
	awaitSecond(laptop, api.VMRunning, api.SecondWaiting)
	_, durable := c.Progress()
	takeOver(ctx, t, f, desk)
	file := filepath.Join(t.TempDir(), "taken.raw")
	if _, err := f.PC(desk).Run(ctx, "disk", "export", work, file); err != nil {
		t.Fatal(err)
	}
	last, err := story.CheckImage(ctx, file)
	must(t, err)
	f.Say("the desk has record %d, %d was durable", last, durable)
	if last < max(1, durable) {
		t.Errorf("%d records are lost", durable-last)
	}
}
