package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"time"

	"tagalong.org/tagalong/app/hypervisor"
)

// Binary is the program that is looked for on the PATH.
const Binary = "qemu-system-x86_64"

// QEMU is the hypervisor. The zero value looks on the PATH and finds out the
// accelerator; it is safe for concurrent use.
type QEMU struct {
	// Path is the program; "" looks for Binary on the PATH.
	Path string
	// Accel is "kvm", "tcg", or "" or "auto" to find out.
	Accel string

	// guarded by mu
	mu     sync.Mutex
	facts  *hypervisor.Facts
	survey *hypervisor.Survey // of that program
}

// stampOf says what is at the path, behind all links.
func stampOf(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s %d %d", path, info.Size(), info.ModTime().UnixNano()), nil
}

var versionLine = regexp.MustCompile(`version (\d+)\.(\d+)(?:\.(\d+))?`)

// Probe finds QEMU, its version and the accelerator. A success is remembered as long as the same program is there.
func (q *QEMU) Probe(ctx context.Context) (hypervisor.Facts, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	path, err := exec.LookPath(q.binary())
	if err != nil {
		return hypervisor.Facts{}, fmt.Errorf("%w: %w", hypervisor.ErrMissing, err)
	}
	stamp, err := stampOf(path)
	if err != nil {
		return hypervisor.Facts{}, fmt.Errorf("%w: %w", hypervisor.ErrMissing, err)
	}
	if q.facts != nil && q.facts.Stamp == stamp {
		return *q.facts, nil
	}
	q.facts, q.survey = nil, nil
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return hypervisor.Facts{}, fmt.Errorf("%w: %s --version: %w", hypervisor.ErrMissing, path, err)
	}
	m := versionLine.FindSubmatch(out)
	if m == nil {
		return hypervisor.Facts{}, fmt.Errorf("%w: %s doesn't say its version", hypervisor.ErrMissing, path)
	}
	major, _ := strconv.Atoi(string(m[1]))
	minor, _ := strconv.Atoi(string(m[2]))
	f := hypervisor.Facts{Path: path, Version: string(m[0][len("version "):]), Major: major, Minor: minor, Stamp: stamp}
	if major < 7 || major == 7 && minor < 2 {
		return f, fmt.Errorf("%w: %s is %s, 7.2 is needed", hypervisor.ErrTooOld, path, f.Version)
	}
	switch q.Accel {
	case "tcg":
		f.Accel, f.Note = "tcg", "Software emulation was asked for: VMs run slowly."
	case "kvm":
		f.Accel = "kvm"
	case "", "auto":
		f.Accel = "kvm"
		if err := tryKVM(ctx, path); err != nil {
			f.Accel, f.Note = "tcg", "Hardware acceleration can't be used here ("+err.Error()+"): VMs run slowly."
		}
	default:
		return f, fmt.Errorf("%w: unknown accelerator %q (kvm, tcg or auto)", hypervisor.ErrMissing, q.Accel)
	}
	q.facts = &f
	return f, nil
}

func (q *QEMU) binary() string {
	if q.Path != "" {
		return q.Path
	}
	return Binary
}

// usable opens the device as QEMU would.
func usable(device string) error {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("there is no %s", device)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("no permission for %s", device)
	case err != nil:
		return err
	}
	return f.Close()
}
