package ui

import "tagalong.org/tagalong/app/api"

// unfitText says why a running VM can't come to this device.
func unfitText(code string) string {
	switch code {
	case "hypervisor":
		return t("unfit.hypervisor")
	case "hardware":
		return t("unfit.hardware")
	case "machine":
		return t("unfit.machine")
	case "firmware":
		return t("unfit.firmware")
	case "accelerator":
		return t("unfit.accelerator")
	case "cpu":
		return t("unfit.cpu")
	case "memory":
		return t("unfit.memory")
	}
	return t("unfit.other")
}

// unfit says of a VM elsewhere that it can't come here while it runs, before anybody asks for it.
func (m *index) unfit(vm *api.VM, r *vmRow) {
	if vm.Here || vm.Conflict != nil || vm.State != api.VMRunning || r.Bar != nil {
		return
	}
	for _, u := range vm.Unfit {
		if u.Device == m.st.Device.ID {
			r.Replica = t("unfit.here", "Why", unfitText(u.Code))
		}
	}
}
