package app

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/limits"
)

func ptr[T any](v T) *T { return &v }

// syncOf is what status tells of it.
func syncOf(t *testing.T, d *device) *api.Sync {
	t.Helper()
	st, err := d.engine.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st.Sync
}

func TestSyncIsSet(t *testing.T) {
	d := newDevice(t, "desk")
	ctx := t.Context()
	until(t, "word of the connection", func() bool { return syncOf(t, d).May })
	if s := syncOf(t, d); s.Why != "" || s.Text != "" || s.Settings.Metered != "avoid" || s.Settings.Battery.Below == 0 {
		t.Fatalf("at first: %+v", s)
	}
	events, err := d.engine.Watch(ctx, d.engine.hub.last())
	if err != nil {
		t.Fatal(err)
	}
	told := func(text string) {
		t.Helper()
		for {
			select {
			case ev := <-events:
				if ev.Kind == "sync.changed" && strings.HasPrefix(ev.Text, text) {
					return
				}
			case <-time.After(time.Minute):
				t.Fatalf("nobody was told: %s", text)
			}
		}
	}
	all := api.SyncTimes{When: "00:00-24:00", Do: "limit", Up: 3000}
	if err := d.engine.SetSync(ctx, api.SetSync{Up: ptr(int64(4000)), Schedule: &[]api.SyncTimes{all}, Metered: ptr("allow"), Battery: &api.SyncBattery{Below: 10}}); err != nil {
		t.Fatal(err)
	}
	told("The schedule has a limit")
	s := syncOf(t, d)
	if s.Up != 3000 || s.Settings.Up != 4000 || len(s.Settings.Schedule) != 1 || s.Settings.Schedule[0] != all || s.Settings.Metered != "allow" || s.Settings.Battery.Rate != 0 {
		t.Fatalf("%+v", s)
	}
	if up, down := d.engine.limits.Pace(limits.Up).Rate(), d.engine.limits.Pace(limits.Down).Rate(); up != 3000 || down != 0 {
		t.Fatalf("paces of %d and %d", up, down)
	}
	if err := d.engine.PauseSync(ctx, api.PauseSync{Seconds: 3600}); err != nil {
		t.Fatal(err)
	}
	told("Sync is paused until ")
	if s := syncOf(t, d); s.May || s.Why != "paused" || !s.Paused || time.Until(s.PausedUntil) < 59*time.Minute {
		t.Fatalf("%+v", s)
	}
	if err := d.engine.SyncNow(ctx, api.SyncNow{}); err != nil {
		t.Fatal(err)
	}
	if a := d.engine.limits.Allowance("any"); !a.May || !syncOf(t, d).Asked {
		t.Fatalf("asked, and %+v", a)
	}
	d.stop()
	d.start()
	if s := syncOf(t, d); s.May || !s.Paused || s.Asked || s.Settings.Up != 4000 {
		t.Fatalf("after a restart: %+v", s)
	}
	if err := d.engine.ResumeSync(ctx); err != nil {
		t.Fatal(err)
	}
	until(t, "the end of the pause", func() bool { return syncOf(t, d).May })
	if err := d.engine.SetSync(ctx, api.SetSync{Reset: true, Down: ptr(int64(5000))}); err != nil {
		t.Fatal(err)
	}
	// Now it matters again whether the connection is metered, and that may not be known yet.
	until(t, "pushes that are limited", func() bool { return syncOf(t, d).Why == "limited" })
	if s := syncOf(t, d); s.Settings.Up != 0 || s.Settings.Down != 5000 || len(s.Settings.Schedule) != 0 {
		t.Fatalf("%+v", s)
	}
}

func TestSyncRefuses(t *testing.T) {
	d := newDevice(t, "desk")
	before := *syncOf(t, d)
	for what, err := range map[string]error{
		"too slow":      d.engine.SetSync(t.Context(), api.SetSync{Up: ptr(int64(1))}),
		"a word":        d.engine.SetSync(t.Context(), api.SetSync{Metered: ptr("maybe")}),
		"times":         d.engine.SetSync(t.Context(), api.SetSync{Down: ptr(int64(7000)), Schedule: &[]api.SyncTimes{{When: "noon", Do: "off"}}}),
		"an action":     d.engine.SetSync(t.Context(), api.SetSync{Schedule: &[]api.SyncTimes{{When: "8:00-9:00", Do: "on"}}}),
		"many times":    d.engine.SetSync(t.Context(), api.SetSync{Schedule: ptr(make([]api.SyncTimes, 100))}),
		"a long pause":  d.engine.PauseSync(t.Context(), api.PauseSync{Seconds: 1 << 62}),
		"a short pause": d.engine.PauseSync(t.Context(), api.PauseSync{Seconds: -1}),
	} {
		var e *api.Error
		if !errors.As(err, &e) || e.Code != api.CodeUsage || e.Sentence == "" || e.Next == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := d.engine.SyncNow(t.Context(), api.SyncNow{VM: "none"}); !errors.Is(err, &api.Error{Code: api.CodeNotFound}) {
		t.Error(err)
	}
	if s := syncOf(t, d); s.Settings.Down != before.Settings.Down || s.Paused || s.Asked {
		t.Errorf("%+v", s)
	}
}

// Settings that can't be read stop no engine, but everything that they may forbid, until the person begins anew.
func TestSyncThatCantBeRead(t *testing.T) {
	d := newDevice(t, "desk")
	d.stop()
	file := filepath.Join(d.dir, "sync.json")
	if err := os.WriteFile(file, []byte(`{"version":1,"up":`), 0o600); err != nil {
		t.Fatal(err)
	}
	d.start()
	s := syncOf(t, d)
	if s.May || s.Why != "unreadable" || s.Problem == nil || !strings.Contains(s.Problem.Next, "tagalong sync reset") {
		t.Fatalf("%+v", s)
	}
	for _, err := range []error{
		d.engine.SetSync(t.Context(), api.SetSync{Metered: ptr("allow")}), d.engine.PauseSync(t.Context(), api.PauseSync{}), d.engine.ResumeSync(t.Context()), d.engine.SyncNow(t.Context(), api.SyncNow{}),
	} {
		if !errors.Is(err, &api.Error{Code: api.CodeConflict}) {
			t.Error(err)
		}
	}
	if err := d.engine.SetSync(t.Context(), api.SetSync{Reset: true, Metered: ptr("allow")}); err != nil {
		t.Fatal(err)
	}
	if s := syncOf(t, d); !s.May || s.Problem != nil || s.Settings.Metered != "allow" {
		t.Fatalf("%+v", s)
	}
	if _, err := os.Stat(file + ".unreadable"); err != nil {
		t.Error(err)
	}
}

// What the system says of the connection comes through to whoever pushes.
func TestSyncOverAMeteredConnection(t *testing.T) {
	meter := make(chan bool)
	d := newDevice(t, "desk")
	d.stop()
	d.around = &limits.Around{
		Battery: func() (bool, int) { return true, 50 },
		Metered: func(ctx context.Context, _ *slog.Logger, tell func(bool)) {
			for {
				select {
				case m := <-meter:
					tell(m)
				case <-ctx.Done():
					return
				}
			}
		},
	}
	d.start()
	if s := syncOf(t, d); s.May || s.Why != "looking" {
		t.Fatalf("%+v", s)
	}
	meter <- true
	until(t, "a metered connection", func() bool { s := syncOf(t, d); return s.Why == "metered" && s.Metered })
	meter <- false
	until(t, "the battery's pace", func() bool { s := syncOf(t, d); return s.Why == "on-battery" && s.Percent == 50 && s.Up > 0 })
}
