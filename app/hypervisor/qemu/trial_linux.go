package qemu

import (
	"os/exec"
	"syscall"
)

// endWithUs has the system end a process when this one ends, however that does: nobody would know of it any more. The system means the thread that starts
// it: the caller keeps that (runtime.LockOSThread) for as long as the process lives.
func endWithUs(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
