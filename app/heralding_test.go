package app

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/herald"
)

// teller is a heralding of one copy, which is told by hand.
type teller struct {
	*heralding
	now  time.Time
	told []api.SyncKind
}

func newTeller(file string, c *herald.Copy) *teller {
	r := &teller{heralding: openHeralding(file, slog.New(slog.DiscardHandler)), now: time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)}
	r.copies = func() []herald.Copy { return []herald.Copy{*c} }
	r.publish = func(n api.SyncNews) { r.told = append(r.told, n.Kind) }
	return r
}

func (r *teller) minutes(n int) []api.SyncKind {
	for range 30 * n {
		r.now = r.now.Add(heraldEvery)
		r.tick(r.now)
	}
	return r.told
}

// What was told is kept before it is told, and an engine that starts again goes on from there.
func TestWhatWasToldIsKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "told.json")
	c := &herald.Copy{VM: "w", Device: "l", State: herald.Moving, Remaining: 1 << 30, Mine: true}
	r := newTeller(file, c)
	kept := false
	r.publish = func(n api.SyncNews) {
		b, err := os.ReadFile(file)
		_, bad := herald.New(b)
		kept, r.told = err == nil && bad == nil, append(r.told, n.Kind)
	}
	if told := r.minutes(2); !slices.Equal(told, []api.SyncKind{api.SyncBegun}) || !kept {
		t.Fatalf("told %v, kept before: %v", told, kept)
	}
	r = newTeller(file, c)
	if told := r.minutes(2); len(told) > 0 {
		t.Errorf("after a restart it told %v", told)
	}
	c.State = herald.Whole
	if told := r.minutes(1); !slices.Equal(told, []api.SyncKind{api.SyncDone}) {
		t.Errorf("after a restart it told %v", told)
	}
}

// A wipe leaves no names behind, also in what is yet to be kept.
func TestWhatWasToldIsForgotten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "told.json")
	c := &herald.Copy{VM: "w", Device: "l", State: herald.Moving, Remaining: 1 << 30, Mine: true}
	r := newTeller(file, c)
	if told := r.minutes(2); len(told) != 1 {
		t.Fatalf("told %v", told)
	}
	r.copies = func() []herald.Copy { return nil }
	for range 2 { // the second time there is nothing
		if err := r.forget(); err != nil {
			t.Fatal(err)
		}
	}
	r.minutes(30)
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("what was told is still there: %v", err)
	}
}

// A memory that can't be read or written keeps nobody from being told, and a newer program's is left alone.
func TestToldAlsoWithoutAMemory(t *testing.T) {
	for _, memory := range []string{"{", `{"v":99}`, ""} {
		dir := t.TempDir()
		file := filepath.Join(dir, "told.json")
		if memory == "" {
			if err := os.Mkdir(file, 0o700); err != nil { // nothing can be written there
				t.Fatal(err)
			}
		} else if err := os.WriteFile(file, []byte(memory), 0o600); err != nil {
			t.Fatal(err)
		}
		r := newTeller(file, &herald.Copy{VM: "w", Device: "l", State: herald.Moving, Remaining: 1 << 30, Mine: true})
		if told := r.minutes(5); !slices.Equal(told, []api.SyncKind{api.SyncBegun}) {
			t.Errorf("with %q it told %v", memory, told)
		}
		if b, _ := os.ReadFile(file); memory == `{"v":99}` && string(b) != memory {
			t.Errorf("a newer program's memory is %s now", b)
		}
	}
}

// How a copy stands decides what is told of it: what waits for nothing is whole, what nobody knows is neither.
func TestWhatIsHeraldedOfACopy(t *testing.T) {
	for _, c := range []struct {
		r    api.Replica
		want herald.State
	}{
		{api.Replica{State: api.ReplicaLive, Remaining: 4096}, herald.Whole},
		{api.Replica{State: api.ReplicaCopying, Remaining: 4096}, herald.Moving},
		{api.Replica{State: api.ReplicaBehind, Remaining: 4096}, herald.Moving},
		{api.Replica{State: api.ReplicaPushing, Remaining: 4096}, herald.Moving},
		{api.Replica{State: api.ReplicaWaiting, Remaining: 4096}, herald.Resting},
		{api.Replica{State: api.ReplicaWaiting}, herald.Whole},
		{api.Replica{State: api.ReplicaAway}, herald.Unknown},
		{api.Replica{State: api.ReplicaLive, Silent: true}, herald.Unknown},
		{api.Replica{State: api.ReplicaBehind, Remaining: 4096, Silent: true}, herald.Unknown},
		{api.Replica{State: api.ReplicaBehind}, herald.Unknown},
		{api.Replica{State: "new"}, herald.Unknown},
	} {
		if got, ok := heraldCopy(c.r); !ok || got.State != c.want || got.State == herald.Whole && got.Remaining > 0 {
			t.Errorf("%+v is %+v", c.r, got)
		}
	}
	if _, ok := heraldCopy(api.Replica{State: api.ReplicaOwner}); ok {
		t.Error("the owner's own disk is heralded")
	}
	from := []api.HydrationHolder{{DeviceName: "desk", Connected: true, Needed: true}, {DeviceName: "nas"}}
	for name, c := range map[string]struct {
		h    *api.Hydration
		want herald.State
		from []string
	}{
		"whole":  {nil, herald.Whole, nil},
		"coming": {&api.Hydration{Remaining: 4096, From: from}, herald.Moving, []string{"desk"}},
		"stuck":  {&api.Hydration{Remaining: 4096, Waiting: true, Reads: 1, From: from[1:]}, herald.Unknown, []string{"nas"}},
	} {
		got := hydrationCopy(c.h)
		if got.State != c.want || !slices.Equal(got.From, c.from) || got.Waits != (name == "stuck") || got.Blocked != got.Waits || !got.Hydration {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// The owner tells of all copies, another device of its own only; what is published says whom it is about.
func TestWhoHerald(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	third := newDevice(t, "third")
	pair(t, desk, third)
	mine := func(d *device) (n int) {
		for _, c := range d.engine.heraldCopies() {
			if c.VM == v.ID && c.Mine && !c.Hydration {
				n++
			}
		}
		return n
	}
	until(t, "the owner tells of both, the others of themselves", func() bool { return mine(desk) == 2 && mine(laptop) == 1 && mine(third) == 1 })
	ctx := t.Context()
	events, err := laptop.engine.Watch(ctx, laptop.engine.hub.last())
	if err != nil {
		t.Fatal(err)
	}
	laptop.engine.publishSync(api.SyncNews{Kind: api.SyncBehind, Device: laptop.engine.host.ID(), DeviceName: "laptop", VMs: []api.SyncVM{{ID: v.ID, Name: "Work"}}, Remaining: 3 << 20})
	for ev := range events {
		if ev.Sync == nil {
			continue
		}
		if ev.Kind != "sync.behind" || ev.VM != v.ID || !ev.Sync.Self || ev.Text != "This device can't keep up with Work: 3 MiB behind." {
			t.Errorf("%+v, %+v", ev, ev.Sync)
		}
		break
	}
}
