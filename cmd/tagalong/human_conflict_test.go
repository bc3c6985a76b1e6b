package main

import (
	"strings"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
)

func TestLossIsNeverMadeSmall(t *testing.T) {
	some, none := int64(3<<20), int64(0)
	for _, c := range []struct {
		missing *int64
		certain bool
		want    string
	}{
		{nil, false, "unknown"},
		{nil, true, "how much is unknown, but it isn't growing unless laptop has started it again"},
		{&none, false, "nothing of what was told; but all that was written there since"},
		{&none, true, "nothing, unless laptop has started it again: it was stopped there, and this copy has all of it"},
		{&some, false, "at least 3 MiB (768 blocks), and all that was written there since"},
		{&some, true, "exactly 3 MiB (768 blocks), unless laptop has started it again: it was stopped there"},
	} {
		if got := lossWords(&api.Takeover{OwnerName: "laptop", Missing: c.missing, Certain: c.certain}); got != c.want {
			t.Errorf("%v %v: %q", c.missing, c.certain, got)
		}
	}
}

func TestTakeoverFacts(t *testing.T) {
	now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.Local)
	facts := func(change func(*api.Takeover)) string {
		x := &api.Takeover{VMName: "My work", OwnerName: "laptop", Connected: true, Seen: now, State: api.VMRunning, Position: api.Position{Term: 3, Barrier: 9}, At: now.Add(-time.Hour)}
		change(x)
		return strings.Join(factLines(takeoverFacts(x, false, now)), "\n")
	}
	got := facts(func(x *api.Takeover) { x.Offline, x.Since = true, now.Add(-2*time.Hour); x.OwnerName = "lap\x1b[2Jtop" })
	want := `  Owner         lap?[2Jtop, connected now; it could simply be asked for the VM: tagalong switch 'My work'
  On a journey  since 2026-05-04 10:00 (2 h 0 min ago): the VM may well be in use there now
  Last known    running there
  Copy here     as of 2026-05-04 11:00 (1 h 0 min ago), position 3/9
  May be lost   unknown`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := facts(func(x *api.Takeover) { x.Latest = x.Position }); strings.Contains(got, "Newest known") {
		t.Errorf("says the same twice:\n%s", got)
	}
}

func TestGivenUpSaysWhatIsLost(t *testing.T) {
	for _, c := range []struct {
		side api.ConflictSide
		want []string
		not  string
	}{
		{api.ConflictSide{OwnerName: "laptop", Connected: true, State: api.VMPaused}, []string{"What it wrote since, if anything, stays on laptop", "open windows are gone"}, "isn't connected"},
		{api.ConflictSide{OwnerName: "laptop", State: api.VMSuspended}, []string{"suspended windows are gone", "isn't connected"}, "turned off"},
		{api.ConflictSide{OwnerName: "desk", Here: true, State: api.VMStopped}, []string{"desk (this device)"}, "gone"},
	} {
		got := givenUp(c.side)
		for _, w := range c.want {
			if !strings.Contains(got, w) {
				t.Errorf("%q lacks %q", got, w)
			}
		}
		if strings.Contains(got, c.not) {
			t.Errorf("%q has %q", got, c.not)
		}
	}
}
