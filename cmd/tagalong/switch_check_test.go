package main

import (
	"strings"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
)

// What the figures go by is said with them: where from, how old, how rough.
func TestTheFiguresSayWhatTheyGoBy(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	p := &api.Preflight{VMName: "Work", Best: api.WayTeleport, Basis: &api.WayBasis{Rate: 800 << 10, DirtyRate: 3 << 20, RoundTrip: 40 * time.Millisecond, At: now.Add(-500 * time.Millisecond)}}
	for _, part := range []string{"Measured now, roughly", size(800<<10) + " a second", "40 ms", size(3 << 20)} {
		if said := basisWords(p, now); !strings.Contains(said, part) {
			t.Errorf("%q lacks %q", said, part)
		}
	}
	p.Basis.Trip, p.Basis.At = true, now.Add(-20*time.Minute)
	if said := basisWords(p, now); !strings.HasPrefix(said, "As seen 20 min ago") || strings.Contains(said, "roughly") {
		t.Errorf("%q", said)
	}
	p.Ways = []api.WayEstimate{{Way: api.WayTeleport, Possible: true, Bytes: 1 << 20, There: time.Second, Pause: time.Second, Full: time.Second}}
	if lines := comparedWords(p); len(lines) != 2 || !strings.HasPrefix(lines[1], "As seen") {
		t.Errorf("%q", lines)
	}
}

// A pause that is too long is named where it is what is in the way, and only there.
func TestWhyAWayIsNotPossible(t *testing.T) {
	p := &api.Preflight{VMName: "Work", Best: api.WaySuspend, Ways: []api.WayEstimate{
		{Way: api.WayTeleport, Bytes: 1 << 20, There: time.Minute, Pause: 40 * time.Second, Full: time.Minute},
		{Way: api.WaySuspend, Possible: true, Bytes: 1 << 20, There: time.Minute, Pause: time.Minute, Full: time.Minute},
	}}
	if lines := comparedWords(p); !strings.Contains(lines[0], "would stand still for about 40 s, longer than it may") {
		t.Errorf("%q", lines)
	}
	p.Findings = []api.Finding{{Code: "cpu", Stops: true}}
	if lines := comparedWords(p); !strings.Contains(lines[0], "not possible") || strings.Contains(lines[0], "longer than it may") {
		t.Errorf("%q", lines)
	}
}
