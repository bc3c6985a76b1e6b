package ui

import (
	"context"
	"reflect"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/dialog"
	"fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"tagalong.org/tagalong/app/api"
)

// pointsDialog lists a VM's restore points on this device. It follows the view while it is open.
type pointsDialog struct {
	g    *gui
	vm   string
	rows []pointRow
	list *fyne.Container
}

func (g *gui) openPoints(vm string) {
	if g.points != nil {
		return
	}
	g.show()
	p := &pointsDialog{g: g, vm: vm, list: container.NewVBox()}
	d := dialog.NewCustom(t("points.title", "VM", g.vmName(vm)), t("button.close"),
		container.NewBorder(caption(t("points.text"), widget.LowImportance), nil, nil, nil, container.NewVScroll(p.list)), g.win.win)
	d.SetOnClosed(func() { g.points = nil })
	g.points = p
	p.set(g.view)
	d.Resize(longSize)
	d.Show()
}

func (p *pointsDialog) set(v view) {
	var rows []pointRow
	for _, r := range v.VMs {
		if r.ID == p.vm {
			rows = r.PointList
		}
	}
	if reflect.DeepEqual(rows, p.rows) && len(rows) > 0 {
		return
	}
	p.rows = rows
	p.list.RemoveAll()
	for _, r := range rows {
		look, del := newActButton(p.g.do, widget.MediumImportance), newActButton(p.g.do, widget.LowImportance)
		look.set(r.Look)
		del.set(r.Delete)
		p.list.Add(newInlay(container.NewBorder(nil, nil, nil, container.NewCenter(container.NewHBox(look.w, del.w)),
			lines(text(r.Title, theme.SizeNameText, widget.MediumImportance, true), caption(r.Why, widget.LowImportance)))))
	}
	if len(rows) == 0 {
		p.list.Add(prose(t("points.none"), widget.MediumImportance))
	}
}

// confirmDelete asks before a restore point is gone for good.
func (g *gui) confirmDelete(a act) {
	vm := g.vm(a.ID)
	if vm == nil {
		return
	}
	for _, p := range vm.RestorePoints {
		if p.ID != a.Sub {
			continue
		}
		g.openQuestion(t("point.delete.title", "VM", vm.Name), paragraphs(t("point.title", "Ago", ago(p.At, g.now()), "Size", size(p.Bytes)), whyText(p), t("point.delete.text")), shortSize,
			t("button.delete"), false, func() {
				g.askFor(vm.ID, func(ctx context.Context) error {
					return g.client.DeleteRestorePoint(ctx, api.RestorePointRef{VM: vm.ID, ID: p.ID})
				})
			})
	}
}
