package ui

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fyne.io/fyne/v2"

	"tagalong.org/tagalong/app/api"
)

// written is a menu as lines: "+" can be clicked, "-" can't, "" is a separator.
func written(items []trayItem) string {
	var b strings.Builder
	for _, it := range items {
		switch {
		case it.Label == "":
		case it.Enabled:
			b.WriteString("+ " + it.Label)
		default:
			b.WriteString("- " + it.Label)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestTrayMenu(t *testing.T) {
	got := written(trayItems(viewWith(nil)))
	want := `- Work: Running on Laptop

- Work: Running on Laptop
+ Switch to this machine

- Devices
- Laptop: up to date
- Attic: away

+ Work offline

+ Open window
+ Quit (VMs and the engine go on)
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestTrayMenuWithoutEngine(t *testing.T) {
	got := written(trayItems(viewOf(state{Link: linkNone}, testNow)))
	want := `- No engine runs here.

+ Start the engine
+ Open window
+ Quit (VMs and the engine go on)
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestTrayMenuIsBounded(t *testing.T) {
	v := viewWith(func(s *state) {
		for range 100 {
			s.Status.VMs = append(s.Status.VMs, s.Status.VMs[0])
			s.Status.Devices = append(s.Status.Devices, s.Status.Devices[1])
		}
	})
	if n := len(trayItems(v)); n > 40 {
		t.Errorf("%d lines", n)
	}
}

// A menu that is rebuilt under the pointer can't be clicked, so figures must not change it.
func TestTrayMenuHoldsStill(t *testing.T) {
	at := func(bytes int64) string {
		return written(trayItems(viewWith(func(s *state) {
			s.Status.VMs[0].Switch = switching()
			s.Status.VMs[0].Switch.Bytes = bytes
			s.Status.VMs[0].Replicas[2].State = api.ReplicaBehind
			s.Status.VMs[0].Replicas[2].Remaining = gib - bytes
			s.Status.Devices[2].Connected = true
		})))
	}
	if a, b := at(1), at(mib); a != b {
		t.Errorf("%s\nbecame\n%s", a, b)
	}
	if !strings.Contains(at(1), "+ Cancel the switch") || !strings.Contains(at(1), "Attic: catching up") {
		t.Errorf("got\n%s", at(1))
	}
}

func TestTrayPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := &fakeHost{}
		turns := make(chan func(), 10)
		tr := newTray(host, func(act) {}, func(f func()) { turns <- f }, time.Now)
		v := viewWith(nil)
		for i := range 10 {
			v.Line = strings.Repeat("x", i)
			tr.set(v)
		}
		if host.menus() != 1 {
			t.Errorf("%d menus at once", host.menus())
		}
		(<-turns)()
		if host.menus() != 2 {
			t.Errorf("%d menus after a while", host.menus())
		}
		if got := host.all[1].Items[0].Label; got != "xxxxxxxxx" {
			t.Errorf("the last state is missing: %q", got)
		}
		v.Mood = moodTrouble
		tr.set(v)
		tr.close()
		time.Sleep(2 * trayGap)
		synctest.Wait()
		if len(turns) != 0 || len(host.icons) != 1 {
			t.Error("changed after its end")
		}
	})
}

func TestTrayClick(t *testing.T) {
	var got []act
	host := &fakeHost{}
	tr := newTray(host, func(a act) { got = append(got, a) }, func(f func()) { f() }, time.Now)
	tr.set(viewWith(nil))
	quits := 0
	for _, it := range host.all[0].Items {
		if it.IsQuit {
			quits++
		}
		if !it.Disabled && it.Action != nil {
			it.Action()
		}
		if it.Disabled != (it.Action == nil) && it != (*fyne.MenuItem)(nil) && !it.IsSeparator {
			t.Errorf("%s: disabled %v, action %v", it.Label, it.Disabled, it.Action != nil)
		}
	}
	want := []act{{Verb: verbSwitch, ID: "w"}, {Verb: verbOffline, ID: offlineID}, {Verb: verbOpen}, {Verb: verbQuit}}
	if !slices.Equal(got, want) {
		t.Errorf("did %v", got)
	}
	if quits != 1 {
		t.Errorf("%d ways to quit", quits)
	}
}
