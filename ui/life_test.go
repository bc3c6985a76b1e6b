package ui

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"fyne.io/fyne/v2/widget"

	"tagalong.org/tagalong/app/api"
)

// fakeViewer shows screens until it is told that their windows were closed.
type fakeViewer struct {
	mu     sync.Mutex
	auto   bool
	err    error
	shown  chan string
	closed chan struct{}
}

func newFakeViewer() *fakeViewer {
	return &fakeViewer{auto: true, shown: make(chan string, 10), closed: make(chan struct{})}
}

func (v *fakeViewer) Show(ctx context.Context, vm string) error {
	v.shown <- vm
	v.mu.Lock()
	err := v.err
	v.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case <-v.closed:
	case <-ctx.Done():
	}
	return nil
}

func (v *fakeViewer) Auto() (bool, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.auto, nil
}

func (v *fakeViewer) SetAuto(auto bool) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.auto = auto
	return nil
}

// running has the sample's Work run here, with a screen.
func running(st *api.Status) {
	here(st)
	st.VMs[0].Screen = "/run/screen.sock"
}

func TestArrivals(t *testing.T) {
	with := func(change func(*api.VM)) *api.Status {
		st := sample(testNow)
		running(st)
		if change != nil {
			change(&st.VMs[0])
		}
		return st
	}
	now := with(nil)
	for name, c := range map[string]struct {
		before *api.Status
		now    *api.Status
		want   bool
	}{
		"the program has just begun": {nil, now, false},
		"it ran before":              {now, now, false},
		"it was elsewhere":           {with(func(v *api.VM) { v.Here = false }), now, true},
		"it was stopped":             {with(func(v *api.VM) { v.State = api.VMStopped }), now, true},
		"it was suspended":           {with(func(v *api.VM) { v.State = api.VMSuspended }), now, true},
		"it was starting":            {with(func(v *api.VM) { v.State = api.VMStarting }), now, true},
		"it stood still":             {with(func(v *api.VM) { v.State = api.VMPaused }), now, false},
		"it didn't shut down":        {with(func(v *api.VM) { v.State = api.VMStopping }), now, false},
		"it was coming here":         {with(func(v *api.VM) { v.State, v.Switch = api.VMSwitching, &api.Switch{To: "D"} }), now, true},
		"it was to go and stays":     {with(func(v *api.VM) { v.State, v.Switch = api.VMSwitching, &api.Switch{To: "L"} }), now, false},
		"it is new here":             {with(func(v *api.VM) { v.ID = "other" }), now, true},
		"it has no screen":           {with(func(v *api.VM) { v.Here = false }), with(func(v *api.VM) { v.Screen = "" }), false},
		"it still starts":            {with(func(v *api.VM) { v.Here = false }), with(func(v *api.VM) { v.State = api.VMStarting }), false},
	} {
		if got := arrivals(c.before, c.now); (len(got) == 1 && got[0] == "w") != c.want || len(got) > 1 {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestAScreenIsShownWhenItsVMComes(t *testing.T) {
	b := newBench(t)
	viewer := newFakeViewer()
	b.viewer, b.state.CanShow = viewer, true
	b.engine.say(running)
	b.up()
	if got := <-viewer.shown; got != "w" {
		t.Errorf("shown: %q", got)
	}
	if main := b.view.VMs[0].Main; main.Act.Verb != verbScreen || main.Enabled {
		t.Errorf("while it is shown: %+v", main)
	}
	close(viewer.closed)
	b.turn()
	b.up()
	if main := b.view.VMs[0].Main; !main.Enabled {
		t.Errorf("closed, it can't be opened again: %+v", main)
	}
	if len(viewer.shown) > 0 {
		t.Error("what the person closed was opened again")
	}
	b.tap("Show the screen")
	<-viewer.shown
	b.turn()
	if i := slices.IndexFunc(trayItems(b.view), func(it trayItem) bool { return it.Act.Verb == verbScreen }); i < 0 {
		t.Error("the tray doesn't offer it")
	}
}

func TestWhoWantsNoScreensGetsNone(t *testing.T) {
	b := newBench(t)
	viewer := newFakeViewer()
	viewer.auto = false
	b.viewer, b.state.CanShow = viewer, true
	b.engine.say(running)
	b.up()
	b.work.Wait()
	if len(viewer.shown) > 0 {
		t.Error("it was shown")
	}
}

// TestAMissingViewerIsToldOnce: when screens open by themselves, and whenever the person asks for one.
func TestAMissingViewerIsToldOnce(t *testing.T) {
	b := newBench(t)
	viewer := newFakeViewer()
	viewer.err = &api.Error{Code: api.CodeNotFound, Sentence: "There is no viewer.", Next: "Install one."}
	b.viewer, b.state.CanShow = viewer, true
	arrive := func() {
		b.engine.say(func(st *api.Status) { running(st); st.VMs[0].State = api.VMStopped })
		b.up()
		b.engine.say(running)
		b.up()
		<-viewer.shown
		b.turn()
	}
	arrive()
	b.see("There is no viewer.")
	b.do(act{Verb: verbDismiss})
	arrive()
	if strings.Contains(b.shownText(), "There is no viewer.") {
		t.Error("it is told again")
	}
	b.tap("Show the screen")
	<-viewer.shown
	b.turn()
	b.see("There is no viewer.", "Install one.")
}

// TestAVMThatDoesNotShutDown: its buttons don't wait meanwhile, and the person decides.
func TestAVMThatDoesNotShutDown(t *testing.T) {
	b := newBench(t)
	b.engine.say(running)
	b.up()
	b.engine.refuse(&api.Error{Code: api.CodeUnanswered, Sentence: "It still runs."})
	b.do(act{Verb: verbStop, ID: "w"})
	next(t, b.engine, "stop w false")
	if b.state.Asked["w"] {
		t.Error("its buttons wait")
	}
	b.turn()
	b.see("Work doesn't shut down", "what its programs haven't saved is lost")
	b.engine.refuse(nil)
	b.tap("Turn off at once")
	next(t, b.engine, "stop w true")
	b.turn()
	b.engine.refuse(errors.New("no"))
	b.do(act{Verb: verbStop, ID: "w"})
	next(t, b.engine, "stop w false")
	b.turn()
	if b.state.Notice == nil {
		t.Error("another failure isn't told")
	}
}

func TestResetAndDeleteAskFirst(t *testing.T) {
	b := newBench(t)
	b.engine.say(running)
	b.up()
	b.do(act{Verb: verbReset, ID: "w"})
	b.see("Restart Work at once?")
	b.tap("Restart at once")
	next(t, b.engine, "reset w")
	b.turn()
	b.engine.say(func(st *api.Status) { withPoints(st, testNow); st.VMs[0].State = api.VMSuspended })
	b.up()
	b.do(act{Verb: verbRemoveVM, ID: "w"})
	b.see("Delete Work?", "40 GiB", "It is suspended", "restore points", "Attic can't be reached now")
	b.tap("Delete")
	next(t, b.engine, "remove w")
	b.turn()
}

func TestSettings(t *testing.T) {
	b := newBench(t)
	viewer := newFakeViewer()
	b.viewer, b.state.CanShow = viewer, true
	open := func() []*widget.Entry {
		b.do(act{Verb: verbSettings, ID: "w"})
		b.see("Settings of Work")
		var entries []*widget.Entry
		for _, o := range b.everything() {
			if e, ok := o.(*widget.Entry); ok {
				entries = append(entries, e)
			}
		}
		if len(entries) != 3 {
			t.Fatalf("%d fields", len(entries))
		}
		return entries
	}
	entries := open()
	if !entries[1].Disabled() || !entries[2].Disabled() || entries[1].Text != "4096" {
		t.Errorf("of a VM that runs: memory %q", entries[1].Text)
	}
	entries[0].SetText("Office")
	b.tap("Change")
	next(t, b.engine, `set w name="Office" cpus=0 memory=0`)
	b.turn()
	b.engine.say(func(st *api.Status) { here(st); st.VMs[0].State = api.VMStopped })
	b.up()
	entries = open()
	entries[1].SetText("8192")
	entries[2].SetText("8")
	for _, o := range b.everything() {
		if c, ok := o.(*widget.Check); ok {
			c.SetChecked(false)
		}
	}
	b.tap("Change")
	next(t, b.engine, `set w name="" cpus=8 memory=8192`)
	b.turn()
	b.turn()
	if auto, _ := viewer.Auto(); auto {
		t.Error("screens still open by themselves")
	}
	entries = open()
	b.tap("Change") // nothing was changed: nothing is asked for
	_ = entries
	b.work.Wait()
}
