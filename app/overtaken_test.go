package app

import (
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/vmdisk"
)

// TestAChoiceThatAHandOffOvertook: the laptop took the VM over, and gives it to the TV while the desk, which hears of the takeover from the NAS only, chooses the
// laptop's version. The desk gives up the numbers below its choice's so, which the TV's is; it follows the TV all the same.
func TestAChoiceThatAHandOffOvertook(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	nas, tv := newDevice(t, "nas"), newDevice(t, "tv")
	pair(t, laptop, nas)
	pair(t, laptop, tv)
	linked(t, desk, laptop, nas, tv)
	laptop.stop()
	nas.stop()
	tv.stop()
	desk.write(v.ID, 1, 'd')
	desk.stop()
	laptop.start()
	nas.start()
	tv.start()
	linked(t, laptop, nas, tv)
	until(t, "the VM to be known", func() bool { _, ok := laptop.vm("Work"); return ok })
	laptop.takeOver("Work")
	laptop.write(v.ID, 1, 'l')
	for _, d := range []*device{nas, tv} {
		until(t, d.name+" to have what the laptop wrote", func() bool {
			disk := d.engine.vm(v.ID).currentDisk()
			return disk != nil && disk.Info().Complete && d.read(v.ID, 1) == 'l'
		})
	}
	laptop.stop()
	tv.stop()

	desk.start()
	until(t, "the desk to see both versions", func() bool { s, _ := desk.vm("Work"); return s.Conflict != nil && len(s.Conflict.Sides) == 2 })
	desk.choose(api.ResolveKeep, laptop)
	chosen, _, _ := desk.engine.dir.Owner(v.ID)
	desk.stop()
	nas.stop()

	laptop.start()
	tv.start()
	linked(t, laptop, tv)
	if _, err := tv.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"}); err != nil {
		t.Fatal(err)
	}
	if s := tv.ended("Work"); s.Error != nil {
		t.Fatal(s.Error)
	}
	given, _, _ := tv.engine.dir.Owner(v.ID)
	if given >= chosen {
		t.Fatalf("the hand-off began term %d, and the choice %d", given, chosen)
	}
	laptop.stop()

	nas.start()
	desk.start()
	one(t, tv, desk, v.ID)
	term, _, _ := tv.engine.dir.Owner(v.ID)
	if info := tv.disk(v.ID).Info(); term <= chosen || info.Term != term || !info.Active {
		t.Errorf("the VM goes on under term %d, its disk under %d; %d was chosen", term, info.Term, chosen)
	}
	if s, _ := desk.vm("Work"); len(s.RestorePoints) != 1 || desk.read(v.ID, 1) != 'l' {
		t.Errorf("the desk has %q, and keeps %+v", desk.read(v.ID, 1), s.RestorePoints)
	}
	// The one that gave it hears of it all at last.
	laptop.start()
	until(t, "the laptop to follow", func() bool { return laptop.state(v.ID) == baton.Replica })
	tv.write(v.ID, 2, 't')
	until(t, "the TV's writes to come to all", func() bool {
		return !slices.ContainsFunc([]*device{desk, laptop, nas}, func(d *device) bool { return d.read(v.ID, 2) != 't' })
	})
}

// TestALostCopyComesAgain: a device of another site that has no copy any more, as after setting aside one that wasn't whole, says so; the VM needn't be
// written for it to get one.
func TestALostCopyComesAgain(t *testing.T) {
	all := fleetOf(t, map[string][]string{"home": {"desk"}, "office": {"laptop"}})
	desk, laptop := all["desk"], all["laptop"]
	v := desk.create("Work")
	desk.scatter(v.ID, rand.New(rand.NewPCG(4, 4)), 1, 2, 3)
	desk.sameAs(v.ID, laptop)
	here := laptop.engine.host.ID()
	until(t, "the fleet to be told of the copy", func() bool { return laptop.engine.dir.Replicas(v.ID)[here].Complete })

	there := laptop.engine.vm(v.ID)
	if _, err := there.letGoOfDisk(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(there.diskDir()); err != nil {
		t.Fatal(err)
	}
	until(t, "the laptop to have a whole copy again", func() bool {
		disk := there.currentDisk()
		return disk != nil && disk.Info().Complete
	})
	desk.sameAs(v.ID, laptop)
	until(t, "the fleet to be told of that copy", func() bool {
		r := laptop.engine.dir.Replicas(v.ID)[here]
		return r.Complete && vmdisk.Position(r.Position) == there.currentDisk().Position()
	})
}
