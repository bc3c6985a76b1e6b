package app

import (
	"testing"
	"time"

	"tagalong.org/tagalong/app/allowance"
	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/handover"
)

// After a switch to another site the rest of the disk comes as pushes may: not while they are paused, but for what is read; all of it when the person
// wishes for it; and no faster than they allow.
func TestTheRestObeysLimits(t *testing.T) {
	all := fleetOf(t, map[string][]string{"home": {"desk"}, "office": {"laptop"}})
	desk, laptop := all["desk"], all["laptop"]
	v := desk.create("Work")
	const blocks = 512
	for b := range int64(blocks) {
		desk.write(v.ID, b, 1)
	}
	desk.sameAs(v.ID, laptop)
	desk.engine.handover = handover.Rule{} // nothing is waited for
	for _, d := range []*device{desk, laptop} {
		if err := d.engine.PauseSync(t.Context(), api.PauseSync{}); err != nil {
			t.Fatal(err)
		}
	}
	for b := range int64(blocks) {
		desk.write(v.ID, b, 2)
	}
	take(t, laptop)
	until(t, "that it is held back", func() bool { h := laptop.hydration(); return h != nil && h.Paused != "" })
	if b := laptop.read(v.ID, 300); b != 2 {
		t.Errorf("it read %d", b)
	}
	until(t, "what follows", func() bool { h := laptop.hydration(); return h == nil || h.Remaining == (blocks-17)*blockSize })
	h := laptop.hydration()
	if h == nil || h.Remaining < (blocks-100)*blockSize || h.Waiting || h.Paused != "Sync is paused." {
		t.Fatalf("while it is paused: %+v", h)
	}
	for range 100 {
		if now := laptop.hydration(); now == nil || now.Remaining != h.Remaining {
			t.Fatalf("it was pulled: %+v", now)
		}
		time.Sleep(10 * time.Millisecond)
	}
	// A slow line, once they wish for it.
	const rate = 64 << 10
	if err := laptop.engine.limits.Set(func(s *allowance.Settings) error { s.Down = rate; return nil }); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := laptop.engine.SyncNow(t.Context(), api.SyncNow{VM: "Work"}); err != nil {
		t.Fatal(err)
	}
	until(t, "that something comes", func() bool { now := laptop.hydration(); return now == nil || now.Remaining < h.Remaining-64<<10 })
	now := laptop.hydration()
	if now == nil || now.Paused != "" {
		t.Fatalf("after the wish: %+v", now)
	}
	if came, most := h.Remaining-now.Remaining, int64(time.Since(began).Seconds()*rate)+256<<10; came > most {
		t.Errorf("%d bytes came where %d were allowed", came, most)
	}
	if err := laptop.engine.limits.Set(func(s *allowance.Settings) error { s.Down = 0; return nil }); err != nil {
		t.Fatal(err)
	}
	laptop.untilWhole()
	if laptop.read(v.ID, 0) != 2 || laptop.read(v.ID, blocks-1) != 2 {
		t.Error("the disk isn't what it must be")
	}
}
