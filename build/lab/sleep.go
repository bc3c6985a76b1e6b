//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Sleep closes the host's lid: nothing passes its cable any more, and all that runs on it stands still, until Wake. Its clocks go
// on, which a PC's that sleeps don't all do.
func (h *Host) Sleep(ctx context.Context) error {
	if err := h.Mute(ctx); err != nil {
		return fmt.Errorf("put host %s to sleep: %w", h.name, err)
	}
	return h.Freeze(ctx)
}

// Wake undoes Sleep.
func (h *Host) Wake(ctx context.Context) error {
	if err := h.Thaw(ctx); err != nil {
		return err
	}
	return h.Heal(ctx)
}

// Freeze lets all that runs on the host stand still, until Thaw. Its connections stay.
func (h *Host) Freeze(ctx context.Context) error {
	stopped := map[int]bool{}
	for {
		// Whoever was started while others were being stopped comes in the next round.
		all, err := processes(ctx, h.netns)
		if err != nil {
			return fmt.Errorf("freeze host %s: %w", h.name, err)
		}
		fresh := false
		for _, pid := range all {
			if stopped[pid] {
				continue
			}
			if err := unix.Kill(pid, unix.SIGSTOP); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("freeze host %s: %w", h.name, err)
			}
			stopped[pid], fresh = true, true
		}
		if !fresh {
			return nil
		}
	}
}

// Thaw undoes Freeze.
func (h *Host) Thaw(ctx context.Context) error {
	all, err := processes(ctx, h.netns)
	if err != nil {
		return fmt.Errorf("thaw host %s: %w", h.name, err)
	}
	for _, pid := range all {
		if err := unix.Kill(pid, unix.SIGCONT); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("thaw host %s: %w", h.name, err)
		}
	}
	return nil
}

// Processes is the numbers of what runs on the host.
func (h *Host) Processes(ctx context.Context) ([]int, error) { return processes(ctx, h.netns) }

// processes is what runs in a namespace, except this process.
func processes(ctx context.Context, netns string) ([]int, error) {
	out, err := ipOutput(ctx, "netns", "pids", netns)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, f := range strings.Fields(out) {
		if pid, err := strconv.Atoi(f); err == nil && pid > 1 && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
