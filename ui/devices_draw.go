package ui

import (
	"reflect"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/layout"
	"fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"
)

// deviceCard draws one device.
type deviceCard struct {
	row    deviceRow
	panel  *panel
	light  *dot
	name   *widget.Label
	state  *widget.Label
	copies *fyne.Container
	remove *widget.Button
	leave  *widget.Button
}

func newDeviceCard(remove, leave func(deviceRow)) *deviceCard {
	c := &deviceCard{light: newDot(theme.ColorNameDisabled),
		name:   text("", theme.SizeNameText, widget.MediumImportance, true),
		state:  caption("", widget.LowImportance),
		copies: container.New(layout.NewCustomPaddedVBoxLayout(-6))}
	c.remove = widget.NewButtonWithIcon("", theme.CancelIcon(), func() { remove(c.row) })
	c.leave = widget.NewButtonWithIcon("", theme.LogoutIcon(), func() { leave(c.row) })
	c.remove.Importance, c.leave.Importance = widget.LowImportance, widget.LowImportance
	c.leave.Hide()
	head := container.NewBorder(nil, nil, c.light, container.NewCenter(container.NewHBox(c.remove, c.leave)), lines(c.name, c.state))
	c.panel = newPanel(container.New(layout.NewCustomPaddedVBoxLayout(-2), head, c.copies))
	return c
}

func (c *deviceCard) set(r deviceRow) {
	if reflect.DeepEqual(c.row, r) {
		return
	}
	c.row = r
	if r.Connected {
		c.light.set(theme.ColorNameSuccess)
	} else {
		c.light.set(theme.ColorNameDisabled)
	}
	setText(c.name, r.Name)
	setText(c.state, r.State)
	show(c.remove, !r.Self && !r.Removed)
	show(c.leave, r.CanLeave)
	c.copies.RemoveAll()
	for _, cp := range r.Copies {
		c.copies.Add(caption(shorten(cp.VM)+": "+cp.Text, copyImportance(cp.Mood)))
		if cp.Part >= 0 {
			b := newBar()
			b.set(cp.Part)
			c.copies.Add(inset(b.box))
		}
	}
	c.panel.Refresh()
}

func show(o fyne.CanvasObject, visible bool) {
	if visible {
		o.Show()
	} else {
		o.Hide()
	}
}

// nameRoom is how many characters of a VM's name leave room for its state in a device's card.
const nameRoom = 16

func shorten(name string) string {
	r := []rune(name)
	if len(r) <= nameRoom {
		return name
	}
	return string(r[:nameRoom-1]) + "…"
}

func copyImportance(m mood) widget.Importance {
	switch m {
	case moodIdle:
		return widget.SuccessImportance
	case moodBusy:
		return widget.HighImportance
	case moodTrouble:
		return widget.DangerImportance
	}
	return widget.LowImportance
}
