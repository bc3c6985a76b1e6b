package app

import (
	"testing"

	"tagalong.org/tagalong/app/api"
)

// looksMeasured looks before a switch until the way there could be measured, which takes a moment in which the computer isn't busy with something else.
func (d *device) looksMeasured(vm, to string) (p *api.Preflight) {
	d.t.Helper()
	until(d.t, "the way to be measured", func() bool {
		var err error
		if p, err = d.engine.CheckSwitch(d.t.Context(), api.SwitchVM{VM: vm, To: to}); err != nil {
			d.t.Fatal(err)
		}
		return p.Basis != nil
	})
	return p
}

// Who looks before a switch, on either side, is told what each way takes, though no memory was ever on its way between the two.
func TestALookBeforeASwitchEstimates(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	for _, d := range []*device{laptop, desk} {
		p := d.looksMeasured("Work", "laptop")
		b := p.Basis
		if b.Trip || b.Rate <= 0 || b.DirtyRate != fakeDirtyRate || b.At.IsZero() {
			t.Errorf("on %s it goes by %+v", d.name, b)
		}
		for _, w := range p.Ways {
			if w.There <= 0 || w.Full < w.There {
				t.Errorf("on %s: %+v", d.name, w)
			}
		}
	}
	// Who doesn't have it can't tell.
	if err := desk.engine.vm(v.ID).askGauged(t.Context(), laptop.engine.host.ID()); err == nil {
		t.Error("a device that doesn't have the VM tells how it would go")
	}
}
