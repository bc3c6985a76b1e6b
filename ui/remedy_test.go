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
