package app

import (
	"slices"
	"strings"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
)

// What was seen of a guest's memory on its way says what each way would take, on either side, and what is left when it is too busy.
func TestTheWaysAreCompared(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	until(t, "the VM to be known as running", func() bool { s, _ := laptop.vm("Work"); return s.State == api.VMRunning })
	for _, d := range []*device{desk, laptop} {
		p := d.looksMeasured("Work", "laptop")
		if p.Best != api.WayTeleport || p.Why != "" || len(p.Ways) != 3 || p.Ways[0].There == 0 || p.Basis.Trip {
			t.Errorf("%s, of a connection on which no memory was: %+v", d.name, p)
		}
	}
	w := laptop.engine.vm(v.ID)
	busy := switchRun{s: api.Switch{ID: "s", VM: v.ID, VMName: "Work", From: desk.engine.host.ID(), FromName: "desk", To: laptop.engine.host.ID(), ToName: "laptop", Kind: "teleport",
		Phase: api.PhaseMemory, AllowedPause: 3 * time.Second, Estimate: api.SwitchEstimate{Memory: 40 << 20, Rate: 800 << 10, DirtyRate: 24 << 20, Pause: 50 * time.Second}}}
	w.endSwitch(&busy, reasonTooBusy)
	if s := busy.s; s.Phase != api.PhaseFailed || !slices.Equal(s.Offers, []api.Way{api.WaySuspend}) {
		t.Errorf("too busy, it ends as %+v", s)
	}
	p, err := laptop.engine.CheckSwitch(t.Context(), api.SwitchVM{VM: "Work"})
	if err != nil || p.Best != api.WaySuspend || p.Why == "" || p.Basis == nil || !p.Basis.Trip {
		t.Fatalf("%+v, %v", p, err)
	}
	for _, e := range p.Ways {
		switch e.Way {
		case api.WayTeleport:
			if e.Possible || e.Pause != 50*time.Second {
				t.Errorf("%+v", e)
			}
		case api.WaySuspend:
			if want := time.Duration(float64(v.Spec.MemoryKiB<<10) / (800 << 10) * float64(time.Second)); !e.Possible || e.There < want || e.Pause != e.There {
				t.Errorf("%+v, not above %v", e, want)
			}
		}
	}
	// Who asks for no way has it suspended then, and reads why.
	memory := desk.hv.only().memory
	sw, err := laptop.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"})
	if err != nil || sw.Way != api.WaySuspend || !sw.Chosen {
		t.Fatalf("%+v, %v", sw, err)
	}
	carries(t, desk, laptop, memory)
	if said := laptop.firstText("switch.way"); !strings.Contains(said, "Work would stand still for longer") {
		t.Errorf("told: %q", said)
	}
}
