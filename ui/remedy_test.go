package ui

import (
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
)

// What an error says is to be done, the window has a button for, that can be pressed while it is read: the failure matrix of package switching
// takes the same steps.
func TestWhatIsToBeDoneHasAButton(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		vm        api.VM
		connected bool
		remedy    api.Remedy
		pressed   func(vmRow) button
		verb      verb
	}{
		"a switch came to nothing": {vm: api.VM{Owner: "you", State: api.VMRunning, Switch: &api.Switch{Phase: api.PhaseFailed, To: "me"}}, connected: true,
			remedy: api.RemedySwitch, pressed: func(r vmRow) button { return r.Switch }, verb: verbSwitch},
		"a switch came to nothing, where the VM stays": {vm: api.VM{Here: true, Owner: "me", State: api.VMRunning, Switch: &api.Switch{Phase: api.PhaseFailed, From: "me", To: "you"}}, connected: true,
			remedy: api.RemedySwitch, pressed: func(r vmRow) button { return r.Ways[0] }, verb: verbSend},
		"the memory was lost": {vm: api.VM{Here: true, Owner: "me", State: api.VMStopped},
			remedy: api.RemedyStart, pressed: func(r vmRow) button { return r.Main }, verb: verbStart},
		"a full disk stopped the guest": {vm: api.VM{Here: true, Owner: "me", State: api.VMPaused},
			remedy: api.RemedyResume, pressed: func(r vmRow) button { return r.Main }, verb: verbResume},
		"the taker is out of reach of a giver that has given": {vm: api.VM{Owner: "you", State: api.VMSwitching, Switch: &api.Switch{Phase: api.PhaseHandOff, To: "you"}},
			remedy: api.RemedyTake, pressed: func(r vmRow) button { return r.Take }, verb: verbTake},
		"the giver is out of reach of a taker that is ready": {vm: api.VM{Owner: "you", State: api.VMSwitching, Switch: &api.Switch{Phase: api.PhaseHandOff, To: "me"}},
			remedy: api.RemedyTake, pressed: func(r vmRow) button { return r.Take }, verb: verbTake},
	} {
		t.Run(name, func(t *testing.T) {
			vm := c.vm
			vm.ID, vm.Name, vm.Replicas = "v", "Work", []api.Replica{{Device: "me", State: api.ReplicaLive}}
			told := &api.Error{Code: api.CodeInternal, Sentence: "It is so.", Next: "Do it.", Remedy: c.remedy}
			if vm.Switch != nil && vm.Switch.Phase.Ended() {
				vm.Switch.Error = told
			} else {
				vm.Problem = told
			}
			st := &api.Status{Device: api.Device{ID: "me"}, Devices: []api.Device{{ID: "you", Name: "desk", Connected: c.connected}},
				VMs: []api.VM{vm}, Hypervisor: api.Hypervisor{Found: true}}
			r := newIndex(st, nil, true).vmRow(&st.VMs[0], now)
			if b := c.pressed(r); b.Act.Verb != c.verb || !b.Enabled || b.Label == "" {
				t.Errorf("the button is %+v", b)
			}
			if r.Problem == nil || r.Problem.Title == "" {
				t.Errorf("nothing is read: %+v", r.Problem)
			}
		})
	}
}

// The buttons do what they say.
func TestWhatIsToBeDoneIsDone(t *testing.T) {
	b := newBench(t)
	press := func(change func(*api.VM), label, asked string) {
		t.Helper()
		b.engine.say(func(st *api.Status) {
			vm := cloneStatus(sample(testNow)).VMs[0]
			change(&vm)
			st.VMs[0] = vm
		})
		b.up()
		b.tap(label)
		next(t, b.engine, asked)
		b.turn()
	}
	failed := func(vm *api.VM, to string) {
		vm.Switch = switching()
		vm.Switch.Phase, vm.Switch.To, vm.Switch.Error = api.PhaseFailed, to, &api.Error{Sentence: "No.", Next: "Again.", Remedy: api.RemedySwitch, Topic: api.TopicSwitchLinkLost}
	}
	mine := func(vm *api.VM, state api.VMState, remedy api.Remedy, topic api.Topic) {
		vm.Here, vm.Owner, vm.OwnerName, vm.State = true, "D", "Desk", state
		vm.Problem = &api.Error{Sentence: "So it is.", Next: "Do it.", Remedy: remedy, Topic: topic}
	}
	press(func(vm *api.VM) { failed(vm, "D") }, "Switch to this machine", `switch w to ""`)
	b.see("The connection was lost. Work stays on Laptop.", "Try again when the two devices see each other.")
	press(func(vm *api.VM) {
		mine(vm, api.VMRunning, "", "")
		vm.Problem = nil
		failed(vm, "L")
	}, "Send it again", `switch w to "L"`)
	press(func(vm *api.VM) { mine(vm, api.VMStopped, api.RemedyStart, api.TopicFell) }, "Start", "start w")
	b.see("Start it again.")
	press(func(vm *api.VM) { mine(vm, api.VMPaused, api.RemedyResume, api.TopicUnwritable) }, "Resume", "resume w")
	b.see("then press Resume.")
}
