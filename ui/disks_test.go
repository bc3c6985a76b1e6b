package ui

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"tagalong.org/tagalong/app/api"
)

// disksOf gives the sample's Work two disks, on this device, shut down.
func disksOf(st *api.Status) {
	here(st)
	w := &st.VMs[0]
	w.State = api.VMStopped
	table := `{"version":1,"volumes":[{"id":"disk1","kind":"disk","extents":[{"at":0,"bytes":42949672960}]},{"id":"disk2","kind":"disk","name":"data","extents":[{"at":42949672960,"bytes":107374182400}]}]}`
	if err := json.Unmarshal([]byte(table), &w.Spec.Volumes); err != nil {
		panic(err)
	}
}

func TestDisksOfAVM(t *testing.T) {
	st := sample(testNow)
	disksOf(st)
	row := func() diskSet { return newIndex(st, nil, true).vmRow(&st.VMs[0], testNow).Disks }
	s := row()
	if len(s.Disks) != 2 || s.Why != "" || !s.Add.Enabled || s.Disks[0].Title != "disk1 · 40 GiB" || !s.Disks[0].First || s.Disks[0].Remove.Label != "" || !s.Disks[1].Remove.Enabled {
		t.Fatalf("%+v", s)
	}
	for state, why := range map[api.VMState]string{api.VMRunning: "shut down", api.VMSuspended: "resumed", api.VMStarting: "shut down"} {
		st.VMs[0].State = state
		if s := row(); !strings.Contains(s.Why, why) || s.Add.Enabled || s.Disks[0].Grow.Enabled || s.Disks[1].Remove.Enabled {
			t.Errorf("%s: %+v", state, s)
		}
	}
	st.VMs[0].State, st.VMs[0].Here, st.VMs[0].OwnerName = api.VMStopped, false, "Laptop"
	if s := row(); !strings.Contains(s.Why, "Laptop") || s.Add.Enabled {
		t.Errorf("elsewhere: %+v", s)
	}
}

func TestTheDisksDialog(t *testing.T) {
	b := newBench(t)
	b.engine.say(disksOf)
	b.up()
	b.do(act{Verb: verbDisks, ID: "w"})
	if text := b.shownText(); !strings.Contains(text, "Disks of Work") || !strings.Contains(text, "Add a disk") || b.disks == nil {
		t.Fatalf("shown:\n%s", text)
	}
	b.do(act{Verb: verbAddDisk, ID: "w"})
	b.tap("Add")
	b.turn()
	b.do(act{Verb: verbGrowDisk, ID: "w", Sub: "disk2"})
	b.tap("Make larger")
	b.turn()
	b.do(act{Verb: verbRemoveDisk, ID: "w", Sub: "disk2"})
	if text := b.shownText(); !strings.Contains(text, "Delete the disk data of Work?") || !strings.Contains(text, "100 GiB") {
		t.Errorf("shown:\n%s", text)
	}
	b.tap("Delete")
	b.turn()
	want := []string{"add-disk w 21474836480", "grow-disk w disk2 161061273600", "remove-disk w disk2"}
	if got := b.engine.requests(); !slices.Equal(got, want) {
		t.Errorf("asked for %q", got)
	}
	b.engine.say(running)
	b.up()
	if text := b.shownText(); !strings.Contains(text, "only be changed while it is shut down") {
		t.Errorf("it runs, and shown is:\n%s", text)
	}
	b.engine.say(func(st *api.Status) { st.VMs = nil })
	b.up()
	if b.disks != nil {
		t.Error("the dialog is open, and the VM is gone")
	}
}
