package app

import (
	"strings"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/app/restore"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
)

// What people and devices begin between two steps of a VM's machine.

// A switch that came to nothing holds the VM until its guest goes on here: a person who acts in that moment would act on a VM that stands in the
// middle of a teleport.
func TestAFailedSwitchHoldsTheVMUntilItsGuestGoesOn(t *testing.T) {
	desk, laptop, _ := twoDevices(t)
	laptop.hv.setBroken(true)
	guest := desk.hv.only()
	hold := make(chan struct{})
	guest.holdContinue(hold)
	if _, err := laptop.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"}); err != nil {
		t.Fatal(err)
	}
	until(t, "the desk to take its guest up again", guest.continuing)
	wantCode(t, "stopping it in this moment", desk.engine.StopVM(t.Context(), "Work", true), api.CodeBusy)
	close(hold)
	if s := desk.ended("Work"); s.Phase != api.PhaseFailed {
		t.Errorf("the switch: %+v", s)
	}
	// Whoever has read that it ended may act at once.
	if err := desk.engine.StopVM(t.Context(), "Work", true); err != nil {
		t.Error(err)
	}
}

// A VM that was being started when this device lost it doesn't start: its hypervisor would write the disk of whoever has it next.
func TestAStartThatLosesTheVMEndsTheGuest(t *testing.T) {
	desk, laptop, v := stoppedFleet(t)
	starts := map[string]func() error{
		"started": func() error { return desk.engine.StartVM(t.Context(), "Work") },
	}
	for how, start := range starts {
		t.Run(how, func(t *testing.T) {
			hold, begun := make(chan struct{}), make(chan error, 1)
			desk.hv.setHoldStart(hold)
			go func() { begun <- start() }()
			until(t, "the start", func() bool {
				s, _ := desk.vm("Work")
				return s.State == api.VMStarting
			})
			w := desk.engine.vm(v.ID)
			if err := w.do(t.Context(), baton.Event{Kind: baton.EvSuperseded, Peer: laptop.engine.host.ID(), Term: 1 << 20}); err != nil {
				t.Fatal(err)
			}
			if w.owner() {
				t.Fatal("it is still the owner")
			}
			close(hold)
			if err := <-begun; err == nil {
				t.Error("it was started on a device that had lost it")
			}
			if g := desk.hv.only(); g != nil || w.currentGuest() != nil {
				t.Errorf("its guest lives: %v", g)
			}
		})
	}
}

// A guest that was told to go on when this device lost it stands still again.
func TestAGuestThatLosesItsVMStandsStill(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	guest := desk.hv.only()
	guest.set(hypervisor.StatePaused)
	hold, begun := make(chan struct{}), make(chan error, 1)
	guest.holdContinue(hold)
	go func() { begun <- desk.engine.StartVM(t.Context(), "Work") }()
	until(t, "the guest to be told to go on", guest.continuing)
	w := desk.engine.vm(v.ID)
	if err := w.do(t.Context(), baton.Event{Kind: baton.EvSuperseded, Peer: laptop.engine.host.ID(), Term: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	close(hold)
	if err := <-begun; err == nil {
		t.Error("it went on on a device that had lost it")
	}
	if s := guest.get(); s != hypervisor.StatePaused {
		t.Errorf("its guest is %s", s)
	}
}

// A device that was asked to take a VM, and can't, says so: the person who sent it doesn't wait for ever.
func TestAnInvitationThatIsRefusedEndsTheSwitch(t *testing.T) {
	desk, laptop, v := stoppedFleet(t)
	if err := laptop.engine.vm(v.ID).begin(opPoint); err != nil {
		t.Fatal(err)
	}
	if _, err := desk.engine.Switch(t.Context(), api.SwitchVM{VM: "Work", To: "laptop"}); err != nil {
		t.Fatal(err)
	}
	s := desk.ended("Work")
	if s.Phase != api.PhaseFailed || s.Error.Code != api.CodeBusy || !strings.Contains(s.Error.Sentence, "Work stays on desk") {
		t.Errorf("the person reads %+v", s.Error)
	}
	laptop.engine.vm(v.ID).end(opPoint)
	if _, err := desk.engine.Switch(t.Context(), api.SwitchVM{VM: "Work", To: "laptop"}); err != nil {
		t.Fatal(err)
	}
	until(t, "the VM to be on the laptop", func() bool { s, _ := laptop.vm("Work"); return s.Here })
}

// An invitation that nobody answers ends by itself, can be called off, and stays called off.
func TestAnInvitationWithoutAnAnswer(t *testing.T) {
	desk, laptop, v := stoppedFleet(t)
	w, to := desk.engine.vm(v.ID), laptop.engine.host.ID()
	_, s := w.beginSwitch(desk.engine.host.ID(), to, false)
	w.endUnanswered(time.Now())
	if now, _ := w.lastSwitch(); now.Phase.Ended() {
		t.Error("it wasn't given time to be answered")
	}
	_, err := desk.engine.Switch(t.Context(), api.SwitchVM{VM: "Work", To: "laptop"})
	wantCode(t, "a second switch beside it", err, api.CodeBusy)
	w.endUnanswered(time.Now().Add(2 * inviteTimeout))
	if now, _ := w.lastSwitch(); now.Phase != api.PhaseFailed || now.Error.Code != api.CodeUnreachable {
		t.Errorf("nobody answered: %+v", now)
	}
	_, s = w.beginSwitch(desk.engine.host.ID(), to, false)
	if err := desk.engine.CancelSwitch(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}
	if now, _ := w.lastSwitch(); now.Phase != api.PhaseCancelled {
		t.Errorf("called off: %+v", now)
	}
	// The answer to what was called off comes too late.
	if _, err := laptop.engine.vm(v.ID).take(t.Context(), wish{}); err != nil {
		t.Fatal(err)
	}
	if s := laptop.ended("Work"); s.Phase != api.PhaseCancelled {
		t.Errorf("the late answer: %+v", s)
	}
	// Whoever asks after that is heard.
	if _, err := laptop.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"}); err != nil {
		t.Fatal(err)
	}
	until(t, "the VM to be on the laptop", func() bool { s, _ := laptop.vm("Work"); return s.Here })
}

// A device whose copy isn't compared yet can't take the VM, and says so instead of waiting.
func TestADeviceThatCannotTakeEndsTheSwitch(t *testing.T) {
	desk, laptop, v := stoppedFleet(t)
	w := laptop.engine.vm(v.ID)
	if err := w.begin(opSwitch); err != nil {
		t.Fatal(err)
	}
	w.beginSwitch(desk.engine.host.ID(), laptop.engine.host.ID(), false)
	w.post(t.Context(), baton.Event{Kind: baton.EvWant}) // of nobody: the machine refuses
	if s := laptop.ended("Work"); s.Phase != api.PhaseFailed || s.Error.Next == "" {
		t.Errorf("%+v", s)
	}
}

func TestRemovingOrLeavingDoesNotChooseBetweenVersions(t *testing.T) {
	desk, laptop, v := apart(t)
	wantCode(t, "removing the VM", laptop.engine.RemoveVM(t.Context(), "Work"), api.CodeConflict)
	for what, err := range map[string]error{
		"removing the VM": desk.engine.RemoveVM(t.Context(), "Work"), "stopping it": desk.engine.StopVM(t.Context(), "Work", true),
	} {
		wantCode(t, what+" where its other version is", err, api.CodeConflict)
	}
	// It would wait for a VM that can't come.
	_, err := desk.engine.GoOffline(t.Context(), api.GoOffline{})
	wantCode(t, "taking it along", err, api.CodeConflict)
	for _, d := range []*device{desk, laptop} {
		for _, del := range []bool{false, true} {
			err := d.engine.LeaveFleet(t.Context(), api.LeaveFleet{Delete: del})
			wantCode(t, d.name+" leaves", err, api.CodeConflict)
			wantText(t, "the refusal", api.AsError(err).Error(), "Work", "two versions")
		}
	}
	laptop.choose(api.ResolveKeep, laptop)
	one(t, laptop, desk, v.ID)
	// The restore point is the only thing that has what was given up.
	err = desk.engine.LeaveFleet(t.Context(), api.LeaveFleet{Delete: true})
	wantCode(t, "leaving with a restore point", err, api.CodeConflict)
	wantText(t, "the refusal", api.AsError(err).Error(), "restore point", "Work")
	if s, _ := desk.vm("Work"); len(s.RestorePoints) != 1 {
		t.Errorf("the desk keeps %+v", s.RestorePoints)
	}
	if err := desk.engine.LeaveFleet(t.Context(), api.LeaveFleet{}); err != nil {
		t.Error(err)
	}
}

// Two PCs often have one name. A verb that takes everything from one of them doesn't guess.
func TestANameOfTwoDevicesIsNobodys(t *testing.T) {
	a, b, c := newDevice(t, "debian"), newDevice(t, "debian"), newDevice(t, "nas")
	pair(t, a, b)
	pair(t, b, c)
	linked(t, a, b, c)
	for _, d := range []*device{a, c} {
		err := d.engine.RemoveDevice(t.Context(), api.RemoveDevice{Device: "debian", Wipe: true})
		wantCode(t, "removing one of two", err, api.CodeConflict)
		wantText(t, "the refusal", api.AsError(err).Error(), "debian", "ID")
	}
	if n := len(c.engine.dir.Members()); n != 2 {
		t.Errorf("there are %d members", n)
	}
	if err := c.engine.RemoveDevice(t.Context(), api.RemoveDevice{Device: b.engine.host.ID()}); err != nil {
		t.Error(err)
	}
	b.alone()
	if err := c.engine.RemoveDevice(t.Context(), api.RemoveDevice{Device: "debian"}); err != nil {
		t.Error("it is the only one of this name now:", err)
	}
}

// A choice that the history has gone beyond isn't waited for.
func TestAChoiceThatWasPassedOverIsSettled(t *testing.T) {
	desk, laptop, v := stoppedFleet(t)
	w := desk.engine.vm(v.ID)
	passed := directory.SignedTransfer{Transfer: directory.Transfer{VM: v.ID, Term: 0, To: laptop.engine.host.ID(), How: string(api.ResolveKeep)}}
	if !w.settledOn(passed) {
		t.Error("the owner waits to become a replica of an earlier one")
	}
	if text := w.chosenText(passed); strings.Contains(text, "goes on on laptop") || !strings.Contains(text, "on desk") {
		t.Errorf("the person reads %q", text)
	}
}

// A wish that no preparation was begun for isn't taken up at the next start.
func TestAPreparationThatDoesNotBeginLeavesNoWish(t *testing.T) {
	d := newDevice(t, "laptop")
	d.create("Work")
	d.engine.mu.Lock()
	d.engine.jobs = append(d.engine.jobs, &job{e: d.engine, j: api.Job{ID: "1", Kind: kindOffline}})
	d.engine.mu.Unlock()
	_, err := d.engine.GoOffline(t.Context(), api.GoOffline{})
	wantCode(t, "beside one that ends just now", err, api.CodeBusy)
	wantText(t, "the refusal", api.AsError(err).Error(), "work offline", "again")
	d.engine.offline.mu.Lock()
	defer d.engine.offline.mu.Unlock()
	if d.engine.offline.kept.Preparing {
		t.Error("the wish was left")
	}
}

// What couldn't be written isn't taken for told.
func TestARecordThatWasNotWrittenIsDue(t *testing.T) {
	_, laptop, v := stoppedFleet(t)
	w := laptop.engine.vm(v.ID)
	if err := w.saveRecord(); err != nil {
		t.Fatal(err)
	}
	if w.told != "" {
		t.Error("a record that only its owner may write counts as written")
	}
}

// A disk that was about to be put back when the engine died is put back by the next.
func TestAnUnwantedPointIsPutBackAfterACrash(t *testing.T) {
	desk, _, v := stoppedFleet(t)
	w := desk.engine.vm(v.ID)
	w.stopFeeds()
	pos, err := w.letGoOfDisk()
	if err != nil {
		t.Fatal(err)
	}
	choice := directory.SignedTransfer{Transfer: directory.Transfer{VM: v.ID, Term: 7, How: string(api.ResolveKeep)}}
	point := restore.Point{ID: pointID(choice), Term: pos.Term, Barrier: pos.Barrier, At: time.Now()}
	if err := w.shelf().Take(point, w.diskDir()); err != nil {
		t.Fatal(err)
	}
	if err := desk.engine.dir.SetLocal(unwanted(v.ID), []byte(point.ID)); err != nil {
		t.Fatal(err)
	}
	if err := w.makePoint(t.Context(), choice, &asideRun{}); err != nil {
		t.Fatal(err)
	}
	if desk.read(v.ID, 0) != 'a' {
		t.Error("another disk was put back")
	}
}

// Who deletes a VM's files waits for what still writes them.
func TestClosingAVMWaitsForWhatIsSetAside(t *testing.T) {
	desk, _, v := stoppedFleet(t)
	w := desk.engine.vm(v.ID)
	run := &asideRun{ended: make(chan struct{})}
	w.mu.Lock()
	w.aside = run
	w.mu.Unlock()
	forgotten := make(chan error, 1)
	go func() { forgotten <- desk.engine.forget(w) }()
	until(t, "the loop to end", func() bool {
		select {
		case <-w.done:
			return true
		default:
			return false
		}
	})
	if w.currentDisk() == nil || !desk.hasFiles(v.ID) {
		t.Error("its files went while they were being copied")
	}
	close(run.ended)
	if err := <-forgotten; err != nil {
		t.Fatal(err)
	}
	w.syncFeeds() // by somebody who came late
	if len(w.feeds) != 0 || desk.hasFiles(v.ID) {
		t.Error("it lives on")
	}
}

// A preparation isn't almost done while the disk is, and the memory has yet to come.
func TestWhatIsToBringCountsTheMemoryAhead(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	until(t, "the VM to be known as running", func() bool { s, _ := laptop.vm("Work"); return s.State == api.VMRunning })
	w := laptop.engine.vm(v.ID)
	_, s := w.beginSwitch(desk.engine.host.ID(), laptop.engine.host.ID(), true)
	for phase, want := range map[api.SwitchPhase]int64{api.PhaseCatchUp: v.Spec.MemoryKiB << 10, api.PhaseMemory: 0} {
		w.updateSwitch(func(r *switchRun) { r.s.Phase, r.s.Bytes, r.s.Total = phase, 100, 100 })
		if n := w.toBring(); n < want || want == 0 && n != 0 {
			t.Errorf("%s: %d bytes are to be brought, want %d", phase, n, want)
		}
	}
	w.updateSwitch(func(r *switchRun) { r.s.CanEnd = false })
	wantCode(t, "calling it off when the VM is given", laptop.engine.CancelSwitch(t.Context(), s.ID), api.CodeConflict)
	w.updateSwitch(func(r *switchRun) { r.s.CanEnd = true })
	if err := laptop.engine.CancelSwitch(t.Context(), s.ID); err != nil {
		t.Error(err)
	}
}
