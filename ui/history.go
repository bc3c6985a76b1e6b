package ui

import (
	"context"
	"fmt"
	"strings"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/dialog"
	"fyne.io/fyne/v2/layout"
	"fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"tagalong.org/tagalong/app/api"
)

// openHistory draws where a VM has been.
func (g *gui) openHistory(vm string) {
	g.show()
	body := container.NewStack(prose(t("history.loading"), widget.MediumImportance))
	d := dialog.NewCustom(t("history.title", "VM", g.vmName(vm)), t("button.close"), body, g.win.win)
	gone := false
	d.SetOnClosed(func() { gone = true })
	d.Resize(longSize)
	d.Show()
	var got []api.HistoryEntry
	g.ask(askTime, func(ctx context.Context) (err error) {
		got, err = g.client.History(ctx, vm)
		return err
	}, func(err *api.Error) {
		if gone {
			return
		}
		body.RemoveAll()
		switch {
		case err != nil:
			body.Add(container.NewVBox(prose(err.Sentence, widget.DangerImportance), prose(err.Next, widget.MediumImportance)))
		case len(got) == 0:
			body.Add(prose(t("history.none"), widget.MediumImportance))
		default:
			body.Add(container.NewVScroll(historyBox(got)))
		}
	})
}

// historyMax bounds how many entries are drawn: each costs widgets, and years of switches make thousands.
const historyMax = 200

// sideIndent is how far a side hangs off the main line.
const sideIndent = 22

func historyBox(entries []api.HistoryEntry) fyne.CanvasObject {
	box := container.New(layout.NewCustomPaddedVBoxLayout(-8))
	all := api.HistoryTree(entries)
	if older := len(all) - historyMax; older > 0 {
		box.Add(caption(tn("history.older", older), widget.LowImportance))
		all = all[older:]
	}
	for _, l := range all {
		color, importance := theme.ColorNameSuccess, widget.MediumImportance
		if l.Lost {
			color, importance = theme.ColorNameDisabled, widget.LowImportance
		}
		name := text(fmt.Sprintf("%d. %s", l.Number, historyText(l)), theme.SizeNameText, importance, l.Newest && !l.Lost)
		name.Truncation, name.Wrapping = fyne.TextTruncateOff, fyne.TextWrapWord
		box.Add(container.NewBorder(nil, nil, container.New(column{float32(l.Depth)*sideIndent + 18}, newDot(color)), nil,
			lines(name, caption(historyDetail(l), widget.LowImportance))))
	}
	return box
}

// historyText says what happened, and what became of it.
func historyText(l api.HistoryLine) string {
	var s string
	switch l.Kind {
	case "created":
		s = t("history.created", "Device", l.OwnerName)
	case "switch":
		s = t("history.switch", "From", l.FromName, "Device", l.OwnerName)
	case "returned":
		s = t("history.returned", "From", l.FromName, "Device", l.OwnerName)
	case "takeover":
		s = t("history.takeover", "From", l.FromName, "Device", l.OwnerName)
		if l.From == l.Owner || l.FromName == "" {
			s = t("history.takeback", "Device", l.OwnerName)
		}
	case "kept":
		s = t("history.kept", "Device", l.OwnerName)
	case "resolved":
		s = t("history.resolved", "Device", l.OwnerName)
	default:
		s = l.OwnerName
	}
	switch {
	case l.GivenUpBy > 0:
		return t("history.given-up", "Text", s, "Number", l.GivenUpBy)
	case l.Lost:
		return t("history.lost", "Text", s)
	}
	return s
}

// historyDetail is when and how.
func historyDetail(l api.HistoryLine) string {
	var parts []string
	if !l.At.IsZero() {
		parts = append(parts, l.At.Local().Format("2006-01-02 15:04"))
	}
	switch l.How {
	case "teleport":
		parts = append(parts, t("how.teleport"))
	case "suspend":
		parts = append(parts, t("how.suspend"))
	case "start":
		parts = append(parts, t("how.start"))
	}
	if l.Pause > 0 {
		parts = append(parts, t("history.pause", "Span", span(l.Pause)))
	}
	if l.Memory+l.Disk > 0 {
		parts = append(parts, t("history.moved", "Size", size(l.Memory+l.Disk)))
	}
	return strings.Join(parts, " · ")
}
