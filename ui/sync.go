package ui

import (
	"reflect"
	"slices"
	"strings"
	"time"

	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/layout"
	"fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"tagalong.org/tagalong/app/api"
)

// syncID stands for what goes to other sites among the IDs of things that are asked for.
const syncID = "sync"

// syncRow is how things are with what goes to other sites.
type syncRow struct {
	Title string
	Text  string // why it is so; "" where nothing holds anything back
	Held  bool   // nothing goes
	Main  button // pause or resume
	Now   button // once, whatever holds it back
}

// sync is nil where it concerns nobody: without other sites, or with an engine that doesn't say.
func (m *index) sync(now time.Time) *syncRow {
	s := m.st.Sync
	if s == nil || !s.Paused && !slices.ContainsFunc(m.st.Devices, func(d api.Device) bool {
		return !d.Self && d.ID != m.st.Device.ID && !d.Removed && (d.Site == nil || !d.Site.Here)
	}) {
		return nil
	}
	ok := m.up && !m.asked[syncID]
	r := &syncRow{
		Title: t("sync.goes"), Held: !s.May,
		Main: button{Act: act{Verb: verbPause, ID: syncID}, Label: t("button.pause-sync"), Enabled: ok && s.Problem == nil},
	}
	if r.Held {
		r.Title = t("sync.held")
		r.Now = button{Act: act{Verb: verbSyncNow, ID: syncID}, Label: t("button.sync-now"), Enabled: ok && s.Problem == nil}
	}
	if s.Paused {
		r.Main.Act.Verb, r.Main.Label = verbUnpause, t("button.resume-sync")
	}
	r.Text = syncText(s, now)
	if s.Asked {
		r.Title, r.Text, r.Now = t("sync.once"), t("sync.asked"), button{}
	} else if s.May {
		r.Text = strings.TrimSpace(r.Text + rates(s))
	}
	return r
}

// rates are how fast it may go, if that is limited.
func rates(s *api.Sync) (text string) {
	if s.Up > 0 {
		text += " " + t("sync.up", "Rate", rate(s.Up))
	}
	if s.Down > 0 {
		text += " " + t("sync.down", "Rate", rate(s.Down))
	}
	return text
}

// syncText says why it is so.
func syncText(s *api.Sync, now time.Time) string {
	until := ""
	if !s.Until.IsZero() {
		layout := "15:04"
		if s.Until.Sub(now) > 18*time.Hour {
			layout = "2006-01-02 15:04"
		}
		until = t("sync.until", "Time", s.Until.Local().Format(layout))
	}
	switch s.Why {
	case "":
		return ""
	case "unreadable":
		if s.Problem != nil {
			return t("sync.unreadable") + " " + s.Problem.Next
		}
		return t("sync.unreadable")
	case "paused":
		return t("sync.paused", "Until", until)
	case "looking":
		return t("sync.looking")
	case "metered":
		return t("sync.metered")
	case "low-battery":
		return t("sync.battery", "Percent", s.Percent, "Below", s.Settings.Battery.Below)
	case "schedule":
		return t("sync.schedule", "Until", until)
	case "slow-times":
		return t("sync.slow-times", "Until", until)
	case "on-battery":
		return t("sync.on-battery")
	case "limited":
		return t("sync.limited")
	}
	return s.Text // of a newer engine
}

// traySync is what the tray has of it.
func traySync(v view) []trayItem {
	r := v.Sync
	if r == nil {
		return nil
	}
	var items []trayItem
	if r.Held {
		items = append(items, trayItem{Label: r.Title})
		if r.Text != "" {
			items = append(items, trayItem{Label: r.Text})
		}
	}
	return append(items, trayItem{Label: r.Main.Label, Act: r.Main.Act, Enabled: r.Main.Enabled})
}

// syncBox draws it.
type syncBox struct {
	row   *syncRow
	panel *panel
	title *widget.Label
	text  *widget.Label
	now   *actButton
	main  *actButton
}

func newSyncBox(do doer) *syncBox {
	b := &syncBox{title: prose("", widget.MediumImportance), text: prose("", widget.LowImportance), now: newActButton(do, widget.LowImportance), main: newActButton(do, widget.MediumImportance)}
	b.title.TextStyle.Bold = true
	buttons := container.NewBorder(nil, nil, nil, container.NewHBox(b.now.w, b.main.w))
	b.panel = newPanel(container.New(layout.NewCustomPaddedVBoxLayout(-4), b.title, b.text, buttons))
	b.panel.Hide()
	return b
}

func (b *syncBox) set(r *syncRow) {
	if reflect.DeepEqual(b.row, r) {
		return
	}
	b.row = r
	if r == nil {
		b.panel.Hide()
		return
	}
	setText(b.title, r.Title)
	setText(b.text, r.Text)
	b.now.set(r.Now)
	b.main.set(r.Main)
	accent := theme.ColorNameDisabled
	if r.Held {
		accent = theme.ColorNamePrimary
	}
	b.panel.setAccent(accent)
	b.panel.Show()
	b.panel.Refresh()
}
