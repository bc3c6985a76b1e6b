package ui

import "tagalong.org/tagalong/app/api"

// note is a notification on the desktop.
type note struct{ Title, Text string }

// notices are the switches to or from this device that ended between two statuses. Before the
// first status there is nothing to compare with: old news isn't told again at every start.
func notices(before, after *api.Status) []note {
	if before == nil || after == nil {
		return nil
	}
	open := map[string]bool{}
	for i := range before.VMs {
		if sw := before.VMs[i].Switch; sw != nil && !sw.Phase.Ended() {
			open[sw.ID] = true
		}
	}
	var notes []note
	for i := range after.VMs {
		sw := after.VMs[i].Switch
		if sw == nil || !sw.Phase.Ended() || !open[sw.ID] {
			continue
		}
		here := sw.To == after.Device.ID
		if !here && sw.From != after.Device.ID {
			continue
		}
		if n, ok := noteOf(sw, here); ok {
			notes = append(notes, n)
		}
	}
	return notes
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
