package qemu

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tagalong.org/tagalong/app/hypervisor"
)

// startedBefore starts a QEMU as an earlier engine did: by a command line that is kept in testdata/older and never changed. That engine is gone.
func startedBefore(t *testing.T, name string, c hypervisor.Config) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata/older", name))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("@DIR@", c.Dir, "@DISK@", c.Disks[0].Socket).Replace(string(b))
	log, err := os.Create(logFile(c.Dir))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(Binary, strings.Split(strings.TrimSpace(text), "\n")...)
	cmd.Stdout, cmd.Stderr = log, log
	detach(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	// The earlier engine had spoken to it before it went.
	for deadline := time.Now().Add(60 * time.Second); readPID(c.Dir) == 0 || !exists(qmpSocket(c.Dir)); {
		if time.Now().After(deadline) {
			t.Fatalf("QEMU doesn't start: %s", lastWords(c.Dir))
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// TestAnEarlierEnginesQEMU: an engine that was upgraded under a running VM finds its QEMU, and can do all with it that it could have done with
// one of its own.
func TestAnEarlierEnginesQEMU(t *testing.T) {
	for _, was := range []struct {
		file     string
		hardware int
		agent    bool
	}{
		{"first.argv", 0, false}, // before there were generations
		{"second.argv", hypervisor.HardwareNow, true},
	} {
		t.Run(was.file, func(t *testing.T) {
			ctx := testContext(t)
			q := &QEMU{Accel: "tcg"}
			c := testConfig(t)
			c.Hardware, c.Screen, c.Network = was.hardware, true, true
			c.Disks[0].Bytes = 40 << 30 // it makes the geometry
			startedBefore(t, was.file, c)
			if !Running(c.Dir) {
				t.Fatal("it isn't seen running")
			}
			if _, err := q.Start(ctx, c); err == nil {
				t.Fatal("it was started a second time")
			}
			find := func() hypervisor.Guest {
				t.Helper()
				g, err := q.Find(ctx, c)
				if err != nil {
					t.Fatal(err)
				}
				return g
			}
			g := find()
			wantState(t, ctx, g, hypervisor.StateRunning)
			check := func(what string, err error) {
				t.Helper()
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
			}
			check("pause", g.Pause(ctx))
			wantState(t, ctx, g, hypervisor.StatePaused)
			check("let go", g.Close())
			g = find()
			check("continue", g.Continue(ctx))
			// Before the reset: one ends what a guest was asked to let go of, and the firmware may make another after it.
			late, _ := testDisk(t)
			check("attach a disk", g.Attach(ctx, hypervisor.ExtraDisk{ID: "hot", Socket: late}))
			short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
			defer cancel()
			if err := g.Detach(short, "hot"); !errors.Is(err, hypervisor.ErrNotDetached) {
				t.Errorf("detach it from a guest that has no system: %v", err)
			}
			check("reset", g.Reset(ctx))
			check("press the power button", g.PowerDown(ctx))
			ticket, err := g.OpenScreen(ctx)
			check("open the screen", err)
			if ticket.Protocol != "vnc" || ticket.Socket != screenSocket(c.Dir) || (ticket.Password != "") != was.agent || !exists(ticket.Socket) {
				t.Errorf("the screen is %+v", ticket)
			}
			if (g.Agent() != "") != was.agent || !exists(g.Console()) {
				t.Errorf("the agent's port is %q", g.Agent())
			}
			check("settle what the earlier engine may have begun", g.Settle(ctx))
			check("end", g.Kill(ctx))
			check("let go", g.Close())
			if _, err := q.Find(ctx, c); !errors.Is(err, hypervisor.ErrNotRunning) {
				t.Errorf("found after its end: %v", err)
			}
		})
		t.Run(was.file+", teleported", func(t *testing.T) {
			ctx := testContext(t)
			q := &QEMU{Accel: "tcg"}
			c := testConfig(t)
			c.Hardware, c.Screen, c.Network = was.hardware, true, true
			c.Disks[0].Bytes = 40 << 30
			startedBefore(t, was.file, c)
			giver, err := q.Find(ctx, c)
			if err != nil {
				t.Fatal(err)
			}
			defer giver.Close()
			b := c
			b.Dir = t.TempDir()
			taker := start(t, ctx, q, b, true)
			out := midway(t, ctx, giver, taker)
			if err := errors.Join(out.Finish(ctx), taker.Loaded(ctx), taker.Continue(ctx)); err != nil {
				t.Fatal(err)
			}
			wantState(t, ctx, taker, hypervisor.StateRunning)
		})
	}
}
