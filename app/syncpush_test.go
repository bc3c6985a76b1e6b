package app

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
)

// A pause holds back what goes to other sites, at either end; a wish lets one round through, and the end of the pause the rest.
func TestPushesObey(t *testing.T) {
	all := fleetOf(t, map[string][]string{"home": {"desk"}, "office": {"laptop"}})
	desk, laptop := all["desk"], all["laptop"]
	v := desk.create("Work")
	r := rand.New(rand.NewPCG(3, 3))
	desk.scatter(v.ID, r, 1, 2, 3)
	desk.sameAs(v.ID, laptop)
	// held watches for a while that nothing comes, though the guest rests.
	held := func(what string) {
		t.Helper()
		for range 200 { // two of the scheduler's ticks
			if bytes.Equal(laptop.whole(v.ID), desk.whole(v.ID)) {
				t.Fatalf("%s: it was pushed", what)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	for _, d := range []*device{desk, laptop} {
		if err := d.engine.PauseSync(t.Context(), api.PauseSync{}); err != nil {
			t.Fatal(err)
		}
		desk.scatter(v.ID, r, 4, 5, 6)
		held(d.name + " paused")
		if d == desk {
			if err := d.engine.SyncNow(t.Context(), api.SyncNow{VM: "Work"}); err != nil {
				t.Fatal(err)
			}
			desk.sameAs(v.ID, laptop)
			until(t, "the wish to be served", func() bool { return !syncOf(t, desk).Asked })
			desk.scatter(v.ID, r, 7, 8)
			held("after the round that was asked for")
		}
		if err := d.engine.ResumeSync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d == laptop { // whose sender has to try again: it isn't told
			if err := desk.engine.SyncNow(t.Context(), api.SyncNow{}); err != nil {
				t.Fatal(err)
			}
		}
		desk.sameAs(v.ID, laptop)
	}
}
