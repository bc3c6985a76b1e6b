package ui

import (
	"strings"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
)

// Damage is told in words of the window's own, by its outcomes, whatever language the engine speaks.
func TestDamageInTheWindowsWords(t *testing.T) {
	for _, x := range []struct {
		here    string
		copies  map[string]string
		want    []string
		notOpen bool
	}{
		{here: api.VerifyRepaired, want: []string{"On this device 4 KiB (at 8 KiB) weren", "put right"}, notOpen: true},
		{here: api.VerifyDamaged, copies: map[string]string{"L": api.VerifyWithheld}, want: []string{"can't be read", "check its file systems"}},
		{copies: map[string]string{"L": api.VerifyRepaired, "A": api.VerifyUndecided}, want: []string{"copy on Laptop were damaged", "copy on Attic, and nothing says", `tagalong verify "Work" --overwrite`}},
		{copies: map[string]string{"L": api.VerifySent}, want: []string{"too often"}, notOpen: true},
		{copies: map[string]string{"L": api.VerifyStuck, "A": api.VerifyStuck}, want: []string{"Attic and Laptop are damaged, and still are"}},
		{copies: map[string]string{"L": api.VerifyBetter}, want: []string{"probably this device's disk"}},
		{copies: map[string]string{"L": "of-the-future"}, want: []string{"Eins. Zwei."}},
	} {
		f := api.VerifyFinding{Off: 8192, Len: 4096, Open: !x.notOpen, Here: x.here, Copies: x.copies, Sentence: "Eins.", Next: "Zwei.",
			Names: map[string]string{"L": "Laptop", "A": "Attic"}}
		text := findingText(&f, "Work")
		for _, want := range x.want {
			if !strings.Contains(text, want) {
				t.Errorf("%+v: %q lacks %q", f, text, want)
			}
		}
		n := damageNote(&api.Verification{VMName: "Work", Findings: []api.VerifyFinding{f}})
		if x.notOpen == strings.Contains(n.Title, "couldn't") || f.Open && n.Text != text {
			t.Errorf("%+v is told as %+v", f, n)
		}
		v := viewWith(func(s *state) {
			s.Status.VMs[0].Problem = nil
			s.Status.VMs[0].Damage = &api.Damage{Open: f.Open, Found: []api.FoundDamage{{VerifyFinding: f}}}
		})
		if p := v.VMs[0].Problem; (p != nil) != f.Open || p != nil && p.Text != text {
			t.Errorf("%+v is shown as %+v", f, p)
		}
	}
}

// A drive that had an error is told in the window's words, too; what keeps a disk from being opened is the engine's to say.
func TestADriveThatFailsIsTold(t *testing.T) {
	p := &api.Error{Code: api.CodeDamaged, Sentence: "Eins.", Next: "Zwei."}
	then := &api.Status{VMs: []api.VM{{ID: "w", Name: "Work"}}}
	now := &api.Status{VMs: []api.VM{{ID: "w", Name: "Work", Problem: p}}}
	title, text := "The disk of Work on this device had a read or write error: the drive may be failing.", `See what is lost, if anything: tagalong disk check "Work"`
	if got := troubles(then, now); len(got) != 1 || got[0].note != (note{title, text}) {
		t.Errorf("%+v", got)
	}
	for _, unopened := range []bool{false, true} {
		v := viewWith(func(s *state) { s.Status.VMs[0].Problem, s.Status.VMs[0].Unopened = p, unopened })
		if m := v.VMs[0].Problem; (m.Title == title && m.Text == text) == unopened {
			t.Errorf("unopened %t: %+v", unopened, m)
		}
	}
}

// The window says how far the background verification is, and that it never was.
func TestVerifyingIsShown(t *testing.T) {
	now := testNow
	for _, x := range []struct {
		v    api.Verifying
		want string
	}{
		{api.Verifying{Total: 40 * gib}, "Never verified as a whole yet"},
		{api.Verifying{Total: 40 * gib, Rests: api.VerifyRestsAlone}, "Never verified as a whole yet · waits for a copy to compare with"},
		{api.Verifying{Total: 40 * gib, Ended: now.Add(-72 * time.Hour)}, "Verified 3 days ago"},
		{api.Verifying{Total: 40 * gib, Done: 10 * gib, Began: now.Add(-time.Minute), Ended: now.Add(-9 * 24 * time.Hour), Rate: 64 * mib, ETA: 8 * time.Minute},
			"Verified 9 days ago · being verified: 25 % (10 GiB of 40 GiB) · 64 MiB/s · 8 min 0 s left"},
		{api.Verifying{Total: 40 * gib, Done: 10 * gib, Began: now, Rests: api.VerifyRestsBattery}, "Never verified as a whole yet · being verified: 25 % (10 GiB of 40 GiB) · rests while on battery"},
	} {
		v := viewWith(func(s *state) { s.Status.VMs[0].Here, s.Status.VMs[0].Verifying = true, &x.v })
		if got := v.VMs[0].Verified; got != x.want {
			t.Errorf("%+v: %q, not %q", x.v, got, x.want)
		}
	}
}
