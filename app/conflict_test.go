package app

import (
	"slices"
	"strings"
	"testing"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/directory/baton"
)

// apart is a fleet of two whose VM has two versions: block 1 was written to 'd' on the desk, where it runs, and to 'l' on the laptop, which took
// it over while the two couldn't see each other.
func apart(t *testing.T) (desk, laptop *device, v api.VM) {
	t.Helper()
	desk, laptop, v = twoDevices(t)
	laptop.stop()
	desk.write(v.ID, 1, 'd')
	desk.write(v.ID, 2, 'd')
	desk.stop() // its guest runs on
	laptop.start()
	until(t, "the VM to be known", func() bool { _, ok := laptop.vm("Work"); return ok })
	laptop.takeOver("Work")
	laptop.write(v.ID, 1, 'l')
	desk.start()
	for _, d := range []*device{desk, laptop} {
		until(t, d.name+" to see both versions", func() bool {
			s, _ := d.vm("Work")
			return s.Conflict != nil && len(s.Conflict.Sides) == 2
		})
	}
	return desk, laptop, v
}

// side is the version of a device.
func (d *device) side(owner *device) api.ConflictSide {
	d.t.Helper()
	s, _ := d.vm("Work")
	if s.Conflict == nil {
		d.t.Fatal("there is no conflict")
	}
	i := slices.IndexFunc(s.Conflict.Sides, func(c api.ConflictSide) bool { return c.Owner == owner.engine.host.ID() })
	if i < 0 {
		d.t.Fatalf("%s has no side: %+v", owner.name, s.Conflict)
	}
	return s.Conflict.Sides[i]
}

func TestTwoVersionsWaitForThePerson(t *testing.T) {
	desk, laptop, v := apart(t)
	until(t, "the desk's guest to stand still", func() bool { return desk.hv.only().get() == hypervisor.StatePaused })
	if s := desk.state(v.ID); s != baton.Ousted {
		t.Errorf("the desk is %s", s)
	}
	for _, d := range []*device{desk, laptop} {
		wantCode(t, "starting on "+d.name, d.engine.StartVM(t.Context(), "Work"), api.CodeConflict)
		wantCode(t, "suspending on "+d.name, d.engine.SuspendVM(t.Context(), "Work"), api.CodeConflict)
		_, err := d.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"})
		wantCode(t, "a switch to "+d.name, err, api.CodeConflict)
		_, err = d.engine.Takeover(t.Context(), "Work")
		wantCode(t, "a takeover on "+d.name, err, api.CodeConflict)
		if !strings.Contains(api.AsError(err).Sentence, "two versions") {
			t.Errorf("the person reads %q", err)
		}
		_, err = d.engine.Resolve(t.Context(), api.ResolveConflict{VM: "Work", How: api.ResolveKeep, Keep: "00"})
		wantCode(t, "keeping nothing", err, api.CodeConflict)
		_, err = d.engine.Resolve(t.Context(), api.ResolveConflict{VM: "Work", How: "toss", Keep: d.side(desk).Branch})
		wantCode(t, "tossing a coin", err, api.CodeUsage)
	}
	until(t, "the laptop to know what the desk's version does", func() bool { return laptop.side(desk).State == api.VMPaused })
	kept := laptop.side(desk)
	if kept.Kind != "kept" || kept.OwnerName != "desk" || kept.Here || !kept.Connected || kept.Changed == nil || *kept.Changed != 2*blockSize {
		t.Errorf("the laptop says of the desk's version %+v", kept)
	}
	if s := laptop.side(laptop); s.Kind != "takeover" || !s.Here || s.State != api.VMStopped {
		t.Errorf("the laptop says of its own version %+v", s)
	}
	if err := desk.engine.vm(v.ID).currentDisk().WriteAt(make([]byte, blockSize), 0, false); err == nil {
		t.Error("the desk's disk is still written")
	}
	laptop.event("vm.conflict")
	desk.event("vm.superseded")
	// Nothing is overwritten, and it all waits through restarts of both.
	desk.stop()
	laptop.stop()
	desk.start()
	laptop.start()
	linked(t, desk, laptop)
	for _, d := range []*device{desk, laptop} {
		until(t, d.name+" to see both versions", func() bool { s, _ := d.vm("Work"); return s.Conflict != nil })
	}
	if desk.read(v.ID, 1) != 'd' || laptop.read(v.ID, 1) != 'l' {
		t.Error("a version was overwritten")
	}
	if g := desk.hv.only(); g == nil || g.get() != hypervisor.StatePaused {
		t.Error("the desk's windows are gone, or go on")
	}
}
