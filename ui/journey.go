package ui

import (
	"context"

	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/dialog"
	"fyne.io/fyne/v2/layout"
	"fyne.io/fyne/v2/widget"

	"tagalong.org/tagalong/app/api"
)

// goOffline begins the preparation. Where VMs would have to come from elsewhere the person says first which shall.
func (g *gui) goOffline() {
	st := g.state.Status
	if st == nil {
		return
	}
	elsewhere := false
	for i := range st.VMs {
		elsewhere = elsewhere || !st.VMs[i].Here
	}
	if elsewhere {
		g.openJourney(st)
		return
	}
	g.askOffline(api.GoOffline{})
}

func (g *gui) askOffline(req api.GoOffline) {
	g.askFor(offlineID, func(ctx context.Context) error { _, err := g.client.GoOffline(ctx, req); return err })
}

// openJourney asks which VMs shall come along.
func (g *gui) openJourney(st *api.Status) {
	g.show()
	m := newIndex(st, nil, true)
	box := container.New(layout.NewCustomPaddedVBoxLayout(-4))
	box.Add(prose(t("journey.text"), widget.MediumImportance))
	checks := map[string]*widget.Check{}
	for i := range st.VMs {
		vm := &st.VMs[i]
		// What is here stays here: it is along in any case.
		c := widget.NewCheck(t("journey.vm", "VM", vm.Name, "Where", m.where(vm, g.now())), nil)
		b := m.switchButton(vm, false)
		switch {
		case vm.Here:
			c.SetChecked(true)
			c.Disable()
		case b.Enabled:
			c.SetChecked(true)
		default:
			c.Disable()
		}
		checks[vm.ID] = c
		box.Add(c)
		if !vm.Here && !b.Enabled && b.Hint != "" {
			box.Add(caption(b.Hint, widget.LowImportance))
		}
	}
	box.Add(caption(t("journey.rest"), widget.LowImportance))
	d := dialog.NewCustomConfirm(t("journey.title"), t("button.prepare"), t("button.cancel"), container.NewVScroll(box), func(yes bool) {
		if !yes {
			return
		}
		req := api.GoOffline{}
		for i := range st.VMs {
			if checks[st.VMs[i].ID].Checked {
				req.VMs = append(req.VMs, st.VMs[i].ID)
			}
		}
		// No name would mean all.
		req.CopyOnly = len(req.VMs) == 0
		g.askOffline(req)
	}, g.win.win)
	d.Resize(longSize)
	d.Show()
}

// confirmNow says what isn't here before the person goes without it.
func (g *gui) confirmNow() {
	st := g.state.Status
	if st == nil || st.Offline.Job == "" {
		return
	}
	texts := []string{t("now.nothing")}
	if missing := missingLines(st); len(missing) > 0 {
		texts = append(append([]string{t("now.text")}, missing...), t("now.later"))
	}
	g.openQuestion(t("now.title"), paragraphs(texts...), shortSize, t("button.now-really"), false, func() {
		g.askOffline(api.GoOffline{Now: true})
	})
}

// confirmSuspended says what it means to have a VM suspended for the way, and does it.
func (g *gui) confirmSuspended(vm string) {
	g.confirm(t("suspended.title", "VM", g.vmName(vm)), t("suspended.text", "VM", g.vmName(vm), "Device", g.ownerName(vm)), t("button.suspended-now"), t("button.cancel"),
		func() { g.askWay(vm, api.WaySuspend) })
}

// confirmAhead says what it means to have a VM go ahead of its memory, and does it.
func (g *gui) confirmAhead(vm string) {
	g.confirm(t("ahead.title", "VM", g.vmName(vm)), t("ahead.text", "VM", g.vmName(vm), "Device", g.ownerName(vm)), t("button.ahead-now"), t("button.cancel"),
		func() { g.askWay(vm, api.WayPostCopy) })
}

// askWay asks for a switch to here in one of the ways.
func (g *gui) askWay(vm string, way api.Way) {
	g.askFor(vm, func(ctx context.Context) error {
		_, err := g.client.Switch(ctx, api.SwitchVM{VM: vm, Way: way})
		return err
	})
}

// ownerName is the name of the device that has the VM, "" if that isn't known.
func (g *gui) ownerName(id string) string {
	if vm := g.vm(id); vm != nil {
		return vm.OwnerName
	}
	return ""
}
