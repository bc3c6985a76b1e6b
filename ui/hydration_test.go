package ui

import (
	"strings"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
)

// While the rest of a VM's memory comes, both sides read who mustn't leave, and one that can't be reached is trouble.
func TestARestOfMemoryThatComes(t *testing.T) {
	now := time.Now()
	vm := api.VM{ID: "v", Name: "Work", Here: true, Owner: "me", State: api.VMRunning, Trailing: &api.Trailing{From: "you", FromName: "desk", Remaining: 40 << 20, Rate: 1 << 20}}
	row := func() vmRow {
		st := &api.Status{Device: api.Device{ID: "me", Name: "laptop"}, Devices: []api.Device{{ID: "you", Name: "desk", Connected: true}}, VMs: []api.VM{vm}}
		return newIndex(st, nil, true).vmRow(&st.VMs[0], now)
	}
	r := row()
	if r.Bar == nil || !strings.Contains(r.Bar.Title, "desk") || !strings.Contains(r.Bar.Detail, "to go") || !strings.Contains(r.Replica, "Leave desk on") || r.Problem != nil {
		t.Errorf("%+v, %q, %+v", r.Bar, r.Replica, r.Problem)
	}
	vm.Trailing.Waiting = true
	if r = row(); r.Mood != moodTrouble || r.Problem == nil || !strings.Contains(r.Problem.Text, "desk") || r.Bar.Detail != "" {
		t.Errorf("%+v, %+v", r.Bar, r.Problem)
	}
	vm.Here, vm.Trailing, vm.Lending = false, nil, &api.Lending{To: "you", ToName: "desk", Needed: true, Memory: true}
	if r = row(); !strings.Contains(r.Replica, "leave this device on") {
		t.Errorf("%q", r.Replica)
	}
}

// While the rest of a disk comes, the window says from whom, how far it is, and who mustn't leave; and everything else can be done as ever.
func TestARestOfADiskThatComes(t *testing.T) {
	now := time.Now()
	desk := api.HydrationHolder{Device: "you", DeviceName: "desk", Connected: true, Needed: true}
	vm := api.VM{ID: "v", Name: "Work", Here: true, Owner: "me", State: api.VMRunning}
	row := func() vmRow {
		st := &api.Status{Device: api.Device{ID: "me", Name: "laptop"}, Devices: []api.Device{{ID: "you", Name: "desk", Connected: true}}, VMs: []api.VM{vm}}
		return newIndex(st, nil, true).vmRow(&st.VMs[0], now)
	}
	plain := row()
	if plain.Bar != nil {
		t.Fatalf("a whole disk has a bar: %+v", plain.Bar)
	}
	vm.Hydration = &api.Hydration{Total: 4 << 30, Remaining: 1 << 30, Rate: 100 << 20, ETA: 10 * time.Second, From: []api.HydrationHolder{desk}}
	r := row()
	if r.Bar == nil || r.Bar.Part != 0.75 || !strings.Contains(r.Bar.Title, "desk") || !strings.Contains(r.Bar.Detail, "10 s left") || r.Bar.Cancel.Label != "" {
		t.Errorf("%+v", r.Bar)
	}
	if r.Replica != "Leave desk on until all of the disk is here" || r.Mood != plain.Mood {
		t.Errorf("%q, mood %v", r.Replica, r.Mood)
	}
	if r.Main != plain.Main || r.Switch != plain.Switch || len(r.More) != len(plain.More) {
		t.Errorf("the buttons are others: %+v", r)
	}
	vm.Hydration.Paused = "This connection is metered."
	if r = row(); !strings.Contains(r.Bar.Title, "only as it is read. This connection") || strings.Contains(r.Bar.Detail, "left") || r.Mood != plain.Mood {
		t.Errorf("held back: %+v", r.Bar)
	}
	vm.Hydration.Paused = ""
	vm.Hydration.Waiting, vm.Hydration.From[0].Connected = true, false
	offered := func(r vmRow, where button) bool {
		return where.Act == act{Verb: verbRollback, ID: "v"} && where.Enabled && r.Mood == moodTrouble && r.Problem != nil
	}
	if r = row(); !offered(r, r.Take) || !strings.Contains(r.Problem.Text, "Switch on or connect desk,") || strings.Contains(r.Bar.Detail, "left") || strings.Contains(r.Problem.Title, "Work waits") {
		t.Errorf("nobody is there: %+v, %+v", r.Problem, r.Bar)
	}
	vm.Hydration.Reads = 1
	if r = row(); !offered(r, r.Take) || !strings.Contains(r.Problem.Title, "Work waits") {
		t.Errorf("its guest reads it: %+v", r.Problem)
	}
	vm.Hydration.From = append(vm.Hydration.From, api.HydrationHolder{Device: "it", DeviceName: "tower", Helps: true})
	if r = row(); !strings.Contains(r.Problem.Text, "Switch on or connect tower,") {
		t.Errorf("another one has it: %+v", r.Problem)
	}
	vm.Hydration.From = nil
	if r = row(); !offered(r, r.Take) || !strings.Contains(r.Problem.Text, "No device that can be reached") {
		t.Errorf("nobody is known: %+v", r.Problem)
	}
	vm.State = api.VMStopped
	if r = row(); r.Main.Act.Verb != verbStart || !offered(r, r.Take) {
		t.Errorf("it can't be started, or not rolled back: %+v, %+v", r.Main, r.Take)
	}
	vm.Problem = &api.Error{Sentence: "Something else."}
	if r = row(); r.Problem.Title != "Something else." || !strings.Contains(r.Replica, "waits") {
		t.Errorf("two troubles: %+v, %q", r.Problem, r.Replica)
	}
	vm.State, vm.Problem = api.VMRunning, nil
	vm.Hydration, vm.Here, vm.Owner, vm.Lending = nil, false, "you", &api.Lending{To: "you", ToName: "desk"}
	if r = row(); !strings.Contains(r.Replica, "leave this device on") || r.Bar != nil {
		t.Errorf("it is read here: %q", r.Replica)
	}
	vm.Lending.Remaining = 300 << 20
	if r = row(); !strings.Contains(r.Replica, "others have it too") {
		t.Errorf("it is read here and elsewhere: %q", r.Replica)
	}
	vm.Lending.Needed = true
	if r = row(); r.Replica != "desk still needs 300 MiB of its disk from here: leave this device on" {
		t.Errorf("it is needed: %q", r.Replica)
	}
	vm.Lending.Silent = true
	if r = row(); !strings.Contains(r.Replica, "can't be heard") || !strings.Contains(r.Replica, "leave this device on") {
		t.Errorf("it is needed by who can't be heard: %q", r.Replica)
	}
}
