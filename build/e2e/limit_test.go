//go:build linux

package e2e

import (
	"context"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/build/lab"
	"tagalong.org/tagalong/build/story"
)

// TestALimitIsKept has the first copy of a VM go to another site, over a line of 50 Mbit/s, with a limit of 2 Mbit/s on the one end and then on
// the other, and counts what the line carries, of everything: whole packets. A busy computer makes it slower only.
func TestALimitIsKept(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	f, err := story.BeginFleet(ctx, story.Options{
		Binary: built.binary, Image: built.image, Dir: t.TempDir(), Out: t.Output(),
		Sites: []lab.Site{{Name: "home", Hosts: []string{desk}}, {Name: "office", Hosts: []string{laptop}}},
		WAN:   lab.WAN{Rate: 50_000_000, RoundTrip: 40 * time.Millisecond},
	})
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	must(t, err)
	limit := func(on string, way, rate string) {
		t.Helper()
		if _, err := f.PC(on).Run(ctx, "sync", "limit", way, rate); err != nil {
			t.Fatal(err)
		}
	}
	link := f.Lab.Link("home", "office")
	// carry waits until the line has carried n bytes more to the office, and says how long that took.
	carry := func(n int64) time.Duration {
		t.Helper()
		began, until := time.Now(), link.Carried("home")+n
		for link.Carried("home") < until {
			select {
			case <-ctx.Done():
				t.Fatalf("%d bytes are missing: %v\n%s", until-link.Carried("home"), ctx.Err(), f.LastWords())
			case <-time.After(time.Millisecond):
			}
		}
		return time.Since(began)
	}
	// The window is so long that what waits in a router when this computer has no time for the line is a small part of it.
	const rate, lead, window = 2e6 / 8, 192 << 10, 2 << 20
	limit(desk, "--up", "2Mbit/s")
	limit(laptop, "--down", "none")
	must(t, f.Make(ctx, desk, work))
	for _, end := range []string{desk, laptop} {
		if end == laptop {
			limit(laptop, "--down", "2Mbit/s")
			limit(desk, "--up", "none")
		}
		carry(lead) // what was on its way, and the window's beginning
		took := carry(window)
		t.Logf("limited at the %s: %.2f Mbit/s on the line", end, window*8/took.Seconds()/1e6)
		// Packets and encryption take 5 % more than what is limited; devices talk of other things, too.
		if got := window / took.Seconds(); got > 1.15*rate {
			t.Errorf("limited at the %s, the line carried %.0f bytes a second instead of %.0f", end, got, rate)
		}
	}
	limit(laptop, "--down", "none")
	_, err = f.UntilVM(ctx, f.PC(desk), work, "whole at the office", func(v api.VM) bool {
		return len(v.Replicas) == 1 && v.Replicas[0].Position != (api.Position{})
	})
	must(t, err)
}
