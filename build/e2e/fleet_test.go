//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/build/guest/console"
	"tagalong.org/tagalong/build/lab"
	"tagalong.org/tagalong/build/story"
)

const (
	work                     = story.VMName
	desk, laptop, nas string = "desk", "laptop", "nas"
	// few is how many durable records a guest writes before something happens to it.
	few = 40
)

// fleet makes the person's three PCs: the laptop is paired with both others, which come to know each other through it.
func fleet(t *testing.T) (context.Context, *story.Fleet) {
	t.Helper()
	return fleetOf(t, desk, laptop, nas)
}

// fleetOf makes PCs of which each is paired with the one before.
func fleetOf(t *testing.T, names ...string) (context.Context, *story.Fleet) {
	t.Helper()
	return fleetAt(t, lab.WAN{}, lab.Site{Name: "lan", Hosts: names})
}

// fleetAt is fleetOf at several sites.
func fleetAt(t *testing.T, wan lab.WAN, sites ...lab.Site) (context.Context, *story.Fleet) {
	t.Helper()
	return fleetWith(t, story.Options{Binary: built.binary, WAN: wan, Sites: sites})
}

func fleetWith(t *testing.T, o story.Options) (context.Context, *story.Fleet) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	t.Cleanup(cancel)
	o.Image, o.Dir, o.Out = built.image, t.TempDir(), t.Output()
	// Two guests run at once here, on processors that are emulated.
	o.Rate = console.Rate{Records: 20, Fsync: 4, Mem: 1, Set: 16}
	f, err := story.BeginFleet(ctx, o)
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(f.LastWords())
		}
	})
	must(t, err)
	return ctx, f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// booted starts the VM and fails if its guest finds anything wrong, or lacks what is known to be durable.
func booted(ctx context.Context, t *testing.T, f *story.Fleet, on, vm string, durable uint64) *console.Console {
	t.Helper()
	c, boot, err := f.Boot(ctx, on, vm)
	must(t, err)
	if boot.Lost != 0 || boot.Bad != 0 || boot.Last < durable {
		t.Fatalf("%s has booted on %s with %+v, but record %d was durable", vm, on, boot, durable)
	}
	return c
}

func wrote(ctx context.Context, t *testing.T, f *story.Fleet, c *console.Console) uint64 {
	t.Helper()
	durable, err := f.Write(ctx, c, few)
	must(t, err)
	return durable
}

// level waits until all copies have what the guest has made durable by now, and returns the number of that record.
func level(ctx context.Context, t *testing.T, f *story.Fleet, owner string, c *console.Console) uint64 {
	t.Helper()
	durable, err := c.Sync(ctx)
	must(t, err)
	v, err := f.PC(owner).VM(ctx, work)
	must(t, err)
	at := v.Position
	_, err = f.UntilVM(ctx, f.PC(owner), work, "all copies at what is durable", func(v api.VM) bool {
		return len(v.Replicas) == 2 && !slices.ContainsFunc(v.Replicas, func(r api.Replica) bool { return before(r.Position, at) })
	})
	must(t, err)
	return durable
}

func before(p, q api.Position) bool {
	return p.Term < q.Term || p.Term == q.Term && p.Barrier < q.Barrier
}

// takeOver reads what a takeover may lose, and takes the VM over.
func takeOver(ctx context.Context, t *testing.T, f *story.Fleet, on string) *api.Takeover {
	t.Helper()
	preview, err := f.PC(on).Client.Takeover(ctx, work)
	must(t, err)
	f.Say("before %s takes over it reads: %+v", on, *preview)
	must(t, f.PC(on).Client.TakeOver(ctx, api.TakeOverVM{VM: work, Token: preview.Token}))
	_, err = f.UntilVM(ctx, f.PC(on), work, "taken over", func(v api.VM) bool { return v.Here && v.State == api.VMStopped })
	must(t, err)
	return preview
}

// TestTakenOver loses the owner of a stopped VM. Another PC takes it over knowing that nothing is missing, and when the owner is
// back it follows by itself, though engines are killed.
func TestTakenOver(t *testing.T) {
	t.Parallel()
	ctx, f := fleet(t)
	must(t, f.Make(ctx, desk, work))
	wrote(ctx, t, f, booted(ctx, t, f, desk, work, 0))
	must(t, f.AwaitLive(ctx, desk, work, 2))
	last, err := f.Stop(ctx, desk, work)
	must(t, err)
	// The owner's last word must have come: that it stopped, and that nobody lacks anything.
	_, err = f.UntilVM(ctx, f.PC(laptop), work, "known as stopped and level", func(v api.VM) bool {
		return v.State == api.VMStopped && len(v.Replicas) == 2 &&
			!slices.ContainsFunc(v.Replicas, func(r api.Replica) bool { return r.State != api.ReplicaLive || r.Remaining != 0 })
	})
	must(t, err)

	if _, err := f.PC(laptop).Client.Takeover(ctx, work); err == nil {
		p, _ := f.PC(laptop).Client.Takeover(ctx, work)
		if err := f.PC(laptop).Client.TakeOver(ctx, api.TakeOverVM{VM: work, Token: p.Token}); err == nil {
			t.Fatal("a VM was taken from an owner that is there")
		}
	}
	must(t, f.Cut(ctx, desk))
	if err := f.PC(laptop).Client.TakeOver(ctx, api.TakeOverVM{VM: work, Token: "made up"}); !errors.Is(err, &api.Error{Code: api.CodeConflict}) {
		t.Fatalf("a takeover of what nobody has read: %v", err)
	}
	preview := takeOver(ctx, t, f, laptop)
	if preview.Connected || preview.Missing == nil || *preview.Missing != 0 || !preview.Certain || preview.Seen.IsZero() {
		t.Errorf("nothing was missing, and it read %+v", preview)
	}
	c := booted(ctx, t, f, laptop, work, last)
	wrote(ctx, t, f, c)
	must(t, f.AwaitLive(ctx, laptop, work, 1))

	must(t, f.Heal(ctx, desk))
	must(t, f.Kill(ctx, desk))
	must(t, f.Kill(ctx, laptop))
	must(t, f.AwaitLive(ctx, laptop, work, 2))
	for _, p := range f.PCs {
		_, err := f.UntilVM(ctx, p, work, "on the laptop, without a conflict", func(v api.VM) bool {
			return v.OwnerName == laptop && v.Conflict == nil && v.Here == (p.Name == laptop) && len(v.RestorePoints) == 0
		})
		must(t, err)
	}
	entries, err := f.PC(nas).Client.History(ctx, work)
	must(t, err)
	if n := len(entries); n != 2 || entries[1].Kind != "takeover" || entries[1].OwnerName != laptop || entries[1].FromName != desk || entries[1].Lost {
		t.Errorf("the history is %+v", entries)
	}
	c, err = f.Listen(ctx, laptop, work)
	must(t, err)
	wrote(ctx, t, f, c)
	_, err = f.Stop(ctx, laptop, work)
	must(t, err)
	same(ctx, t, f, laptop)
}

// same waits until all copies are level and compares them byte by byte. The engines have ended then.
func same(ctx context.Context, t *testing.T, f *story.Fleet, owner string) {
	t.Helper()
	_, err := f.UntilVM(ctx, f.PC(owner), work, "all copies level", func(v api.VM) bool {
		return len(v.Replicas) == 2 && !slices.ContainsFunc(v.Replicas, func(r api.Replica) bool {
			return r.State != api.ReplicaLive || r.Remaining != 0 || r.Position != v.Position
		})
	})
	must(t, err)
	n, err := f.SameDisks(ctx, work, desk, laptop, nas)
	must(t, err)
	f.Say("the three disks are the same, %d bytes", n)
}

// fork lets a running VM's owner lose its cable, and another PC take over. Both guests write on; then the cable is plugged in
// again. It returns the console of either guest and the last records that were durable in each.
func fork(ctx context.Context, t *testing.T, f *story.Fleet, owner, taker string, old *console.Console) (taken *console.Console, theirs, ours uint64) {
	t.Helper()
	must(t, f.AwaitLive(ctx, owner, work, 2))
	common := level(ctx, t, f, owner, old)
	must(t, f.Cut(ctx, owner))
	theirs = wrote(ctx, t, f, old)
	preview := takeOver(ctx, t, f, taker)
	if preview.Certain || len(preview.Warnings) == 0 {
		t.Errorf("the owner runs on, and %s read %+v", taker, preview)
	}
	taken = booted(ctx, t, f, taker, work, common)
	ours = wrote(ctx, t, f, taken)
	must(t, f.Kill(ctx, taker))
	must(t, f.Heal(ctx, owner))
	for _, p := range f.PCs {
		_, err := f.UntilVM(ctx, p, work, "a conflict", func(v api.VM) bool {
			switch {
			case v.Conflict == nil || len(v.Conflict.Sides) != 2:
				return false
			case p.Name == owner:
				// It is the new owner's guest that the VM's own state tells of.
				return slices.ContainsFunc(v.Conflict.Sides, func(s api.ConflictSide) bool { return s.Here && s.State == api.VMPaused })
			case p.Name == taker:
				return v.State == api.VMRunning && v.Here
			}
			return true
		})
		must(t, err)
	}
	if err := f.PC(taker).Client.SuspendVM(ctx, work); err == nil {
		t.Error("a VM with two histories could be suspended")
	}
	f.Say("two histories: %s has written record %d, %s record %d; %s's guest waits", owner, theirs, taker, ours, owner)
	// Listening again, since the engine was killed: the hypervisor wasn't.
	return taken, theirs, ours
}

// branch is the side of a conflict that a PC has.
func branch(ctx context.Context, t *testing.T, f *story.Fleet, asked, owner string) string {
	t.Helper()
	v, err := f.PC(asked).VM(ctx, work)
	must(t, err)
	if v.Conflict == nil {
		t.Fatalf("no conflict on %s", asked)
	}
	i := slices.IndexFunc(v.Conflict.Sides, func(s api.ConflictSide) bool { return s.OwnerName == owner })
	if i < 0 {
		t.Fatalf("%s has no side in %+v", owner, v.Conflict)
	}
	return v.Conflict.Sides[i].Branch
}

// TestTwoHistories makes conflicts, and takes the ways out of them, with engines killed while the choice is carried out.
func TestTwoHistories(t *testing.T) {
	t.Parallel()
	ctx, f := fleet(t)
	must(t, f.Make(ctx, desk, work))
	c := booted(ctx, t, f, desk, work, 0)
	wrote(ctx, t, f, c)

	// The first choice, made where the losing side is: go on with the laptop's.
	onLaptop, theirs, ours := fork(ctx, t, f, desk, laptop, c)
	_, err := f.PC(desk).Client.Resolve(ctx, api.ResolveConflict{VM: work, How: api.ResolveKeep, Keep: branch(ctx, t, f, desk, laptop)})
	must(t, err)
	must(t, f.Kill(ctx, desk))
	lost, err := f.UntilVM(ctx, f.PC(desk), work, "a copy again, with a restore point", func(v api.VM) bool {
		return v.Conflict == nil && !v.Here && v.OwnerName == laptop && len(v.RestorePoints) == 1
	})
	must(t, err)
	must(t, f.AwaitLive(ctx, laptop, work, 2))
	if now := wrote(ctx, t, f, onLaptop); now <= ours {
		t.Errorf("the guest that was kept went back from %d to %d", ours, now)
	}
	if last := restorePoint(ctx, t, f, desk, lost.RestorePoints[0]); last < theirs {
		t.Errorf("the restore point ends with record %d; %d was durable in what it is of", last, theirs)
	}
	must(t, f.PC(desk).Client.DeleteRestorePoint(ctx, api.RestorePointRef{VM: work, ID: lost.RestorePoints[0].ID}))

	// The second, made where the winning side isn't: go on with what waits on the laptop, its memory included.
	_, theirs, _ = fork(ctx, t, f, laptop, desk, onLaptop)
	_, err = f.PC(desk).Client.Resolve(ctx, api.ResolveConflict{VM: work, How: api.ResolveKeep, Keep: branch(ctx, t, f, desk, laptop)})
	must(t, err)
	must(t, f.Kill(ctx, laptop))
	_, err = f.UntilVM(ctx, f.PC(laptop), work, "running on", func(v api.VM) bool { return v.Here && v.State == api.VMRunning && v.Conflict == nil })
	must(t, err)
	if now := wrote(ctx, t, f, onLaptop); now <= theirs {
		t.Errorf("the guest that waited went back from %d to %d", theirs, now)
	}
	must(t, f.AwaitLive(ctx, laptop, work, 2))

	// The third: both. Each side is a VM of its own afterwards, and boots.
	onDesk, theirs, ours := fork(ctx, t, f, laptop, desk, onLaptop)
	const other = "Work, the laptop's"
	job, err := f.PC(desk).Client.Resolve(ctx, api.ResolveConflict{VM: work, How: api.ResolveBoth, Keep: branch(ctx, t, f, desk, desk), Name: other})
	must(t, err)
	must(t, f.AwaitJob(ctx, desk, job))
	for _, p := range f.PCs {
		_, err := f.UntilVM(ctx, p, other, "a VM of its own", func(v api.VM) bool { return v.OwnerName == laptop && v.Conflict == nil })
		must(t, err)
		_, err = f.UntilVM(ctx, p, work, "without a conflict", func(v api.VM) bool { return v.OwnerName == desk && v.Conflict == nil })
		must(t, err)
	}
	if now := wrote(ctx, t, f, onDesk); now <= ours {
		t.Errorf("the guest that was kept went back from %d to %d", ours, now)
	}
	wrote(ctx, t, f, booted(ctx, t, f, laptop, other, theirs))
	_, err = f.Stop(ctx, laptop, other)
	must(t, err)
	_, err = f.Stop(ctx, desk, work)
	must(t, err)
	same(ctx, t, f, desk)
}

// restorePoint exports a restore point and looks into it as the next boot would: it returns its last record.
func restorePoint(ctx context.Context, t *testing.T, f *story.Fleet, on string, p api.RestorePoint) uint64 {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kept.raw")
	defer os.Remove(file)
	dir := filepath.Join(f.PC(on).Data, "vms", p.VM, "kept", p.ID, "disk")
	if _, err := f.PC(on).Run(ctx, "disk", "export", dir, file); err != nil {
		t.Fatal(err)
	}
	last, err := story.CheckImage(ctx, file)
	must(t, err)
	if last == 0 {
		t.Errorf("the restore point on %s has no record", on)
	}
	f.Say("the restore point on %s is a whole disk and ends with record %d", on, last)
	return last
}

// TestJourney takes the VM along, and back; then a PC is stolen.
func TestJourney(t *testing.T) {
	t.Parallel()
	ctx, f := fleet(t)
	must(t, f.Make(ctx, desk, work))
	c := booted(ctx, t, f, desk, work, 0)
	must(t, f.AwaitLive(ctx, desk, work, 2))
	wrote(ctx, t, f, c)
	listening := make(chan *console.Console, 1)
	job, err := f.PC(laptop).Client.GoOffline(ctx, api.GoOffline{})
	must(t, err)
	go func() {
		// The line is there as soon as the taker's hypervisor is; nobody must miss what is said first.
		c, err := f.Listen(ctx, laptop, work)
		if err != nil {
			t.Error(err)
		}
		listening <- c
	}()
	must(t, f.AwaitJob(ctx, laptop, job))
	along := <-listening
	if along == nil {
		t.FailNow()
	}
	must(t, f.Until(ctx, f.PC(laptop), "the journey", func(s *api.Status) (bool, error) {
		return s.Offline.On && len(s.Offline.VMs) == 1 && s.Offline.VMs[0].Taken, fmt.Errorf("%+v", s.Offline)
	}))
	for _, name := range []string{desk, nas} {
		_, err := f.UntilVM(ctx, f.PC(name), work, "known to be on a journey", func(v api.VM) bool { return v.Offline && v.OwnerName == laptop })
		must(t, err)
	}
	must(t, f.Cut(ctx, laptop))
	away := wrote(ctx, t, f, along)
	if err := f.PC(desk).Client.StartVM(ctx, work); err == nil {
		t.Fatal("the VM that is on a journey could be started at home")
	}
	preview, err := f.PC(desk).Client.Takeover(ctx, work)
	must(t, err)
	if !preview.Offline || preview.Since.IsZero() {
		t.Errorf("who would take over doesn't read that it is on a journey: %+v", preview)
	}
	must(t, f.Kill(ctx, laptop))
	must(t, f.Heal(ctx, laptop))
	must(t, f.PC(laptop).Client.GoOnline(ctx))
	must(t, f.AwaitLive(ctx, laptop, work, 2))
	if now := wrote(ctx, t, f, along); now <= away {
		t.Errorf("the guest went back from %d to %d", away, now)
	}
	_, err = f.UntilVM(ctx, f.PC(nas), work, "back from the journey", func(v api.VM) bool { return !v.Offline })
	must(t, err)

	// The NAS is stolen. It learns of its removal from whoever it meets next, and deletes what it has.
	must(t, f.Cut(ctx, nas))
	must(t, f.PC(desk).Client.RemoveDevice(ctx, api.RemoveDevice{Device: nas, Wipe: true}))
	must(t, f.Heal(ctx, nas))
	must(t, f.Until(ctx, f.PC(nas), "nothing left", func(s *api.Status) (bool, error) {
		left, err := os.ReadDir(filepath.Join(f.PC(nas).Data, "vms"))
		return (err == nil || os.IsNotExist(err)) && len(left) == 0 && len(s.VMs) == 0 && len(s.Devices) == 0, fmt.Errorf("%d VMs, %d devices, %v", len(left), len(s.Devices), err)
	}))
	for _, name := range []string{desk, laptop} {
		must(t, f.Until(ctx, f.PC(name), "the NAS gone for good", func(s *api.Status) (bool, error) {
			return !slices.ContainsFunc(s.Devices, func(d api.Device) bool { return d.Name == nas }), nil
		}))
	}
	wrote(ctx, t, f, along)
	_, err = f.Stop(ctx, laptop, work)
	must(t, err)
}
