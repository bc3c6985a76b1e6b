package app

import (
	"slices"
	"strings"
	"testing"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/directory/baton"
)

// read is what a person reads of the warnings of a takeover.
func read(told *api.Takeover) string {
	var b strings.Builder
	for _, w := range told.Warnings {
		b.WriteString(w.Text + " ")
	}
	return b.String()
}

// takeOver takes the VM over as a person would who has read what there is to read.
func (d *device) takeOver(name string) *api.Takeover {
	d.t.Helper()
	t, err := d.engine.Takeover(d.t.Context(), name)
	if err != nil {
		d.t.Fatal(err)
	}
	if err := d.engine.TakeOver(d.t.Context(), api.TakeOverVM{VM: name, Token: t.Token}); err != nil {
		d.t.Fatal(err)
	}
	if v, _ := d.vm(name); !v.Here {
		d.t.Fatalf("after the takeover the VM isn't here: %+v", v)
	}
	return t
}

// state is what the machine of the VM on this device believes.
func (d *device) state(id string) baton.State {
	v := d.engine.vm(id)
	if v == nil {
		return ""
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.state
}

// stoppedFleet is a fleet of two: the VM is stopped on the first, the second's copy has all of it.
func stoppedFleet(t *testing.T) (desk, laptop *device, v api.VM) {
	t.Helper()
	desk, laptop = newDevice(t, "desk"), newDevice(t, "laptop")
	pair(t, desk, laptop)
	v = desk.create("Work")
	desk.live("Work")
	desk.write(v.ID, 0, 'a')
	desk.live("Work")
	return desk, laptop, v
}

func TestATakeoverOfAnOwnerThatHadNothingNewer(t *testing.T) {
	desk, laptop, v := stoppedFleet(t)
	if _, err := laptop.engine.Takeover(t.Context(), "Work"); err == nil || !strings.Contains(api.AsError(err).Next, "Switch instead") {
		t.Errorf("beside a connected owner: %v", err)
	}
	_, err := desk.engine.Takeover(t.Context(), "Work")
	wantCode(t, "a takeover of what is here", err, api.CodeConflict)
	desk.stop()
	until(t, "the laptop to miss the desk", func() bool { return !laptop.engine.linked(desk.engine.host.ID()) })
	told := laptop.takeOver("Work")
	if told.OwnerName != "desk" || told.Connected || told.State != api.VMStopped || told.Better != nil || len(told.Warnings) == 0 || told.Seen.IsZero() || told.At.IsZero() {
		t.Errorf("the person was told %+v", told)
	}
	wantCode(t, "a second takeover with the same token", laptop.engine.TakeOver(t.Context(), api.TakeOverVM{VM: "Work", Token: told.Token}), api.CodeConflict)
	laptop.write(v.ID, 1, 'b')
	if err := laptop.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	desk.start()
	until(t, "the desk to follow", func() bool { return desk.state(v.ID) == baton.Replica })
	laptop.live("Work")
	if desk.read(v.ID, 0) != 'a' || desk.read(v.ID, 1) != 'b' {
		t.Error("the desk's copy isn't the laptop's disk")
	}
	for _, d := range []*device{desk, laptop} {
		if s, _ := d.vm("Work"); s.Conflict != nil || s.Owner != laptop.engine.host.ID() || len(s.RestorePoints) > 0 {
			t.Errorf("%s: %+v", d.name, s)
		}
	}
	desk.event("vm.fast-forwarded")
	// And back, as if nothing had been.
	if _, err := desk.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"}); err != nil {
		t.Fatal(err)
	}
	if s := desk.ended("Work"); s.Phase != api.PhaseDone {
		t.Fatalf("%+v", s)
	}
}

func TestWhatAPersonReadsBeforeATakeover(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	laptop.toldOf(v.ID, laptop, "what it lacks", false, 0)
	laptop.stop()
	desk.write(v.ID, 3, 'x')
	desk.stop()
	laptop.start()
	until(t, "the VM to be known", func() bool { _, ok := laptop.vm("Work"); return ok })
	told, err := laptop.engine.Takeover(t.Context(), "Work")
	if err != nil {
		t.Fatal(err)
	}
	all := read(told)
	for _, want := range []string{"two versions", "was running on desk", "windows"} {
		if !strings.Contains(all, want) {
			t.Errorf("nobody says %q: %q", want, all)
		}
	}
	var codes []api.WarningCode
	for _, w := range told.Warnings {
		codes = append(codes, w.Code)
	}
	if want := []api.WarningCode{api.WarnTwoVersions, api.WarnRunning, api.WarnLacksSince}; !slices.Equal(codes, want) {
		t.Errorf("the warnings are %v, want %v", codes, want)
	}
	if told.Certain {
		t.Error("what a running VM wrote last can't be certain")
	}
	wantCode(t, "a takeover of something else", laptop.engine.TakeOver(t.Context(), api.TakeOverVM{VM: "Work", Token: "0"}), api.CodeConflict)
	if s := laptop.state(v.ID); s != baton.Replica {
		t.Errorf("a refused takeover left it %s", s)
	}
	var guest hypervisor.State
	if g := desk.hv.only(); g != nil {
		guest = g.get()
	}
	if guest != hypervisor.StateRunning {
		t.Errorf("the desk's guest is %q", guest)
	}
}

// TestATakeoverOfWhatNeverArrived: the desk has signed the VM away, and the laptop, which has its memory, dies before it can write that
// down. The desk, which still holds the guest, takes it over from the laptop: it goes on with its windows and all that it wrote.
func TestATakeoverOfWhatNeverArrived(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	desk.write(v.ID, 1, 'd')
	hold := make(chan struct{})
	laptop.hv.setHoldLoaded(hold)
	if _, err := laptop.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"}); err != nil {
		t.Fatal(err)
	}
	until(t, "the memory to be there", func() bool { g := laptop.hv.only(); return g != nil && g.get() == hypervisor.StatePaused })
	if err := laptop.engine.dir.Close(); err != nil { // its drive fails
		t.Fatal(err)
	}
	close(hold)
	until(t, "the desk to have given it", func() bool { return desk.state(v.ID) == baton.Given })
	guest := desk.hv.only()
	laptop.stop()
	if err := laptop.hv.only().Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	laptop.hv.setHoldLoaded(nil)
	until(t, "the desk to miss the laptop", func() bool { return !desk.engine.linked(laptop.engine.host.ID()) })
	desk.reads("Work", "stands still here: the connection to laptop was lost")
	if s := guest.get(); s == hypervisor.StateRunning {
		t.Fatal("the guest runs after it was given away")
	}
	wantCode(t, "starting what was given away", desk.engine.StartVM(t.Context(), "Work"), api.CodeElsewhere)
	if told := desk.takeOver("Work"); told.OwnerName != "laptop" {
		t.Errorf("the person read %+v", told)
	}
	until(t, "the guest to go on", func() bool { return guest.get() == hypervisor.StateRunning })
	if guest.gone() || guest.runs != 1 || desk.hv.only() != guest {
		t.Errorf("it isn't the guest that was held, or was let go on %d times", guest.runs)
	}
	desk.write(v.ID, 2, 'd')
	laptop.start()
	linked(t, desk, laptop)
	until(t, "the laptop to follow", func() bool { return laptop.state(v.ID) == baton.Replica })
	desk.live("Work")
	if laptop.read(v.ID, 1) != 'd' || laptop.read(v.ID, 2) != 'd' {
		t.Error("the laptop's copy isn't the desk's disk")
	}
	for _, d := range []*device{desk, laptop} {
		if s, _ := d.vm("Work"); s.Conflict != nil || s.Owner != desk.engine.host.ID() || len(s.RestorePoints) > 0 {
			t.Errorf("%s: %+v", d.name, s)
		}
	}
	if laptop.hv.only() != nil || guest.get() != hypervisor.StateRunning {
		t.Error("the guest doesn't run once")
	}
}
