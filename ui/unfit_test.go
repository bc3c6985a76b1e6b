package ui

import (
	"strings"
	"testing"

	"tagalong.org/tagalong/app/api"
)

func TestAVMThatCantComeWhileItRuns(t *testing.T) {
	codes := []string{"hypervisor", "hardware", "machine", "firmware", "accelerator", "cpu", "memory", "something-new"}
	said := map[string]bool{}
	for _, code := range codes {
		row := func(change func(vm *api.VM)) vmRow {
			v := viewWith(func(s *state) {
				vm := &s.Status.VMs[0]
				vm.Here, vm.State, vm.Switch, vm.Conflict = false, api.VMRunning, nil, nil
				vm.Owner, vm.OwnerName = s.Status.Devices[1].ID, s.Status.Devices[1].Name
				vm.Unfit = []api.Unfit{{Device: "somebody-else", Code: code}, {Device: s.Status.Device.ID, Code: code}}
				change(vm)
			})
			return v.VMs[0]
		}
		r := row(func(*api.VM) {})
		if !strings.HasPrefix(r.Replica, "It can only come here shut down") || said[r.Replica] || strings.Contains(r.Replica, "unfit.") {
			t.Errorf("%s: %q", code, r.Replica)
		}
		said[r.Replica] = true
		for what, other := range map[string]vmRow{
			"stopped":   row(func(vm *api.VM) { vm.State = api.VMStopped }),
			"here":      row(func(vm *api.VM) { vm.Here = true }),
			"of others": row(func(vm *api.VM) { vm.Unfit = vm.Unfit[:1] }),
		} {
			if strings.HasPrefix(other.Replica, "It can only come here shut down") {
				t.Errorf("%s, %s: %q", code, what, other.Replica)
			}
		}
	}
}
