package ui

import (
	"time"

	"tagalong.org/tagalong/app/api"
)

// hydration shows how far a VM's disk is from being whole after a switch, and who mustn't leave before it is. A switch has the bar before it.
func (m *index) hydration(vm *api.VM, r *vmRow, now time.Time) {
	if l := vm.Lending; l != nil && vm.Conflict == nil {
		r.Replica = t("hydration.lending", "Device", l.ToName)
	}
	h := vm.Hydration
	if h == nil || vm.Conflict != nil {
		return
	}
	if r.Bar == nil {
		r.Bar = &progress{Title: t("hydration.title")}
		if from := deviceNames(h.From, func(x api.HydrationHolder) bool { return x.Connected }); len(from) > 0 {
			r.Bar.Title = t("hydration.title-from", "Devices", list(from))
		}
		perSecond, left := h.Rate, h.ETA
		if h.Waiting || h.Paused != "" {
			perSecond, left = 0, 0
		}
		if !h.Waiting && h.Paused != "" {
			why := h.Paused
			if s := m.st.Sync; s != nil && !s.May {
				why = syncText(s, now)
			}
			r.Bar.Title = t("hydration.held", "Why", why)
		}
		r.Bar.Part, r.Bar.Detail = flow(h.Total-h.Remaining, h.Total, perSecond, left)
	}
	needed := deviceNames(h.From, func(x api.HydrationHolder) bool { return x.Needed })
	if helps := deviceNames(h.From, func(x api.HydrationHolder) bool { return x.Helps }); h.Waiting && len(helps) > 0 {
		needed = helps
	}
	switch {
	case h.Waiting && len(needed) > 0:
		r.Replica, r.Mood = t("hydration.waits", "Devices", list(needed), "VM", vm.Name), moodTrouble
	case h.Waiting:
		r.Replica, r.Mood = t("hydration.waits-nobody", "VM", vm.Name), moodTrouble
	case len(needed) > 0:
		r.Replica = t("hydration.needed", "Devices", list(needed))
	}
}

func deviceNames(holders []api.HydrationHolder, chosen func(api.HydrationHolder) bool) []string {
	var names []string
	for _, h := range holders {
		if chosen(h) {
			names = append(names, h.DeviceName)
		}
	}
	return names
}
