package ui

import (
	"slices"
	"strings"
	"time"

	"tagalong.org/tagalong/app/api"
)

// conflictRow is a VM's two histories and the ways out.
type conflictRow struct {
	Text    string
	Sides   []sideRow
	Choices []choiceRow // those that aren't just one of the sides
}

// sideRow is one of the histories.
type sideRow struct {
	Branch string
	Name   string // whose it is
	Began  string // how it came about, and when it was last written
	State  string // what the VM does there, and how much it has written
	Keep   button
}

// choiceRow is a way out with what it does in plain words.
type choiceRow struct {
	Button button
	Text   string
}

// conflict is nil while a VM has one history.
func (m *index) conflict(vm *api.VM, now time.Time) *conflictRow {
	x := vm.Conflict
	if x == nil {
		return nil
	}
	r := &conflictRow{Text: t("conflict.text", "VM", vm.Name)}
	here, where := false, []string{}
	for _, s := range x.Sides {
		here = here || s.Here
		if !slices.Contains(where, s.OwnerName) {
			where = append(where, s.OwnerName)
		}
	}
	if !here { // only they can sign the choice
		r.Text += " " + t("conflict.elsewhere", "Devices", strings.Join(where, ", "))
	}
	ok := here && m.up && !m.asked[vm.ID]
	for _, s := range x.Sides {
		wrote := t("side.wrote.unknown")
		if s.Changed != nil {
			wrote = t("side.wrote", "Size", size(*s.Changed))
		}
		row := sideRow{Branch: s.Branch, Name: sideName(s), Began: sideBegan(s.Kind), State: sideState(s) + " · " + wrote,
			Keep: button{Act: act{Verb: verbChoose, ID: vm.ID, Sub: s.Branch, How: api.ResolveKeep}, Label: t("button.keep"), Enabled: ok}}
		if !s.At.IsZero() {
			row.Began += " · " + t("side.at", "Ago", ago(s.At, now))
		}
		r.Sides = append(r.Sides, row)
	}
	way := func(how api.Resolution, label, text string) {
		r.Choices = append(r.Choices, choiceRow{button{Act: act{Verb: verbChoose, ID: vm.ID, How: how}, Label: label, Enabled: ok}, text})
	}
	way(api.ResolveBoth, t("button.both"), t("choice.both"))
	way(api.ResolveOpen, t("button.open-other"), t("choice.open"))
	way(api.ResolveRepair, t("button.repair"), t("choice.repair"))
	return r
}

func sideName(s api.ConflictSide) string {
	if s.Here {
		return t("side.here", "Device", s.OwnerName)
	}
	return s.OwnerName
}

func sideBegan(kind string) string {
	switch kind {
	case "takeover":
		return t("side.takeover")
	case "kept":
		return t("side.kept")
	}
	return t("side.went-on")
}

func sideState(s api.ConflictSide) string {
	text := t("side.unknown")
	switch s.State {
	case api.VMRunning, api.VMStarting, api.VMSwitching:
		text = t("side.running")
	case api.VMPaused:
		text = t("side.paused")
	case api.VMSuspended:
		text = t("side.suspended")
	case api.VMStopped:
		text = t("side.stopped")
	}
	if !s.Here && !s.Connected {
		text = t("side.away", "State", text)
	}
	return text
}

// consequences say what a choice does, above all to what isn't chosen.
func consequences(vm *api.VM, how api.Resolution, keep string) []string {
	var kept api.ConflictSide
	var others []api.ConflictSide
	for _, s := range vm.Conflict.Sides {
		if s.Branch == keep {
			kept = s
		} else {
			others = append(others, s)
		}
	}
	lines := []string{t("choose.goes-on", "VM", vm.Name, "Side", sideName(kept))}
	for _, s := range others {
		if how == api.ResolveBoth {
			lines = append(lines, t("choose.own-vm", "Side", sideName(s)))
			continue
		}
		var b strings.Builder
		b.WriteString(t("choose.given-up", "Side", sideName(s)))
		switch s.State {
		case api.VMRunning, api.VMPaused, api.VMStarting, api.VMSwitching, api.VMSuspended:
			b.WriteString(" " + t("choose.windows-gone"))
		}
		switch {
		case s.Changed == nil:
			b.WriteString(" " + t("choose.stays.unknown", "Device", s.OwnerName))
		case *s.Changed == 0:
			b.WriteString(" " + t("choose.stays.nothing"))
		default:
			b.WriteString(" " + t("choose.stays", "Size", size(*s.Changed), "Device", s.OwnerName))
		}
		if !s.Here && !s.Connected {
			b.WriteString(" " + t("choose.later", "Device", s.OwnerName))
		}
		lines = append(lines, b.String())
	}
	switch how {
	case api.ResolveOpen:
		lines = append(lines, t("choose.open", "VM", vm.Name))
	case api.ResolveRepair:
		lines = append(lines, t("choose.repair"))
	case api.ResolveBoth:
		lines = append(lines, t("choose.nothing-lost"))
	}
	return lines
}

// pointRow is one restore point on this device.
type pointRow struct {
	ID     string
	Title  string
	Why    string
	Look   button // open or close
	Delete button
}

func (m *index) points(vm *api.VM, now time.Time) []pointRow {
	var rows []pointRow
	ok := m.up && !m.asked[vm.ID]
	for _, p := range vm.RestorePoints {
		r := pointRow{ID: p.ID, Title: t("point.title", "Ago", ago(p.At, now), "Size", size(p.Bytes)), Why: whyText(p),
			Look:   button{Act: act{Verb: verbLook, ID: vm.ID, Sub: p.ID}, Label: t("button.look"), Enabled: ok},
			Delete: button{Act: act{Verb: verbDelete, ID: vm.ID, Sub: p.ID}, Label: t("button.delete"), Enabled: ok}}
		if p.Open {
			r.Title = t("point.open", "Title", r.Title)
			r.Look = button{Act: act{Verb: verbUnlook, ID: vm.ID, Sub: p.ID}, Label: t("button.unlook"), Enabled: ok}
		}
		rows = append(rows, r)
	}
	return rows
}

// pointsLine counts them.
func pointsLine(points []api.RestorePoint) string {
	if len(points) == 0 {
		return ""
	}
	var bytes int64
	for _, p := range points {
		bytes += p.Bytes
	}
	return tn("points.line", len(points), "Size", size(bytes))
}

// fact is one thing to read before a choice.
type fact struct{ Label, Text string }

// lossText says what a takeover gives up, never less than it may be.
func lossText(x *api.Takeover) string {
	switch {
	case x.Missing == nil && x.Certain:
		return t("loss.unknown-stopped", "Device", x.OwnerName)
	case x.Missing == nil:
		return t("loss.unknown", "Device", x.OwnerName)
	case *x.Missing == 0 && x.Certain:
		return t("loss.none", "Device", x.OwnerName)
	case *x.Missing == 0:
		return t("loss.none-told", "Device", x.OwnerName)
	case x.Certain:
		return t("loss.exactly", "Size", size(*x.Missing), "Device", x.OwnerName)
	}
	return t("loss.at-least", "Size", size(*x.Missing), "Device", x.OwnerName)
}

// takeoverFacts are what a person reads before a VM is taken over.
func takeoverFacts(x *api.Takeover, orphan bool, now time.Time) []fact {
	owner := t("take.owner.seen", "Device", x.OwnerName, "Ago", ago(x.Seen, now))
	switch {
	case orphan:
		owner = t("take.owner.removed", "Device", x.OwnerName)
	case x.Connected:
		owner = t("take.owner.connected", "Device", x.OwnerName)
	case x.Seen.IsZero():
		owner = t("take.owner.never", "Device", x.OwnerName)
	}
	facts := []fact{{t("take.loss"), lossText(x)}, {t("take.owner"), owner}}
	if x.Offline {
		facts = append(facts, fact{t("take.journey"), t("take.journey.text", "Device", x.OwnerName, "Ago", ago(x.Since, now))})
	}
	facts = append(facts, fact{t("take.state"), lastState(x.State)}, fact{t("take.copy"), aged(x.Position, x.At, now)})
	if x.Latest != (api.Position{}) && x.Latest != x.Position {
		facts = append(facts, fact{t("take.latest"), aged(x.Latest, x.LatestAt, now)})
	}
	if b := x.Better; b != nil {
		facts = append(facts, fact{t("take.better"), t("take.better.text", "Device", b.DeviceName)})
	}
	return facts
}

func aged(p api.Position, at, now time.Time) string {
	if at.IsZero() {
		return t("take.at.unknown", "Term", p.Term, "Barrier", p.Barrier)
	}
	return t("take.at", "Time", at.Local().Format("2006-01-02 15:04"), "Ago", ago(at, now), "Term", p.Term, "Barrier", p.Barrier)
}

func lastState(s api.VMState) string {
	switch s {
	case api.VMRunning, api.VMStarting, api.VMSwitching:
		return t("side.running")
	case api.VMPaused:
		return t("take.paused")
	case api.VMSuspended:
		return t("side.suspended")
	case api.VMStopped:
		return t("side.stopped")
	}
	return t("side.unknown")
}

// warningText is a warning in the person's language; one that this window doesn't know is shown as the engine told it.
func warningText(x *api.Takeover, w api.Warning) string {
	missing := int64(0)
	if x.Missing != nil {
		missing = *x.Missing
	}
	switch w.Code {
	case api.WarnRemoved:
		return t("warn.removed", "Device", x.OwnerName, "VM", x.VMName)
	case api.WarnJourney:
		return t("warn.journey", "Device", x.OwnerName, "VM", x.VMName)
	case api.WarnTwoVersions:
		return t("warn.two-versions", "Device", x.OwnerName)
	case api.WarnRunning:
		return t("warn.running", "Device", x.OwnerName, "VM", x.VMName)
	case api.WarnSuspended:
		return t("warn.suspended", "Device", x.OwnerName, "VM", x.VMName)
	case api.WarnUnknown:
		return t("warn.unknown")
	case api.WarnLacks:
		return t("warn.lacks", "Device", x.OwnerName, "Size", size(missing))
	case api.WarnLacksMore:
		return t("warn.lacks-more", "Device", x.OwnerName, "Size", size(missing))
	case api.WarnLacksSince:
		return t("warn.lacks-since", "Device", x.OwnerName)
	case api.WarnSecond:
		return t("warn.second", "VM", x.VMName)
	case api.WarnBetter:
		if x.Better != nil {
			return t("warn.better", "Device", x.Better.DeviceName)
		}
	}
	return w.Text
}

// whyText is why a restore point was made.
func whyText(p api.RestorePoint) string {
	if p.Chosen == "" {
		return p.Why
	}
	return t("point.why", "VM", p.VMName, "Chosen", p.Chosen, "Device", p.DeviceName)
}
