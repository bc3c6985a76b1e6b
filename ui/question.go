package ui

import (
	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/dialog"
	"fyne.io/fyne/v2/layout"
	"fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"
)

// question is a dialog about something that can't be undone. Its highlighted button, which also has the keyboard, is the harmless one.
type question struct {
	d   *dialog.CustomDialog
	yes *widget.Button
	no  *widget.Button
}

// longSize is for those with facts to read, which scroll where it isn't enough; smallSize for a few words, shortSize for the rest.
var longSize, shortSize, smallSize = fyne.NewSize(540, 460), fyne.NewSize(500, 340), fyne.NewSize(480, 240)

// openQuestion shows content. yes is called at most once; the dialog closes before, unless stay.
func (g *gui) openQuestion(title string, content fyne.CanvasObject, size fyne.Size, label string, stay bool, yes func()) *question {
	g.show()
	q := &question{}
	q.d = dialog.NewCustomWithoutButtons(title, content, g.win.win)
	q.no = widget.NewButton(t("button.cancel"), func() { q.d.Hide() })
	q.no.Importance = widget.HighImportance
	q.yes = widget.NewButton(label, func() {
		q.yes.Disable() // a double click is one
		if !stay {
			q.d.Hide()
		}
		yes()
	})
	q.yes.Importance = widget.WarningImportance
	q.d.SetButtons([]fyne.CanvasObject{q.no, q.yes})
	q.d.Resize(size)
	q.d.Show()
	g.win.win.Canvas().Focus(q.no)
	return q
}

// paragraphs are texts below each other that scroll if they must.
func paragraphs(texts ...string) fyne.CanvasObject {
	box := container.New(layout.NewCustomPaddedVBoxLayout(-4))
	for _, s := range texts {
		box.Add(prose(s, widget.MediumImportance))
	}
	return container.NewVScroll(box)
}

// factBox shows facts below each other.
func factBox(facts []fact, bold bool) *fyne.Container {
	box := container.New(layout.NewCustomPaddedVBoxLayout(-6))
	for _, f := range facts {
		value := prose(f.Text, widget.MediumImportance)
		value.TextStyle.Bold = bold
		box.Add(lines(text(f.Label, theme.SizeNameCaptionText, widget.LowImportance, false), value))
	}
	return box
}
