package main

import (
	"strings"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
)

func TestVerifyingWords(t *testing.T) {
	now := time.Now()
	day := 24 * time.Hour
	for _, x := range []struct {
		v    api.Verifying
		want string
	}{
		{api.Verifying{Total: 1 << 30}, "no whole round yet"},
		{api.Verifying{Total: 1 << 30, Rests: api.VerifyRestsAlone}, "no whole round yet; it waits until a copy can be compared"},
		{api.Verifying{Total: 1 << 30, Ended: now.Add(-2 * day), Next: now.Add(5 * day)}, "last whole round 2 days ago, the next in 5 days"},
		{api.Verifying{Total: 1 << 30, Done: 1 << 28, Began: now, Rate: 1 << 20, ETA: 768 * time.Second, Ended: now.Add(-8 * day)},
			"round under way: 256 MiB of 1 GiB, 1 MiB/s, 12 min left; last whole round 8 days ago"},
		{api.Verifying{Total: 1 << 30, Done: 1 << 28, Began: now, Rests: api.VerifyRestsGuests}, "round under way: 256 MiB of 1 GiB; no whole round yet; it goes slowly while VMs use their disks"},
	} {
		if got := verifyingWords(&x.v, now); got != x.want {
			t.Errorf("%+v: %q, not %q", x.v, got, x.want)
		}
	}
}

func TestDamageLines(t *testing.T) {
	now := time.Now()
	vm := api.VM{Name: "Work"}
	if lines := damageLines(vm, now, true); lines != nil {
		t.Errorf("%q", lines)
	}
	vm.Damage = &api.Damage{At: now.Add(-3 * time.Hour), Found: []api.FoundDamage{{At: now.Add(-3 * time.Hour), VerifyFinding: api.VerifyFinding{Sentence: "It was repaired."}}}}
	if got := strings.Join(damageLines(vm, now, false), "\n"); got != "Damage was found in Work or its copies (3 h 0 min ago), and repaired. See it with: tagalong vm show Work" {
		t.Errorf("%q", got)
	}
	vm.Damage.Open, vm.Damage.More = true, 4096
	vm.Damage.Found = append(vm.Damage.Found, api.FoundDamage{At: now, VerifyFinding: api.VerifyFinding{Open: true, Sentence: "It differs.", Next: "Decide."}})
	got := strings.Join(damageLines(vm, now, true), "\n")
	for _, want := range []string{"not all of it could be repaired:\n", "\n  3 h 0 min ago: It was repaired.\n", ": It differs. Decide.\n", "\n  Damage was found in further 4 KiB."} {
		if !strings.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
}
