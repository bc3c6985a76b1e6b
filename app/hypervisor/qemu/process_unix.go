//go:build unix

package qemu

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
)

// detach gives the process a session of its own, so that it outlives the engine and its terminal.
func detach(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
}

func kill(pid int) error {
	err := syscall.Kill(pid, syscall.SIGKILL)
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}

// alive says whether pid is a living process, and the one that was started for dir: process
// IDs are used again.
func alive(pid int, dir string) bool {
	if err := syscall.Kill(pid, 0); err != nil && !errors.Is(err, syscall.EPERM) {
		return false
	}
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	cmdline, err := os.ReadFile(filepath.Join(proc, "cmdline"))
	if err != nil {
		_, noProc := os.Stat("/proc/self")
		return noProc != nil && locked(dir)
	}
	// A zombie's command line is empty.
	return bytes.Contains(cmdline, []byte(escape(qmpSocket(dir))))
}

// locked is alive where /proc doesn't tell. Only of a process that was started before there was a lock, the ID alone has to do.
func locked(dir string) bool {
	if _, err := os.Lstat(claimFile(dir)); errors.Is(err, fs.ErrNotExist) {
		return true
	}
	return claimed(dir)
}
