//go:build unix

package qemu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"tagalong.org/tagalong/app/hypervisor"
)

// claimFile is locked by a VM's QEMU for as long as that lives: from before there is a process, which writes its number a while after it began. An
// engine may be killed in that while.
func claimFile(dir string) string { return filepath.Join(dir, "qemu.lock") }

// claim takes the lock of a run directory. The process that the file is handed to has it for as long as it lives, also when the caller has closed
// its own; ErrRunsAlready says that there is such a process.
func claim(dir string) (*os.File, error) {
	f, err := os.OpenFile(claimFile(dir), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("qemu: open the lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("qemu: %w, or is about to", hypervisor.ErrRunsAlready)
		}
		return nil, fmt.Errorf("qemu: take the lock: %w", err)
	}
	return f, nil
}

// claimed says whether a process has the lock of a run directory. One that an engine started that knew no such lock hasn't.
func claimed(dir string) bool {
	f, err := os.Open(claimFile(dir))
	if err != nil {
		return false
	}
	defer f.Close() // which unlocks it
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}
