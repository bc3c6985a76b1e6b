package ui

import (
	"context"
	"strings"

	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/widget"

	"tagalong.org/tagalong/app/api"
)

// confirmRemove asks before a device is taken out of the fleet, and whether it shall be wiped.
func (g *gui) confirmRemove(r deviceRow) {
	box := container.NewVBox(prose(t("remove.text"), widget.MediumImportance))
	if len(r.Owns) > 0 {
		box.Add(prose(t("remove.owns", "Device", r.Name, "VMs", strings.Join(r.Owns, ", ")), widget.DangerImportance))
	}
	wipe := widget.NewCheck(t("remove.wipe"), nil)
	box.Add(wipe)
	box.Add(caption(t("remove.wipe.text"), widget.LowImportance))
	g.openQuestion(t("remove.title", "Device", r.Name), container.NewVScroll(box), shortSize, t("button.remove"), false, func() {
		req := api.RemoveDevice{Device: r.ID, Wipe: wipe.Checked, Anyway: len(r.Owns) > 0}
		g.askFor(r.ID, func(ctx context.Context) error { return g.client.RemoveDevice(ctx, req) })
	})
}

// confirmLeave asks before this device leaves the fleet.
func (g *gui) confirmLeave(r deviceRow) {
	box := container.NewVBox(prose(t("leave.text"), widget.MediumImportance))
	if len(r.Owns) > 0 {
		box.Add(prose(t("leave.owns", "VMs", strings.Join(r.Owns, ", ")), widget.MediumImportance))
	}
	del := widget.NewCheck(t("leave.delete"), nil)
	box.Add(del)
	box.Add(caption(t("leave.delete.text"), widget.LowImportance))
	g.openQuestion(t("leave.title", "Device", r.Name), container.NewVScroll(box), shortSize, t("button.leave"), false, func() {
		req := api.LeaveFleet{Delete: del.Checked}
		g.askFor(r.ID, func(ctx context.Context) error { return g.client.LeaveFleet(ctx, req) })
	})
}
