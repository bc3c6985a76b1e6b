package app

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
)

// common is how many blocks both versions have in common.
const common = 200

// apart is a fleet of two whose VM has two versions: block 1 was written to 'd' on the desk, where it runs, and to 'l' on the laptop, which took
// it over while the two couldn't see each other.
func apart(t *testing.T) (desk, laptop *device, v api.VM) {
	t.Helper()
	desk, laptop, v = twoDevices(t)
	for block := range int64(common) {
		desk.write(v.ID, 100+block, byte(block))
	}
	desk.live("Work")
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
	linked(t, desk, laptop)
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

// choose resolves the conflict on d in favour of the winner.
func (d *device) choose(how api.Resolution, winner *device) *api.Job {
	d.t.Helper()
	job, err := d.engine.Resolve(d.t.Context(), api.ResolveConflict{VM: "Work", How: how, Keep: d.side(winner).Branch})
	if err != nil {
		d.t.Fatal(err)
	}
	return job
}

// one waits until there is one version again, on its owner, and the other's copy has all of it.
func one(t *testing.T, owner, other *device, id string) {
	t.Helper()
	for _, d := range []*device{owner, other} {
		until(t, d.name+" to see one version on "+owner.name, func() bool {
			s, _ := d.vm("Work")
			return s.Conflict == nil && s.Owner == owner.engine.host.ID()
		})
	}
	until(t, "the other device to follow", func() bool { return other.state(id) == baton.Replica })
	until(t, "the other device's copy to be live", func() bool {
		v, _ := owner.vm("Work")
		return v.Here && slices.ContainsFunc(v.Replicas, func(r api.Replica) bool {
			return r.Device == other.engine.host.ID() && r.State == api.ReplicaLive && r.Remaining == 0
		})
	})
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

func TestKeepingTheVersionThatRuns(t *testing.T) {
	desk, laptop, v := apart(t)
	job := laptop.choose(api.ResolveKeep, laptop)
	one(t, laptop, desk, v.ID)
	if j := laptop.jobEnded(job.ID); j.Error != nil {
		t.Errorf("%+v", j)
	}
	// What both had isn't sent again.
	if sent := laptop.engine.vm(v.ID).feedCopied(desk.engine.host.ID()); sent == 0 || sent > common*blockSize/4 {
		t.Errorf("%d bytes were sent for two blocks that differ", sent)
	}
	if desk.read(v.ID, 1) != 'l' || desk.hv.only() != nil {
		t.Error("the desk isn't the laptop's copy")
	}
	s, _ := desk.vm("Work")
	if len(s.RestorePoints) != 1 || s.RestorePoints[0].Bytes == 0 || !strings.Contains(s.RestorePoints[0].Why, "laptop") || s.RestorePoints[0].Chosen != "laptop" {
		t.Fatalf("the desk keeps %+v", s.RestorePoints)
	}
	if err := laptop.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	if err := desk.engine.DeleteRestorePoint(t.Context(), api.RestorePointRef{VM: "Work", ID: s.RestorePoints[0].ID}); err != nil {
		t.Fatal(err)
	}
	if s, _ := desk.vm("Work"); len(s.RestorePoints) != 0 {
		t.Errorf("after it was deleted: %+v", s.RestorePoints)
	}
	desk.event("vm.resolved")
}

func TestKeepingTheVersionThatWaits(t *testing.T) {
	desk, laptop, v := apart(t)
	// Chosen where the other one is.
	laptop.choose(api.ResolveKeep, desk)
	one(t, desk, laptop, v.ID)
	until(t, "the desk's guest to go on", func() bool { return desk.hv.only().get() == hypervisor.StateRunning })
	if laptop.read(v.ID, 1) != 'd' || laptop.read(v.ID, 2) != 'd' {
		t.Error("the laptop isn't the desk's copy")
	}
	if s, _ := laptop.vm("Work"); len(s.RestorePoints) != 1 {
		t.Errorf("the laptop keeps %+v", s.RestorePoints)
	}
	desk.write(v.ID, 3, 'n')
	desk.live("Work")
	if laptop.read(v.ID, 3) != 'n' {
		t.Error("the laptop doesn't follow")
	}
}

// What was chosen on one device is given up there only when the device of the other side has heard of it: until then that one may choose
// the opposite.
func TestChoicesMadeApart(t *testing.T) {
	desk, laptop, v := apart(t)
	laptop.stop()
	job := desk.choose(api.ResolveKeep, laptop)
	until(t, "the desk to wait for the laptop", func() bool { return desk.engine.job(job.ID).snapshot().Phase == phaseHeeding })
	until(t, "the desk's guest to stand still", func() bool { return desk.hv.only().get() == hypervisor.StatePaused })
	untouched := func(d *device, fill byte) {
		t.Helper()
		s, _ := d.vm("Work")
		if len(s.RestorePoints) != 0 || d.state(v.ID) != baton.Ousted && d.state(v.ID) != baton.Owned || d.read(v.ID, 1) != fill {
			t.Errorf("%s is %s, with %q in block 1 and %+v", d.name, d.state(v.ID), d.read(v.ID, 1), s.RestorePoints)
		}
	}
	untouched(desk, 'd')
	desk.stop()
	laptop.start()
	until(t, "the laptop to see both versions", func() bool { s, _ := laptop.vm("Work"); return s.Conflict != nil })
	laptop.choose(api.ResolveKeep, desk)
	until(t, "the laptop to stand still", func() bool { return laptop.state(v.ID) == baton.Ousted })
	untouched(laptop, 'l')
	desk.start()
	for _, d := range []*device{desk, laptop} {
		until(t, d.name+" to see both choices", func() bool {
			s, _ := d.vm("Work")
			return s.Conflict != nil && len(s.Conflict.Sides) == 2 && s.Conflict.Sides[0].Kind == string(directory.KindResolved) && s.Conflict.Sides[1].Kind == string(directory.KindResolved)
		})
	}
	// The one that is preferred goes on meanwhile.
	until(t, "each to be settled", func() bool {
		states := []baton.State{desk.state(v.ID), laptop.state(v.ID)}
		slices.Sort(states)
		return slices.Equal(states, []baton.State{baton.Ousted, baton.Owned})
	})
	untouched(desk, 'd')
	untouched(laptop, 'l')
	desk.choose(api.ResolveKeep, laptop)
	one(t, laptop, desk, v.ID)
	for _, d := range []*device{desk, laptop} {
		if got := d.read(v.ID, 1); got != 'l' {
			t.Errorf("%s has %q in block 1", d.name, got)
		}
	}
	if s, _ := desk.vm("Work"); len(s.RestorePoints) != 1 {
		t.Errorf("the desk keeps %+v", s.RestorePoints)
	}
}

// A device that was restored from a backup may give one term away twice. What can't be brought together is told.
func TestATermThatWasGivenTwice(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	third := newDevice(t, "third")
	pair(t, desk, third)
	linked(t, desk, laptop, third)
	self, pos := desk.engine.host.ID(), directory.Position(desk.engine.vm(v.ID).currentDisk().Info().Position)
	var given []directory.SignedTransfer
	for _, to := range []*device{third, laptop} {
		x, err := desk.engine.dir.NewTransfer(v.ID, to.engine.host.ID(), "attempt of "+to.name, pos, directory.KindSwitch)
		if err != nil {
			t.Fatal(err)
		}
		given = append(given, x)
	}
	for _, x := range given {
		if err := laptop.engine.dir.Apply(self, x.Record); err != nil && !errors.Is(err, directory.ErrFork) {
			t.Fatal(err)
		}
	}
	until(t, "the laptop to tell", func() bool {
		s, _ := laptop.vm("Work")
		return s.Problem != nil && strings.Contains(s.Problem.Sentence, "third and laptop both own Work") && strings.Contains(s.Problem.Next, "devices remove \"laptop\"")
	})
	until(t, "the event", func() bool {
		laptop.engine.hub.mu.Lock()
		defer laptop.engine.hub.mu.Unlock()
		return slices.ContainsFunc(laptop.engine.hub.kept, func(e api.Event) bool { return e.Kind == "vm.signed-twice" })
	})
}
