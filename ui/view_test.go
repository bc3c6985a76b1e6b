package ui

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tagalong.org/tagalong/app/api"
)

// viewWith is the view of the sample after a change.
func viewWith(change func(*state)) view {
	s := state{Link: linkUp, Status: sample(testNow)}
	if change != nil {
		change(&s)
	}
	return viewOf(s, testNow)
}

func TestSwitchButton(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*state)
		want   bool
		hint   string
	}{
		{"elsewhere and connected", nil, true, ""},
		{"here", func(s *state) { s.Status.VMs[0].Here = true }, false, "It is here already."},
		{"owner away", func(s *state) { s.Status.Devices[1].Connected = false }, false, "Laptop isn't connected."},
		{"owner unheard of", func(s *state) { s.Status.VMs[0].Owner = "X" }, false, "Laptop isn't connected."},
		{"first copy under way", func(s *state) { s.Status.VMs[0].Replicas[1].State = api.ReplicaCopying }, false, "The first copy of its disk isn't complete yet."},
		{"no copy", func(s *state) { s.Status.VMs[0].Replicas = nil }, false, "The first copy of its disk isn't complete yet."},
		{"behind", func(s *state) { s.Status.VMs[0].Replicas[1].State = api.ReplicaBehind }, true, ""},
		{"no hypervisor", func(s *state) { s.Status.Hypervisor.Found = false }, false, "This device can't run VMs: it has no QEMU."},
		{"engine lost", func(s *state) { s.Link = linkLost }, false, "The engine doesn't answer."},
		{"under way", func(s *state) { s.Status.VMs[0].Switch = switching() }, false, "It is on its way."},
		{"asked for", func(s *state) { s.Asked = map[string]bool{"w": true} }, false, "It is on its way."},
		{"ended", func(s *state) { s.Status.VMs[0].Switch = switching(); s.Status.VMs[0].Switch.Phase = api.PhaseDone }, true, ""},
	} {
		b := viewWith(c.change).VMs[0].Switch
		if b.Enabled != c.want || b.Hint != c.hint || b.Label != "Switch to this machine" || b.Act != (act{Verb: verbSwitch, ID: "w"}) {
			t.Errorf("%s: %+v", c.name, b)
		}
	}
}

func TestAWipeThatFailedIsAcrossTheWindow(t *testing.T) {
	v := viewWith(func(s *state) {
		s.Status.Leaving = &api.Leaving{By: "L", ByName: "Laptop", Wipe: true, Cause: "the drive"}
	})
	if b := v.Banner; b == nil || !b.Trouble || !strings.Contains(b.Title, "Laptop") || !strings.Contains(b.Text, "the drive") {
		t.Errorf("%+v", b)
	}
}

func TestWhere(t *testing.T) {
	for _, c := range []struct {
		state     api.VMState
		here      bool
		connected bool
		want      string
	}{
		{api.VMRunning, true, true, "Running here"},
		{api.VMStopped, true, true, "Stopped here"},
		{api.VMSuspended, true, true, "Suspended here"},
		{api.VMRunning, false, true, "Running on Laptop"},
		{api.VMStopped, false, true, "Stopped on Laptop"},
		{api.VMRunning, false, false, "Last known on Laptop, 2 hours ago"},
		{api.VMUnknown, false, true, "Last known on Laptop, 2 hours ago"},
	} {
		v := viewWith(func(s *state) {
			s.Status.VMs[0].State, s.Status.VMs[0].Here = c.state, c.here
			s.Status.Devices[1].Connected = c.connected
			s.Status.Devices[1].LastSeen = testNow.Add(-2 * time.Hour)
		})
		if got := v.VMs[0].Where; got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

// The window says what becomes of the second copy, and offers the other choice.
func TestSecondCopy(t *testing.T) {
	row := func(sync string, second *api.SecondCopy) vmRow {
		return viewWith(func(s *state) {
			vm := &s.Status.VMs[0]
			vm.State, vm.Here, vm.Spec.Sync, vm.Second = api.VMRunning, true, sync, second
		}).VMs[0]
	}
	offers := func(r vmRow) (to string) {
		for _, b := range append([]button{r.Main}, r.More...) {
			if b.Act.Verb == verbSync && b.Enabled {
				to += b.Act.Sub
			}
		}
		return to
	}
	if r := row("", nil); r.Replica != "" || offers(r) != api.SyncTwo {
		t.Errorf("one: %q, offers %q", r.Replica, offers(r))
	}
	said := map[string]bool{}
	for _, s := range []api.SecondState{api.SecondKept, api.SecondWaiting, api.SecondPaused, api.SecondAlone, api.SecondOffline, api.SecondFilling, api.SecondUncopied} {
		r := row(api.SyncTwo, &api.SecondCopy{State: s})
		text := r.Replica
		if s == api.SecondPaused { // it stands still: the way out is the card's button
			if text != "" || r.Problem == nil || r.Problem.Text == "" || r.Mood != moodTrouble || r.Main.Act.Verb != verbSync {
				t.Fatalf("%+v", r)
			}
			text = r.Problem.Title
		}
		if text == "" || said[text] || offers(r) != api.SyncOne {
			t.Errorf("%s: %q, offers %q", s, text, offers(r))
		}
		said[text] = true
	}
	there := viewWith(func(s *state) { s.Status.VMs[0].Here = false }).VMs[0]
	if offers(there) != "" {
		t.Error("it can be set where the VM isn't")
	}
}

func TestControls(t *testing.T) {
	for s, want := range map[api.VMState]string{
		api.VMStopped: "start remove-vm", api.VMSuspended: "resume remove-vm", api.VMPaused: "resume force",
		api.VMRunning: "screen suspend stop reset force", api.VMStopping: "screen force", api.VMStarting: "", api.VMUnknown: "",
	} {
		v := viewWith(func(st *state) {
			st.Status.VMs[0].State, st.Status.VMs[0].Here, st.Status.VMs[0].Screen = s, true, "/run/screen.sock"
			st.CanShow = true
		})
		var got []string
		for _, b := range append([]button{v.VMs[0].Main}, v.VMs[0].More...) {
			// Those can be at any time.
			always := b.Act.Verb == verbHistory || b.Act.Verb == verbSync || b.Act.Verb == verbSettings || b.Act.Verb == verbDisks
			if b.Label != "" && b.Enabled && !always {
				got = append(got, string(b.Act.Verb))
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", s, got, want)
		}
	}
}

func TestProgress(t *testing.T) {
	v := viewWith(func(s *state) { s.Status.VMs[0].Switch = switching() })
	bar := v.VMs[0].Bar
	if bar == nil {
		t.Fatal("no bar")
	}
	if bar.Detail != "41 % (1.7 GiB of 4 GiB) · 95 MiB/s · 26 s left" || bar.Part < 0.41 || bar.Part > 0.42 {
		t.Errorf("%+v", bar)
	}
	if bar.Title != "Work comes here: memory, while it goes on running" || !bar.Cancel.Enabled || bar.Cancel.Act != (act{Verb: verbCancel, ID: "s1"}) {
		t.Errorf("%+v", bar)
	}
	if v.Mood != moodBusy || v.Line != bar.Title {
		t.Errorf("mood %v, line %q", v.Mood, v.Line)
	}
	v = viewWith(func(s *state) { s.Status.VMs[0].Switch = switching(); s.Status.VMs[0].Switch.CanEnd = false })
	if v.VMs[0].Bar.Cancel.Enabled {
		t.Error("a switch that can't be cancelled has a live button")
	}
}

// "Up to date" is a promise; it is made only where the device itself said so lately.
func TestUpToDate(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*api.Status)
		want   bool
	}{
		{"heard now", func(*api.Status) {}, true},
		{"heard long ago", func(s *api.Status) { s.VMs[0].Replicas[1].Heard = testNow.Add(-2 * api.SilentAfter) }, false},
		{"never heard", func(s *api.Status) { s.VMs[0].Replicas[1].Heard = time.Time{} }, false},
		{"lacks blocks", func(s *api.Status) { s.VMs[0].Replicas[1].Remaining = 4096 }, false},
		{"owner away", func(s *api.Status) { s.Devices[1].Connected = false }, false},
		{"behind", func(s *api.Status) { s.VMs[0].Replicas[1].State = api.ReplicaBehind }, false},
		{"a state from the future", func(s *api.Status) { s.VMs[0].Replicas[1].State = "new" }, false},
	} {
		v := viewWith(func(s *state) { c.change(s.Status) })
		if got := v.Devices[0].Copies[0].Text == "up to date"; got != c.want {
			t.Errorf("%s: %q", c.name, v.Devices[0].Copies[0].Text)
		}
		if got := strings.Contains(strings.ReplaceAll(v.VMs[0].Replica, "was up to date", ""), "up to date"); got != c.want {
			t.Errorf("%s: %q", c.name, v.VMs[0].Replica)
		}
	}
}

func TestLinkMessages(t *testing.T) {
	for _, c := range []struct {
		s     state
		title string
		verb  verb
	}{
		{state{Link: linkConnecting}, "Looking for the engine…", ""},
		{state{Link: linkStarting}, "Starting the engine…", ""},
		{state{Link: linkNone}, "No engine runs here.", verbEngine},
		{state{Link: linkLost, Status: sample(testNow)}, "The engine doesn't answer any more.", verbEngine},
	} {
		v := viewOf(c.s, testNow)
		if v.Banner == nil || v.Banner.Title != c.title || v.Banner.Button.Act.Verb != c.verb || v.Line != c.title || v.Up {
			t.Errorf("%+v: %+v", c.s, v)
		}
	}
	v := viewOf(state{Link: linkNone, Err: &api.Error{Code: api.CodeUsage, Sentence: "Not yours.", Next: "Chown it."}}, testNow)
	if v.Banner.Text != "Not yours. Chown it." {
		t.Errorf("%+v", v.Banner)
	}
}

func TestEmptyAndLines(t *testing.T) {
	v := viewWith(func(s *state) { s.Status.VMs, s.Status.Devices = nil, s.Status.Devices[:1] })
	if v.Empty == nil || v.Empty.Button.Act.Verb != verbCreate || v.Alone == "" || v.Line != "No VM yet" || v.Mood != moodOff {
		t.Errorf("%+v", v)
	}
	v = viewWith(func(s *state) {
		s.Status.VMs = nil
		s.Status.Jobs = []api.Job{{ID: "j", VMName: "New", Bytes: 5, Total: 10}}
	})
	if v.Empty != nil || len(v.Jobs) != 1 || v.Jobs[0].Part != 0.5 || v.Line != "Creating New" {
		t.Errorf("%+v", v)
	}
	v = viewWith(func(s *state) {
		s.Status.VMs = append(s.Status.VMs, s.Status.VMs[0])
		s.Status.VMs[1].Here = true
	})
	if v.Line != "1 VM here, 1 elsewhere" {
		t.Errorf("%q", v.Line)
	}
	v = viewWith(func(s *state) {
		s.Status.VMs[0].Problem = &api.Error{Sentence: "Full.", Next: "Empty it."}
	})
	if v.Mood != moodTrouble || !strings.Contains(v.Line, "Work") || v.VMs[0].Problem.Title != "Full." || v.VMs[0].Problem.Text != "Empty it." {
		t.Errorf("%+v", v)
	}
}

func TestDeviceTellsItsSite(t *testing.T) {
	here, home := &api.DeviceSite{ID: "a", Here: true}, &api.DeviceSite{ID: "a", Name: "Home"}
	for _, c := range []struct {
		d    api.Device
		want string
	}{
		{api.Device{Connected: true}, "Connected"},
		{api.Device{Connected: true, Site: here}, "Connected · same network"},
		{api.Device{Connected: true, Site: &api.DeviceSite{ID: "b"}}, "Connected"},
		{api.Device{Self: true, Site: here}, "This device"},
		{api.Device{Self: true, Site: home}, "This device · Home"},
		{api.Device{Removed: true, Site: home}, "Removed; told when it is reached"},
	} {
		if got := newIndex(&api.Status{}, nil, true).device(&c.d, time.Time{}).State; got != c.want {
			t.Errorf("%+v: %q, want %q", c.d, got, c.want)
		}
	}
}

func TestDeviceOrder(t *testing.T) {
	v := viewWith(func(s *state) {
		d := s.Status.Devices
		s.Status.Devices = []api.Device{d[2], {ID: "Z", Name: "Zoo", Connected: true}, d[1], d[0]}
	})
	var names []string
	for _, d := range v.Devices {
		names = append(names, d.Name)
	}
	if got := strings.Join(names, " "); got != "Desk Laptop Zoo Attic" {
		t.Errorf("order %s", got)
	}
	// An engine that lists only the others means this one all the same.
	v = viewWith(func(s *state) { s.Status.Devices = s.Status.Devices[1:] })
	if len(v.Devices) != 3 || !v.Devices[0].Self {
		t.Errorf("%+v", v.Devices)
	}
}

func TestFailedSwitch(t *testing.T) {
	v := viewWith(func(s *state) {
		s.Status.VMs[0].Switch = switching()
		s.Status.VMs[0].Switch.Phase = api.PhaseFailed
		s.Status.VMs[0].Switch.Error = &api.Error{Sentence: "The link broke.", Next: "Try again."}
	})
	r := v.VMs[0]
	if r.Bar != nil || r.Problem == nil || r.Problem.Title != "The link broke." || !r.Switch.Enabled {
		t.Errorf("%+v", r)
	}
}

func TestNotices(t *testing.T) {
	before := sample(testNow)
	before.VMs[0].Switch = switching()
	after := func(change func(*api.Switch)) *api.Status {
		st := cloneStatus(before)
		change(st.VMs[0].Switch)
		return st
	}
	done := func(s *api.Switch) { s.Phase, s.Pause = api.PhaseDone, 83*time.Millisecond }
	if got := notices(before, after(done)); !reflect.DeepEqual(got, []note{{"Work is here", "It stood still for 83 ms."}}) {
		t.Errorf("%v", got)
	}
	if got := notices(nil, after(done)); got != nil {
		t.Errorf("old news: %v", got)
	}
	if got := notices(after(done), after(done)); got != nil {
		t.Errorf("told twice: %v", got)
	}
	if got := notices(before, after(func(s *api.Switch) { s.Phase = api.PhaseCancelled })); got != nil {
		t.Errorf("%v", got)
	}
	failed := after(func(s *api.Switch) { s.Phase = api.PhaseFailed })
	if got := notices(before, failed); len(got) != 1 || got[0].Text != "It goes on on Laptop." {
		t.Errorf("%v", got)
	}
	before.VMs[0].Switch.To = "A"
	if got := notices(before, after(done)); got != nil {
		t.Errorf("a switch between others: %v", got)
	}
}

// Whatever an engine says, there is a view of it, and it doesn't depend on when it was made but
// through times.
func TestViewOfAnything(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		st := sample(testNow)
		vm := &st.VMs[0]
		vm.State = api.VMState(rapid.SampledFrom([]string{"", "running", "paused", "stopped", "x"}).Draw(rt, "state"))
		vm.Here = rapid.Bool().Draw(rt, "here")
		vm.Owner = rapid.SampledFrom([]string{"", "L", "D", "A", "?"}).Draw(rt, "owner")
		if rapid.Bool().Draw(rt, "switch") {
			vm.Switch = switching()
			vm.Switch.Phase = api.SwitchPhase(rapid.SampledFrom([]string{"", "memory", "done", "failed", "x"}).Draw(rt, "phase"))
			vm.Switch.Bytes = rapid.Int64().Draw(rt, "bytes")
			vm.Switch.Total = rapid.Int64().Draw(rt, "total")
			vm.Switch.Rate = rapid.Int64().Draw(rt, "rate")
			vm.Switch.ETA = time.Duration(rapid.Int64().Draw(rt, "eta"))
		}
		r := &vm.Replicas[rapid.IntRange(0, 2).Draw(rt, "replica")]
		r.State = api.ReplicaState(rapid.SampledFrom([]string{"", "owner", "live", "copying", "behind", "x"}).Draw(rt, "rstate"))
		r.Remaining, r.Copied = rapid.Int64().Draw(rt, "remaining"), rapid.Int64().Draw(rt, "copied")
		s := state{Link: link(rapid.IntRange(0, 4).Draw(rt, "link")), Status: st}
		v := viewOf(s, testNow)
		if v.Line == "" {
			rt.Fatal("no line")
		}
		for _, row := range v.VMs {
			if row.Bar != nil && row.Bar.Part > 1 {
				rt.Fatalf("bar at %v", row.Bar.Part)
			}
		}
		for _, d := range v.Devices {
			for _, c := range d.Copies {
				if c.Part > 1 {
					rt.Fatalf("copy at %v", c.Part)
				}
			}
		}
		if again := viewOf(s, testNow); !reflect.DeepEqual(v, again) {
			rt.Fatal("two views of one state")
		}
		if items := trayItems(v); len(items) < 4 || items[len(items)-1].Act.Verb != verbQuit {
			rt.Fatalf("menu %v", items)
		}
	})
}
