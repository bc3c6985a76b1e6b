package ui

import (
	"strings"
	"time"

	"tagalong.org/tagalong/app/api"
)

// hydration shows how far a VM's disk is from being whole after a switch, and who mustn't leave before it is. A switch has the bar before it.
func (m *index) hydration(vm *api.VM, r *vmRow, now time.Time) {
	if l := vm.Lending; l != nil && vm.Conflict == nil {
		r.Leave = true
		switch {
		case l.Memory:
			r.Replica = t("trailing.serving", "Device", l.ToName)
		case l.Remaining > 0 && l.Silent:
			r.Replica = t("hydration.lending-silent", "Device", l.ToName, "Size", size(l.Remaining))
		case l.Remaining > 0 && !l.Needed:
			r.Leave = false
			r.Replica = t("hydration.lending-also", "Device", l.ToName, "Size", size(l.Remaining))
		case l.Remaining > 0:
			r.Replica = t("hydration.lending-left", "Device", l.ToName, "Size", size(l.Remaining))
		default:
			r.Replica = t("hydration.lending", "Device", l.ToName)
		}
	}
	m.trailing(vm, r)
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
		if h.Waiting {
			r.Bar.Title = t("hydration.title-waits")
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
	if h.Waiting {
		m.offerRollback(vm, r, needed)
	} else if len(needed) > 0 && vm.Trailing == nil { // that has the harder words
		r.Replica, r.Leave = t("hydration.needed", "Devices", list(needed)), true
	}
}

// trailing shows how much of a VM's memory is still to come, and who mustn't leave before it has.
func (m *index) trailing(vm *api.VM, r *vmRow) {
	x := vm.Trailing
	if x == nil {
		return
	}
	r.Replica, r.Leave = t("trailing.needed", "Device", x.FromName), true
	if x.Waiting && r.Problem == nil {
		r.Mood = moodTrouble
		r.Problem = &message{Title: t("trailing.waits", "VM", vm.Name), Text: t("trailing.waits-for", "VM", vm.Name, "Device", x.FromName), Trouble: true}
	}
	if r.Bar == nil {
		r.Bar = &progress{Title: t("trailing.title", "Device", x.FromName), Part: -1}
		if !x.Waiting && x.Remaining > 0 {
			r.Bar.Detail = strings.TrimSuffix(t("trailing.left", "Size", size(x.Remaining))+" · "+rateOf(x.Rate), " · ")
		}
	}
}

func rateOf(perSecond int64) string {
	if perSecond <= 0 {
		return ""
	}
	return rate(perSecond)
}

// offerRollback says that the rest of a disk doesn't come, from whom it would, and what can be done: wait, or roll back.
func (m *index) offerRollback(vm *api.VM, r *vmRow, needed []string) {
	r.Mood = moodTrouble
	p := &message{Title: t("hydration.rest-waits", "VM", vm.Name), Trouble: true}
	if vm.Hydration.Reads > 0 {
		p.Title = t("hydration.waits", "VM", vm.Name)
	}
	if len(needed) > 0 {
		p.Text = t("hydration.waits-for", "Devices", list(needed))
	} else {
		p.Text = t("hydration.waits-nobody")
	}
	if r.Problem == nil {
		r.Problem = p
	} else {
		r.Replica = p.Title
	}
	r.Take = button{Act: act{Verb: verbRollback, ID: vm.ID}, Label: t("button.rollback"), Enabled: m.up && !m.asked[vm.ID]}
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
