package ui

import (
	"reflect"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/layout"
	"fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"
)

// conflictBox draws the two histories of a VM and the ways out, or nothing.
type conflictBox struct {
	row *conflictRow
	do  doer
	box *fyne.Container
}

func newConflictBox(do doer) *conflictBox {
	c := &conflictBox{do: do, box: container.NewVBox()}
	c.box.Hide()
	return c
}

// choiceWidth is the room for a choice's button; what it does stands beside it.
const choiceWidth = 168

func (c *conflictBox) set(r *conflictRow) {
	if reflect.DeepEqual(c.row, r) {
		return
	}
	c.row = r
	c.box.RemoveAll()
	if r == nil {
		c.box.Hide()
		return
	}
	c.box.Add(prose(r.Text, widget.MediumImportance))
	for _, s := range r.Sides {
		keep := newActButton(c.do, widget.MediumImportance)
		keep.set(s.Keep)
		c.box.Add(newInlay(container.NewBorder(nil, nil, nil, container.NewCenter(keep.w),
			lines(text(s.Name, theme.SizeNameText, widget.MediumImportance, true), caption(s.Began, widget.LowImportance), caption(s.State, widget.LowImportance)))))
	}
	rest := container.New(layout.NewCustomPaddedVBoxLayout(0))
	for _, w := range r.Choices {
		b := newActButton(c.do, widget.MediumImportance)
		b.set(w.Button)
		rest.Add(container.NewBorder(nil, nil, container.New(column{choiceWidth}, container.NewVBox(b.w)), nil, caption(w.Text, widget.MediumImportance)))
	}
	c.box.Add(rest)
	c.box.Show()
}

// offlineBox draws disconnected mode, or nothing.
type offlineBox struct {
	row   *offlineRow
	panel *panel
	title *widget.Label
	bar   *bar
	how   *widget.Label
	lines *fyne.Container
	now   *actButton
	off   *actButton
}

func newOfflineBox(do doer) *offlineBox {
	b := &offlineBox{title: prose("", widget.MediumImportance), bar: newBar(), how: text("", theme.SizeNameCaptionText, widget.MediumImportance, false),
		lines: container.New(layout.NewCustomPaddedVBoxLayout(-10)), now: newActButton(do, widget.MediumImportance), off: newActButton(do, widget.MediumImportance)}
	b.title.TextStyle.Bold = true
	buttons := container.NewBorder(nil, nil, nil, container.NewHBox(b.now.w, b.off.w))
	b.panel = newPanel(container.New(layout.NewCustomPaddedVBoxLayout(-4), b.title, inset(b.bar.box), b.how, b.lines, buttons))
	b.panel.Hide()
	return b
}

func (b *offlineBox) set(r *offlineRow) {
	if reflect.DeepEqual(b.row, r) {
		return
	}
	b.row = r
	if r == nil {
		b.bar.set(-2)
		b.panel.Hide()
		return
	}
	setText(b.title, r.Title)
	if r.Bar != nil {
		b.bar.set(r.Bar.Part)
		b.bar.box.Show()
		setText(b.how, r.Bar.Detail)
	} else {
		b.bar.set(-2)
		b.bar.box.Hide()
		setText(b.how, "")
	}
	b.lines.RemoveAll()
	for _, line := range r.Lines {
		b.lines.Add(caption(line, widget.MediumImportance))
	}
	b.now.set(r.Now)
	b.off.set(r.Off)
	b.panel.setAccent(theme.ColorNamePrimary)
	b.panel.Show()
	b.panel.Refresh()
}

// toggle is a check mark that follows a view and asks before it changes: a click alone leaves it as it was.
type toggle struct {
	w    *widget.Check
	now  button
	held bool // while it is being set, and nobody has clicked
}

func newToggle(do doer) *toggle {
	tg := &toggle{}
	tg.w = widget.NewCheck("", func(on bool) {
		if tg.held {
			return
		}
		tg.check(!on)
		do(tg.now.Act)
	})
	tg.w.Hide()
	return tg
}

func (tg *toggle) check(on bool) {
	tg.held = true
	tg.w.SetChecked(on)
	tg.held = false
}

func (tg *toggle) set(b button, on bool) {
	tg.now = b
	if b.Label == "" {
		tg.w.Hide()
		return
	}
	if tg.w.Text != b.Label {
		tg.w.Text = b.Label
		tg.w.Refresh()
	}
	if tg.w.Checked != on {
		tg.check(on)
	}
	if b.Enabled && tg.w.Disabled() {
		tg.w.Enable()
	} else if !b.Enabled && !tg.w.Disabled() {
		tg.w.Disable()
	}
	tg.w.Show()
}
