package ui

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"fyne.io/fyne/v2/test"
	"fyne.io/fyne/v2/widget"

	"tagalong.org/tagalong/app/api"
)

// gone is whether a text isn't shown any more.
func (b *bench) gone(unwanted ...string) {
	b.t.Helper()
	all := b.shownText()
	for _, w := range unwanted {
		if strings.Contains(all, w) {
			b.t.Errorf("%q is shown in:\n%s", w, all)
		}
	}
}

// button is the first visible one of that label.
func (b *bench) button(label string) *widget.Button {
	b.t.Helper()
	for _, o := range b.everything() {
		if w, ok := o.(*widget.Button); ok && w.Text == label {
			return w
		}
	}
	b.t.Fatalf("no button %q in:\n%s", label, b.shownText())
	return nil
}

// check clicks the first visible check mark of that label.
func (b *bench) check(label string) {
	b.t.Helper()
	for _, o := range b.everything() {
		if w, ok := o.(*widget.Check); ok && w.Text == label {
			test.Tap(w)
			return
		}
	}
	b.t.Fatalf("no check mark %q", label)
}

func (b *bench) with(change func(*api.Status, time.Time)) *bench {
	b.engine.say(func(st *api.Status) { change(st, testNow) })
	b.up()
	return b
}

func TestConflictCard(t *testing.T) {
	b := newBench(t).with(inConflict)
	b.see("Work has two versions: choose", "Two versions: you have to choose", "Nothing is overwritten before you choose",
		"Desk (this device)", "took it over · last written 1 minute ago", "running · wrote 1.2 GiB since",
		"Laptop", "kept its own · last written 2 hours ago", "paused, its windows wait · wrote 300 MiB since",
		"Keep both", "See the other in it", "Check and repair", "own name and network address", "read-only, to copy files out", "mended from the other copies")
	b.gone("Switch to this machine")
	for _, verb := range b.view.VMs[0].More {
		if v := verb.Act.Verb; v == verbSuspend || v == verbTake || v == verbStart {
			t.Errorf("%s can be done to a VM with two versions", v)
		}
	}
	b.engine.say(func(st *api.Status) { st.VMs[0].Conflict = nil })
	b.up()
	b.gone("two versions", "Keep both")
}

// Only a device that has one of the versions can sign the choice.
func TestChoosingElsewhere(t *testing.T) {
	b := newBench(t).with(inConflict).with(func(st *api.Status, _ time.Time) {
		st.VMs[0].Here, st.VMs[0].Owner = false, "A"
		st.VMs[0].Conflict.Sides[0].Here, st.VMs[0].Conflict.Sides[0].OwnerName = false, "Attic"
	})
	b.see("None of them is on this device. Choose on one of: Attic, Laptop")
	for _, label := range []string{"Go on with this", "Keep both", "See the other in it", "Check and repair"} {
		if !b.button(label).Disabled() {
			t.Errorf("%s can be pressed", label)
		}
	}
}

func TestChoosingSaysWhatIsGivenUp(t *testing.T) {
	b := newBench(t).with(inConflict)
	b.do(act{Verb: verbChoose, ID: "w", Sub: "bl", How: api.ResolveKeep})
	b.see("Go on with Work as on Laptop?", "The side of Desk (this device) is given up. The VM there is turned off, and its open windows are gone. The 1.2 GiB that it has written since stay on Desk as a restore point, until you delete it.")
	b.tap("Cancel")
	b.gone("is given up")
	if got := b.engine.requests(); len(got) != 0 {
		t.Fatalf("asked for %v", got)
	}
	b.tap("Go on with this") // the first side's, which is this device's
	b.see("The side of Laptop is given up.")
	b.tap("Go on with this") // the dialog's
	next(t, b.engine, `resolve w keep bd ""`)
	b.turn()
}

func TestChoosingASideInTheDialog(t *testing.T) {
	b := newBench(t).with(inConflict)
	b.tap("See the other in it")
	b.see("Which side shall go on?", "The side of Laptop is given up.", "see that restore point as a second disk")
	for _, o := range b.everything() {
		if w, ok := o.(*widget.RadioGroup); ok {
			w.SetSelected(w.Options[1])
		}
	}
	b.see("The side of Desk (this device) is given up.")
	b.gone("The side of Laptop is given up.")
	b.tap("See the other in it")
	next(t, b.engine, `resolve w open bl ""`)
	b.turn()

	b.tap("Keep both")
	b.see("Nothing is given up.", "The side of Laptop becomes a VM of its own.")
	b.gone("as a restore point, until")
	test.Type(b.entries()[0], " Trip ")
	b.tap("Keep both")
	next(t, b.engine, `resolve w both bd "Trip"`)
	b.turn()

	b.engine.refuse(&api.Error{Code: api.CodeConflict, Sentence: "Laptop has chosen already.", Next: "Look again."})
	b.tap("Check and repair")
	b.tap("Check and repair")
	next(t, b.engine, `resolve w repair bd ""`)
	b.turn()
	b.see("Laptop has chosen already.")
}

// A choice that waits for the other device says so: nothing seems to happen here meanwhile.
func TestAChoiceThatWaits(t *testing.T) {
	for phase, want := range map[string]string{
		"settling": "Carrying out your choice for Work", "heeding": "Waiting for the device with the version of Work that you kept",
	} {
		if got, _ := jobTitles(&api.Job{Kind: "resolve", Phase: phase, VMName: "Work"}); got != want {
			t.Errorf("%s: %q, want %q", phase, got, want)
		}
	}
}

// A click that nobody meant must find the harmless button.
func TestTakingOverIsDeliberate(t *testing.T) {
	b := newBench(t).with(ownerGone)
	b.engine.takeover = lossy(testNow)
	b.gone("Switch to this machine")
	b.see("Copy on this device: as it was less than a minute ago")
	b.tap("Take over…")
	b.see("Finding out what may be lost…")
	if !b.button("Take over").Disabled() {
		t.Error("it can be pressed before there is anything to read")
	}
	next(t, b.engine, "takeover-preview w")
	b.turn()
	b.see("At least 300 MiB, and all that Laptop has written since.", "Work was running on Laptop when it was last heard of: its open windows", "Laptop, last heard of 26 hours ago",
		"(27 hours ago), position 3/90", "(26 hours ago), position 3/120", "Attic has a newer one.", "you are asked to choose")
	yes, no := b.button("Take over"), b.button("Cancel")
	if yes.Disabled() || yes.Importance == widget.HighImportance || no.Importance != widget.HighImportance {
		t.Errorf("take over: disabled %v, importance %v; cancel: %v", yes.Disabled(), yes.Importance, no.Importance)
	}
	if b.win.win.Canvas().Focused() != no {
		t.Errorf("the keyboard is on %T", b.win.win.Canvas().Focused())
	}
	test.Tap(no)
	b.gone("What may be lost")

	// What has changed since is to be read again.
	b.tap("Take over…")
	next(t, b.engine, "takeover-preview w")
	b.turn()
	b.engine.refuse(&api.Error{Code: api.CodeConflict, Sentence: "Laptop was heard of meanwhile."})
	test.Tap(b.button("Take over"))
	next(t, b.engine, "takeover w t1")
	b.engine.refuse(nil)
	b.engine.takeover.Token, b.engine.takeover.Missing = "t2", bytesOf(0)
	b.turn()
	next(t, b.engine, "takeover-preview w")
	b.turn()
	b.see("Laptop was heard of meanwhile.", "Please read it again.", "Nothing of what was told, but all that Laptop has written since.")
	test.Tap(b.button("Take over"))
	next(t, b.engine, "takeover w t2")
	b.turn()
	b.gone("What may be lost")
}

func TestTakeoverThatCannotBe(t *testing.T) {
	b := newBench(t).with(ownerGone)
	b.engine.refuse(&api.Error{Code: api.CodeConflict, Sentence: "The first copy isn't whole.", Next: "Wait for Laptop."})
	b.tap("Take over…")
	next(t, b.engine, "takeover-preview w")
	b.turn()
	b.see("The first copy isn't whole.", "Wait for Laptop.")
	if !b.button("Take over").Disabled() {
		t.Error("it can be pressed all the same")
	}
	// An answer that comes after the dialog has closed is for nobody.
	b.tap("Cancel")
	b.engine.refuse(nil)
	b.tap("Take over…")
	next(t, b.engine, "takeover-preview w")
	b.tap("Cancel")
	b.turn()
	b.gone("What may be lost")

	// A refusal that comes then is still to be seen.
	b.tap("Take over…")
	next(t, b.engine, "takeover-preview w")
	b.turn()
	b.engine.refuse(&api.Error{Code: api.CodeConflict, Sentence: "Laptop was heard of meanwhile."})
	test.Tap(b.button("Take over"))
	next(t, b.engine, "takeover w ")
	test.Tap(b.button("Cancel"))
	b.turn()
	b.see("Laptop was heard of meanwhile.")
}

func TestWhereATakeoverIsOffered(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*state)
		want   bool
	}{
		{"owner connected", nil, false},
		{"owner away", func(s *state) { s.Status.Devices[1].Connected = false }, true},
		{"orphan", func(s *state) { s.Status.VMs[0].Orphan = true }, true},
		{"here", func(s *state) { s.Status.VMs[0].Here = true; s.Status.Devices[1].Connected = false }, false},
		{"no copy", func(s *state) { s.Status.VMs[0].Replicas = nil; s.Status.Devices[1].Connected = false }, false},
		{"first copy", func(s *state) {
			s.Status.VMs[0].Replicas[1].State, s.Status.Devices[1].Connected = api.ReplicaCopying, false
		}, false},
		{"on its way", func(s *state) { s.Status.VMs[0].Switch, s.Status.Devices[1].Connected = switching(), false }, false},
		{"in conflict", func(s *state) {
			inConflict(s.Status, testNow)
			s.Status.VMs[0].Here, s.Status.VMs[0].Owner, s.Status.Devices[1].Connected = false, "L", false
			s.Status.VMs[0].Replicas = sample(testNow).VMs[0].Replicas
		}, false},
	} {
		if got := viewWith(c.change).VMs[0].Take; (got.Label != "") != c.want {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

func TestLossIsNeverMadeSmall(t *testing.T) {
	for _, c := range []struct {
		missing *int64
		certain bool
		want    string
	}{
		{nil, false, "Nobody knows how much of what Laptop has written."},
		{nil, true, "Nobody knows how much, but it isn't growing unless Laptop has started it again."},
		{bytesOf(0), false, "Nothing of what was told, but all that Laptop has written since."},
		{bytesOf(0), true, "Nothing, unless Laptop has started it again: it was shut down there, and this copy has all of it."},
		{bytesOf(mib), false, "At least 1 MiB, and all that Laptop has written since."},
		{bytesOf(mib), true, "Exactly 1 MiB, unless Laptop has started it again: it was shut down there."},
	} {
		if got := lossText(&api.Takeover{OwnerName: "Laptop", Missing: c.missing, Certain: c.certain}); got != c.want {
			t.Errorf("%v %v: %q", c.missing, c.certain, got)
		}
	}
}

func TestRestorePoints(t *testing.T) {
	b := newBench(t).with(withPoints)
	b.see("2 restore points here, 2.3 GiB")
	b.do(act{Verb: verbPoints, ID: "w"})
	b.see("Made 2 days ago · 300 MiB", "Made 3 hours ago · 2 GiB · open", "You chose the version of Work on Laptop; this is the one that was on Desk.")
	b.tap("Open in the VM")
	next(t, b.engine, "restore-point-open w p1")
	b.turn()
	b.tap("Delete")
	b.see("Delete a restore point of Work?", "You chose the version of Work on Laptop; this is the one that was on Desk.", "It is gone for good then.")
	b.tap("Cancel")
	if got := b.engine.requests(); len(got) != 1 {
		t.Fatalf("asked for %v", got)
	}
	b.do(act{Verb: verbDelete, ID: "w", Sub: "p2"})
	b.tap("Delete")
	next(t, b.engine, "restore-point-delete w p2")
	b.turn()
	b.engine.say(func(st *api.Status) {
		st.VMs[0].RestorePoints = st.VMs[0].RestorePoints[:1]
		st.VMs[0].RestorePoints[0].Open = true
	})
	b.up()
	b.gone("Made 3 hours ago")
	b.tap("Close")
	next(t, b.engine, "restore-point-close w p1")
	b.turn()
	b.engine.say(func(st *api.Status) { st.VMs[0].RestorePoints = nil })
	b.up()
	b.see("There is none left.")
}

func TestHistoryIsDrawn(t *testing.T) {
	b := newBench(t)
	b.engine.history = pastOf(testNow)
	b.do(act{Verb: verbHistory, ID: "w"})
	next(t, b.engine, "history w")
	b.turn()
	b.see("1. created on Desk", "2. Desk → Laptop", "running, with its memory · stood still for 84 ms · 2 GiB moved", "3. Desk took it over from Laptop (given up)",
		"4. Desk → Attic (given up by 6)", "5. Laptop kept its own", "6. you chose the side of Laptop", "7. Laptop → Desk")
	b.tap("Close")

	for i := range 250 {
		b.engine.history = append(b.engine.history, api.HistoryEntry{Hash: fmt.Sprint(i), Prev: b.engine.history[len(b.engine.history)-1].Hash, Kind: "switch", OwnerName: "Desk", FromName: "Attic", Term: 200002 + uint64(i)})
	}
	b.do(act{Verb: verbHistory, ID: "w"})
	next(t, b.engine, "history w")
	b.turn()
	b.see("57 older entries: tagalong history", "257. Attic → Desk")
	b.gone("created on Desk")
	b.tap("Close")
	b.engine.refuse(&api.Error{Code: api.CodeNotFound, Sentence: "No such VM.", Next: "Look again."})
	b.do(act{Verb: verbHistory, ID: "w"})
	next(t, b.engine, "history w")
	b.turn()
	b.see("No such VM.", "Look again.")
}

func TestRemovingAndLeaving(t *testing.T) {
	b := newBench(t)
	test.Tap(b.win.devices[1].remove)
	b.see("Laptop owns Work.")
	b.check("Delete everything on it as soon as it is reached")
	b.tap("Remove")
	next(t, b.engine, "remove-device L wipe=true anyway=true")
	b.turn()
	test.Tap(b.win.devices[2].remove)
	b.gone("owns Work")
	b.tap("Remove")
	next(t, b.engine, "remove-device A wipe=false anyway=false")
	b.turn()
	b.engine.say(func(st *api.Status) { st.Devices[2].Removed, st.Devices[2].Wipe = true, true })
	b.up()
	b.see("Removed; wiped when it is reached")
	if b.win.devices[2].remove.Visible() {
		t.Error("a removed device can be removed")
	}
	test.Tap(b.win.devices[0].leave)
	b.see("Take Desk, this device, out of your fleet?")
	b.check("Delete the copies of VMs that it doesn't own")
	b.tap("Leave")
	next(t, b.engine, "leave delete=true")
	b.turn()
	b.engine.say(func(st *api.Status) { st.Devices = st.Devices[:1] })
	b.up()
	if b.win.devices[0].leave.Visible() {
		t.Error("a fleet of one can be left")
	}
}

func TestNoticesOfTakeoversAndConflicts(t *testing.T) {
	at := func(change func(*api.Status)) *api.Status {
		st := sample(testNow)
		st.VMs[0].Here, st.VMs[0].Owner, st.VMs[0].OwnerName = true, "D", "Desk"
		if change != nil {
			change(st)
		}
		return st
	}
	conflict := func(st *api.Status) { inConflict(st, testNow) }
	taken := func(st *api.Status) { st.VMs[0].Here, st.VMs[0].Owner, st.VMs[0].OwnerName = false, "L", "Laptop" }
	switched := func(st *api.Status) {
		taken(st)
		st.VMs[0].Switch = switching()
		st.VMs[0].Switch.From, st.VMs[0].Switch.To, st.VMs[0].Switch.Phase = "D", "L", api.PhaseDone
	}
	removed := func(wipe bool) func(*api.Status) {
		return func(st *api.Status) { st.Devices[2].Removed, st.Devices[2].Wipe = true, wipe }
	}
	leaving := func(wipe bool) func(*api.Status) {
		return func(st *api.Status) { st.Leaving = &api.Leaving{By: "L", ByName: "Laptop", Wipe: wipe, Cause: "no"} }
	}
	for _, c := range []struct {
		name          string
		before, after func(*api.Status)
		want          []string
	}{
		{"nothing", nil, nil, nil},
		{"found", nil, conflict, []string{"Work has two versions"}},
		{"still there", conflict, conflict, nil},
		{"resolved", conflict, nil, []string{"Work has one version again"}},
		{"lost, by one's own choice", conflict, taken, []string{"Work has one version again"}},
		{"superseded", nil, taken, []string{"Work goes on on Laptop"}},
		{"given away by a switch that ended unseen", nil, switched, nil},
		{"ready", func(st *api.Status) { preparing(st) }, func(st *api.Status) { st.Offline.On = true }, []string{"Ready to work offline"}},
		{"back", func(st *api.Status) { st.Offline.On = true }, nil, nil},
		{"removed", nil, removed(true), []string{"Attic is no longer in your fleet"}},
		{"wiped", removed(true), func(st *api.Status) { st.Devices = st.Devices[:2] }, []string{"Attic was reached and wiped"}},
		{"told", removed(false), func(st *api.Status) { st.Devices = st.Devices[:2] }, nil},
		{"it left", nil, func(st *api.Status) { st.Devices = st.Devices[:2] }, []string{"Attic is no longer in your fleet"}},
		{"a wipe failed here", nil, leaving(true), []string{"Laptop asked this device to delete everything, and not all of it could be deleted"}},
		{"it failed again", leaving(true), leaving(true), nil},
		{"it worked", leaving(true), nil, nil},
		{"leaving failed", nil, leaving(false), []string{"This device is out of the fleet, but not all that follows from that could be done"}},
		{"this one was removed", nil, func(st *api.Status) { st.Devices = st.Devices[:1] }, []string{"This device is no longer in your fleet"}},
	} {
		var got []string
		for _, n := range notices(at(c.before), at(c.after)) {
			got = append(got, n.Title)
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
