package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tagalong.org/tagalong/app/hypervisor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testDisk serves an empty disk with qemu-nbd: this package's tests are about QEMU, not about our server.
func testDisk(t *testing.T) (socket string, bytes int64) {
	t.Helper()
	const size = 8 << 20
	image := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, size); err != nil {
		t.Fatal(err)
	}
	return serve(t, image), size
}

// serve lends a file to several at once.
func serve(t *testing.T, image string) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "nbd.sock")
	cmd := exec.Command("qemu-nbd", "-t", "-f", "raw", "-e", "8", "-k", socket, image)
	if err := cmd.Start(); err != nil {
		t.Fatalf("these tests need qemu-nbd (Debian package qemu-utils): %v", err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	eventually(t, testContext(t), "qemu-nbd to listen", func() bool {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return socket
}

// eventually waits until cond holds.
func eventually(t *testing.T, ctx context.Context, what string, cond func() bool) {
	t.Helper()
	for !cond() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited for %s: %v", what, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// oneDisk are the disks of a VM that has one.
func oneDisk(bytes int64, socket string) []hypervisor.Disk {
	return []hypervisor.Disk{{ID: "disk1", Kind: hypervisor.DiskDrive, Bytes: bytes, Socket: socket}}
}

func testConfig(t *testing.T) hypervisor.Config {
	t.Helper()
	disk, size := testDisk(t)
	dir, err := os.MkdirTemp("", "tq")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return hypervisor.Config{
		VM: "00112233445566778899aabbccddeeff", Name: "Work, at home", CPUs: 1, MemoryKiB: EvenMemory(64 << 10),
		Machine: DefaultMachine, CPU: DefaultCPU, Disks: oneDisk(size, disk), Dir: dir,
	}
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func start(t *testing.T, ctx context.Context, q *QEMU, c hypervisor.Config, incoming bool) hypervisor.Guest {
	t.Helper()
	f := q.Start
	if incoming {
		f = q.StartIncoming
	}
	g, err := f(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Kill(context.Background()); err != nil {
			t.Error(err)
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

func wantState(t *testing.T, ctx context.Context, g hypervisor.Guest, want hypervisor.State) {
	t.Helper()
	got, err := g.State(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Fatalf("state %q, want %q", got, want)
	}
}

func TestEvenMemory(t *testing.T) {
	for _, kib := range []int64{512 << 10, 2 << 20, 256, 1 << 20} {
		if got := EvenMemory(kib); got%256 == 0 || got >= kib || kib-got > 256 {
			t.Errorf("EvenMemory(%d) = %d", kib, got)
		}
	}
	if got := EvenMemory(524160); got != 524160 {
		t.Errorf("an odd size was changed to %d", got)
	}
}

func TestArgvIsAFunctionOfTheConfig(t *testing.T) {
	c := hypervisor.Config{VM: strings.Repeat("ab", 16), Name: "Work", CPUs: 2, MemoryKiB: 524160,
		Machine: DefaultMachine, CPU: DefaultCPU, Screen: true, Network: true, Disks: oneDisk(1<<30, "/d"), Dir: "/r"}
	a, err := argv(c, host{accel: "tcg"}, false)
	if err != nil {
		t.Fatal(err)
	}
	b, err := argv(c, host{accel: "tcg"}, true)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(b, " "), strings.Join(a, " ")+" -S -incoming defer"; got != want {
		t.Errorf("the taker's command line differs by more than its waiting:\n%s\n%s", got, want)
	}
	plain := strings.Join(a, " ")
	c.CheckFileSystems, c.Extra = true, []hypervisor.ExtraDisk{{ID: "0123abc", Socket: "/rp.sock"}}
	more, err := argv(c, host{accel: "tcg"}, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"opt/org.tagalong/fsck,string=force", "fsck.mode=force", `"read-only":true`, "/rp.sock"} {
		if strings.Contains(plain, want) || !strings.Contains(strings.Join(more, " "), want) {
			t.Errorf("%q is there unasked, or isn't there when asked", want)
		}
	}
	c.Disks = append(c.Disks, hypervisor.Disk{ID: "disk2", Kind: hypervisor.DiskDrive, Bytes: 2 << 30, Socket: "/d2"}, hypervisor.Disk{ID: "vars1", Kind: hypervisor.DiskVars, Bytes: 1 << 20, Socket: "/v"})
	two, err := argv(c, host{accel: "tcg"}, false)
	if err != nil {
		t.Fatal(err)
	}
	line := strings.Join(two, " ")
	if !strings.Contains(line, "/d2") || !strings.Contains(line, "serial=disk2,addr=0x8") || strings.Contains(line, "/v\"") || strings.Count(line, "bootindex=0") != 1 {
		t.Errorf("a second disk: %s", line)
	}
	c.Disks[1].ID = "x,y"
	if _, err := argv(c, host{accel: "tcg"}, false); err == nil {
		t.Error("a strange disk ID was accepted")
	}
	c.Disks = c.Disks[:1]
	c.Extra[0].ID = "x,y"
	if _, err := argv(c, host{accel: "tcg"}, false); err == nil {
		t.Error("a strange disk ID was accepted")
	}
	c.Extra = nil
	c.VM = "../../etc"
	if _, err := argv(c, host{accel: "tcg"}, false); err == nil {
		t.Error("a foreign VM ID was accepted")
	}
}

func TestEachVMHasAnAddressOfItsOwn(t *testing.T) {
	seen := map[string]bool{}
	for _, id := range []string{strings.Repeat("ab", 16), strings.Repeat("ac", 16), "ab" + strings.Repeat("0", 30)} {
		args, err := argv(hypervisor.Config{VM: id, Name: "Work", CPUs: 1, MemoryKiB: 524160, Machine: DefaultMachine, CPU: DefaultCPU, Network: true, Disks: oneDisk(1<<30, "/d"), Dir: "/r"}, host{accel: "tcg"}, false)
		if err != nil {
			t.Fatal(err)
		}
		_, address, there := strings.Cut(strings.Join(args, " "), "mac=")
		if address = address[:17]; !there || seen[address] {
			t.Errorf("the address of %s is %q", id, address)
		}
		seen[address] = true
	}
}

func TestProbe(t *testing.T) {
	ctx := testContext(t)
	q := &QEMU{Accel: "tcg"}
	f, err := q.Probe(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if f.Major < 7 || f.Accel != "tcg" || f.Note == "" {
		t.Errorf("%+v", f)
	}
	if _, err := (&QEMU{Path: "/nowhere/qemu"}).Probe(ctx); !errors.Is(err, hypervisor.ErrMissing) {
		t.Errorf("a missing QEMU: %v", err)
	}
	if _, err := (&QEMU{Accel: "warp"}).Probe(ctx); err == nil {
		t.Error("an unknown accelerator was accepted")
	}
	old := filepath.Join(t.TempDir(), "qemu")
	if err := os.WriteFile(old, []byte("#!/bin/sh\necho QEMU emulator version 6.0.1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := (&QEMU{Path: old}).Probe(ctx); !errors.Is(err, hypervisor.ErrTooOld) {
		t.Errorf("an old QEMU: %v", err)
	}
	newer := &QEMU{Path: old, Accel: "tcg"}
	for _, version := range []string{"9.0.1", "10.0.2"} {
		if err := os.WriteFile(old, []byte("#!/bin/sh\necho QEMU emulator version "+version+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		if f, err := newer.Probe(ctx); err != nil || f.Version != version {
			t.Errorf("after the installation of %s: %+v, %v", version, f, err)
		}
	}
	if f, err := (&QEMU{}).Probe(ctx); err != nil || f.Accel == "tcg" && f.Note == "" {
		t.Errorf("auto: %+v, %v", f, err)
	}
}

func TestStartFindKill(t *testing.T) {
	ctx := testContext(t)
	q := &QEMU{Accel: "tcg"}
	c := testConfig(t)
	if _, err := q.Find(ctx, c); !errors.Is(err, hypervisor.ErrNotRunning) {
		t.Fatalf("found a VM before its start: %v", err)
	}
	g := start(t, ctx, q, c, false)
	wantState(t, ctx, g, hypervisor.StateRunning)
	if _, err := q.Start(ctx, c); err == nil {
		t.Fatal("the same VM was started twice")
	}
	if err := g.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	<-g.Changed()
	wantState(t, ctx, g, hypervisor.StatePaused)
	if err := g.Close(); err != nil { // the engine dies ...
		t.Fatal(err)
	}
	again, err := q.Find(ctx, c) // ... and comes back
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	wantState(t, ctx, again, hypervisor.StatePaused)
	if err := again.Continue(ctx); err != nil {
		t.Fatal(err)
	}
	wantState(t, ctx, again, hypervisor.StateRunning)
	if err := again.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	if again.Fell() {
		t.Error("it was killed, and is said to have ended by itself")
	}
	if _, err := again.State(ctx); !errors.Is(err, hypervisor.ErrNotRunning) {
		t.Errorf("state of a killed VM: %v", err)
	}
	if _, err := q.Find(ctx, c); !errors.Is(err, hypervisor.ErrNotRunning) {
		t.Errorf("found a killed VM: %v", err)
	}
}

// A process that ends unasked is told from a guest that powers itself off.
func TestFell(t *testing.T) {
	ctx := testContext(t)
	q := &QEMU{Accel: "tcg"}
	for _, asked := range []bool{false, true} {
		c := testConfig(t)
		g := start(t, ctx, q, c, false)
		if asked {
			// As the guest's ACPI does: QEMU says SHUTDOWN, and ends.
			if err := g.(*guest).qmp.Do(ctx, "quit", nil, nil); err != nil {
				t.Fatal(err)
			}
		} else if err := kill(readPID(c.Dir)); err != nil {
			t.Fatal(err)
		}
		if g.Fell() == asked {
			t.Errorf("asked: %v, fell: %v", asked, g.Fell())
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestAFurtherDisk(t *testing.T) {
	ctx := testContext(t)
	q := &QEMU{Accel: "tcg"}
	c := testConfig(t)
	boot, _ := testDisk(t)
	c.Extra, c.CheckFileSystems = []hypervisor.ExtraDisk{{ID: "cold", Socket: boot}}, true
	g := start(t, ctx, q, c, false)
	late, _ := testDisk(t)
	d := hypervisor.ExtraDisk{ID: "hot", Socket: late}
	if err := g.Attach(ctx, d); err != nil {
		t.Fatal(err)
	}
	if err := g.Attach(ctx, d); err == nil {
		t.Error("the same disk was attached twice")
	}
	var blocks []struct {
		Qdev     string
		Inserted struct {
			RO   bool   `json:"ro"`
			Node string `json:"node-name"`
		}
	}
	if err := g.(*guest).qmp.Do(ctx, "query-block", nil, &blocks); err != nil {
		t.Fatal(err)
	}
	readOnly := map[string]bool{}
	for _, b := range blocks {
		readOnly[b.Inserted.Node] = b.Inserted.RO
	}
	if len(readOnly) != 3 || readOnly["disk0"] || !readOnly["node-cold"] || !readOnly["node-hot"] {
		t.Errorf("the disks are %v", readOnly)
	}
	// Nobody in this guest lets go of anything.
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if err := g.Detach(short, "hot"); !errors.Is(err, hypervisor.ErrNotDetached) {
		t.Errorf("a guest without a system let go of a disk: %v", err)
	}
	if err := g.Detach(ctx, "never"); err != nil {
		t.Errorf("what was never there: %v", err)
	}
	wantState(t, ctx, g, hypervisor.StateRunning)
}

// carry pipes the stream both ways until one side ends.
func carry(a, b io.ReadWriteCloser) (wait func()) {
	done := make(chan struct{}, 2)
	pump := func(dst, src io.ReadWriteCloser) {
		_, _ = io.Copy(dst, src)
		dst.Close()
		done <- struct{}{}
	}
	go pump(a, b)
	go pump(b, a)
	return func() { a.Close(); b.Close(); <-done; <-done }
}

// midway stops a guest and brings it to where the taker lacks only the state of its devices.
func midway(t *testing.T, ctx context.Context, giver, taker hypervisor.Guest) hypervisor.Outgoing {
	t.Helper()
	if err := giver.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	in, err := taker.Incoming(ctx)
	if err != nil {
		t.Fatal(err)
	}
	out, err := giver.Teleport(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(carry(out.Stream(), in))
	if err := out.AtSwitchover(ctx); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestTeleport(t *testing.T) {
	ctx := testContext(t)
	q := &QEMU{Accel: "tcg"}
	a := testConfig(t)
	b := a
	b.Dir = t.TempDir()
	giver := start(t, ctx, q, a, false)
	taker := start(t, ctx, q, b, true)
	wantState(t, ctx, taker, hypervisor.StateIncoming)
	out := midway(t, ctx, giver, taker)
	if _, err := out.Progress(ctx); !errors.Is(err, hypervisor.ErrConverged) {
		t.Errorf("progress at the switchover: %v", err)
	}
	if err := out.Finish(ctx); err != nil {
		t.Fatal(err)
	}
	if err := taker.Loaded(ctx); err != nil {
		t.Fatal(err)
	}
	wantState(t, ctx, taker, hypervisor.StatePaused)
	if s, err := giver.State(ctx); err != nil || s == hypervisor.StateRunning {
		t.Fatalf("the giver after the teleport: %v, %v", s, err)
	}
	if err := taker.Continue(ctx); err != nil {
		t.Fatal(err)
	}
	wantState(t, ctx, taker, hypervisor.StateRunning)
}

func TestTeleportCancelled(t *testing.T) {
	ctx := testContext(t)
	q := &QEMU{Accel: "tcg"}
	a := testConfig(t)
	b := a
	b.Dir = t.TempDir()
	giver := start(t, ctx, q, a, false)
	taker := start(t, ctx, q, b, true)
	out := midway(t, ctx, giver, taker)
	if err := out.Cancel(ctx); err != nil {
		t.Fatal(err)
	}
	if s, err := giver.State(ctx); err != nil || s == hypervisor.StateRunning {
		t.Fatalf("a cancelled teleport let the guest go on by itself: %v, %v", s, err)
	}
	if err := taker.Loaded(ctx); !errors.Is(err, hypervisor.ErrTeleport) {
		t.Errorf("the taker of a cancelled teleport: %v", err)
	}
	if err := giver.Continue(ctx); err != nil {
		t.Fatal(err)
	}
	wantState(t, ctx, giver, hypervisor.StateRunning)
}

func TestSaveRestore(t *testing.T) {
	ctx := testContext(t)
	q := &QEMU{Accel: "tcg"}
	a := testConfig(t)
	g := start(t, ctx, q, a, false)
	if err := g.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	var memory bytes.Buffer
	if err := g.Save(ctx, &memory); err != nil {
		t.Fatal(err)
	}
	if err := g.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	b := a
	b.Dir = t.TempDir()
	again := start(t, ctx, q, b, true)
	if err := again.Restore(ctx, bytes.NewReader(memory.Bytes())); err != nil {
		t.Fatal(err)
	}
	wantState(t, ctx, again, hypervisor.StatePaused)

	c := a
	c.Dir = t.TempDir()
	torn := start(t, ctx, q, c, true)
	if err := torn.Restore(ctx, bytes.NewReader(memory.Bytes()[:memory.Len()/2])); err == nil {
		t.Error("half a memory was restored")
	}
}

// How much a guest writes can be asked of a running one, at any time, and twice at once.
func TestDirtyRate(t *testing.T) {
	ctx := testContext(t)
	g := start(t, ctx, &QEMU{Accel: "tcg"}, testConfig(t), false)
	rates := make(chan error, 2)
	for range 2 {
		go func() {
			n, err := g.DirtyRate(ctx)
			if err == nil && n < 0 {
				err = fmt.Errorf("%d bytes a second", n)
			}
			rates <- err
		}()
	}
	for range 2 {
		if err := <-rates; err != nil {
			t.Error(err)
		}
	}
	wantState(t, ctx, g, hypervisor.StateRunning)
}
