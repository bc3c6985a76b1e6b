package app

import (
	"strings"
	"testing"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/directory/baton"
)

// reads fails unless the person reads of a VM's trouble something with these words, and what to do next.
func (d *device) reads(vm, words string) {
	d.t.Helper()
	var p *api.Error
	until(d.t, "the person to read "+words, func() bool {
		v, _ := d.vm(vm)
		p = v.Problem
		return p != nil && strings.Contains(p.Sentence, words)
	})
	if p.Next == "" {
		d.t.Errorf("nothing can be done about %q", p.Sentence)
	}
}

// A hypervisor that ends by itself isn't a guest that was shut down.
func TestAHypervisorThatFellIsTold(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	desk.hv.only().fall()
	desk.reads("Work", "ended unexpectedly")
	if err := desk.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	if w, _ := desk.vm("Work"); w.Problem != nil {
		t.Errorf("it runs, and the person reads %v", w.Problem)
	}
	if err := desk.engine.StopVM(t.Context(), "Work", true); err != nil {
		t.Fatal(err)
	}
	until(t, "the VM to be stopped", func() bool { w, _ := desk.vm("Work"); return w.State == api.VMStopped })
	if w, _ := desk.vm("Work"); w.Problem != nil {
		t.Errorf("it was stopped, and the person reads %v", w.Problem)
	}
	// What was wrong here is of no interest once the VM is elsewhere.
	if err := desk.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	desk.hv.only().fall()
	desk.reads("Work", "ended unexpectedly")
	if _, err := laptop.engine.Switch(t.Context(), api.SwitchVM{VM: v.ID}); err != nil {
		t.Fatal(err)
	}
	if s := laptop.ended("Work"); s.Phase != api.PhaseDone {
		t.Fatalf("the switch: %+v", s)
	}
	until(t, "the desk to have nothing to say", func() bool { w, _ := desk.vm("Work"); return w.Problem == nil })
}

// A giver whose hypervisor ends while memory flows says that the VM is stopped, whichever is noticed first.
func TestAGiverWhoseHypervisorFellIsTold(t *testing.T) {
	desk, laptop, _ := twoDevices(t)
	hold := make(chan struct{})
	laptop.hv.setHold(hold)
	if _, err := laptop.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"}); err != nil {
		t.Fatal(err)
	}
	until(t, "the VM to be offered", func() bool { w, _ := desk.vm("Work"); return w.State == api.VMSwitching })
	desk.hv.only().fall()
	close(hold)
	if s := laptop.ended("Work"); s.Phase == api.PhaseDone {
		t.Fatalf("the switch: %+v", s)
	}
	until(t, "the VM to be stopped", func() bool { w, _ := desk.vm("Work"); return w.Here && w.State == api.VMStopped })
	desk.reads("Work", "is whole")
}

// A hypervisor that is dead before it is told to go on never ran the guest: the giver, who holds it, may.
func TestAHypervisorThatDiedNeverRan(t *testing.T) {
	desk := newDevice(t, "desk")
	made := desk.create("Work")
	v := desk.engine.vm(made.ID)
	config, err := v.config()
	if err != nil {
		t.Fatal(err)
	}
	dead := desk.hv.add(config, hypervisor.StatePaused, nil)
	dead.fall()
	v.mu.Lock()
	v.guest = dead
	v.mu.Unlock()
	ev := v.runGuest(t.Context())
	v.mu.Lock()
	v.guest = nil
	v.mu.Unlock()
	if ev.Kind != baton.EvGuestFailed || !ev.NeverRan {
		t.Errorf("%+v", ev)
	}
}

// A device that has all of a VM, and whose giver doesn't let go of it, says so; and a takeover isn't refused for the hand-off's sake: it is what is
// left if the giver is lost.
func TestAGiverThatHangsInTheLastMoment(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	hold := make(chan struct{})
	laptop.hv.setHoldLoaded(hold)
	if _, err := laptop.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"}); err != nil {
		t.Fatal(err)
	}
	until(t, "the guest to stand still", func() bool { return desk.state(v.ID) == baton.Sending })
	hung := desk.engine.vm(v.ID)
	hung.mu.Lock()
	close(hold)
	until(t, "the laptop to be loaded", func() bool { return laptop.state(v.ID) == baton.Loaded })
	laptop.reads("Work", "desk doesn't go on with the hand-over")
	_, err := laptop.engine.Takeover(t.Context(), "Work")
	wantCode(t, "taking over from a desk that is connected", err, api.CodeConflict)
	err = laptop.engine.TakeOver(t.Context(), api.TakeOverVM{VM: "Work"})
	wantCode(t, "doing so all the same", err, api.CodeConflict)
	hung.mu.Unlock()
	if s := laptop.ended("Work"); s.Phase != api.PhaseDone {
		t.Errorf("the switch: %+v", s)
	}
	until(t, "the VM to run", func() bool { w, _ := laptop.vm("Work"); return w.Here && w.State == api.VMRunning && w.Problem == nil })
}

// Who pressed the button reads what became of it also when Tagalong was restarted meanwhile.
func TestATakerThatWasRestartedTellsOfTheSwitch(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	hold := make(chan struct{})
	laptop.hv.setHoldLoaded(hold)
	if _, err := laptop.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"}); err != nil {
		t.Fatal(err)
	}
	until(t, "the memory to be there", func() bool { g := laptop.hv.only(); return g != nil && g.get() == hypervisor.StatePaused })
	laptop.stop()
	close(hold)
	laptop.hv.setHoldLoaded(nil)
	laptop.start()
	if s := laptop.ended("Work"); s.Phase != api.PhaseFailed || !strings.Contains(s.Error.Sentence, "restarted") || s.FromName != "desk" || s.ToName != "laptop" {
		t.Errorf("the person reads %+v: %v", s, s.Error)
	}
	until(t, "the VM to go on", func() bool { w, _ := desk.vm(v.Name); return w.Here && w.State == api.VMRunning })
}
