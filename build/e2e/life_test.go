//go:build linux

package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/build/guest/console"
	"tagalong.org/tagalong/build/story"
)

// clockMayBeOff is how far a guest's clock may be off, beside what can't be known. The engine tolerates a third of it; the rest is for a
// guest that is emulated on a busy computer.
const clockMayBeOff = 30 * time.Millisecond

// rightClock waits until the guest's clock is right; nobody but the engine sets it.
func rightClock(ctx context.Context, t *testing.T, f *story.Fleet, c *console.Console, on, after string) {
	t.Helper()
	var off, within time.Duration
	err := f.Until(ctx, f.PC(on), "a right clock after "+after, func(*api.Status) (_ bool, err error) {
		off, within, err = c.Clock(ctx)
		return err == nil && off.Abs() <= clockMayBeOff+within, err
	})
	if err != nil {
		t.Fatalf("%v (off by %v, within %v)", err, off, within)
	}
	t.Logf("after %s the clock is off by %v, within %v", after, off, within)
}

// TestTheEngineDiesInEachStateOfLife kills the engine while its VM starts, runs, is suspended and shuts down. The next engine finds it as it
// is each time, and goes on with it; meanwhile the VM is renamed by the other PC, gets more memory, is reset, moves, and is removed everywhere. Its
// clock is right whenever it goes on.
func TestTheEngineDiesInEachStateOfLife(t *testing.T) {
	t.Parallel()
	ctx, f := fleetOf(t, desk, laptop)
	must(t, f.Make(ctx, desk, work))
	here, there := f.PC(desk), f.PC(laptop)
	state := func(on, vm string, want api.VMState) api.VM {
		t.Helper()
		v, err := f.UntilVM(ctx, f.PC(on), vm, string(want), func(v api.VM) bool { return v.Here && v.State == want })
		must(t, err)
		f.Say("%s is %s on %s", vm, want, on)
		return v
	}

	must(t, here.Client.SetVM(ctx, api.SetVM{VM: work, MemoryMiB: 288, CPUs: 2}))
	begun := make(chan error, 1)
	go func() { begun <- here.Client.StartVM(ctx, work) }()
	_, err := f.UntilVM(ctx, here, work, "starting", func(v api.VM) bool { return v.State != api.VMStopped })
	must(t, err)
	must(t, f.Kill(ctx, desk))
	<-begun // it went with the engine, or had just come to its end
	if v, err := here.VM(ctx, work); err != nil || v.Spec.CPUs != 2 || v.State != api.VMRunning && v.State != api.VMStopped && v.State != api.VMStarting {
		t.Fatalf("killed while it starts: %+v, %v", v, err)
	} else if v.State == api.VMStopped {
		must(t, here.Client.StartVM(ctx, work))
	}
	state(desk, work, api.VMRunning)
	c, err := f.Listen(ctx, desk, work)
	must(t, err)
	first, err := c.WaitReady(ctx)
	must(t, err)
	rightClock(ctx, t, f, c, desk, "its start")
	if _, err := f.UntilVM(ctx, here, work, "with an agent that answers", func(v api.VM) bool { return v.Agent == api.AgentAnswers }); err != nil {
		t.Error(err)
	}

	must(t, f.AwaitLive(ctx, desk, work, 1))
	const office = "Office"
	must(t, there.Client.SetVM(ctx, api.SetVM{VM: work, Name: office}))
	must(t, f.Kill(ctx, desk))
	state(desk, office, api.VMRunning)
	wrote(ctx, t, f, c)

	must(t, here.Client.ResetVM(ctx, office))
	_, err = f.UntilVM(ctx, here, office, "booted again", func(api.VM) bool {
		again, err := c.WaitReady(ctx)
		return err == nil && again.Run != first.Run
	})
	must(t, err)

	must(t, here.Client.SuspendVM(ctx, office))
	must(t, f.Kill(ctx, desk)) // which takes longer than any clock may be off
	state(desk, office, api.VMSuspended)
	must(t, here.Client.ResumeVM(ctx, office))
	state(desk, office, api.VMRunning)
	c, err = f.Listen(ctx, desk, office)
	must(t, err)
	rightClock(ctx, t, f, c, desk, "a resume")

	must(t, f.AwaitLive(ctx, desk, office, 1))
	_, err = there.Client.Switch(ctx, api.SwitchVM{VM: office})
	must(t, err)
	state(laptop, office, api.VMRunning)
	c, err = f.Listen(ctx, laptop, office)
	must(t, err)
	rightClock(ctx, t, f, c, laptop, "a switch")
	wrote(ctx, t, f, c)

	// An engine that dies before it has pressed the button leaves a VM that runs: it is seen as shutting down a moment before.
	watch, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	st, err := there.Client.Status(ctx)
	must(t, err)
	news, err := there.Client.Watch(watch, st.Seq)
	must(t, err)
	go func() { begun <- there.Client.StopVM(ctx, office, false) }()
	for pressed := false; !pressed; {
		select {
		case e, ok := <-news:
			if !ok {
				t.Fatal("the engine tells nothing any more")
			}
			pressed = e.Kind == "vm.stopping"
		case err := <-begun:
			must(t, err)
			begun <- nil // it has shut down already
			pressed = true
		}
	}
	must(t, f.Kill(ctx, laptop))
	<-begun
	state(laptop, office, api.VMStopped)

	must(t, there.Client.RemoveVM(ctx, office))
	for _, on := range []string{desk, laptop} {
		must(t, f.Until(ctx, f.PC(on), "the VM to be gone on "+on, func(st *api.Status) (bool, error) {
			if len(st.VMs) > 0 {
				return false, fmt.Errorf("%s is %s", st.VMs[0].Name, st.VMs[0].State)
			}
			return true, nil
		}))
	}
}
