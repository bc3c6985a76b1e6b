package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/app/hypervisor/qmp"
)

// surveyTimeout bounds a survey: a QEMU without a guest answers within half a second on an idle PC.
const surveyTimeout = 30 * time.Second

// Survey asks a QEMU without a guest what it can give to one here. It takes about half a second; a success is remembered as long as the
// same program is there.
// Errors: those of Probe, and what QEMU says.
func (q *QEMU) Survey(ctx context.Context) (hypervisor.Survey, error) {
	facts, err := q.Probe(ctx)
	if err != nil {
		return hypervisor.Survey{}, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.survey != nil {
		return *q.survey, nil
	}
	s, err := survey(ctx, facts)
	if err != nil {
		return s, fmt.Errorf("qemu: survey: %w", err)
	}
	if q.facts != nil && q.facts.Stamp == facts.Stamp { // else another program was installed meanwhile
		q.survey = &s
	}
	return s, nil
}

func survey(ctx context.Context, facts hypervisor.Facts) (s hypervisor.Survey, err error) {
	ctx, cancel := context.WithTimeout(ctx, surveyTimeout)
	defer cancel()
	dir, err := os.MkdirTemp("", "tagalong-survey-")
	if err != nil {
		return s, err
	}
	defer os.RemoveAll(dir)
	socket := qmpSocket(dir)
	said := &strings.Builder{}
	cmd := exec.CommandContext(ctx, facts.Path, "-nodefaults", "-no-user-config", "-S", "-incoming", "defer", "-display", "none",
		"-machine", "none", "-accel", facts.Accel, "-qmp", "unix:"+escape(socket)+",server=on,wait=off")
	cmd.Stderr = said
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	endWithUs(cmd)
	if err := cmd.Start(); err != nil {
		return s, err
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed below
		close(exited)
	}()
	defer func() {
		_ = cmd.Process.Kill()
		<-exited
	}()
	monitor, err := qmp.Dial(ctx, socket, func() error {
		select {
		case <-exited:
			return fmt.Errorf("%w: %s", hypervisor.ErrNotRunning, strings.TrimSpace(said.String()))
		default:
			return nil
		}
	})
	if err != nil {
		return s, err
	}
	defer monitor.Close()
	if s.CPUModels, err = cpuModels(ctx, monitor); err != nil {
		return s, err
	}
	if s.Machines, err = machines(ctx, monitor); err != nil {
		return s, err
	}
	// Only one that waits for memory is asked whether it could run without all of it; it refuses where its system can't.
	g := &guest{qmp: monitor}
	var refused *qmp.CommandError
	if err := g.capabilities(ctx, capPostCopy); err != nil && !errors.As(err, &refused) {
		return s, err
	}
	s.PostCopy = refused == nil
	s.Vendor = processorVendor()
	if f, err := findFirmware(descriptorDirs(facts.Path)...); err == nil {
		s.Firmware = f // without one there are just no VMs with an UEFI here
	}
	return s, nil
}

// cpuModels are the named models of which nothing is missing here.
func cpuModels(ctx context.Context, monitor *qmp.Client) ([]string, error) {
	var all []struct {
		Name        string   `json:"name"`
		Safe        bool     `json:"migration-safe"`
		Unavailable []string `json:"unavailable-features"`
	}
	if err := monitor.Do(ctx, "query-cpu-definitions", nil, &all); err != nil {
		return nil, err
	}
	var list []string
	for _, m := range all {
		if m.Safe && len(m.Unavailable) == 0 {
			list = append(list, m.Name)
		}
	}
	slices.Sort(list)
	return list, nil
}

// machines are the versioned machine types for PCs.
func machines(ctx context.Context, monitor *qmp.Client) ([]string, error) {
	var all []struct {
		Name string `json:"name"`
	}
	if err := monitor.Do(ctx, "query-machines", nil, &all); err != nil {
		return nil, err
	}
	var list []string
	for _, m := range all {
		if strings.HasPrefix(m.Name, "pc-i440fx-") || strings.HasPrefix(m.Name, "pc-q35-") {
			list = append(list, m.Name)
		}
	}
	slices.Sort(list)
	return list, nil
}

// processorVendor is what /proc/cpuinfo says; "" where there is none.
func processorVendor() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "vendor_id" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// host is what of the command line is this device's affair, and the files that QEMU inherits for it. The caller closes them.
func (q *QEMU) host(ctx context.Context, c hypervisor.Config, facts hypervisor.Facts) (h host, files inherited, err error) {
	h.accel = facts.Accel
	if c.Hardware >= hypervisor.HardwareNow {
		h.spice = c.Screen && hasSPICE(ctx, facts.Path)
		if c.Firmware == hypervisor.FirmwareUEFI {
			f, err := findFirmware(descriptorDirs(facts.Path)...)
			if err != nil {
				return h, nil, err
			}
			h.code = f.Code
		}
	}
	if c.Network && c.Bridge != "" {
		if h.netdev, files, err = bridged(facts.Path, c.Bridge); err != nil {
			return h, nil, err
		}
	}
	return h, files, nil
}

// hasSPICE says whether this QEMU knows SPICE: it lists the options then.
func hasSPICE(ctx context.Context, path string) bool {
	out, _ := exec.CommandContext(ctx, path, "-machine", "none", "-spice", "help").CombinedOutput() // it exits with 1 either way
	return strings.Contains(string(out), "disable-ticketing")
}

// inherited are files that a process gets from its parent, from descriptor 3 on.
type inherited []*os.File

func (l inherited) close() {
	for _, f := range l {
		_ = f.Close() // only ours: the process has its own
	}
}
