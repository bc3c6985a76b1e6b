//go:build linux

package story

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// diskOf starts the name of each disk of ours: then comes the number of the process that made it.
const diskOf = "tagalong-disk-"

// MountDisk makes a folder a disk of its own, of so many bytes, which can run full. What isn't used of it takes nothing.
func MountDisk(dir string, bytes int64) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := unix.Mount(diskOf+strconv.Itoa(os.Getpid()), dir, "tmpfs", 0, "mode=700,size="+strconv.FormatInt(bytes, 10)); err != nil {
		return fmt.Errorf("make the disk %s: %w", dir, err)
	}
	return nil
}

// ResizeDisk changes the size of such a disk; 0 is what is on it, so that nothing is left.
func ResizeDisk(dir string, bytes int64) error {
	if bytes == 0 {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			return err
		}
		bytes = int64(st.Blocks-st.Bfree) * st.Bsize
	}
	return unix.Mount("", dir, "", unix.MS_REMOUNT, "size="+strconv.FormatInt(bytes, 10))
}

// UnmountDisk undoes MountDisk; of what isn't one it does nothing.
func UnmountDisk(dir string) error {
	// A process that was killed a moment ago may still have a file open there.
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// SweepDisks unmounts the disks of processes that were killed.
func SweepDisks() error {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	var errs []error
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 2 || !strings.HasPrefix(f[0], diskOf) {
			continue
		}
		pid, err := strconv.Atoi(strings.TrimPrefix(f[0], diskOf))
		if err != nil || unix.Kill(pid, 0) == nil {
			continue
		}
		errs = append(errs, unix.Unmount(f[1], unix.MNT_DETACH))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("unmount the disks of earlier runs: %w", err)
	}
	return nil
}
