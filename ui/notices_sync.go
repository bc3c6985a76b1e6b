package ui

import (
	"strings"

	"tagalong.org/tagalong/app/api"
)

// syncNote says news of a sync that takes long; false of a kind that this program doesn't know.
func syncNote(n *api.SyncNews) (note, bool) {
	vms := make([]string, len(n.VMs))
	for i, vm := range n.VMs {
		vms[i] = vm.Name
	}
	many, what, left := len(vms), list(vms), syncLeft(n)
	device := n.DeviceName
	if n.Self {
		device = t("notice.sync.self")
	}
	switch {
	case n.Kind == api.SyncStay:
		text := t("notice.stay.text")
		if n.Remaining > 0 {
			text = t("notice.stay.left", "Left", syncLeft(n))
		}
		return note{t("notice.stay.title", "VMs", what, "Device", device), text}, true
	case n.Kind == api.SyncLeave && n.Remaining > 0:
		return note{t("notice.leave.title", "VMs", what, "Device", device), t("notice.leave.others")}, true
	case n.Kind == api.SyncLeave && n.Hydration:
		return note{t("notice.leave.elsewhere", "VMs", what, "Device", device), t("notice.leave.text")}, true
	case n.Kind == api.SyncLeave:
		return note{t("notice.leave.title", "VMs", what, "Device", device), t("notice.leave.text")}, true
	case n.Kind == api.SyncWaits && len(n.From) > 0:
		return note{tn("notice.waits.title", many, "VMs", what, "Devices", list(n.From)), t("notice.waits.text", "Devices", list(n.From))}, true
	case n.Kind == api.SyncWaits:
		return note{tn("notice.waits.nobody", many, "VMs", what), t("notice.waits.nobody.text")}, true
	case n.Hydration && n.Kind == api.SyncBegun && len(n.From) > 0:
		return note{tn("notice.hydrating.title", many, "VMs", what), t("notice.hydrating.text", "Devices", list(n.From), "Left", left)}, true
	case n.Hydration && n.Kind == api.SyncBegun:
		return note{tn("notice.hydrating.title", many, "VMs", what), left}, true
	case n.Hydration && n.Kind == api.SyncHalf:
		return note{tn("notice.hydrating.half", many, "VMs", what), left}, true
	case n.Hydration && n.Kind == api.SyncDone:
		done := note{Title: tn("notice.hydrated.title", many, "VMs", what)}
		if len(n.From) > 0 {
			done.Text = t("notice.hydrated.text", "Devices", list(n.From))
		}
		return done, true
	case n.Kind == api.SyncBegun:
		return note{t("notice.sync.begun", "Device", device, "VMs", what), left}, true
	case n.Kind == api.SyncHalf:
		return note{t("notice.sync.half", "Device", device, "VMs", what), left}, true
	case n.Kind == api.SyncBehind:
		return note{t("notice.sync.behind", "Device", device, "VMs", what), t("notice.sync.behind.text", "Size", size(n.Remaining))}, true
	case n.Kind == api.SyncDone:
		done := note{Title: t("notice.sync.done", "Device", device, "VMs", what)}
		if n.Lag {
			done.Title = t("notice.sync.caught-up", "Device", device, "VMs", what)
		}
		if n.Remaining > 0 {
			done.Text = t("notice.sync.since")
		}
		return done, true
	}
	return note{}, false
}

// syncLeft is how much is left, and how long that takes, if that is known.
func syncLeft(n *api.SyncNews) string {
	if n.ETA > 0 {
		return t("notice.sync.left", "Size", size(n.Remaining), "Left", roughly(n.ETA))
	}
	return t("notice.sync.to-go", "Size", size(n.Remaining))
}

// listMax is how many names are listed.
const listMax = 3

// list names a few things in a sentence.
func list(names []string) string {
	switch n := len(names); {
	case n < 2:
		return strings.Join(names, "")
	case n > listMax:
		return tn("list.more", n-listMax+1, "Names", strings.Join(names[:listMax-1], ", "))
	default:
		return t("list.and", "Names", strings.Join(names[:n-1], ", "), "Last", names[n-1])
	}
}
