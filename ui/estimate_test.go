package ui

import (
	"strings"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
)

// estimated is what the engine tells of a switch of the sample's Work to here.
func estimated(now time.Time) api.Preflight {
	return api.Preflight{VM: "w", VMName: "Work", From: "L", FromName: "Laptop", To: "D", ToName: "Desk", Way: api.WayTeleport, Best: api.WayTeleport,
		Ways: []api.WayEstimate{
			{Way: api.WayTeleport, Possible: true, Bytes: 2300 * mib, There: 27 * time.Second, Pause: 190 * time.Millisecond, Full: 31 * time.Second},
			{Way: api.WayPostCopy, Possible: true, Bytes: 2100 * mib, There: 22 * time.Second, Pause: 190 * time.Millisecond, Full: 29 * time.Second},
			{Way: api.WaySuspend, Possible: true, Bytes: 2100 * mib, There: 43 * time.Second, Pause: 43 * time.Second, Full: 43 * time.Second},
		},
		Basis: &api.WayBasis{Rate: 95 * mib, DirtyRate: 9 * mib, RoundTrip: 2400 * time.Microsecond, At: now}}
}

// tooBusy is of one that would stand still for too long.
func tooBusy(now time.Time) api.Preflight {
	p := estimated(now)
	p.Best, p.Why = api.WaySuspend, "While it runs, Work would stand still for longer than it may."
	p.Ways[0].Possible, p.Ways[0].Pause = false, 72*time.Second
	p.Basis.Trip, p.Basis.At = true, now.Add(-20*time.Minute)
	return p
}

// tooLittle is of one that has no room here, and a warning beside; nothing is known of the connection.
func tooLittle(time.Time) api.Preflight {
	return api.Preflight{VM: "w", VMName: "Work", From: "L", FromName: "Laptop", To: "D", ToName: "Desk", Way: api.WaySuspend, Best: api.WaySuspend,
		Findings: []api.Finding{
			{Code: "memory", Sentence: "There isn't enough free memory on Desk: Work needs 4096 MiB, and there are 3100 MiB.", Next: "Close something, or tagalong switch.", Stops: true, Left: api.WaySuspend},
			{Code: "cpu-vendor", Sentence: "The processors of Laptop and Desk are of different makers. Work has one that both can be, and is likely to go on.", Next: "Save your work in it first."},
		},
		Ways: []api.WayEstimate{{Way: api.WayTeleport, Bytes: 4096 * mib}, {Way: api.WayPostCopy, Bytes: 4096 * mib}, {Way: api.WaySuspend, Possible: true, Bytes: 4096 * mib}}}
}

// estimate opens the dialog and lets the engine tell p.
func (b *bench) estimate(p api.Preflight) {
	b.t.Helper()
	b.engine.mu.Lock()
	b.engine.preflight = p
	b.engine.mu.Unlock()
	b.do(act{Verb: verbCheck, ID: "w"})
	next(b.t, b.engine, `check-switch w to ""`)
	b.turn()
}

// The figures of each way are read before one is chosen, with how old and how rough they are, and each way is a press away.
func TestEstimatingASwitch(t *testing.T) {
	b := newBench(t)
	b.estimate(estimated(testNow))
	b.see("Work can come here while it runs.", "While it runs · best now", "up to 2.2 GiB", "27 s", "190 ms", "31 s", "43 s",
		"Roughly, as measured less than a minute ago: the connection carries 95 MiB/s, 2 ms there and back; Work writes 9 MiB/s of memory anew.", "Close")
	b.gone("Cancel", "measuring the connection")
	b.tap("Switch to this machine")
	next(t, b.engine, `switch w to "" by teleport`)
	b.turn()
	b.gone("best now")

	b.estimate(estimated(testNow))
	b.see("what is open and not saved is lost")
	b.tap("Bring it at once…")
	b.see("Bring Work ahead of its memory?", "Laptop must stay on")
	b.tap("Bring it at once")
	next(t, b.engine, `switch w to "" by postcopy`)
	b.turn()

	b.estimate(tooBusy(testNow))
	b.see("Suspended for the way · best now", "It would stand still for about 1 min 12 s, longer than it may.", "As seen when its memory was last on its way (20 minutes ago)")
	b.tap("Bring it suspended…")
	b.tap("Bring it suspended")
	next(t, b.engine, `switch w to "" by suspend`)
	b.turn()
}

// What stands in the way is read first, with what to do about it, and ways that can't be taken have no button.
func TestEstimatingASwitchThatCannotBe(t *testing.T) {
	b := newBench(t)
	b.estimate(tooLittle(testNow))
	b.see("There isn't enough free memory on Desk", "Close something here and try again.", "Save your work in it first.", "Not possible as things are.", "up to 4 GiB", "The connection couldn't be measured")
	b.gone("Bring it at once…", "tagalong switch", "Here after about", "longer than it may")
	b.tap("Close")

	p := tooLittle(testNow)
	p.Way, p.Best, p.Findings, p.Ways = api.WayNone, "", []api.Finding{{Code: "of-a-newer-engine", Sentence: "It is Tuesday.", Next: "Wait until tomorrow.", Stops: true}}, nil
	b.estimate(p)
	b.see("Work can't come here as things are.", "It is Tuesday.", "Wait until tomorrow.")
	b.gone("The connection couldn't be measured")
	b.tap("Close")

	p.Way, p.Findings = api.WayHandOver, nil
	b.estimate(p)
	b.see("Work doesn't run: it is only handed over.")
	b.tap("Switch to this machine")
	next(t, b.engine, `switch w to ""`)
	b.turn()

	b.engine.refuse(&api.Error{Code: api.CodeConflict, Sentence: "Laptop says nothing.", Next: "Ask it again."})
	b.estimate(p)
	b.see("Laptop says nothing.", "Ask it again.")
}

// Who closes the dialog ends the measuring, and reads nothing of it.
func TestEstimatingCanBeEnded(t *testing.T) {
	b := newBench(t)
	b.engine.measures = true
	b.do(act{Verb: verbCheck, ID: "w"})
	next(t, b.engine, `check-switch w to ""`)
	b.see("measuring the connection", "Work stays where it is.")
	b.tap("Cancel")
	next(t, b.engine, "measuring: context canceled")
	b.turn()
	b.gone("measuring the connection")
	if b.state.Notice != nil {
		t.Errorf("tells %+v", b.state.Notice)
	}
}

// It can be asked where a switch could be.
func TestEstimatingIsOfferedWhereASwitchIs(t *testing.T) {
	of := func(b *bench) (offered, can bool) {
		for _, x := range b.view.VMs[0].More {
			if x.Act.Verb == verbCheck {
				return true, x.Enabled
			}
		}
		return false, false
	}
	b := newBench(t)
	if offered, can := of(b); !offered || !can {
		t.Error("it isn't offered of a VM elsewhere")
	}
	b.with(func(st *api.Status, now time.Time) { ownerGone(st, now) })
	if _, can := of(b); can {
		t.Error("it is offered of a device that is away")
	}
	b.with(func(st *api.Status, _ time.Time) { here(st) })
	if offered, _ := of(b); offered {
		t.Error("it is offered of a VM that is here")
	}
	little := tooLittle(testNow)
	if r := wayRows(&little); len(r) != 3 || !r[0].Best || r[1].Button.Label != "" || r[2].Button.Label != "" {
		t.Errorf("the way that is left doesn't come first: %+v", r)
	}
	if r := wayRows(&api.Preflight{Ways: []api.WayEstimate{{Way: "of-a-newer-engine", Possible: true}}}); len(r) != 0 {
		t.Errorf("a way that can't be asked for is offered: %+v", r)
	}
}

// Every finding is told in the window's words, without a placeholder or a command where there is a button.
func TestFindingsAreTold(t *testing.T) {
	p := estimated(testNow)
	for _, f := range []api.Finding{{Code: "firmware"}, {Code: "firmware", Stops: true, Next: "N"}, {Code: "memory", Left: api.WayRestart, Stops: true, Next: "N"}, {Code: "memory", Left: api.WaySuspend, Stops: true, Next: "N"},
		{Code: "cpu", Stops: true, Next: "N"}, {Code: "accelerator", Stops: true, Next: "N"}, {Code: "devices", Stops: true, Next: "N"}, {Code: "unknown"}} {
		f.Sentence = "What the engine says."
		m := findingMessage(f, &p)
		if m.Title != f.Sentence || strings.Contains(m.Title+m.Text, "finding.") || strings.Contains(m.Text, "no value") || strings.Contains(m.Text, "tagalong ") || (m.Text == "") != (f.Next == "") || m.Trouble != f.Stops {
			t.Errorf("%+v reads %+v", f, m)
		}
	}
}
