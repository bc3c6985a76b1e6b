package ui

import (
	"slices"

	"tagalong.org/tagalong/app/api"
)

// switchBar is the bar of a switch under way, nil when there is none.
func (m *index) switchBar(vm *api.VM) *progress {
	sw := vm.Switch
	if sw == nil || sw.Phase.Ended() {
		if m.asked[vm.ID] && !vm.Here {
			return &progress{Title: t("switch.asking", "VM", vm.Name), Part: -1}
		}
		return nil
	}
	p := &progress{Part: -1}
	if sw.To == m.st.Device.ID {
		p.Title = t("switch.to-here", "VM", vm.Name, "Phase", phaseText(sw.Phase))
	} else {
		p.Title = t("switch.to-there", "VM", vm.Name, "Device", sw.ToName, "Phase", phaseText(sw.Phase))
	}
	p.Part, p.Detail = flow(sw.Bytes, sw.Total, sw.Rate, sw.ETA)
	p.Why = m.whyLong(sw)
	// Once the baton is given there is nothing to cancel; saying so by a dead button is clearer than
	// by one that vanishes.
	p.Cancel = button{Act: act{Verb: verbCancel, ID: sw.ID}, Label: t("button.cancel"),
		Enabled: sw.CanEnd && m.up && !m.asked[sw.ID]}
	return p
}

// whyLong says what is done about a guest that writes memory about as fast as it leaves, "" where nothing is.
func (m *index) whyLong(sw *api.Switch) string {
	if sw.Kind == "suspend" && sw.Why != "" { // the one thing that it waits for
		there := sw.FromName
		if sw.Phase == api.PhaseSend && sw.From == m.st.Device.ID {
			there = sw.ToName
		}
		return t("switch.why.waits", "Device", there)
	}
	if sw.Chosen {
		return t("switch.why.chosen", "VM", sw.VMName)
	}
	e := sw.Estimate
	because := ""
	switch {
	case e.DirtyRate < e.Rate/2:
		because = t("switch.why.slow", "Rate", rate(e.Rate))
	case e.DirtyRate < e.Rate:
		because = t("switch.why.near", "VM", sw.VMName, "Dirty", rate(e.DirtyRate), "Rate", rate(e.Rate))
	default:
		because = t("switch.why.busy", "VM", sw.VMName, "Dirty", rate(e.DirtyRate), "Rate", rate(e.Rate))
	}
	switch sw.Step {
	case api.StepSlowed:
		return because + " " + t("switch.why.slowed", "Percent", sw.Slowed)
	case api.StepLonger:
		return because + " " + t("switch.why.longer", "Span", pause(sw.AllowedPause))
	}
	return ""
}

// switchFailed says why a switch came to nothing.
func switchFailed(sw *api.Switch) *message {
	if sw.OfferPause == 0 {
		return switchTold(sw)
	}
	next := t("switch.busy.next")
	if slices.Contains(sw.Offers, api.WaySuspend) {
		next += " " + t("switch.busy.suspended")
	}
	if slices.Contains(sw.Offers, api.WayPostCopy) {
		next += " " + t("switch.busy.ahead")
	}
	return &message{Title: t("switch.busy", "VM", sw.VMName, "Device", sw.FromName, "Pause", pause(sw.Estimate.Pause), "Allowed", pause(sw.AllowedPause),
		"Memory", size(sw.Estimate.Memory), "Rate", rate(sw.Estimate.Rate)), Text: next, Trouble: true}
}

// maxWays is how many a card has room for.
const maxWays = 3

// otherWays offers what is left after a switch that came to nothing: where it was to come, and where it stays.
func (m *index) otherWays(vm *api.VM, r *vmRow) {
	sw := vm.Switch
	if sw == nil || sw.Phase != api.PhaseFailed {
		return
	}
	if vm.Here && r.Bar == nil && sw.To != m.st.Device.ID && sw.Error != nil && sw.Error.Remedy == api.RemedySwitch && m.connected(sw.To) && vm.Conflict == nil {
		r.Ways = append(r.Ways, button{Act: act{Verb: verbSend, ID: vm.ID, Sub: sw.To}, Label: t("button.send-again"), Enabled: m.up && !m.asked[vm.ID]})
	}
	if !r.Switch.Enabled || sw.To != m.st.Device.ID {
		return
	}
	if sw.OfferPause > 0 {
		r.Ways = append(r.Ways, button{Act: act{Verb: verbAnyway, ID: vm.ID, Pause: sw.OfferPause}, Label: t("button.anyway"), Enabled: !m.asked[vm.ID]})
	}
	for _, way := range sw.Offers {
		switch way {
		case api.WaySuspend:
			r.Ways = append(r.Ways, button{Act: act{Verb: verbSuspended, ID: vm.ID}, Label: t("button.suspended"), Enabled: !m.asked[vm.ID]})
		case api.WayPostCopy:
			r.Ways = append(r.Ways, button{Act: act{Verb: verbAhead, ID: vm.ID}, Label: t("button.ahead"), Enabled: !m.asked[vm.ID]})
		}
	}
}
