package ui

import (
	"context"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/dialog"
	"fyne.io/fyne/v2/layout"
	"fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"tagalong.org/tagalong/app/api"
)

// estimateSize has room for four figures beside each other.
var estimateSize = fyne.NewSize(660, 500)

// openEstimate shows what a switch of a VM to here would be like, and offers its ways. Nothing moves before one is chosen; closing it ends the measuring.
func (g *gui) openEstimate(vm string) {
	if g.vm(vm) == nil {
		return
	}
	g.show()
	wait := newBar()
	wait.set(-1)
	body := container.NewStack(container.NewVBox(prose(t("estimate.measuring", "VM", g.vmName(vm), "Device", g.ownerName(vm)), widget.MediumImportance), inset(wait.box)))
	d := dialog.NewCustom(t("estimate.title", "VM", g.vmName(vm)), t("button.cancel"), body, g.win.win)
	open, end := context.WithCancel(g.ctx)
	d.SetOnClosed(func() {
		wait.set(-2)
		end()
	})
	d.Resize(estimateSize)
	d.Show()
	g.checkSwitch(open, vm, func(p *api.Preflight, err *api.Error) {
		wait.set(-2)
		d.SetDismissText(t("button.close"))
		body.RemoveAll()
		if err != nil {
			m := told(err, err.Topic, g.vmName(vm), g.ownerName(vm), g.state.Status.Device.Name)
			body.Add(container.NewVBox(prose(m.Title, widget.DangerImportance), prose(m.Text, widget.MediumImportance)))
			return
		}
		body.Add(container.NewVScroll(g.estimateBox(p, func(a act) {
			d.Hide()
			g.do(a)
		})))
	})
}

// estimateBox is what stands in the way first, then what the figures go by, then the ways.
func (g *gui) estimateBox(p *api.Preflight, do doer) fyne.CanvasObject {
	headline := prose(wayHeadline(p), widget.MediumImportance)
	headline.TextStyle.Bold = true
	box := container.New(layout.NewCustomPaddedVBoxLayout(4), headline)
	for _, f := range p.Findings {
		m := findingMessage(f, p)
		said := lines(prose(m.Title, widget.MediumImportance))
		if m.Text != "" {
			said.Add(caption(m.Text, widget.MediumImportance))
		}
		in := newInlay(said)
		in.setAccent(theme.ColorNameWarning)
		if m.Trouble {
			in.setAccent(theme.ColorNameError)
		}
		box.Add(in)
	}
	if s := basisText(p, g.now()); s != "" {
		box.Add(caption(s, widget.MediumImportance))
	}
	for _, r := range wayRows(p) {
		box.Add(wayPanel(r, do))
	}
	// The scroll bar lies over what is scrolled.
	return container.New(layout.NewCustomPaddedLayout(0, 0, 0, 12), box)
}

// wayPanel draws one way, with its button beside its name.
func wayPanel(r wayRow, do doer) fyne.CanvasObject {
	importance := widget.MediumImportance
	if r.Best {
		importance = widget.HighImportance
	}
	take := newActButton(do, importance)
	take.set(r.Button)
	title := text(r.Title, theme.SizeNameText, widget.MediumImportance, true)
	if r.Best {
		title.SetText(t("estimate.best", "Way", r.Title))
	}
	head := container.NewBorder(nil, nil, nil, container.NewCenter(take.w), title)
	if r.Button.Label == "" {
		head = container.NewStack(title)
	}
	box := container.New(layout.NewCustomPaddedVBoxLayout(-6), head)
	if len(r.Facts) > 0 {
		figures := container.NewGridWithColumns(len(r.Facts))
		for _, f := range r.Facts {
			figures.Add(lines(caption(f.Label, widget.LowImportance), text(f.Text, theme.SizeNameText, widget.MediumImportance, false)))
		}
		box.Add(figures)
	}
	if r.Text != "" {
		box.Add(caption(r.Text, widget.MediumImportance))
	}
	in := newInlay(box)
	if r.Best {
		in.setAccent(theme.ColorNamePrimary)
	}
	return in
}
