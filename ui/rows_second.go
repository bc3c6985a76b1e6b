package ui

import "tagalong.org/tagalong/app/api"

// secondText says what becomes of the promise that what a VM saves is on two devices.
func secondText(s api.SecondState) string {
	switch s {
	case api.SecondWaiting:
		return t("second.waiting")
	case api.SecondAlone:
		return t("second.alone")
	case api.SecondOffline:
		return t("second.offline")
	case api.SecondFilling:
		return t("second.filling")
	case api.SecondUncopied:
		return t("second.uncopied")
	}
	return t("second.kept")
}

// second says what becomes of a VM's second copy. One that stands still for want of it has a way out as its button.
func (m *index) second(vm *api.VM, r *vmRow) {
	if vm.Second == nil || !vm.Here || vm.Conflict != nil {
		return
	}
	r.Replica = secondText(vm.Second.State)
	switch vm.Second.State {
	case api.SecondWaiting:
		r.Mood = moodBusy
	case api.SecondPaused:
		r.Problem = &message{Title: t("second.paused", "VM", vm.Name), Text: t("second.paused.text"), Trouble: true}
		r.Replica, r.Mood = "", moodTrouble
		if b, ok := m.syncButton(vm, r.Bar != nil); ok {
			r.Main = b
		}
	}
}

// syncButton changes for how many copies a VM's flushes wait; there is none where that can't be done, or makes no difference.
func (m *index) syncButton(vm *api.VM, moving bool) (button, bool) {
	if !vm.Here || moving || vm.Conflict != nil || len(m.st.Devices) == 0 && !vm.Spec.Two() {
		return button{}, false
	}
	b := button{Act: act{Verb: verbSync, ID: vm.ID, Sub: api.SyncTwo}, Label: t("button.sync-two"), Enabled: m.up && !m.asked[vm.ID]}
	if vm.Spec.Two() {
		b.Act.Sub, b.Label = api.SyncOne, t("button.sync-one")
	}
	return b, true
}
