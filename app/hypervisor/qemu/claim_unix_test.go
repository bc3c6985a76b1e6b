//go:build unix

package qemu

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tagalong.org/tagalong/app/hypervisor"
)

// An engine that is killed while QEMU begins leaves a process that nobody knows the number of: the next one doesn't start another beside it, but
// finds it.
func TestAProcessThatHasOnlyBegun(t *testing.T) {
	ctx := testContext(t)
	real := &QEMU{Accel: "tcg"}
	slow := &QEMU{Accel: "tcg", Path: filepath.Join(t.TempDir(), "qemu")}
	gate := filepath.Join(t.TempDir(), "gate")
	script := "#!/bin/sh\ncase \"$*\" in *-pidfile*) until [ -e " + gate + " ]; do sleep 0.02; done;; esac\nexec " + binaryPath(t, real) + " \"$@\"\n"
	if err := os.WriteFile(slow.Path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	c := testConfig(t)
	type started struct {
		g   hypervisor.Guest
		err error
	}
	first := make(chan started, 1)
	go func() {
		g, err := slow.Start(ctx, c)
		first <- started{g, err}
	}()
	for !claimed(c.Dir) {
		select {
		case s := <-first:
			t.Fatalf("it ended: %v", s.err)
		case <-time.After(time.Millisecond):
		}
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	if _, err := claimSoon(short, c.Dir); !errors.Is(err, hypervisor.ErrRunsAlready) {
		t.Errorf("another one beside it: %v", err)
	}
	cancel()
	if !Running(c.Dir) {
		t.Error("nothing is said to run")
	}
	short, cancel = context.WithTimeout(ctx, 50*time.Millisecond)
	if _, err := real.Find(short, c); err == nil || errors.Is(err, hypervisor.ErrNotRunning) {
		t.Errorf("found before it says its number: %v", err)
	}
	cancel()
	found := make(chan error, 1)
	go func() {
		_, err := findPID(ctx, c.Dir)
		found <- err
	}()
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-found; err != nil {
		t.Errorf("find it: %v", err)
	}
	if _, err := real.Start(ctx, c); !errors.Is(err, hypervisor.ErrRunsAlready) {
		t.Errorf("another one beside it: %v", err)
	}
	s := <-first
	if s.err != nil {
		t.Fatal(s.err)
	}
	if err := errors.Join(s.g.Kill(ctx), s.g.Close()); err != nil {
		t.Error(err)
	}
	// The lock goes with the process, and is waited for.
	lock, err := claimSoon(ctx, c.Dir)
	if err != nil {
		t.Fatalf("after its end: %v", err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := real.Find(ctx, c); !errors.Is(err, hypervisor.ErrNotRunning) {
		t.Errorf("found though it has ended: %v", err)
	}
}

// A run directory that can't have a lock has no process either.
func TestALockThatCantBeTaken(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	if claimed(dir) {
		t.Error("it is locked")
	}
	if _, err := claim(dir); err == nil || errors.Is(err, hypervisor.ErrRunsAlready) || !strings.Contains(err.Error(), "lock") {
		t.Errorf("it says %v", err)
	}
}

// Where only a process's ID is known, and IDs are used again, its lock says whether it lives.
func TestAnIDThatIsUsedAgain(t *testing.T) {
	dir := t.TempDir()
	if !locked(dir) {
		t.Error("one that was started before there was a lock is said to be gone")
	}
	lock, err := claim(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !locked(dir) {
		t.Error("one that has its lock is said to be gone")
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if locked(dir) {
		t.Error("one that has no lock any more is said to live")
	}
}
