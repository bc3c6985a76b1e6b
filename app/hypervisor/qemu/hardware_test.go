package qemu

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tagalong.org/tagalong/app/hypervisor"
)

var update = flag.Bool("update", false, "write the command lines of the generation that no VM has yet")

// desktop is a VM with everything that a generation has.
func desktop(hardware int, firmware string) hypervisor.Config {
	c := hypervisor.Config{VM: "00112233445566778899aabbccddeeff", Name: "Work, at home", CPUs: 2, MemoryKiB: 524160, Hardware: hardware,
		Machine: DefaultMachine, CPU: DefaultCPU, Firmware: firmware, Screen: true, Network: true, Dir: "/run/a,b",
		Disks: oneDisk(40<<30, "/run/a,b/disk.sock")}
	if firmware == hypervisor.FirmwareUEFI {
		c.Machine = UEFIMachine
		c.Disks = append(c.Disks, hypervisor.Disk{ID: "vars1", Kind: hypervisor.DiskVars, Bytes: hypervisor.FirmwareVarsBytes, Socket: "/run/a,b/v-vars1.sock"})
	}
	return c
}

func golden(t *testing.T, name string, c hypervisor.Config, h host, incoming bool) {
	t.Helper()
	args, err := argv(c, h, incoming)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(args, "\n") + "\n"
	file := filepath.Join("testdata", name)
	if *update && c.Hardware > hypervisor.HardwareFirst {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: guests know another PC than this one: make a new generation instead\n%s", name, got)
	}
}

func TestGenerationsNeverChange(t *testing.T) {
	golden(t, "gen1.argv", desktop(0, ""), host{accel: "kvm"}, true)
	golden(t, "gen1.argv", desktop(1, hypervisor.FirmwareBIOS), host{accel: "kvm"}, true)
	bare := desktop(1, "")
	bare.Screen, bare.Network, bare.CPUs = false, false, 1
	golden(t, "gen1-bare.argv", bare, host{accel: "tcg"}, false)

	golden(t, "gen2-bios.argv", desktop(2, ""), host{accel: "kvm"}, true)
	golden(t, "gen2-uefi.argv", desktop(2, hypervisor.FirmwareUEFI), host{accel: "kvm", spice: true, code: "/usr/share/code,fd", netdev: "tap,id=net0,fd=3"}, false)
	full := desktop(2, hypervisor.FirmwareUEFI)
	for _, id := range []string{"b", "c", "d", "e", "f", "g", "h"} {
		full.Disks = append(full.Disks, hypervisor.Disk{ID: id, Kind: hypervisor.DiskDrive, Bytes: 1 << 30, Socket: "/" + id})
	}
	full.Extra = []hypervisor.ExtraDisk{{ID: "p0", Socket: "/p0"}, {ID: "p1", Socket: "/p1"}}
	golden(t, "gen2-full.argv", full, host{accel: "kvm", code: "/code"}, false)
}

// seen is what of a command line makes the guest's PC: its devices, but for what names their other ends.
func seen(args []string) string {
	var list []string
	for i := 0; i+1 < len(args); i += 2 {
		switch args[i] {
		case "-device", "-machine", "-cpu", "-smp", "-m", "-uuid", "-rtc":
			list = append(list, args[i]+" "+args[i+1])
		}
	}
	slices.Sort(list)
	return strings.Join(list, "\n")
}

func TestTheGuestSeesNothingOfItsHost(t *testing.T) {
	for _, firmware := range []string{hypervisor.FirmwareBIOS, hypervisor.FirmwareUEFI} {
		c := desktop(2, firmware)
		one, err := argv(c, host{accel: "tcg", code: "/a"}, false)
		if err != nil {
			t.Fatal(err)
		}
		c.Bridge, c.Dir = "br0", "/elsewhere"
		other, err := argv(c, host{accel: "kvm", code: "/b", spice: true, netdev: "tap,id=net0,fd=3"}, false)
		if err != nil {
			t.Fatal(err)
		}
		if seen(one) != seen(other) {
			t.Errorf("%s: the guest can tell hosts apart:\n%s\n\n%s", firmware, seen(one), seen(other))
		}
	}
}

func TestHardwareThatIsRefused(t *testing.T) {
	h := host{accel: "tcg", code: "/code"}
	for name, change := range map[string]func(c *hypervisor.Config){
		"a generation to come":      func(c *hypervisor.Config) { c.Hardware = 3 },
		"a UEFI in generation 1":    func(c *hypervisor.Config) { c.Hardware = 1 },
		"another firmware":          func(c *hypervisor.Config) { c.Firmware = "coreboot" },
		"no place for variables":    func(c *hypervisor.Config) { c.Disks = c.Disks[:1] },
		"two places":                func(c *hypervisor.Config) { c.Disks = append(c.Disks, c.Disks[1]) },
		"a place of another size":   func(c *hypervisor.Config) { c.Disks[1].Bytes = 1 << 20 },
		"more disks than it can be": func(c *hypervisor.Config) { c.Extra = make([]hypervisor.ExtraDisk, 5) },
	} {
		c := desktop(2, hypervisor.FirmwareUEFI)
		for i := range c.Extra {
			c.Extra[i].ID = "x"
		}
		change(&c)
		if _, err := argv(c, h, false); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if _, err := argv(desktop(2, hypervisor.FirmwareUEFI), host{accel: "tcg"}, false); !errors.Is(err, hypervisor.ErrNoFirmware) {
		t.Errorf("without an UEFI: %v", err)
	}
}

func TestTheHistoryHasAnID(t *testing.T) {
	c := desktop(2, "")
	first := historyID(c)
	if historyID(c) != first {
		t.Error("it isn't the same each time")
	}
	if c.Fork = "abc"; historyID(c) == first {
		t.Error("another history has the same")
	}
	if c.Fork, c.VM = "", strings.Repeat("1", 32); historyID(c) == first {
		t.Error("another VM has the same")
	}
}

func TestSurvey(t *testing.T) {
	q := &QEMU{Accel: "tcg"}
	s, err := q.Survey(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(s.CPUModels, DefaultCPU) || slices.Contains(s.CPUModels, "max") || slices.Contains(s.CPUModels, "EPYC-Milan") {
		t.Errorf("CPU models: %v", s.CPUModels)
	}
	if !slices.Contains(s.Machines, DefaultMachine) || !slices.Contains(s.Machines, UEFIMachine) {
		t.Errorf("machines: %v", s.Machines)
	}
	if len(s.Firmware.Hash) != 64 {
		t.Errorf("firmware %+v: these tests need an UEFI (Debian package ovmf)", s.Firmware)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (&QEMU{Accel: "tcg"}).Survey(ctx); err == nil {
		t.Error("a survey that was called off succeeded")
	}
	broken := filepath.Join(t.TempDir(), "qemu")
	if err := os.WriteFile(broken, []byte("#!/bin/sh\ncase $1 in --version) echo QEMU emulator version 9.0.1;; *) echo nope >&2; exit 1;; esac\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := (&QEMU{Path: broken, Accel: "tcg"}).Survey(testContext(t)); !errors.Is(err, hypervisor.ErrNotRunning) || !strings.Contains(err.Error(), "nope") {
		t.Errorf("a QEMU that doesn't start: %v", err)
	}
}

func TestFirmwareThatSuits(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	code := write("code.fd", make([]byte, hypervisor.FirmwareCodeBytes))
	small := write("small.fd", make([]byte, 1<<20))
	vars := write("vars.fd", make([]byte, hypervisor.FirmwareVarsBytes))
	describe := func(name, code, vars, machine, features string) {
		write(name, []byte(`{"interface-types":["uefi"],"mapping":{"device":"flash","executable":{"filename":"`+code+`","format":"raw"},"nvram-template":{"filename":"`+vars+
			`","format":"raw"}},"targets":[{"architecture":"x86_64","machines":["`+machine+`"]}],"features":[`+features+`]}`))
	}
	write("10-nonsense.json", []byte("{"))
	write("11-empty.json", []byte("null"))
	write("12-endless.json", bytes.Repeat([]byte(" "), maxDescriptor+1))
	describe("20-small.json", small, vars, "pc-q35-*", "")
	describe("21-gone.json", code+"x", vars, "pc-q35-*", "")
	describe("22-small-vars.json", code, small, "pc-q35-*", "")
	describe("23-smm.json", code, vars, "pc-q35-*", `"requires-smm"`)
	describe("24-keys.json", code, vars, "pc-q35-*", `"enrolled-keys"`)
	describe("25-microvm.json", code, vars, "microvm", "")
	if f, err := findFirmware(dir, filepath.Join(dir, "nowhere")); !errors.Is(err, hypervisor.ErrNoFirmware) {
		t.Errorf("none suits, but %+v was found: %v", f, err)
	}
	describe("30-good.json", code, vars, "pc-q35-*", `"acpi-s3"`)
	f, err := findFirmware(dir)
	if err != nil || f.Code != code || f.Vars != vars || len(f.Hash) != 64 {
		t.Errorf("%+v, %v", f, err)
	}
}

// varsDisk serves a store of variables from a file.
func varsDisk(t *testing.T, content []byte) (disk hypervisor.Disk, file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "vars")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return hypervisor.Disk{ID: "vars1", Kind: hypervisor.DiskVars, Bytes: hypervisor.FirmwareVarsBytes, Socket: serve(t, file)}, file
}

// TestUEFIMoves carries a guest of generation 2 between two hosts that have nothing in common but the VM: the taker's copy of the
// variables is read when it starts, but not written before the guest goes on there.
func TestUEFIMoves(t *testing.T) {
	ctx := testContext(t)
	q := &QEMU{Accel: "tcg"}
	s, err := q.Survey(ctx)
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := os.ReadFile(s.Firmware.Vars)
	if err != nil {
		t.Fatalf("these tests need an UEFI (Debian package ovmf): %v", err)
	}
	a := testConfig(t)
	a.Hardware, a.Machine, a.Firmware, a.Screen, a.Network, a.CPUs = 2, UEFIMachine, hypervisor.FirmwareUEFI, true, true, 8
	b := a
	b.Dir = t.TempDir()
	theirs, _ := varsDisk(t, fresh)
	stale := make([]byte, hypervisor.FirmwareVarsBytes)
	ours, file := varsDisk(t, stale)
	a.Disks, b.Disks = append(a.Disks, theirs), append(slices.Clone(b.Disks), ours)
	giver := start(t, ctx, q, a, false)
	withoutSPICE := &QEMU{Accel: "tcg", Path: filepath.Join(t.TempDir(), "qemu")}
	script := "#!/bin/sh\ncase \"$*\" in *'-spice help') exit 1;; esac\nexec " + binaryPath(t, q) + " \"$@\"\n"
	if err := os.WriteFile(withoutSPICE.Path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	taker := start(t, ctx, withoutSPICE, b, true)
	if kind := screenKind(t, ctx, giver); kind != "spice" {
		t.Errorf("the giver's screen is %s", kind)
	}
	if kind := screenKind(t, ctx, taker); kind != "vnc" {
		t.Errorf("the taker's screen is %s", kind)
	}
	out := midway(t, ctx, giver, taker)
	if err := out.Finish(ctx); err != nil {
		t.Fatal(err)
	}
	if err := taker.Loaded(ctx); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, stale) {
		t.Fatalf("the taker's variables were written before it had the VM: %v", err)
	}
	if err := taker.Continue(ctx); err != nil {
		t.Fatal(err)
	}
	wantState(t, ctx, taker, hypervisor.StateRunning)
	eventually(t, ctx, "the variables to be written", func() bool {
		got, err := os.ReadFile(file)
		return err == nil && len(got) == len(fresh) && bytes.Contains(got, []byte("_FVH"))
	})
	// The machine takes a disk while it runs, on a port of its own.
	late, _ := testDisk(t)
	for _, id := range []string{"hot", "hotter"} {
		if err := taker.Attach(ctx, hypervisor.ExtraDisk{ID: id, Socket: late}); err != nil {
			t.Errorf("attach %s: %v", id, err)
		}
	}
}

func binaryPath(t *testing.T, q *QEMU) string {
	t.Helper()
	path, err := exec.LookPath(q.binary())
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// screenKind is what QEMU serves the guest's screen with.
func screenKind(t *testing.T, ctx context.Context, g hypervisor.Guest) string {
	t.Helper()
	var vnc, spice struct {
		Enabled bool `json:"enabled"`
	}
	monitor := g.(*guest).qmp
	if err := monitor.Do(ctx, "query-vnc", nil, &vnc); err != nil {
		t.Fatal(err)
	}
	if err := monitor.Do(ctx, "query-spice", nil, &spice); err != nil {
		return "vnc" // it doesn't even know the command
	}
	switch {
	case spice.Enabled:
		return "spice"
	case vnc.Enabled:
		return "vnc"
	default:
		return "none"
	}
}
