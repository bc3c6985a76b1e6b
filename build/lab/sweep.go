//go:build linux

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// netnsDir is where ip netns keeps the namespaces that have names.
const netnsDir = "/run/netns"

// namePrefix starts the name of each namespace of ours: then come the owner's
// process number and start time, a counter, and the host.
const namePrefix = "tagalong-"

var nameOfOurs = regexp.MustCompile(`^` + namePrefix + `(\d{1,10})-(\d{1,20})-\d+-[A-Za-z0-9]+$`)

// ownPrefix starts the names of this process's namespaces.
func ownPrefix() (string, error) {
	start, err := startTime(os.Getpid())
	if err != nil {
		return "", err
	}
	return namePrefix + strconv.Itoa(os.Getpid()) + "-" + start + "-", nil
}

// startTime is when a process started, in the kernel's ticks since boot: with
// its number it names a process even if numbers are used again.
func startTime(pid int) (string, error) {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return "", err
	}
	// The program's name, in parentheses, may contain anything.
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	const startField = 19
	if len(f) <= startField {
		return "", fmt.Errorf("start time of process %d: unexpected form of its stat file", pid)
	}
	return f[startField], nil
}

// Sweep removes the hosts of labs whose process is dead, and what still runs on
// them. Labs of processes that live are left alone.
func Sweep(ctx context.Context) error {
	entries, err := os.ReadDir(netnsDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sweep labs: %w", err)
	}
	var errs []error
	for _, e := range entries {
		m := nameOfOurs.FindStringSubmatch(e.Name())
		if m == nil {
			continue
		}
		pid, err := strconv.Atoi(m[1])
		if err != nil {
			continue
		}
		if start, err := startTime(pid); err == nil && start == m[2] {
			continue
		}
		errs = append(errs, remove(ctx, e.Name()))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("sweep labs: %w", err)
	}
	return nil
}

// remove kills what runs in a namespace and removes it; one that is gone is
// fine, since two sweeps may meet.
func remove(ctx context.Context, name string) error {
	path := filepath.Join(netnsDir, name)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	pids, err := processes(ctx, name)
	if err == nil {
		for _, pid := range pids {
			// It may have ended by itself meanwhile.
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		err = ip(ctx, "netns", "del", name)
	}
	if _, gone := os.Stat(path); errors.Is(gone, os.ErrNotExist) {
		return nil
	}
	return err
}
