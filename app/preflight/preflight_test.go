package preflight

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// pc is a device that can run anything of its age.
func pc(name string) Device {
	return Device{
		Name: name, Probed: true, Hypervisor: "7.2.22", Accel: "kvm", Vendor: "GenuineIntel", CPUModels: []string{"Haswell-noTSX", "Nehalem", "Westmere"},
		Machines: []string{"pc-i440fx-7.2", "pc-q35-7.2"}, Hardware: 2, Firmware: strings.Repeat("f", 64), Bridge: "br0",
		Memory: 16 << 30, FreeMemory: 8 << 30, FreeDisk: 100 << 30,
	}
}

func work() VM {
	return VM{Name: "Work", Running: true, CPU: "Westmere", Machine: "pc-q35-7.2", Firmware: "uefi", Hardware: 2, Bridged: true, Memory: 4 << 30, Lacking: 10 << 30}
}

func TestNothingStandsInTheWay(t *testing.T) {
	if r := Check(work(), pc("desk"), pc("lap")); r.Way != WayTeleport || len(r.Findings) > 0 {
		t.Errorf("%+v", r)
	}
	v := work()
	v.Running = false
	if r := Check(v, pc("desk"), pc("lap")); r.Way != WayHandOver || len(r.Findings) > 0 {
		t.Errorf("stopped: %+v", r)
	}
}

// TestWhatStandsInTheWay has each finding alone: what makes it, what is left, and words that its sentence needs.
func TestWhatStandsInTheWay(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(v *VM, giver, taker *Device)
		code   Code
		stops  bool
		way    Way
		says   []string
	}{
		{"no QEMU", func(_ *VM, _, d *Device) { *d = Device{Name: "lap", Probed: true} }, NoHypervisor, true, WayNone, []string{"no usable QEMU on lap", "Install"}},
		{"an old Tagalong", func(_ *VM, _, d *Device) { d.Hardware = 1 }, OldHardware, true, WayNone, []string{"lap", "Update Tagalong"}},
		{"an old QEMU", func(_ *VM, _, d *Device) { d.Machines = d.Machines[:1] }, NoMachine, true, WayNone, []string{"7.2.22", "pc-q35-7.2"}},
		{"no UEFI", func(_ *VM, _, d *Device) { d.Firmware, d.NoFirmware = "", true }, NoFirmware, true, WayNone, []string{"UEFI", "ovmf"}},
		{"another UEFI", func(_ *VM, _, d *Device) { d.Firmware = strings.Repeat("e", 64) }, NoFirmware, false, WayTeleport, []string{"different versions"}},
		{"a taker that emulates", func(_ *VM, _, d *Device) { d.Accel = "tcg" }, OtherAccel, true, WayRestart, []string{"lap has to emulate", "vm stop \"Work\"", "vm start"}},
		{"a giver that emulates", func(_ *VM, d, _ *Device) { d.Accel = "tcg" }, OtherAccel, true, WayRestart, []string{"desk has to emulate"}},
		{"a lesser processor", func(_ *VM, _, d *Device) { d.CPUModels = []string{"Nehalem"} }, LackingCPU, true, WayRestart, []string{"lap", "Westmere", "vm stop"}},
		{"another maker", func(_ *VM, _, d *Device) { d.Vendor = "AuthenticAMD" }, OtherVendor, false, WayTeleport, []string{"different makers"}},
		{"little free memory", func(_ *VM, _, d *Device) { d.FreeMemory = 1 << 30 }, LittleMemory, true, WaySuspend, []string{"4096 MiB", "1024 MiB", "switch \"Work\" --way suspend"}},
		{"little memory", func(_ *VM, _, d *Device) { d.Memory, d.FreeMemory = 2<<30, 1<<30 }, LittleMemory, true, WayRestart, []string{"altogether", "--memory"}},
		{"a full disk", func(_ *VM, _, d *Device) { d.FreeDisk = 1 << 30 }, LittleDisk, false, WayTeleport, []string{"disk of lap", "10 GiB", "1024 MiB", "Free some space"}},
		{"a restore point", func(v *VM, _, _ *Device) { v.Attached = []string{"2b"} }, Attached, true, WayNone, []string{"desk", "restore-points close 2b"}},
		{"no bridge", func(_ *VM, _, d *Device) { d.Bridge, d.NoBridge = "", "it has no network bridge" }, NoBridge, false, WayTeleport, []string{"hidden behind lap", "devices bridge"}},
		{"a silent device", func(_ *VM, _, d *Device) { *d = Device{Name: "lap"} }, Unknown, false, WayTeleport, []string{"lap", "isn't known"}},
	} {
		v, giver, taker := work(), pc("desk"), pc("lap")
		c.change(&v, &giver, &taker)
		r := Check(v, giver, taker)
		if len(r.Findings) != 1 || r.Way != c.way {
			t.Errorf("%s: way %s, want %s: %+v", c.name, r.Way, c.way, r.Findings)
			continue
		}
		f := r.Findings[0]
		if f.Code != c.code || f.Stops != c.stops || f.Stops != (r.Stops() != nil) || f.Stops && f.Left != c.way || f.Stops && f.Next == "" {
			t.Errorf("%s: %+v", c.name, f)
		}
		for _, w := range c.says {
			if !strings.Contains(f.Sentence+" "+f.Next, w) {
				t.Errorf("%s: %q isn't said in: %s %s", c.name, w, f.Sentence, f.Next)
			}
		}
		// What doesn't run can be handed over.
		v.Running = false
		if r = Check(v, giver, taker); r.Stops() != nil || r.Way != WayHandOver {
			t.Errorf("%s, stopped: %+v", c.name, r)
		}
	}
}

func TestTheWorstDecides(t *testing.T) {
	v, taker := work(), pc("lap")
	taker.FreeMemory, taker.CPUModels = 1, []string{"Nehalem"}
	r := Check(v, pc("desk"), taker)
	if r.Way != WayRestart || len(r.Findings) != 2 || r.Stops().Code != LackingCPU {
		t.Errorf("%+v", r)
	}
	v.Firmware, v.Bridged = "", false
	taker = pc("lap")
	taker.NoFirmware, taker.Firmware, taker.NoBridge, taker.Bridge = true, "", "none", ""
	if r := Check(v, pc("desk"), taker); len(r.Findings) > 0 {
		t.Errorf("a BIOS behind its device needs neither: %+v", r)
	}
	// Where all is emulated, the maker of the processor doesn't matter.
	a, b := pc("desk"), pc("lap")
	a.Accel, b.Accel, b.Vendor = "tcg", "tcg", "AuthenticAMD"
	if r := Check(work(), a, b); len(r.Findings) > 0 {
		t.Errorf("%+v", r)
	}
}

func TestBaseline(t *testing.T) {
	with := func(change func(d *Device)) Device {
		d := pc("x")
		change(&d)
		return d
	}
	old := with(func(d *Device) { d.CPUModels = []string{"Nehalem", "Westmere", "486"} })
	silent := Device{Name: "silent"}
	none := Device{Name: "nas", Probed: true}
	slow := with(func(d *Device) { d.Accel, d.CPUModels = "tcg", []string{"Nehalem", "Westmere"} })
	odd := with(func(d *Device) { d.CPUModels = []string{"EPYC"} })
	for name, c := range map[string]struct {
		devices []Device
		want    string
	}{
		"one":                         {[]Device{pc("a")}, "Haswell-noTSX"},
		"two alike":                   {[]Device{pc("a"), pc("b")}, "Haswell-noTSX"},
		"an older one":                {[]Device{pc("a"), old}, "Westmere"},
		"one that says nothing":       {[]Device{pc("a"), silent}, DefaultCPU},
		"one that runs nothing":       {[]Device{pc("a"), none}, "Haswell-noTSX"},
		"all emulate":                 {[]Device{slow, slow}, DefaultCPU},
		"one emulates":                {[]Device{pc("a"), slow}, "Westmere"},
		"one that can be none of all": {[]Device{odd}, DefaultCPU},
		"nobody":                      {nil, DefaultCPU},
	} {
		if got := Baseline(c.devices); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	if got := Cant("Westmere", []Device{pc("a"), odd, silent}); len(got) != 1 || got[0].CPUModels[0] != "EPYC" {
		t.Errorf("%+v", got)
	}
}

func TestWhatADeviceSaysArrives(t *testing.T) {
	want := pc("")
	want.NoBridge = "it has several"
	got, said, err := Decode(Encode(want))
	if err != nil || !said || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v, %v", got, said, err)
	}
	if _, said, err := Decode(nil); said || err != nil {
		t.Errorf("nothing: %v, %v", said, err)
	}
	var many []string
	for i := range 1000 {
		many = append(many, strings.Repeat("m", i%80), "Good-v3", "bad name", "")
	}
	b := Encode(Device{CPUModels: many, Machines: many, NoBridge: strings.Repeat("ü", 100)})
	got, said, err = Decode(b)
	if err != nil || !said || len(b) > MaxEncoded || len(got.CPUModels) == 0 || slices.Contains(got.CPUModels, "Good-v3") || slices.Contains(got.CPUModels, "bad name") {
		t.Errorf("%d bytes: %+v, %v", len(b), got, err)
	}
}

func TestHostileWords(t *testing.T) {
	for name, raw := range map[string]string{
		"nonsense":         `{`,
		"another form":     `[1]`,
		"no version":       `{}`,
		"a bad version":    `{"v":-1}`,
		"a long word":      `{"v":1,"vendor":"` + strings.Repeat("x", 65) + `"}`,
		"control letters":  `{"v":1,"bridge":"a\u001b[2J"}`,
		"a long reason":    `{"v":1,"no_bridge":"` + strings.Repeat("x", 65) + `"}`,
		"a strange one":    `{"v":1,"no_bridge":"a\nb"}`,
		"too many":         `{"v":1,"cpus":["a"` + strings.Repeat(`,"a"`, 256) + `]}`,
		"less than none":   `{"v":1,"memory":-1}`,
		"too much":         `{"v":1,"free_disk":9223372036854775807}`,
		"before the first": `{"v":1,"hardware":-2}`,
		"too long":         `{"v":1,"x":"` + strings.Repeat("x", MaxEncoded) + `"}`,
	} {
		if d, said, err := Decode([]byte(raw)); !errors.Is(err, ErrInvalid) || said || !reflect.DeepEqual(d, Device{}) {
			t.Errorf("%s: %+v, %v, %v", name, d, said, err)
		}
	}
	if _, said, err := Decode([]byte(`{"v":2,"cpus":7}`)); !errors.Is(err, ErrVersion) || said {
		t.Errorf("a later version: %v", err)
	}
	if d, said, err := Decode([]byte(`{"v":1,"accel":"kvm","news":{"a":1}}`)); err != nil || !said || d.Accel != "kvm" {
		t.Errorf("with news: %+v, %v", d, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(Encode(pc("")))
	f.Add([]byte(`{"v":1,"cpus":["a","b"],"memory":1}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, said, err := Decode(raw)
		if err != nil || !said {
			return
		}
		if b, err := json.Marshal(d); err != nil || len(b) > 2*MaxEncoded {
			t.Fatalf("%d bytes, %v", len(b), err)
		}
		Check(work(), d, pc("a"))
		Check(work(), pc("a"), d)
		Baseline([]Device{d})
	})
}
