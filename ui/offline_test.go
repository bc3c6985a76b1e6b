package ui

import (
	"strings"
	"testing"
	"time"

	"fyne.io/fyne/v2/widget"

	"tagalong.org/tagalong/app/api"
)

func workHere(st *api.Status, _ time.Time) {
	st.VMs[0].Here, st.VMs[0].Owner, st.VMs[0].OwnerName = true, "D", "Desk"
}

func TestGoingOffline(t *testing.T) {
	b := newBench(t).with(workHere)
	b.check("Work offline")
	next(t, b.engine, "offline [] copy=false now=false")
	b.turn()
	if b.win.toggle.w.Checked {
		t.Error("a click alone marks it")
	}
	b.with(func(st *api.Status, _ time.Time) { preparing(st) })
	b.see("Getting ready to work offline", "41 % (1.7 GiB of 4 GiB) · 95 MiB/s · 4 min 0 s left", "Work is here, 2.3 GiB to go.", "Play is still with Attic.")
	if n := len(b.view.Jobs); n != 0 {
		t.Errorf("the preparation is shown %d times more", n)
	}
	b.tap("Go now anyway…")
	b.see("Go without what isn't here yet?", "Work: 2.3 GiB", "Play stays with Attic; here is only a copy of it")
	b.tap("Go now")
	next(t, b.engine, "offline [] copy=false now=true")
	b.turn()
	b.with(func(st *api.Status, now time.Time) {
		st.Jobs, st.Offline.Job, st.Offline.On, st.Offline.Since, st.Offline.Unaware = nil, "", true, now.Add(-2*time.Hour), []string{"Attic"}
		st.Offline.VMs[1].At = now.Add(-5 * time.Hour)
	})
	b.see("Offline · Work: Running here", "You work offline. You left 2 hours ago.", "Work is along, but 2.3 GiB of it aren't here.",
		"Play is only a copy here, made 5 hours ago. Attic owns it; don't start it here.", "Not told yet: Attic")
	b.gone("Go now anyway…")
	if !b.win.toggle.w.Checked {
		t.Error("it isn't marked")
	}
	b.tap("Back online")
	next(t, b.engine, "online")
	b.turn()
}

func TestCallingAPreparationOff(t *testing.T) {
	b := newBench(t).with(workHere).with(func(st *api.Status, _ time.Time) { preparing(st) })
	b.tap("Cancel")
	next(t, b.engine, "online")
	b.turn()
	b.check("Work offline")
	next(t, b.engine, "online")
	b.turn()
}

func TestChoosingWhatComesAlong(t *testing.T) {
	b := newBench(t).with(func(st *api.Status, now time.Time) {
		play, far := st.VMs[0], st.VMs[0]
		play.ID, play.Name, play.Here, play.Owner = "p", "Play", true, "D"
		far.ID, far.Name, far.Owner, far.OwnerName = "f", "Far", "A", "Attic"
		st.VMs = append(st.VMs, play, far)
	})
	marks := func() (on, off, fixed []string) {
		for _, o := range b.everything() {
			w, ok := o.(*widget.Check)
			switch {
			case !ok || w.Text == "Work offline":
			case w.Disabled():
				fixed = append(fixed, w.Text)
			case w.Checked:
				on = append(on, w.Text)
			default:
				off = append(off, w.Text)
			}
		}
		return on, off, fixed
	}
	b.check("Work offline")
	if on, off, fixed := marks(); len(on) != 1 || len(off) != 0 || len(fixed) != 2 || on[0] != "Work: Running on Laptop" {
		t.Errorf("%q %q %q", on, off, fixed)
	}
	b.see("Attic isn't connected.")
	if b.win.toggle.w.Checked {
		t.Error("a click alone marks it")
	}
	b.tap("Get ready")
	next(t, b.engine, "offline [w p] copy=false now=false")
	b.turn()
	b.check("Work offline")
	b.check("Work: Running on Laptop")
	b.tap("Get ready")
	next(t, b.engine, "offline [p] copy=false now=false")
	b.turn()
	// Nothing at all is not "everything".
	b.with(func(st *api.Status, _ time.Time) { st.VMs = st.VMs[:1] })
	b.check("Work offline")
	b.check("Work: Running on Laptop")
	b.tap("Get ready")
	next(t, b.engine, "offline [] copy=true now=false")
	b.turn()
}

func TestNobodyToBeWithout(t *testing.T) {
	v := viewWith(func(s *state) { s.Status.Devices = s.Status.Devices[:1] })
	if v.Toggle.Label != "" {
		t.Error("a fleet of one can go offline")
	}
	v = viewWith(func(s *state) { s.Status.Devices, s.Status.Offline.On = s.Status.Devices[:1], true })
	if v.Toggle.Act.Verb != verbOnline {
		t.Error("there is no way back online")
	}
}

func TestTrayOffline(t *testing.T) {
	at := func(bytes int64, left time.Duration) string {
		return written(trayJourney(viewWith(func(s *state) {
			preparing(s.Status)
			s.Status.Jobs[0].Bytes, s.Status.Jobs[0].ETA = bytes, left
		})))
	}
	want := "- Getting ready to work offline: 40 %, about 4 minutes left\n+ Go now anyway…\n+ Stay online\n"
	if got := at(1700*mib, 4*time.Minute); got != want {
		t.Errorf("got\n%s", got)
	}
	if a, b := at(1700*mib, 4*time.Minute), at(1701*mib, 4*time.Minute-time.Second); a != b {
		t.Errorf("%s\nbecame\n%s", a, b)
	}
	items := trayJourney(viewWith(func(s *state) { s.Status.Offline.On = true }))
	if len(items) != 1 || !items[0].Checked || items[0].Act.Verb != verbOnline {
		t.Errorf("%+v", items)
	}
}

func TestRoughly(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "time left unknown", 20 * time.Second: "under a minute left", time.Minute: "about 1 minute left",
		61 * time.Second: "about 2 minutes left", 12 * time.Minute: "about 15 minutes left", 59 * time.Minute: "about 60 minutes left", 61 * time.Minute: "about 2 hours left"} {
		if got := roughly(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

func TestTrayConflict(t *testing.T) {
	v := viewWith(func(s *state) { inConflict(s.Status, testNow) })
	got := written(trayItems(v))
	want := "- Work has two versions: choose\n\n- Work: Two versions: you have to choose\n+ Choose between its versions…\n"
	if len(got) < len(want) || got[:len(want)] != want {
		t.Errorf("got\n%s", got)
	}
	for name, c := range map[string]func(*state){
		"tray-choice.png":  func(s *state) { inConflict(s.Status, testNow); s.Status.Offline.On = true },
		"tray-trouble.png": func(s *state) { s.Status.VMs[0].Problem = &api.Error{} },
		"tray-busy.png":    func(s *state) { preparing(s.Status) },
		"tray-offline.png": func(s *state) { s.Status.Offline.On = true },
		"tray-idle.png":    nil,
	} {
		if got := trayIconName(viewWith(c)); got != name {
			t.Errorf("%s instead of %s", got, name)
		}
		if len(trayIcon(name).Content()) == 0 {
			t.Errorf("%s is empty", name)
		}
	}
	got = written(trayItems(viewWith(func(s *state) { ownerGone(s.Status, testNow) })))
	if want := "- Switch to this machine\n+ Take over…\n"; !strings.Contains(got, want) {
		t.Errorf("got\n%s", got)
	}
}

func TestWhereOnAJourney(t *testing.T) {
	v := viewWith(func(s *state) {
		ownerGone(s.Status, testNow)
		s.Status.VMs[0].Offline, s.Status.VMs[0].OfflineSince = true, testNow.Add(-3*time.Hour)
		s.Status.Devices[1].Offline = true
	})
	if got := v.VMs[0].Where; got != "On a journey with Laptop, left 3 hours ago" {
		t.Errorf("%q", got)
	}
	if got := v.VMs[0].Switch.Hint; got != "Laptop took it along on a journey." {
		t.Errorf("%q", got)
	}
	for _, d := range v.Devices {
		if d.ID == "L" && d.State != "Works offline, last seen 26 hours ago" {
			t.Errorf("%q", d.State)
		}
	}
}
