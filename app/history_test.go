package app

import (
	"slices"
	"testing"

	"tagalong.org/tagalong/app/api"
)

// history is what a device tells of the VM.
func (d *device) history() []api.HistoryEntry {
	d.t.Helper()
	h, err := d.engine.History(d.t.Context(), "Work")
	if err != nil {
		d.t.Fatal(err)
	}
	return h
}

func TestHistoryTellsHowItCame(t *testing.T) {
	desk, laptop, _ := twoDevices(t)
	until(t, "the VM to be known", func() bool { _, ok := laptop.vm("Work"); return ok })
	if _, err := laptop.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"}); err != nil {
		t.Fatal(err)
	}
	s := laptop.ended("Work")
	desk.ended("Work") // a moment later, and until then it can't ask for it back
	if err := laptop.engine.StopVM(t.Context(), "Work", true); err != nil {
		t.Fatal(err)
	}
	laptop.live("Work")
	if _, err := desk.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"}); err != nil {
		t.Fatal(err)
	}
	if s := desk.ended("Work"); s.Phase != api.PhaseDone {
		t.Fatalf("%+v", s)
	}
	for _, d := range []*device{desk, laptop} {
		until(t, d.name+" to have heard all of it", func() bool {
			h := d.history()
			return len(h) == 3 && h[1].How != "" && h[2].How != ""
		})
		h := d.history()
		if h[0].Kind != "created" || h[0].How != "" || h[0].Prev != "" || h[0].OwnerName != "desk" {
			t.Errorf("%s: %+v", d.name, h[0])
		}
		if x := h[1]; x.How != "teleport" || x.Pause != s.Pause || x.Pause == 0 || x.Memory != s.Memory || x.Memory < int64(len(desk.hv.memory)) || x.FromName != "desk" || x.OwnerName != "laptop" {
			t.Errorf("%s: %+v of %+v", d.name, x, s)
		}
		if x := h[2]; x.How != "start" || x.Pause != 0 || x.Memory != 0 || x.OwnerName != "desk" {
			t.Errorf("%s: %+v", d.name, x)
		}
		for i, x := range h[1:] {
			if x.Prev != h[i].Hash || x.Lost || x.Term != h[i].Term+1 {
				t.Errorf("%s: %+v doesn't follow", d.name, x)
			}
		}
	}
}

func TestHistoryShowsWhatWasGivenUp(t *testing.T) {
	desk, laptop, v := apart(t)
	for _, x := range laptop.history() {
		if x.Lost {
			t.Errorf("before the choice nothing is lost: %+v", x)
		}
	}
	laptop.choose(api.ResolveKeep, desk)
	one(t, desk, laptop, v.ID)
	for _, d := range []*device{desk, laptop} {
		h := d.history()
		kinds := map[string]api.HistoryEntry{}
		for _, x := range h {
			kinds[x.Kind] = x
		}
		if len(h) != 4 || len(kinds) != 4 {
			t.Fatalf("%s: %+v", d.name, h)
		}
		if x := kinds["created"]; x.Lost {
			t.Errorf("%s: what both sides have in common isn't lost: %+v", d.name, x)
		}
		if x := kinds["takeover"]; !x.Lost || x.How != "takeover" || x.OwnerName != "laptop" {
			t.Errorf("%s: %+v", d.name, x)
		}
		if x := kinds["kept"]; x.Lost || x.How != "" || x.Disk != 0 || x.Prev != kinds["created"].Hash {
			t.Errorf("%s: %+v", d.name, x)
		}
		if x := kinds["resolved"]; x.Lost || x.Prev != kinds["kept"].Hash || !slices.Equal(x.Over, []string{kinds["takeover"].Hash}) {
			t.Errorf("%s: %+v", d.name, x)
		}
	}
}
