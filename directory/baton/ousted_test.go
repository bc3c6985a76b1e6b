package baton

import "testing"

// TestOnlyItsOwnAnswerIsKept has persist-kept answered with other terms first: the one that the transfer was signed under, and
// that of a head which was the preferred one before.
func TestOnlyItsOwnAnswerIsKept(t *testing.T) {
	m := machineIn(t, Ousted)
	step := func(ev Event) []Action {
		t.Helper()
		acts, err := m.Step(ev)
		if err != nil {
			t.Fatal(err)
		}
		return acts
	}
	persists := func(acts []Action) bool {
		return len(acts) == 1 && acts[0].Kind == ActPersistKept && acts[0].Term == 300
	}
	if acts := step(Event{Kind: EvJudged, Term: 300, Newer: true}); !persists(acts) {
		t.Fatalf("it asks for %v", acts)
	}
	now := m.now
	tick := func() []Action {
		now = now.Add(m.cfg.RetryEvery)
		return step(Event{Kind: EvTick, Now: now})
	}
	tick()
	for _, term := range []uint64{0, 6, 299, 301} {
		step(Event{Kind: EvPersistFailed, Term: term, NotWritten: true})
		if acts := tick(); len(acts) > 0 {
			t.Errorf("after the failure of term %d it tries again: %v", term, acts)
		}
		step(Event{Kind: EvPersisted, Term: term})
		if m.d.Kept {
			t.Fatalf("the answer of term %d is taken for its own", term)
		}
	}
	step(Event{Kind: EvPersistFailed, Term: 300})
	if acts := tick(); !persists(acts) {
		t.Errorf("after its own failure it asks for %v", acts)
	}
	step(Event{Kind: EvPersisted, Term: 300})
	if !m.d.Kept || m.keeping {
		t.Error("its own answer isn't taken")
	}
}
