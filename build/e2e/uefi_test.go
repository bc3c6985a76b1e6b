//go:build linux

package e2e

import (
	"maps"
	"testing"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/build/guest/console"
)

// TestAnUEFIWithSeveralDisks has a VM of several processors and disks that an UEFI starts. What the guest has its firmware keep before a
// switch is there after it, after a suspension that ends on the other PC, and when it is started anew there. The disks grow between two starts. The guest writes
// all three throughout, and finds on each what it has written.
func TestAnUEFIWithSeveralDisks(t *testing.T) {
	t.Parallel()
	ctx, f := fleetOf(t, desk, laptop)
	here, there := f.PC(desk), f.PC(laptop)
	job, err := here.Client.CreateVM(ctx, api.CreateVM{Name: work, CPUs: 4, MemoryMiB: 320, Image: built.image, Format: "raw", Firmware: api.FirmwareUEFI,
		Disks: []api.NewDisk{{Name: "data", Bytes: 64 << 20}, {Name: "more", Bytes: 3 << 30}}})
	must(t, err)
	must(t, f.AwaitJob(ctx, desk, job))
	_, err = f.UntilVM(ctx, there, work, "known", func(api.VM) bool { return true })
	must(t, err)
	// What the guest's further disks had when it was asked last.
	further := console.Disks{}
	// writing waits until it has written more on each, and has all of them durable.
	writing := func(c *console.Console) {
		t.Helper()
		for before := maps.Clone(further); ; {
			now, err := c.SyncDisks(ctx)
			must(t, err)
			more := len(now) == 2
			for disk, last := range now {
				if last < further[disk] {
					t.Fatalf("%s: its disks end with the records %v, after %v were durable", c.Name(), now, further)
				}
				more = more && last > before[disk]
			}
			if further = now; more {
				t.Logf("%s: its further disks have the records %v", c.Name(), now)
				return
			}
		}
	}
	// writes has a guest that was just started write all its disks: what was durable must be there.
	writes := func(c *console.Console) {
		t.Helper()
		found, lost, bad, err := c.WriteDisks(ctx)
		must(t, err)
		if len(found) != 2 || lost+bad != 0 {
			t.Fatalf("%s: it found %v on its further disks, %d records lost and %d bad", c.Name(), found, lost, bad)
		}
		for disk, last := range further {
			if found[disk] < last {
				t.Fatalf("%s: its disks end with the records %v, after %v were durable", c.Name(), found, further)
			}
		}
		must(t, c.SetRate(ctx, console.Rate{Records: 100, Fsync: 8, Mem: 1, Set: 16}))
		writing(c)
	}
	keeps := func(on, word string) {
		t.Helper()
		c, err := f.Listen(ctx, on, work)
		must(t, err)
		_, err = c.Command(ctx, "efi", "OK efi "+word)
		must(t, err)
		writing(c)
		wrote(ctx, t, f, c)
	}
	moved := func(to string, state api.VMState) {
		t.Helper()
		_, err := f.PC(to).Client.Switch(ctx, api.SwitchVM{VM: work})
		must(t, err)
		v, err := f.UntilVM(ctx, f.PC(to), work, "switched, and "+string(state), func(v api.VM) bool {
			return v.Switch != nil && v.Switch.Phase.Ended() && (v.Switch.Phase != api.PhaseDone || v.Here && v.State == state)
		})
		must(t, err)
		if v.Switch.Phase != api.PhaseDone {
			t.Fatalf("the switch to %s ended as %s: %v", to, v.Switch.Phase, v.Switch.Error)
		}
		t.Logf("switched to %s, %s: it stood still for %v", to, state, v.Switch.Pause)
	}

	c := booted(ctx, t, f, desk, work, 0)
	_, err = c.Command(ctx, "efi north", "OK efi")
	must(t, err)
	writes(c)
	wrote(ctx, t, f, c)
	must(t, f.AwaitLive(ctx, desk, work, 1))
	writing(c)
	moved(laptop, api.VMRunning)
	keeps(laptop, "north")
	c, err = f.Listen(ctx, laptop, work)
	must(t, err)
	_, err = c.Command(ctx, "efi south", "OK efi")
	must(t, err)

	must(t, f.AwaitLive(ctx, laptop, work, 1))
	must(t, there.Client.SuspendVM(ctx, work))
	moved(desk, api.VMSuspended)
	must(t, here.Client.ResumeVM(ctx, work))
	keeps(desk, "south")

	durable, err := f.Stop(ctx, desk, work)
	must(t, err)
	must(t, here.Client.GrowDisk(ctx, api.GrowDisk{VM: work, Disk: "data", Bytes: 128 << 20}))
	must(t, f.AwaitLive(ctx, desk, work, 1))
	moved(laptop, api.VMStopped)
	writes(booted(ctx, t, f, laptop, work, durable))
	keeps(laptop, "south")
	_, err = f.Stop(ctx, laptop, work)
	must(t, err)
}
