package ui

import (
	"reflect"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/layout"
	"fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"
)

// doer carries out what a button asks for.
type doer func(act)

// actButton makes a Fyne button follow a button of the view.
type actButton struct {
	w   *widget.Button
	now button
}

func newActButton(do doer, importance widget.Importance) *actButton {
	b := &actButton{}
	b.w = widget.NewButton("", func() { do(b.now.Act) })
	b.w.Importance = importance
	b.w.Hide()
	return b
}

// set hides a button without a label.
func (b *actButton) set(next button) {
	if b.now == next {
		return
	}
	b.now = next
	if next.Label == "" {
		b.w.Hide()
		return
	}
	if b.w.Text != next.Label {
		b.w.SetText(next.Label)
	}
	if next.Enabled && b.w.Disabled() {
		b.w.Enable()
	} else if !next.Enabled && !b.w.Disabled() {
		b.w.Disable()
	}
	b.w.Show()
}

// vmCard draws one VM.
type vmCard struct {
	row     vmRow
	panel   *panel
	name    *widget.Label
	where   *widget.Label
	detail  *widget.Label
	replica *widget.Label
	toHere  *actButton
	take    *actButton
	ways    []*actButton
	wayRow  fyne.CanvasObject // of ways
	main    *actButton
	more    *widget.Button
	moving  *progressBox
	problem *widget.Label
	next    *widget.Label
	sides   *conflictBox
	points  *widget.Label
	checked *widget.Label
	do      doer
}

func newVMCard(do doer) *vmCard {
	c := &vmCard{
		do:      do,
		name:    text("", theme.SizeNameSubHeadingText, widget.MediumImportance, true),
		where:   text("", theme.SizeNameText, widget.MediumImportance, false),
		detail:  text("", theme.SizeNameCaptionText, widget.LowImportance, false),
		replica: caption("", widget.LowImportance),
		toHere:  newActButton(do, widget.HighImportance),
		take:    newActButton(do, widget.MediumImportance),
		main:    newActButton(do, widget.HighImportance),
		moving:  newProgressBox(do),
		problem: prose("", widget.DangerImportance),
		next:    prose("", widget.MediumImportance),
		sides:   newConflictBox(do),
		points:  text("", theme.SizeNameCaptionText, widget.LowImportance, false),
		checked: caption("", widget.LowImportance),
	}
	ways := container.NewHBox()
	for range maxWays {
		b := newActButton(do, widget.MediumImportance)
		c.ways = append(c.ways, b)
		ways.Add(b.w)
	}
	c.wayRow = inset(ways)
	c.wayRow.Hide()
	c.points.Hide()
	c.checked.Hide()
	c.more = widget.NewButtonWithIcon("", theme.MoreHorizontalIcon(), c.openMenu)
	c.more.Importance = widget.LowImportance
	c.problem.Hide()
	c.next.Hide()
	buttons := container.NewCenter(container.NewHBox(c.toHere.w, c.take.w, c.main.w, c.more))
	head := container.NewBorder(nil, nil, nil, buttons, lines(c.name, c.where))
	c.panel = newPanel(container.New(layout.NewCustomPaddedVBoxLayout(-4),
		head, lines(c.detail, c.replica, c.checked, c.points), c.moving.box, lines(c.problem, c.next), c.wayRow, c.sides.box))
	return c
}

func (c *vmCard) set(r vmRow) {
	if reflect.DeepEqual(c.row, r) {
		return
	}
	c.row = r
	c.panel.setAccent(moodColor(r.Mood))
	setText(c.name, r.Name)
	setText(c.where, r.Where)
	setText(c.detail, r.Detail)
	replica := r.Replica
	if !r.Switch.Enabled && !r.Here && r.Switch.Hint != "" && r.Bar == nil && r.Conflict == nil && r.Take.Label == "" {
		replica = r.Switch.Hint
	}
	importance := widget.LowImportance
	if r.Leave {
		importance = widget.WarningImportance
	}
	if c.replica.Importance != importance {
		c.replica.Importance = importance
		c.replica.Refresh()
	}
	setText(c.replica, replica)
	sw := r.Switch
	if r.Here || r.Take.Label != "" || r.Conflict != nil {
		sw = button{}
	}
	c.toHere.set(sw)
	c.take.set(r.Take)
	c.main.set(r.Main)
	if len(r.More) > 0 {
		c.more.Show()
	} else {
		c.more.Hide()
	}
	for i, b := range c.ways {
		next := button{}
		if i < len(r.Ways) {
			next = r.Ways[i]
		}
		b.set(next)
	}
	if len(r.Ways) > 0 {
		c.wayRow.Show()
	} else {
		c.wayRow.Hide()
	}
	c.moving.set(r.Bar)
	c.sides.set(r.Conflict)
	setText(c.points, r.Points)
	setText(c.checked, r.Verified)
	if r.Problem != nil {
		setText(c.problem, r.Problem.Title)
		setText(c.next, r.Problem.Text)
	} else {
		setText(c.problem, "")
		setText(c.next, "")
	}
	c.panel.Refresh()
}

func (c *vmCard) openMenu() {
	cv := fyne.CurrentApp().Driver().CanvasForObject(c.more)
	if cv == nil {
		return
	}
	var items []*fyne.MenuItem
	for _, b := range c.row.More {
		item := fyne.NewMenuItem(b.Label, func() { c.do(b.Act) })
		item.Disabled = !b.Enabled
		items = append(items, item)
	}
	widget.NewPopUpMenu(fyne.NewMenu("", items...), cv).ShowAtRelativePosition(fyne.NewPos(0, c.more.Size().Height), c.more)
}

// progressBox draws a progress, or nothing.
type progressBox struct {
	title  *widget.Label
	detail *widget.Label
	why    *widget.Label
	bar    *bar
	cancel *actButton
	box    *fyne.Container
}

func newProgressBox(do doer) *progressBox {
	p := &progressBox{
		title:  text("", theme.SizeNameText, widget.HighImportance, true),
		detail: caption("", widget.MediumImportance),
		why:    caption("", widget.WarningImportance),
		bar:    newBar(),
		cancel: newActButton(do, widget.MediumImportance),
	}
	p.box = container.NewBorder(nil, nil, nil, container.NewCenter(p.cancel.w),
		container.New(layout.NewCustomPaddedVBoxLayout(-4), p.title, inset(p.bar.box), p.detail, p.why))
	p.title.Truncation, p.title.Wrapping = fyne.TextTruncateOff, fyne.TextWrapWord
	p.why.Wrapping = fyne.TextWrapWord
	p.why.Hide()
	p.box.Hide()
	return p
}

func (p *progressBox) set(b *progress) {
	if b == nil {
		p.bar.set(-2)
		p.box.Hide()
		return
	}
	setText(p.title, b.Title)
	setText(p.detail, b.Detail)
	setText(p.why, b.Why)
	p.bar.set(b.Part)
	p.cancel.set(b.Cancel)
	p.box.Show()
}

// messageBox draws a message, or nothing.
type messageBox struct {
	now    *message
	panel  *panel
	title  *widget.Label
	text   *widget.Label
	wait   *bar
	button *actButton
}

func newMessageBox(do doer) *messageBox {
	m := &messageBox{title: prose("", widget.MediumImportance), text: prose("", widget.MediumImportance),
		wait: newBar(), button: newActButton(do, widget.HighImportance)}
	m.title.TextStyle.Bold = true
	m.panel = newPanel(container.NewBorder(nil, m.wait.box, nil, container.NewCenter(m.button.w), lines(m.title, m.text)))
	m.panel.Hide()
	return m
}

func (m *messageBox) set(next *message) {
	if reflect.DeepEqual(m.now, next) {
		return
	}
	m.now = next
	if next == nil {
		m.wait.set(-2)
		m.panel.Hide()
		return
	}
	accent := theme.ColorNamePrimary
	if next.Trouble {
		accent = theme.ColorNameError
	}
	setText(m.title, next.Title)
	setText(m.text, next.Text)
	if next.Working {
		m.wait.set(-1)
		m.wait.box.Show()
	} else {
		m.wait.set(-2)
		m.wait.box.Hide()
	}
	m.button.set(next.Button)
	m.panel.setAccent(accent)
	m.panel.Show()
	m.panel.Refresh()
}
