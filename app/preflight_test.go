package app

import (
	"errors"
	"strings"
	"testing"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/app/preflight"
)

// can is a PC whose processor can be the given models.
func (d *device) can(models ...string) {
	d.t.Helper()
	d.hv.mu.Lock()
	d.hv.accel, d.hv.survey = "kvm", hypervisor.Survey{CPUModels: models, Machines: []string{"pc-i440fx-7.2"}, Vendor: "GenuineIntel"}
	d.hv.mu.Unlock()
	d.engine.facts.mu.Lock()
	d.engine.facts.err = errors.New("look again")
	d.engine.facts.at = d.engine.facts.at.Add(-2 * factsAge)
	d.engine.facts.mu.Unlock()
	d.engine.lookAtHardware(d.t.Context())
	d.engine.announce()
}

// heardOf waits until the other devices know what this one can be.
func (d *device) heardOf(others ...*device) {
	d.t.Helper()
	for _, o := range others {
		until(d.t, d.name+"'s hardware in "+o.name+"'s directory", func() bool { return o.engine.otherDevice(d.engine.host.ID()).Probed })
	}
}

func TestAProcessorThatLacksSomething(t *testing.T) {
	a, b := newDevice(t, "desk"), newDevice(t, "laptop")
	a.can("Haswell-noTSX", "Nehalem", "Westmere")
	job, err := a.engine.CreateVM(t.Context(), api.CreateVM{Name: "Play", CPUs: 1, MemoryMiB: 64, DiskBytes: testDisk})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the VM "+job.VMName, func() bool { _, ok := a.vm("Play"); return ok })
	if v, _ := a.vm("Play"); v.Spec.CPU != "Haswell-noTSX" || v.Spec.Hardware != hypervisor.HardwareNow {
		t.Fatalf("alone, it is %+v", v.Spec)
	}
	if err := a.engine.StartVM(t.Context(), "Play"); err != nil {
		t.Fatal(err)
	}
	events, err := a.engine.Watch(t.Context(), a.engine.hub.last())
	if err != nil {
		t.Fatal(err)
	}
	b.can("Nehalem", "Westmere")
	pair(t, a, b)
	b.heardOf(a)
	a.heardOf(b)

	// The person is told at once, and can read it at any time.
	for ev := range events {
		if ev.Kind != "device.unfit" {
			continue
		}
		if !strings.Contains(ev.Text, "laptop lacks something") || ev.Device != b.engine.host.ID() {
			t.Errorf("told: %+v", ev)
		}
		break
	}
	if v, _ := a.vm("Play"); len(v.Unfit) != 1 || v.Unfit[0].DeviceName != "laptop" || v.Unfit[0].Code != string(preflight.LackingCPU) {
		t.Errorf("unfit: %+v", v.Unfit)
	}
	a.live("Play")
	for _, d := range []*device{a, b} {
		p, err := d.engine.CheckSwitch(t.Context(), api.SwitchVM{VM: "Play", To: "laptop"})
		if err != nil || p.Way != api.WayRestart || len(p.Findings) != 1 || p.Findings[0].Code != string(preflight.LackingCPU) || !p.Findings[0].Stops {
			t.Errorf("%s: %+v, %v", d.name, p, err)
		}
	}
	if _, err := b.engine.Switch(t.Context(), api.SwitchVM{VM: "Play"}); err != nil {
		t.Fatal(err)
	}
	s := b.ended("Play")
	if s.Phase != api.PhaseFailed || !strings.Contains(s.Error.Sentence, "laptop lacks something") || !strings.Contains(s.Error.Sentence, "Play stays on desk") ||
		!strings.Contains(s.Error.Next, "tagalong vm stop") {
		t.Errorf("%+v: %v", s, s.Error)
	}
	if v, _ := a.vm("Play"); !v.Here || v.State != api.VMRunning {
		t.Errorf("it is %s", v.State)
	}
	if b.hv.only() != nil {
		t.Error("a hypervisor was started for what can't come")
	}

	// A VM that is made now can go everywhere; one that can't be had isn't made.
	if v := a.create("Work"); v.Spec.CPU != "Westmere" || len(v.Unfit) > 0 {
		t.Errorf("in a fleet of unlike devices, it is a %s; %+v", v.Spec.CPU, v.Unfit)
	}
	if _, err := a.engine.CreateVM(t.Context(), api.CreateVM{Name: "Dream", CPUs: 1, MemoryMiB: 64, DiskBytes: testDisk, CPU: "EPYC"}); err == nil {
		t.Error("a VM with a processor that this device can't be was made")
	}
	if _, err := a.engine.CreateVM(t.Context(), api.CreateVM{Name: "Dream", CPUs: 1, MemoryMiB: 64, DiskBytes: testDisk, Firmware: api.FirmwareUEFI}); err == nil {
		t.Error("a VM with an UEFI was made where there is none")
	}

	// The way that is left.
	if err := a.engine.StopVM(t.Context(), "Play", true); err != nil {
		t.Fatal(err)
	}
	until(t, "the stopped VM in the record", func() bool {
		p, err := b.engine.CheckSwitch(t.Context(), api.SwitchVM{VM: "Play"})
		return err == nil && p.Way == api.WayHandOver
	})
	if _, err := b.engine.Switch(t.Context(), api.SwitchVM{VM: "Play"}); err != nil {
		t.Fatal(err)
	}
	if s := b.ended("Play"); s.Phase != api.PhaseDone {
		t.Fatalf("%+v: %v", s, s.Error)
	}
	if err := b.engine.StartVM(t.Context(), "Play"); err != nil {
		t.Error(err)
	}
}

func TestAnOlderProgramsAsk(t *testing.T) {
	a, b, made := twoDevices(t)
	v := a.engine.vm(made.ID)
	said := v.ask().Taker
	said.Device = nil // as programs did before there was more to say
	said.Accel = "kvm"
	if why := v.preflight(t.Context(), b.engine.host.ID(), said, api.WayChosen); why == nil || why.Reason != reasonAccel || why.Sentence == "" {
		t.Errorf("another accelerator: %+v", why)
	}
	said.Accel = "tcg"
	if why := v.preflight(t.Context(), b.engine.host.ID(), said, api.WayChosen); why != nil {
		t.Errorf("nothing stands in the way: %+v", why)
	}
	said.Device = []byte(`{"v":1,"memory":-3}`)
	if why := v.preflight(t.Context(), b.engine.host.ID(), said, api.WayChosen); why != nil {
		t.Errorf("what can't be read stands in nobody's way: %+v", why)
	}
	said.FreeMemory = 1
	if why := v.preflight(t.Context(), b.engine.host.ID(), said, api.WayChosen); why == nil || why.Reason != reasonMemory {
		t.Errorf("without memory: %+v", why)
	}
}

func TestTheSameHardwareOnBothSides(t *testing.T) {
	a := newDevice(t, "desk")
	v := a.engine.vm(a.create("Work").ID)
	c, err := v.config()
	if err != nil {
		t.Fatal(err)
	}
	for offered, same := range map[string]bool{"": true, v.hardwareHash(): true, strings.Repeat("0", 64): false} {
		v.hearHardware(offered, false)
		if err := v.sameHardware(c); (err == nil) != same {
			t.Errorf("offered %q: %v", offered, err)
		}
	}
	first, err := c.Seen()
	if err != nil || first != v.hardwareHash() {
		t.Fatalf("%s, %v", first, err)
	}
	c.Name, c.Dir, c.Bridge, c.Fork = "Other", "/elsewhere", "br0", "x"
	c.Disks[0].Socket = "/elsewhere/disk.sock"
	if now, _ := c.Seen(); now != first {
		t.Error("what the guest doesn't see counts")
	}
	for name, change := range map[string]func(c *hypervisor.Config){
		"CPUs": func(c *hypervisor.Config) { c.CPUs++ }, "memory": func(c *hypervisor.Config) { c.MemoryKiB += 128 },
		"machine": func(c *hypervisor.Config) { c.Machine = "pc-q35-7.2" }, "CPU": func(c *hypervisor.Config) { c.CPU = "Westmere" },
		"screen": func(c *hypervisor.Config) { c.Screen = !c.Screen }, "network": func(c *hypervisor.Config) { c.Network = !c.Network },
		"generation": func(c *hypervisor.Config) { c.Hardware = 1 }, "firmware": func(c *hypervisor.Config) { c.Firmware = "uefi" },
		"disk": func(c *hypervisor.Config) { c.Disks = append(c.Disks, hypervisor.Disk{ID: "b"}) },
		"size": func(c *hypervisor.Config) { c.Disks[0].Bytes++ },
	} {
		other, err := v.config()
		if err != nil {
			t.Fatal(err)
		}
		change(&other)
		if now, err := other.Seen(); err != nil || now == first {
			t.Errorf("another %s isn't noticed (%v)", name, err)
		}
	}
}

// Another hypervisor is installed while the engine runs: the next look before a switch knows it, and so does the fleet.
func TestAnotherHypervisorIsInstalled(t *testing.T) {
	a, b, _ := twoDevices(t)
	a.can("Westmere")
	b.can("Westmere")
	b.heardOf(a)
	a.heardOf(b)
	b.hv.mu.Lock()
	b.hv.version, b.hv.survey.CPUModels = "11.0.0", []string{"486"}
	b.hv.mu.Unlock()
	p, err := b.engine.CheckSwitch(t.Context(), api.SwitchVM{VM: "Work"})
	if err != nil || b.engine.knownDevice().Hypervisor != "11.0.0" || len(p.Findings) == 0 {
		t.Errorf("%+v, %v; it is %+v", p, err, b.engine.knownDevice())
	}
	until(t, "the fleet to know", func() bool { return a.engine.otherDevice(b.engine.host.ID()).Hypervisor == "11.0.0" })
}

// What the guests of this device were promised can't be had by one that is to come, and the look before a switch says so.
func TestALookBeforeASwitchCountsWhatIsPromised(t *testing.T) {
	_, b, _ := twoDevicesAnd(t, func(b *device) { b.withFreeMemory(8 << 30) })
	other := b.create("Play")
	if err := b.engine.vm(other.ID).admit(b.engine.free() - 32<<20); err != nil {
		t.Fatal(err)
	}
	p, err := b.engine.CheckSwitch(t.Context(), api.SwitchVM{VM: "Work"})
	if err != nil || len(p.Findings) != 1 || p.Findings[0].Code != string(preflight.LittleMemory) || p.Way != api.WaySuspend {
		t.Errorf("%+v, %v", p, err)
	}
}
