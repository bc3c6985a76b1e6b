package app

import (
	"testing"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor"
)

// TestAnEngineFindsItsVMAsItIs: in each state of life, also when the hypervisor hears nobody before its disk is served again.
func TestAnEngineFindsItsVMAsItIs(t *testing.T) {
	d := newDevice(t, "desk")
	ctx := t.Context()
	v := d.create("Work")
	again := func(what string, want api.VMState) {
		t.Helper()
		d.stop()
		d.start()
		until(t, "it to be "+string(want)+" again, "+what, func() bool {
			now, ok := d.vm("Work")
			return ok && now.State == want && d.engine.vm(v.ID).currentDisk().Info().Active
		})
	}
	again("never started", api.VMStopped)
	if err := d.engine.StartVM(ctx, "Work"); err != nil {
		t.Fatal(err)
	}
	again("running", api.VMRunning)
	d.hv.needsDisk = true
	again("killed while it waited for its disk", api.VMRunning)
	d.hv.needsDisk = false
	wantCode(t, "starting it twice", d.engine.StartVM(ctx, "Work"), api.CodeConflict)

	g := d.hv.only()
	g.set(hypervisor.StateIOError)
	again("standing still because its disk was full", api.VMRunning) // it is tried whether there is room now
	g.set(hypervisor.StateIOError)
	until(t, "the person to be told why it stands still", func() bool {
		now, _ := d.vm("Work")
		return now.State == api.VMPaused && now.Problem != nil && now.Problem.Next != ""
	})
	if err := d.engine.ResumeVM(ctx, "Work"); err != nil {
		t.Fatal(err)
	}

	g.setDeaf()
	asked := make(chan error, 1)
	go func() { asked <- d.engine.StopVM(ctx, "Work", false) }()
	until(t, "it to be asked to shut down", func() bool { now, _ := d.vm("Work"); return now.State == api.VMStopping })
	again("asked to shut down", api.VMRunning) // and it will, when it likes
	if err := <-asked; err == nil {
		t.Error("who waited for it wasn't told that the engine ended")
	}
	d.stop()
	if err := g.Kill(ctx); err != nil { // it shuts itself down while no engine runs
		t.Fatal(err)
	}
	d.start()
	until(t, "it to be stopped", func() bool {
		now, ok := d.vm("Work")
		return ok && now.State == api.VMStopped && d.engine.vm(v.ID).currentDisk().Info().Active
	})

	if err := d.engine.StartVM(ctx, "Work"); err != nil {
		t.Fatal(err)
	}
	d.write(v.ID, 3, 's')
	if err := d.engine.SuspendVM(ctx, "Work"); err != nil {
		t.Fatal(err)
	}
	again("suspended", api.VMSuspended)
	if err := d.engine.ResumeVM(ctx, "Work"); err != nil {
		t.Fatal(err)
	}
	if got := d.read(v.ID, 3); got != 's' || d.hv.only() == nil {
		t.Errorf("resumed, it reads %q", got)
	}
}
