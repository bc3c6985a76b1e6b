package ui

import (
	"context"
	"slices"
	"time"

	"tagalong.org/tagalong/app/api"
)

// wayRow is what is read of one way to have a VM here.
type wayRow struct {
	Title string
	Best  bool   // the engine's choice, as things are
	Facts []fact // what it takes, as far as that is known
	Text  string // what to know before, or why it can't be taken
	// Button takes it; none where it can't be.
	Button button
}

// rank is a way's place: the best first, those that can't be taken last.
func (r wayRow) rank() int {
	switch {
	case r.Best:
		return 0
	case r.Button.Label != "":
		return 1
	}
	return 2
}

// checkButton asks what a switch to here would be like; nothing where none can be asked for.
func (m *index) checkButton(vm *api.VM, r *vmRow) (button, bool) {
	b := button{Act: act{Verb: verbCheck, ID: vm.ID}, Label: t("button.estimate"), Enabled: r.Switch.Enabled && !m.asked[vm.ID]}
	return b, !vm.Here && vm.Conflict == nil && !vm.Unopened
}

// wayHeadline says in a sentence how the VM could come here.
func wayHeadline(p *api.Preflight) string {
	way := p.Way
	if p.Best != api.WayChosen {
		way = p.Best
	}
	switch way {
	case api.WayTeleport:
		return t("estimate.teleport", "VM", p.VMName)
	case api.WayPostCopy:
		return t("estimate.postcopy", "VM", p.VMName)
	case api.WaySuspend:
		return t("estimate.suspend", "VM", p.VMName)
	case api.WayRestart:
		return t("estimate.restart", "VM", p.VMName)
	case api.WayHandOver:
		return t("estimate.handover", "VM", p.VMName)
	}
	return t("estimate.none", "VM", p.VMName)
}

// wayRows compares the ways to here, the best first; of a VM that doesn't run there is only one.
func wayRows(p *api.Preflight) []wayRow {
	if p.Way == api.WayHandOver {
		return []wayRow{{Title: t("estimate.way.handover"), Text: t("estimate.handover.text"), Button: wayButton(verbSwitch, p.VM, t("button.switch"))}}
	}
	stopped := slices.ContainsFunc(p.Findings, func(f api.Finding) bool { return f.Stops })
	var rows []wayRow
	for _, e := range p.Ways {
		r := wayRow{Best: e.Possible && e.Way == p.Best}
		switch e.Way {
		case api.WayTeleport:
			r.Title, r.Button = t("estimate.way.teleport"), wayButton(verbTeleport, p.VM, t("button.switch"))
			if !e.Possible && !stopped && e.Pause > 0 {
				r.Text = t("estimate.too-long", "Span", pause(e.Pause))
			}
		case api.WayPostCopy:
			r.Title, r.Button = t("estimate.way.postcopy"), wayButton(verbAhead, p.VM, t("button.ahead"))
			r.Text = t("estimate.postcopy.text", "From", p.FromName)
			if !e.Possible && !stopped {
				r.Text = t("estimate.no-postcopy")
			}
		case api.WaySuspend:
			r.Title, r.Button = t("estimate.way.suspend"), wayButton(verbSuspended, p.VM, t("button.suspended"))
		default: // a newer engine's
			continue
		}
		switch {
		case e.Possible:
			r.Facts = wayFacts(e)
		case stopped:
			r.Text, r.Button = t("estimate.impossible"), button{}
		default:
			r.Button = button{}
			if r.Text == "" {
				r.Text = t("estimate.impossible")
			}
		}
		rows = append(rows, r)
	}
	slices.SortStableFunc(rows, func(a, b wayRow) int { return a.rank() - b.rank() })
	return rows
}

func wayButton(v verb, vm, label string) button {
	return button{Act: act{Verb: v, ID: vm}, Label: label, Enabled: true}
}

// wayFacts are a way's figures; of a connection of which nothing is known, only how much there is to move.
func wayFacts(e api.WayEstimate) []fact {
	facts := []fact{{t("estimate.bytes"), t("estimate.up-to", "Size", size(e.Bytes))}}
	if e.There > 0 {
		facts = append(facts, fact{t("estimate.there"), pause(e.There)}, fact{t("estimate.pause"), pause(e.Pause)}, fact{t("estimate.full"), pause(e.Full)})
	}
	return facts
}

// basisText says what the figures go by, how old that is, and how rough; "" where there are none.
func basisText(p *api.Preflight, now time.Time) string {
	b := p.Basis
	switch {
	case len(p.Ways) == 0:
		return ""
	case b == nil:
		return t("estimate.no-basis")
	}
	round := ""
	if b.RoundTrip > 0 {
		round = t("estimate.round-trip", "Span", roundTrip(b.RoundTrip.Microseconds()))
	}
	dirty := ""
	if b.DirtyRate > 0 { // else it isn't known
		dirty = t("estimate.dirty", "VM", p.VMName, "Rate", rate(b.DirtyRate))
	}
	if b.Trip {
		return t("estimate.trip", "Ago", ago(b.At, now), "Rate", rate(b.Rate), "Round", round, "Dirty", dirty)
	}
	return t("estimate.measured", "Ago", ago(b.At, now), "Rate", rate(b.Rate), "Round", round, "Dirty", dirty)
}

// findingMessage is what is read of a finding: in the window's words, or in those of an engine that knows more.
func findingMessage(f api.Finding, p *api.Preflight) message {
	key := "finding." + f.Code
	switch {
	case f.Code == "firmware" && !f.Stops && f.Next == "":
		key = "finding.firmware-other"
	case f.Code == "memory" && f.Left == api.WayRestart:
		key = "finding.memory-large"
	}
	args := []any{"VM", p.VMName, "From", p.FromName, "To", p.ToName, "Sentence", f.Sentence, "Next", f.Next, "Points", t("button.points")}
	m := message{Title: t(key, args...), Trouble: f.Stops}
	if m.Title == key {
		m.Title, m.Text = f.Sentence, f.Next
		return m
	}
	if f.Next != "" {
		next := key + ".next"
		if m.Text = t(next, args...); m.Text == next {
			m.Text = f.Next
		}
	}
	return m
}

// checkSwitch asks the engine what a switch of the VM to here would be like. Once until has ended nobody is answered any more.
func (g *gui) checkSwitch(until context.Context, vm string, answered func(*api.Preflight, *api.Error)) {
	var got *api.Preflight
	g.ask(askTime, func(ctx context.Context) (err error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(until, cancel)()
		got, err = g.client.CheckSwitch(ctx, api.SwitchVM{VM: vm})
		return err
	}, func(err *api.Error) {
		if until.Err() == nil {
			answered(got, err)
		}
	})
}
