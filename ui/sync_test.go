package ui

import (
	"strings"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
)

func withSync(s api.Sync) view {
	return viewWith(func(st *state) { st.Status.Sync = &s })
}

// What holds changes back is told, with the button that ends it.
func TestSyncRow(t *testing.T) {
	soon, later := testNow.Add(2*time.Hour), testNow.Add(50*time.Hour)
	battery := api.SyncSettings{Battery: api.SyncBattery{Below: 30}}
	for _, c := range []struct {
		sync  api.Sync
		text  string
		main  verb
		again bool // it can be sent now
	}{
		{api.Sync{May: true}, "", verbPause, false},
		{api.Sync{May: true, Why: "limited"}, "With the limit that you set.", verbPause, false},
		{api.Sync{May: true, Why: "limited", Up: 500 << 10, Down: 1 << 20}, "With the limit that you set. Up: 500 KiB/s. Down: 1 MiB/s.", verbPause, false},
		{api.Sync{May: true, Why: "on-battery"}, "Slowly, to save the battery.", verbPause, false},
		{api.Sync{May: true, Why: "slow-times", Until: soon}, "The schedule has a limit until " + soon.Local().Format("15:04") + ".", verbPause, false},
		{api.Sync{Why: "paused", Paused: true}, "Paused.", verbUnpause, true},
		{api.Sync{Why: "paused", Paused: true, Until: soon}, "Paused until " + soon.Local().Format("15:04") + ".", verbUnpause, true},
		{api.Sync{Why: "schedule", Until: later}, "The schedule leaves this time out until " + later.Local().Format("2006-01-02 15:04") + ".", verbPause, true},
		{api.Sync{Why: "metered"}, "This connection is metered.", verbPause, true},
		{api.Sync{Why: "looking"}, "It isn't known yet whether this connection is metered.", verbPause, true},
		{api.Sync{Why: "low-battery", Percent: 7, Settings: battery}, "The battery is at 7 %, below 30 %.", verbPause, true},
		{api.Sync{Why: "new", Text: "Of a newer engine."}, "Of a newer engine.", verbPause, true},
		{api.Sync{Why: "metered", Asked: true}, "You asked for it now.", verbPause, false},
	} {
		r := withSync(c.sync).Sync
		if r == nil || r.Text != c.text || r.Main.Act.Verb != c.main || !r.Main.Enabled || r.Held == c.sync.May || (r.Now.Label != "") != c.again {
			t.Errorf("%+v: %+v", c.sync, r)
		}
	}
	r := withSync(api.Sync{Why: "unreadable", Problem: &api.Error{Next: "Begin anew."}}).Sync
	if r.Text != "What was set about this can't be read. Begin anew." || r.Main.Enabled || r.Now.Enabled {
		t.Errorf("%+v", r)
	}
}

// Where there are no other sites it concerns nobody, unless somebody has paused it.
func TestSyncConcernsOtherSites(t *testing.T) {
	here := &api.DeviceSite{Here: true}
	together := func(s api.Sync) view {
		return viewWith(func(st *state) {
			st.Status.Sync = &s
			for i := range st.Status.Devices {
				st.Status.Devices[i].Site = here
			}
		})
	}
	if together(api.Sync{May: true}).Sync != nil || viewWith(nil).Sync != nil {
		t.Error("shown to whom it doesn't concern")
	}
	if v := together(api.Sync{Why: "paused", Paused: true}); v.Sync == nil {
		t.Error("no way to end a pause")
	}
	if v := viewWith(func(st *state) { st.Status.Sync, st.Link = &api.Sync{May: true}, linkLost }); v.Sync != nil && v.Sync.Main.Enabled {
		t.Error("enabled without an engine")
	}
}

func TestTraySync(t *testing.T) {
	if got, want := written(traySync(withSync(api.Sync{May: true}))), "+ Pause sync\n"; got != want {
		t.Errorf("%q", got)
	}
	got := written(traySync(withSync(api.Sync{Why: "paused", Paused: true})))
	if want := "- Nothing goes to other sites now\n- Paused.\n+ Resume sync\n"; got != want {
		t.Errorf("%q", got)
	}
	if all := written(trayItems(withSync(api.Sync{Why: "metered"}))); strings.Count(all, "This connection is metered.") != 1 {
		t.Errorf("%s", all)
	}
}

// From a click to the engine and back.
func TestPausingSync(t *testing.T) {
	b := newBench(t).with(func(st *api.Status, _ time.Time) { st.Sync = &api.Sync{May: true} })
	b.see("Changes go to other sites.")
	b.tap("Pause sync")
	next(t, b.engine, "pause-sync 0")
	b.turn()
	b.with(func(st *api.Status, _ time.Time) { st.Sync = &api.Sync{Why: "paused", Paused: true} })
	b.see("Nothing goes to other sites now")
	b.tap("Send now")
	next(t, b.engine, `sync-now ""`)
	b.turn()
	b.tap("Resume sync")
	next(t, b.engine, "resume-sync")
	b.turn()
	b.with(func(st *api.Status, _ time.Time) { st.Sync = nil })
	if b.win.sync.panel.Visible() {
		t.Error("still shown")
	}
}
