package ui

import (
	"testing"
	"time"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/test"

	"tagalong.org/tagalong/app/api"
)

// What needs the person is told once: not again when it goes on in another way, or comes back within minutes.
func TestTroublesAreToldOnce(t *testing.T) {
	b := newBench(t)
	now := testNow
	b.gui.now = func() time.Time { return now }
	hears := func(change func(*api.Status), want *fyne.Notification) {
		t.Helper()
		told := func() { b.with(func(st *api.Status, _ time.Time) { change(st) }); b.work.Wait() }
		if want != nil {
			test.AssertNotificationSent(t, want, told)
			return
		}
		test.AssertNotificationSent(t, nil, told)
	}
	state := func(s api.SecondState) func(*api.Status) {
		return func(st *api.Status) {
			vm := &st.VMs[0]
			vm.Here, vm.Spec.Sync, vm.Second, vm.Problem = true, api.SyncTwo, &api.SecondCopy{State: s}, nil
			if s == api.SecondPaused {
				vm.Problem = &api.Error{Code: api.CodeUnreachable, Sentence: "It stands still."}
			}
		}
	}
	waits := &fyne.Notification{Title: "Work waits for a second copy of what it saves", Content: "No other device answers. It stands still until one does, or until you let it go on without, in Tagalong's window."}
	hears(state(api.SecondKept), nil)
	hears(state(api.SecondWaiting), waits)
	hears(state(api.SecondPaused), nil)
	hears(state(api.SecondKept), nil)
	hears(state(api.SecondPaused), nil) // a link that comes and goes
	hears(state(api.SecondKept), nil)
	now = now.Add(troubleRest)
	hears(state(api.SecondPaused), waits)
	hears(state(api.SecondKept), nil)

	full := &api.Error{Code: api.CodeSpace, Sentence: "The VM waits because its disk can't be written.", Next: "Free some space on this device."}
	hears(func(st *api.Status) { st.VMs[0].Problem = full },
		&fyne.Notification{Title: "Work needs your attention", Content: "The VM waits because its disk can't be written. Free some space on this device."})
	hears(func(st *api.Status) {
		play := st.VMs[0]
		play.ID, play.Name, play.Problem = "p", "Play", nil
		st.VMs = append(st.VMs, play)
	}, nil)
	hears(func(st *api.Status) { st.VMs[1].Problem = full }, nil) // the same disk
	hears(func(st *api.Status) { st.Problem = &api.Error{Code: api.CodeSpace, Sentence: "Full."} },
		&fyne.Notification{Title: "The disk of this device is full.", Content: "VMs here stand still when they write, and can't be moved or changed. Free some space, a few hundred megabytes at least; everything goes on by itself then."})
	hears(func(st *api.Status) {}, nil)
}

// A damage is told with what became of it.
func TestDamageIsTold(t *testing.T) {
	found := &api.Verification{VMName: "Work", Findings: []api.VerifyFinding{{Sentence: "Repaired."}}}
	if n := damageNote(found); n.Title != "Damage in Work or its copies was repaired" || n.Text == "" {
		t.Errorf("%+v", n)
	}
	found.Findings = append(found.Findings, api.VerifyFinding{Open: true, Sentence: "It can't be read.", Next: "Look."})
	if n := damageNote(found); n.Title != "Damage in Work or its copies couldn't all be repaired" || n.Text != "It can't be read. Look." {
		t.Errorf("%+v", n)
	}
	v := viewWith(func(s *state) {
		s.Status.Jobs = []api.Job{{ID: "v", Kind: "verify", VMName: "Work", Done: true, Verification: found}}
	})
	if len(v.Jobs) != 1 || v.Jobs[0].Part != -2 || v.Jobs[0].Title != "Damage in Work or its copies couldn't all be repaired" {
		t.Errorf("%+v", v.Jobs)
	}
	found.Findings = nil
	if v := viewWith(func(s *state) {
		s.Status.Jobs = []api.Job{{ID: "v", Kind: "verify", VMName: "Work", Done: true, Verification: found}}
	}); len(v.Jobs) != 0 {
		t.Errorf("nothing was found, and shown is %+v", v.Jobs)
	}
}

// What waits for who isn't there can be given up, after the person has read what that loses; the highlighted button waits.
func TestRollingBack(t *testing.T) {
	b := newBench(t).with(func(st *api.Status, now time.Time) { hydrating(st, now); holdersGone(st, now) })
	b.engine.mu.Lock()
	b.engine.rollback = rollbackOf()
	b.engine.mu.Unlock()
	b.see("Work waits for a part of its disk", "Switch on or connect Laptop, and everything goes on by itself.")
	b.tap("Roll back…")
	next(t, b.engine, "rollback? w")
	b.turn()
	b.see("300 MiB that Work wrote here since the switch", "5 GiB of its disk, which are given up", "is stopped as if its plug were pulled", "is on Laptop. When it is back you are asked to choose.")
	b.tap("Wait")
	b.tap("Roll back…")
	next(t, b.engine, "rollback? w")
	b.turn()
	b.tap("Roll back")
	next(t, b.engine, "roll-back w r1")
}

// rollbackOf is what Work would lose by a rollback.
func rollbackOf() api.Rollback {
	return api.Rollback{VM: "w", VMName: "Work", Written: 300 * mib, Remaining: 5 * gib, Running: true, Token: "r1",
		Holders: []api.HydrationHolder{{DeviceName: "Laptop", Needed: true}}}
}
