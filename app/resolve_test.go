package app

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/p2p/mend"
	"tagalong.org/tagalong/vmdisk"
)

func TestKeepingBothMakesASecondVM(t *testing.T) {
	for _, where := range []string{"winner", "loser"} {
		t.Run("chosen by the "+where, func(t *testing.T) {
			desk, laptop, v := apart(t)
			chooser := laptop
			if where == "loser" {
				chooser = desk
			}
			_, err := chooser.engine.Resolve(t.Context(), api.ResolveConflict{VM: "Work", How: api.ResolveBoth, Keep: chooser.side(laptop).Branch, Name: "Work"})
			wantCode(t, "a name that is taken", err, api.CodeConflict)
			if _, err := chooser.engine.Resolve(t.Context(), api.ResolveConflict{VM: "Work", How: api.ResolveBoth, Keep: chooser.side(laptop).Branch, Name: "Lost"}); err != nil {
				t.Fatal(err)
			}
			one(t, laptop, desk, v.ID)
			var second api.VM
			for _, d := range []*device{desk, laptop} {
				until(t, d.name+" to know the second VM", func() bool { var ok bool; second, ok = d.vm("Lost"); return ok })
			}
			if second.ID == v.ID || second.Owner != desk.engine.host.ID() || !reflect.DeepEqual(second.Spec, v.Spec) || second.State != api.VMStopped {
				t.Errorf("the second VM is %+v", second)
			}
			if desk.engine.vm(second.ID).currentDisk().ID() == desk.engine.vm(v.ID).currentDisk().ID() {
				t.Error("both disks have one ID")
			}
			if desk.read(second.ID, 1) != 'd' || desk.read(v.ID, 1) != 'l' {
				t.Error("the versions are mixed up")
			}
			if s, _ := desk.vm("Work"); len(s.RestorePoints) != 0 {
				t.Errorf("and a restore point too: %+v", s.RestorePoints)
			}
			// Both run, each on its device, and each is copied to the other.
			for d, name := range map[*device]string{desk: "Lost", laptop: "Work"} {
				if err := d.engine.StartVM(t.Context(), name); err != nil {
					t.Fatal(err)
				}
				d.live(name)
			}
			desk.write(second.ID, 5, 's')
			desk.live("Lost")
			if laptop.read(second.ID, 5) != 's' {
				t.Error("the second VM isn't copied")
			}
			desk.stop()
			desk.start()
			until(t, "the second VM to be there after a restart", func() bool { s, ok := desk.vm("Lost"); return ok && s.State == api.VMRunning })
		})
	}
}

// A second VM's IDs follow from the choice: a try that was cut short before it signed anything is made again as the same VM, which has
// nothing in common with the first that could make the two meet on one network, or one's stream go into the other's disk.
func TestASecondVMIsTheSameAtEachTry(t *testing.T) {
	desk, laptop, v := apart(t)
	choice := chosenAway(t, desk, laptop, v.ID, api.ResolveBoth)
	id, disk := secondIDs(choice, v.ID, desk.engine.host.ID())
	if id == v.ID {
		t.Fatal("the second VM has the first one's ID")
	}
	// What a try left that ended in the middle of the copy.
	half := filepath.Join(desk.dir, "vms", id)
	if err := errors.Join(os.MkdirAll(filepath.Join(half, "disk"), 0o700), os.WriteFile(marker(half), nil, 0o600), os.WriteFile(filepath.Join(half, "disk", "base.raw"), []byte("half"), 0o600)); err != nil {
		t.Fatal(err)
	}
	desk.start()
	one(t, laptop, desk, v.ID)
	var second api.VM
	until(t, "the second VM", func() (ok bool) { second, ok = desk.vm("Work 2"); return ok })
	first := desk.engine.vm(v.ID).currentDisk().ID()
	if got := desk.engine.vm(second.ID).currentDisk().ID(); second.ID != id || got != disk || got == first {
		t.Errorf("it is %s with the disk %s, not %s with %s; the first one's disk is %s", second.ID, got, id, disk, first)
	}
	// Another choice, or the same on another device, would be another VM.
	other, _ := desk.engine.dir.Transfer(v.ID, 1)
	for what, got := range map[string]func() (string, vmdisk.ID){
		"another choice": func() (string, vmdisk.ID) { return secondIDs(other, v.ID, desk.engine.host.ID()) },
		"another device": func() (string, vmdisk.ID) { return secondIDs(choice, v.ID, laptop.engine.host.ID()) },
		"another VM":     func() (string, vmdisk.ID) { return secondIDs(choice, id, desk.engine.host.ID()) },
	} {
		if vm, d := got(); vm == id || d == disk {
			t.Errorf("%s: %s with %s again", what, vm, d)
		}
	}
	// The hypervisor makes the network address of the first 24 bits of the VM's ID.
	if config, err := desk.engine.vm(second.ID).config(); err != nil || config.VM != id || config.VM[:6] == v.ID[:6] {
		t.Errorf("both VMs have one address: %s and %s, %v", config.VM, v.ID, err)
	}
	if err := desk.engine.vm(v.ID).makeSecond(t.Context(), choice, &asideRun{}); err != nil || len(desk.status().VMs) != 2 {
		t.Errorf("made again it is one more: %v", err)
	}
}

func TestLookingIntoTheOtherVersion(t *testing.T) {
	desk, laptop, v := apart(t)
	job := laptop.choose(api.ResolveOpen, laptop)
	one(t, laptop, desk, v.ID)
	if j := laptop.jobEnded(job.ID); j.Error != nil {
		t.Errorf("%+v", j)
	}
	s, _ := desk.vm("Work")
	if len(s.RestorePoints) != 1 || !s.RestorePoints[0].Open {
		t.Fatalf("the desk keeps %+v", s.RestorePoints)
	}
	ref := api.RestorePointRef{VM: "Work", ID: s.RestorePoints[0].ID}
	wantCode(t, "opening it where the VM isn't", desk.engine.OpenRestorePoint(t.Context(), ref), api.CodeElsewhere)
	// Running, it comes to the desk, where it sees the disk.
	if err := laptop.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	laptop.live("Work")
	if _, err := desk.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"}); err != nil {
		t.Fatal(err)
	}
	if s := desk.ended("Work"); s.Phase != api.PhaseDone {
		t.Fatalf("%+v", s)
	}
	sees := func() bool {
		g := desk.hv.only()
		if g == nil {
			return false
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.extra[ref.ID] != ""
	}
	until(t, "the VM to see the other version", sees)
	disk := desk.engine.vm(v.ID).opened[ref.ID].disk
	b := make([]byte, 1)
	if err := disk.ReadAt(b, 1*blockSize); err != nil || b[0] != 'd' {
		t.Errorf("it reads %q, %v", b, err)
	}
	// So it can't leave, be suspended, or lose it.
	wantCode(t, "suspending", desk.engine.SuspendVM(t.Context(), "Work"), api.CodeConflict)
	wantCode(t, "deleting", desk.engine.DeleteRestorePoint(t.Context(), ref), api.CodeConflict)
	var asked *api.Switch
	until(t, "the laptop to have done with the last switch, and ask", func() (ok bool) {
		var err error
		asked, err = laptop.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"})
		return err == nil
	})
	until(t, "the refusal", func() bool {
		v, _ := laptop.vm("Work")
		return v.Switch != nil && v.Switch.ID == asked.ID && v.Switch.Phase == api.PhaseFailed && strings.Contains(v.Switch.Error.Sentence, "restore point")
	})
	// After a restart of the engine it is served again.
	desk.stop()
	desk.start()
	until(t, "the restore point to be served again", func() bool {
		v := desk.engine.vm(v.ID)
		v.mu.Lock()
		defer v.mu.Unlock()
		return v.opened[ref.ID] != nil
	})
	g := desk.hv.only()
	g.mu.Lock()
	g.clings = true
	g.mu.Unlock()
	wantCode(t, "closing what is in use", desk.engine.CloseRestorePoint(t.Context(), ref), api.CodeConflict)
	g.mu.Lock()
	g.clings = false
	g.mu.Unlock()
	if err := desk.engine.CloseRestorePoint(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	if sees() {
		t.Error("the VM still sees it")
	}
	if err := desk.engine.OpenRestorePoint(t.Context(), ref); err != nil || !sees() {
		t.Errorf("opening it while the VM runs: %v", err)
	}
	if err := desk.engine.StopVM(t.Context(), "Work", true); err != nil {
		t.Fatal(err)
	}
	if err := desk.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	if !sees() {
		t.Error("a fresh start is without it")
	}
	wantCode(t, "a restore point that isn't there", desk.engine.OpenRestorePoint(t.Context(), api.RestorePointRef{VM: "Work", ID: "../disk"}), api.CodeNotFound)
}

func TestRepairChecksTheDiskAndHasTheGuestCheck(t *testing.T) {
	desk, laptop, v := apart(t)
	laptop.stop()
	// The choice is made where the VM lost; the other device does its part when it is back.
	desk.choose(api.ResolveRepair, laptop)
	laptop.start()
	one(t, laptop, desk, v.ID)
	until(t, "the check", func() bool {
		for _, j := range laptop.status().Jobs {
			if j.Kind == "resolve" && j.Done {
				return j.Error == nil && j.Check != nil && j.Check.Clean
			}
		}
		return false
	})
	start := func() *fakeGuest {
		if err := laptop.engine.StartVM(t.Context(), "Work"); err != nil {
			t.Fatal(err)
		}
		return laptop.hv.only()
	}
	if !start().checks {
		t.Error("the guest wasn't asked to check its file systems")
	}
	if err := laptop.engine.StopVM(t.Context(), "Work", true); err != nil {
		t.Fatal(err)
	}
	if start().checks {
		t.Error("the guest is asked at every start")
	}
}

// The check that was asked for comes along: whoever starts the VM next has the guest do it, and nobody does it again.
func TestTheCheckOfARepairTravels(t *testing.T) {
	desk, laptop, v := apart(t)
	job := laptop.choose(api.ResolveRepair, laptop)
	one(t, laptop, desk, v.ID)
	if j := laptop.jobEnded(job.ID); j.Error != nil {
		t.Fatal(j.Error)
	}
	bring := func(to *device) {
		t.Helper()
		if _, err := to.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"}); err != nil {
			t.Fatal(err)
		}
		if s := to.ended("Work"); s.Phase != api.PhaseDone {
			t.Fatalf("%+v", s)
		}
		until(t, "the giver to have heard", func() bool {
			for _, d := range []*device{desk, laptop} {
				if s, _ := d.vm("Work"); s.Owner != to.engine.host.ID() || s.State != api.VMStopped {
					return false
				}
			}
			return true
		})
	}
	start := func(d *device) *fakeGuest {
		t.Helper()
		if err := d.engine.StartVM(t.Context(), "Work"); err != nil {
			t.Fatal(err)
		}
		return d.hv.only()
	}
	// It is switched before it is started, and the device restarts.
	bring(desk)
	desk.stop()
	desk.start()
	linked(t, desk, laptop)
	until(t, "the disk to be active", func() bool { return desk.engine.vm(v.ID).currentDisk().Info().Active })
	if !start(desk).checks {
		t.Error("the guest isn't asked to check its file systems where the VM went")
	}
	if err := desk.engine.StopVM(t.Context(), "Work", true); err != nil {
		t.Fatal(err)
	}
	if start(desk).checks {
		t.Error("it is asked at every start")
	}
	if err := desk.engine.StopVM(t.Context(), "Work", true); err != nil {
		t.Fatal(err)
	}
	until(t, "the laptop to know that it is stopped", func() bool { s, _ := laptop.vm("Work"); return s.State == api.VMStopped })
	bring(laptop)
	if start(laptop).checks {
		t.Error("it is asked again where the choice was made")
	}
}

func TestAThirdDeviceSaysWhereToChoose(t *testing.T) {
	desk, laptop, _ := apart(t)
	nas := newDevice(t, "nas")
	pair(t, laptop, nas)
	until(t, "the nas to see both versions", func() bool { s, _ := nas.vm("Work"); return s.Conflict != nil })
	_, err := nas.engine.Resolve(t.Context(), api.ResolveConflict{VM: "Work", How: api.ResolveKeep, Keep: nas.side(laptop).Branch})
	wantCode(t, "a choice on a device without a version", err, api.CodeElsewhere)
	if next := api.AsError(err).Next; !strings.Contains(next, "desk") || !strings.Contains(next, "laptop") {
		t.Errorf("the person reads %q", next)
	}
	_ = desk
}

// A copy that has all of a suspended VM has its windows: who takes it over goes on with them, and there is nothing to choose.
func TestASuspendedVMIsTakenOverWithItsWindows(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	memory := desk.hv.memory
	laptop.hv.memory = []byte("what a fresh guest has")
	desk.suspend()
	desk.live("Work")
	until(t, "the laptop to hear of it", func() bool { s, _ := laptop.vm("Work"); return s.State == api.VMSuspended })
	desk.stop()
	until(t, "the laptop to miss the desk", func() bool { return !laptop.engine.linked(desk.engine.host.ID()) })
	told, err := laptop.engine.Takeover(t.Context(), "Work")
	if err != nil || told.State != api.VMSuspended {
		t.Fatalf("%+v: %v", told, err)
	}
	if slices.ContainsFunc(told.Warnings, func(w api.Warning) bool { return w.Code == api.WarnSuspended }) {
		t.Errorf("the person reads that the windows don't come: %+v", told.Warnings)
	}
	laptop.takeOver("Work")
	until(t, "the suspended VM", func() bool { s, _ := laptop.vm("Work"); return s.Here && s.State == api.VMSuspended })
	if err := laptop.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	laptop.goesOnWithItsMemory(memory)
	desk.start()
	one(t, laptop, desk, v.ID)
}

func TestASuspendedVersionIsNotThrownAwayUnasked(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	laptop.stop()
	until(t, "the desk to miss the laptop", func() bool { return !desk.engine.linked(laptop.engine.host.ID()) })
	desk.suspend()
	desk.stop()
	laptop.start()
	laptop.takeOver("Work")
	desk.start()
	// The laptop's copy hasn't got its memory.
	until(t, "both versions", func() bool { s, _ := laptop.vm("Work"); return s.Conflict != nil })
	until(t, "the laptop to know what the desk's version does", func() bool { return laptop.side(desk).State == api.VMSuspended })
	desk.choose(api.ResolveKeep, desk)
	one(t, desk, laptop, v.ID)
	if err := desk.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	if g := desk.hv.only(); g == nil || g.get() != hypervisor.StateRunning || string(g.memory) != string(desk.hv.memory) {
		t.Error("the desk's windows are gone")
	}
}

func TestRepairMendsFromTheOtherCopy(t *testing.T) {
	desk, laptop, v := apart(t)
	laptop.choose(api.ResolveKeep, laptop)
	one(t, laptop, desk, v.ID)
	disk := laptop.engine.vm(v.ID).currentDisk()
	// Nothing is being written any more, so that hashes can be recorded.
	until(t, "hashes to be recorded", func() bool {
		if err := disk.Save(); err != nil {
			t.Fatal(err)
		}
		s, err := disk.Scrub(t.Context(), vmdisk.ScrubOptions{Record: true})
		return err == nil && s.Recorded+s.Verified > 0 && s.Busy == 0
	})
	base, err := os.OpenFile(filepath.Join(laptop.dir, "vms", v.ID, "disk", "base.raw"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	if _, err := base.WriteAt([]byte("the drive has forgotten this"), 105*blockSize+7); err != nil {
		t.Fatal(err)
	}
	// Who isn't the owner gets nothing, even of what it can name.
	sum, ok, err := disk.Recorded(96 * blockSize)
	if err != nil || !ok {
		t.Fatal(err)
	}
	piece := mend.Piece{VM: v.ID, Off: 96 * blockSize, Len: vmdisk.MendUnit, Sum: sum}
	if _, err := desk.engine.askPiece(t.Context(), laptop.engine.host.ID(), piece); !errors.Is(err, mend.ErrNotHere) {
		t.Errorf("the desk asks for a piece: %v", err)
	}
	report, err := laptop.engine.startJob(api.Job{Kind: kindResolve, VM: v.ID, VMName: "Work"}, func(ctx context.Context, j *job) error {
		return laptop.engine.vm(v.ID).repair(ctx, j, 1)
	})
	if err != nil {
		t.Fatal(err)
	}
	if j := laptop.jobEnded(report.ID); j.Error != nil || j.Check == nil || !j.Check.Clean {
		t.Errorf("%+v, %+v", j, j.Check)
	}
	if got := laptop.read(v.ID, 105); got != 5 {
		t.Errorf("the block reads %d", got)
	}
}
