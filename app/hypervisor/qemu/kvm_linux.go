package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// trialExit is what QEMU's isa-debug-exit device makes of the 0x10 that the trial's guest writes.
const trialExit = 0x10<<1 | 1

// trialCode is a boot sector: let three timer interrupts wake the halted CPU, then tell.
//
//	sti; hlt; hlt; hlt; mov al,0x10; out 0xf4,al; hang: hlt; jmp hang
var trialCode = []byte{0xfb, 0xf4, 0xf4, 0xf4, 0xb0, 0x10, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd}

// tryKVM says why KVM can't be used, or nil. A device that opens is no proof (nested and
// half-emulated KVMs open and then hang), so after the CPU's own flags a small guest is run.
func tryKVM(ctx context.Context, path string) error {
	if err := usable("/dev/kvm"); err != nil {
		return err
	}
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return err
	}
	if !hasFlag(info, "vmx") && !hasFlag(info, "svm") {
		return errors.New("the processor doesn't offer virtualization; it may be off in the firmware's settings")
	}
	return runTrial(ctx, path, "kvm")
}

func hasFlag(cpuinfo []byte, flag string) bool {
	for line := range bytes.Lines(cpuinfo) {
		if !bytes.HasPrefix(line, []byte("flags")) {
			continue
		}
		for _, f := range bytes.Fields(line) {
			if string(f) == flag {
				return true
			}
		}
		return false
	}
	return false
}

// runTrial boots trialCode under accel and waits for its word.
func runTrial(ctx context.Context, path, accel string) error {
	dir, err := os.MkdirTemp("", "tagalong-trial-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	disk := filepath.Join(dir, "boot")
	sector := make([]byte, 1440<<10)
	copy(sector, trialCode)
	sector[510], sector[511] = 0x55, 0xaa
	if err := os.WriteFile(disk, sector, 0o600); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 8*time.Second)
	defer cancel()
	err = exec.CommandContext(ctx, path, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-machine", DefaultMachine, "-accel", accel, "-cpu", DefaultCPU, "-m", "16",
		"-device", "isa-debug-exit,iobase=0xf4,iosize=1",
		"-drive", "if=floppy,format=raw,readonly=on,file="+disk).Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return errors.New("a trial guest hung")
	case errors.As(err, &exit) && exit.ExitCode() == trialExit:
		return nil
	case err != nil:
		return fmt.Errorf("a trial guest failed: %w", err)
	default:
		return errors.New("a trial guest ended without a word")
	}
}
