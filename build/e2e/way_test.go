//go:build linux

package e2e

import (
	"context"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/build/guest/console"
	"tagalong.org/tagalong/build/lab"
	"tagalong.org/tagalong/build/story"
)

// calm is a guest that a home's uplink can carry while it runs.
var calm = console.Rate{Records: 20, Fsync: 4, Mem: 1, Set: 8}

// TestWaysFarAway brings a VM over 7 Mbit/s and 40 ms while it runs, and suspended: a calm one, and one that is too busy for the connection, which is cut
// on the way, and the giver's engine killed. It goes on with its memory each time, and what each way took is told.
func TestWaysFarAway(t *testing.T) {
	t.Parallel()
	// The first copy isn't what this is about.
	ctx, f := fleetAt(t, lab.WAN{Rate: 1e9, RoundTrip: lab.HomeWAN.RoundTrip, Queue: 100 * time.Millisecond},
		lab.Site{Name: "home", Hosts: []string{desk}}, lab.Site{Name: "office", Hosts: []string{laptop}})
	home := f.PC(desk)
	job, err := home.Client.CreateVM(ctx, api.CreateVM{Name: work, CPUs: 1, MemoryMiB: 160, Image: built.image, Format: "raw"})
	must(t, err)
	must(t, f.AwaitJob(ctx, desk, job))
	_, err = f.UntilVM(ctx, home, work, "once whole at the office", func(v api.VM) bool {
		return len(v.Replicas) == 1 && v.Replicas[0].Position != (api.Position{})
	})
	must(t, err)
	c := booted(ctx, t, f, desk, work, 0)
	must(t, c.SetRate(ctx, calm))
	wrote(ctx, t, f, c)
	link := f.Lab.Link("home", "office")
	must(t, link.Shape(ctx, lab.HomeWAN))

	on := desk
	for _, way := range []api.Way{api.WayTeleport, api.WaySuspend} {
		to := map[string]string{desk: laptop, laptop: desk}[on]
		s := broughtBy(ctx, t, f, link, on, to, way, nil)
		if way == api.WaySuspend && s.Kind != "suspend" || s.Pause == 0 {
			t.Errorf("by %s it came as %+v", way, s)
		}
		on = to
		c, err = f.Listen(ctx, on, work)
		must(t, err)
		wrote(ctx, t, f, c)
	}

	must(t, c.SetRate(ctx, tooBusy))
	broughtBy(ctx, t, f, link, on, laptop, api.WaySuspend, func() {
		_, err := f.UntilVM(ctx, home, work, "its memory on its way", func(v api.VM) bool {
			return v.Switch != nil && v.Switch.Phase == api.PhaseSend && v.Switch.Bytes > 1<<20
		})
		must(t, err)
		link.Cut()
		_, err = f.UntilVM(ctx, home, work, "a word that it waits for the connection", func(v api.VM) bool { return v.Switch != nil && v.Switch.Why != "" })
		must(t, err)
		must(t, f.Kill(ctx, desk))
		link.Heal()
	})
	c, err = f.Listen(ctx, laptop, work)
	must(t, err)
	must(t, c.SetRate(ctx, calm))
	wrote(ctx, t, f, c)
	w, err := f.UntilVM(ctx, home, work, "an end of the switch at the old place", func(v api.VM) bool { return v.Switch != nil && v.Switch.Phase.Ended() })
	must(t, err)
	if w.Here || w.Switch.Phase != api.PhaseDone {
		t.Errorf("the old place says %+v", w.Switch)
	}
}

// broughtBy brings the VM in that way, and tells what it took. meanwhile, if it isn't nil, is done while it is under way.
func broughtBy(ctx context.Context, t *testing.T, f *story.Fleet, link *lab.Link, from, to string, way api.Way, meanwhile func()) api.Switch {
	t.Helper()
	site := map[string]string{desk: "home", laptop: "office"}[from]
	carried, began := link.Carried(site), time.Now()
	p := f.PC(to)
	_, err := p.Client.Switch(ctx, api.SwitchVM{VM: work, Way: way})
	must(t, err)
	if meanwhile != nil {
		meanwhile()
	}
	v, err := f.UntilVM(ctx, p, work, "an end of the switch", func(v api.VM) bool { return v.Switch != nil && v.Switch.Phase.Ended() })
	must(t, err)
	s := *v.Switch
	if s.Phase != api.PhaseDone || !v.Here || v.State != api.VMRunning {
		t.Fatalf("by %s it ended as %s, %s: %v", way, s.Phase, v.State, s.Error)
	}
	f.Say("by %s: %d bytes on the wire, it ran there after %v, and stood still for %v", way, link.Carried(site)-carried, time.Since(began).Round(10*time.Millisecond), s.Pause.Round(time.Millisecond))
	return s
}
