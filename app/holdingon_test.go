package app

import (
	"context"
	"errors"
	"strings"
	"testing"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/app/savedmemory"
	"tagalong.org/tagalong/app/volumes"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/p2p/handoff"
)

// A guest may be stopped by a hypervisor that doesn't say so in time, for it answers only when the disk has drained: who gives the suspension up then
// has it go on all the same.
func TestASuspensionGivenUpWhileTheGuestStops(t *testing.T) {
	d := newDevice(t, "desk")
	v := d.create("Work")
	if err := d.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	d.hv.only().holdPause(true)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.engine.SuspendVM(ctx, "Work") }()
	until(t, "the guest to stand still", func() bool { return d.hv.only().get() == hypervisor.StatePaused })
	cancel()
	var e *api.Error
	if err := <-done; !errors.As(err, &e) || e.Code != api.CodeCancelled {
		t.Errorf("%v", err)
	}
	d.goesOnWithItsMemory(d.hv.memory)
	if s, err := d.engine.vm(v.ID).lookSaved(); err != nil || s.there() {
		t.Errorf("%+v, %v", s, err)
	}
	d.hv.only().holdPause(false)
	d.suspend()
}

// A suspended guest whose hypervisor didn't end must not go on: its memory would be loaded a second time, beside a disk that has moved on.
func TestASuspendedGuestThatDoesntEndStandsStill(t *testing.T) {
	d := newDevice(t, "desk")
	d.create("Work")
	if err := d.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	memory := d.hv.only().memory
	d.hv.setImmortal(true)
	if err := d.engine.SuspendVM(t.Context(), "Work"); err == nil {
		t.Fatal("it is said to be suspended, beside its hypervisor")
	}
	for what, let := range map[string]func(context.Context, string) error{"start": d.engine.StartVM, "resume": d.engine.ResumeVM} {
		var e *api.Error
		if err := let(t.Context(), "Work"); !errors.As(err, &e) || e.Next == "" {
			t.Errorf("%s: %v", what, err)
		}
		if d.hv.only().get() != hypervisor.StatePaused {
			t.Fatalf("by %s it goes on beside its saved memory", what)
		}
	}
	d.hv.setImmortal(false)
	d.hv.memory = []byte("what a fresh guest has")
	if err := d.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	d.goesOnWithItsMemory(memory)
}

// What couldn't be cleared of a memory that couldn't be saved is cleared before its guest goes on, or that stays where it is.
func TestAHeaderThatWasLeftIsCleared(t *testing.T) {
	d := newDevice(t, "desk")
	v := d.engine.vm(d.create("Work").ID)
	if err := d.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	hold := make(chan struct{})
	d.hv.setHoldSave(hold)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.engine.SuspendVM(ctx, "Work") }()
	until(t, "the guest to stand still", func() bool { return d.hv.only().get() == hypervisor.StatePaused })
	// As if it had come to its header, which can't be taken back.
	w, ok, err := v.memoryVolume()
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if _, err := savedmemory.Destine(w, savedmemory.Header{Stored: 1, Raw: 1, Hash: make([]byte, 32)}, ""); err != nil {
		t.Fatal(err)
	}
	if err := v.currentDisk().Fence(); err != nil {
		t.Fatal(err)
	}
	cancel()
	stays := func(err error) {
		t.Helper()
		var e *api.Error
		if !errors.As(err, &e) || e.Remedy != api.RemedyResume || e.Next == "" {
			t.Errorf("%v", err)
		}
		if d.hv.only().get() != hypervisor.StatePaused {
			t.Fatal("it goes on beside a header")
		}
	}
	stays(<-done)
	stays(d.engine.ResumeVM(t.Context(), "Work"))
	if err := v.currentDisk().Unfence(); err != nil {
		t.Fatal(err)
	}
	if err := d.engine.ResumeVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	d.goesOnWithItsMemory(d.hv.memory)
	if s, err := v.lookSaved(); err != nil || s.there() {
		t.Errorf("%+v, %v", s, err)
	}
}

// A store that a full disk kept from growing with its table grows before a guest sees the table.
func TestAStoreThatDidntGrowGrowsAtTheStart(t *testing.T) {
	d := newDevice(t, "desk")
	v := d.engine.vm(d.create("Work").ID)
	table, err := v.putTable(func(t volumes.Table) (volumes.Table, error) { return t.Grow(t.Volumes[0].ID, 2*testDisk) })
	if err != nil || v.currentDisk().Size() >= table.Space() {
		t.Fatal(err)
	}
	if err := d.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	if got := v.currentDisk().Size(); got != table.Space() || d.hv.only().config.Disks[0].Bytes != 2*testDisk {
		t.Errorf("the guest has %d bytes, and the store %d", d.hv.only().config.Disks[0].Bytes, got)
	}
}

// A VM that is on its way isn't removed under whoever brings it.
func TestACarriedVMIsntRemoved(t *testing.T) {
	desk, laptop, _ := twoDevices(t)
	memory := desk.hv.only().memory
	unblock := desk.blockFeed(laptop)
	if _, err := laptop.engine.Switch(t.Context(), suspended("")); err != nil {
		t.Fatal(err)
	}
	until(t, "the memory to be on its way", func() bool { w, _ := desk.vm("Work"); return w.Switch.Phase == api.PhaseSend && desk.hv.only() == nil })
	if err := desk.engine.RemoveVM(t.Context(), "Work"); !errors.Is(err, &api.Error{Code: api.CodeBusy}) {
		t.Fatalf("%v", err)
	}
	unblock()
	carries(t, desk, laptop, memory)
}

// An ask whose link ended while it was looked at holds the VM for nobody.
func TestAnAskWhoseLinkEnded(t *testing.T) {
	desk, laptop, made := twoDevices(t)
	if err := desk.engine.StopVM(t.Context(), "Work", true); err != nil {
		t.Fatal(err)
	}
	v := desk.engine.vm(made.ID)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 {
		if err := v.hearAsk(ended, baton.Event{Peer: laptop.engine.host.ID(), Ask: newID()}, handoff.Ask{}); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if v.switching() {
			t.Fatal("the VM is held for a hand-off that never comes")
		}
	}
}

// What is to be resumed may have been dropped meanwhile.
func TestThereIsNothingToResume(t *testing.T) {
	d := newDevice(t, "desk")
	v := d.engine.vm(d.create("Work").ID)
	if err := v.waitFor(t.Context(), kindResume, v.restore); !errors.Is(err, &api.Error{Code: api.CodeConflict}) {
		t.Errorf("%v", err)
	}
}

// A memory is used up before the guest goes on: if that doesn't, the person reads what is lost, and starts it.
func TestAMemoryThatWasUsedUpIsLost(t *testing.T) {
	d := newDevice(t, "desk")
	d.create("Work")
	if err := d.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	d.suspend()
	breaks := func(is bool) {
		d.hv.mu.Lock()
		defer d.hv.mu.Unlock()
		d.hv.breakContinue = is
	}
	breaks(true)
	var e *api.Error
	if err := d.engine.ResumeVM(t.Context(), "Work"); !errors.As(err, &e) || !strings.Contains(e.Sentence, "is lost") {
		t.Errorf("%v", err)
	}
	d.reads("Work", "is lost")
	if w, _ := d.vm("Work"); w.State != api.VMStopped || w.Problem.Remedy != api.RemedyStart || d.hv.only() != nil {
		t.Errorf("%s, %+v", w.State, w.Problem)
	}
	breaks(false)
	if err := d.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	if w, _ := d.vm("Work"); w.Problem != nil {
		t.Errorf("it runs, and the person reads %v", w.Problem)
	}
}

// Who tells of a switch under way can't end it: only the hand-off does.
func TestAGiverCantTellTheEnd(t *testing.T) {
	desk, laptop, made := twoDevices(t)
	hold := make(chan struct{})
	laptop.hv.setHold(hold)
	if _, err := laptop.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"}); err != nil {
		t.Fatal(err)
	}
	until(t, "the VM to be offered", func() bool { w, _ := desk.vm("Work"); return w.State == api.VMSwitching })
	from := desk.engine.host.ID()
	laptop.engine.vm(made.ID).switchRemote(from, api.Switch{VM: made.ID, From: from, Phase: api.PhaseFailed})
	if w, _ := laptop.vm("Work"); w.Switch == nil || w.Switch.Phase.Ended() {
		t.Errorf("%+v", w.Switch)
	}
	close(hold)
	if s := laptop.ended("Work"); s.Phase != api.PhaseDone {
		t.Errorf("%+v", s)
	}
}

// Who is asked for a VM that is on its way already, suspended, brings it as it is being brought.
func TestACarriedVMIsAskedForByTheButton(t *testing.T) {
	desk, laptop, _ := twoDevices(t)
	memory := desk.hv.only().memory
	unblock := desk.blockFeed(laptop)
	first, err := laptop.engine.Switch(t.Context(), suspended(""))
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the memory to be on its way", func() bool { w, _ := desk.vm("Work"); return w.Switch.Phase == api.PhaseSend && desk.hv.only() == nil })
	again, err := laptop.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"})
	if err != nil || again.ID != first.ID {
		t.Fatalf("%+v, %v", again, err)
	}
	unblock()
	carries(t, desk, laptop, memory)
}
