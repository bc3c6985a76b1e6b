package ui

import (
	"maps"
	"slices"

	"tagalong.org/tagalong/app/api"
)

// note is a notification on the desktop.
type note struct{ Title, Text string }

// notices tell what became of this device's VMs and of the fleet between two statuses. Before the first status there is nothing to compare
// with: old news isn't told again at every start.
func notices(before, after *api.Status) []note {
	if before == nil || after == nil {
		return nil
	}
	var notes []note
	for i := range after.VMs {
		for j := range before.VMs {
			if before.VMs[j].ID == after.VMs[i].ID {
				notes = append(notes, vmNotices(&before.VMs[j], &after.VMs[i], after.Device.ID)...)
			}
		}
	}
	if !before.Offline.On && after.Offline.On {
		notes = append(notes, note{t("notice.offline.title"), t("notice.offline.text")})
	}
	if m := leavingMessage(after.Leaving); m != nil && before.Leaving == nil {
		notes = append(notes, note{m.Title, m.Text})
	}
	return append(notes, deviceNotices(before, after)...)
}

// vmNotices are about one VM: a switch to or from this device that ended, a conflict found or resolved, a takeover elsewhere.
func vmNotices(before, after *api.VM, self string) []note {
	sw := after.Switch
	ended := sw != nil && sw.Phase.Ended()
	if was := before.Switch; ended && was != nil && was.ID == sw.ID && !was.Phase.Ended() && (sw.To == self || sw.From == self) {
		if n, ok := noteOf(sw, sw.To == self); ok {
			return []note{n}
		}
		return nil
	}
	switch {
	case before.Conflict == nil && after.Conflict != nil:
		return []note{{t("notice.conflict.title", "VM", after.Name), t("notice.conflict.text")}}
	case before.Conflict != nil && after.Conflict == nil:
		return []note{{t("notice.resolved.title", "VM", after.Name), t("notice.resolved.text", "Device", after.OwnerName)}}
	// It was given away by no switch that anybody saw, so it was taken.
	case before.Here && !after.Here && before.Switch == nil && sw == nil, before.Here && !after.Here && ended && sw.To != after.Owner:
		return []note{{t("notice.superseded.title", "VM", after.Name, "Device", after.OwnerName), t("notice.superseded.text")}}
	}
	return nil
}

// deviceNotices are about devices that left the fleet, or this one.
func deviceNotices(before, after *api.Status) []note {
	then, now := others(before), others(after)
	if len(then) > 0 && len(now) == 0 && !lastOther(then) {
		return []note{{t("notice.alone.title"), t("notice.alone.text")}}
	}
	var notes []note
	for _, id := range slices.Sorted(maps.Keys(then)) {
		was := then[id]
		is, there := now[id]
		switch {
		case !was.Removed && (!there || is.Removed):
			notes = append(notes, note{t("notice.removed.title", "Device", was.Name), t("notice.removed.text")})
		case was.Removed && was.Wipe && !there:
			notes = append(notes, note{Title: t("notice.wiped.title", "Device", was.Name)})
		}
	}
	return notes
}

func others(st *api.Status) map[string]api.Device {
	m := map[string]api.Device{}
	for _, d := range st.Devices {
		if !d.Self && d.ID != st.Device.ID {
			m[d.ID] = d
		}
	}
	return m
}

// lastOther says that at most one device was there besides those that waited to be told: then that one may have gone, and not this one.
func lastOther(then map[string]api.Device) bool {
	present := 0
	for _, d := range then {
		if !d.Removed {
			present++
		}
	}
	return present < 2
}

func noteOf(sw *api.Switch, here bool) (note, bool) {
	switch {
	case sw.Phase == api.PhaseFailed:
		n := note{t("notice.failed.title", "VM", sw.VMName), t("notice.failed.text", "Device", sw.FromName)}
		if sw.Error != nil {
			n.Text = sw.Error.Error()
		}
		return n, true
	case sw.Phase == api.PhaseCancelled:
		return note{}, false
	case here:
		n := note{Title: t("notice.here.title", "VM", sw.VMName)}
		if sw.Pause > 0 {
			n.Text = t("notice.here.text", "Span", span(sw.Pause))
		}
		return n, true
	}
	return note{Title: t("notice.there.title", "VM", sw.VMName, "Device", sw.ToName)}, true
}
