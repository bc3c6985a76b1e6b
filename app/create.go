package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/diskimage"
	"tagalong.org/tagalong/app/durable"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/app/hypervisor/qemu"
	"tagalong.org/tagalong/app/volumes"
	"tagalong.org/tagalong/app/volumes/window"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/vmdisk"
)

const (
	minMemoryMiB = 32
	maxMemoryMiB = 1 << 20
	maxCPUs      = 64
	maxNameRunes = 64
)

// CreateVM implements api.Engine.
func (e *Engine) CreateVM(ctx context.Context, req api.CreateVM) (*api.Job, error) {
	if err := e.checkCreate(req); err != nil {
		return nil, err
	}
	var image diskimage.Image
	if req.Image != "" {
		var err error
		if image, err = diskimage.Inspect(ctx, req.Image, req.Format); err != nil {
			return nil, err
		}
	}
	size := max(req.DiskBytes, image.Size)
	if size <= 0 {
		return nil, &api.Error{Code: api.CodeUsage, Sentence: "A new VM needs a disk size.", Next: "Say how large its disk may grow: --disk 40G"}
	}
	size = (size + blockSize - 1) / blockSize * blockSize
	if size > vmdisk.MaxSize {
		return nil, &api.Error{Code: api.CodeUsage, Sentence: "That disk is too large.", Next: "A disk may have up to 16 TiB."}
	}
	spec := api.Spec{
		CPUs: max(req.CPUs, 1), MemoryKiB: qemu.EvenMemory(max(req.MemoryMiB, minMemoryMiB) << 10), DiskBytes: size,
		Machine: qemu.DefaultMachine, Screen: req.Screen, Network: req.Network,
		Hardware: hypervisor.HardwareNow, Firmware: req.Firmware, Bridged: req.Network && req.Bridged,
	}
	var err error
	if spec.Firmware == api.FirmwareUEFI {
		if here := e.thisDevice(ctx); here.Probed && here.Firmware == "" {
			return nil, explainHypervisor(hypervisor.ErrNoFirmware)
		}
		spec.Machine = qemu.UEFIMachine
	}
	if spec.CPU, err = e.newCPU(ctx, req.CPU); err != nil {
		return nil, err
	}
	kind := kindCreate
	if req.Image != "" {
		kind = kindImport
	}
	images := []diskimage.Image{image}
	total := image.Size
	for _, d := range req.Disks {
		more, err := inspectDisk(ctx, d)
		if err != nil {
			return nil, err
		}
		if err := addTo(&spec, more); err != nil {
			return nil, explainTable(more.name, err)
		}
		images = append(images, more.image)
		total += more.image.Size
	}
	if spec.Firmware == api.FirmwareUEFI {
		if err := addVars(&spec); err != nil {
			return nil, explainTable("", err)
		}
	}
	return e.startJob(api.Job{Kind: kind, VM: newID(), VMName: req.Name, Total: total}, func(ctx context.Context, j *job) error {
		return e.create(ctx, j, spec, images)
	})
}

func (e *Engine) checkCreate(req api.CreateVM) error {
	if err := e.checkName(req.Name); err != nil {
		return err
	}
	switch {
	case req.MemoryMiB < minMemoryMiB || req.MemoryMiB > maxMemoryMiB:
		return errMemoryAmount()
	case req.CPUs < 0 || req.CPUs > maxCPUs:
		return errCPUNumber()
	case req.Firmware != "" && req.Firmware != api.FirmwareBIOS && req.Firmware != api.FirmwareUEFI:
		return &api.Error{Code: api.CodeUsage, Sentence: fmt.Sprintf("%q isn't a firmware.", req.Firmware), Next: "Use bios or uefi."}
	case len(req.Disks) >= maxDisks:
		return errTooManyDisks()
	case req.Format != "" && !diskimage.Known(req.Format):
		return diskimage.ErrFormat(req.Format)
	}
	return nil
}

func errMemoryAmount() error {
	return &api.Error{Code: api.CodeUsage, Sentence: "That isn't a sensible amount of memory.", Next: "Give between 32M and 1T, for instance --memory 2G."}
}

func errCPUNumber() error {
	return &api.Error{Code: api.CodeUsage, Sentence: "That isn't a sensible number of processors.", Next: fmt.Sprintf("Give between 1 and %d.", maxCPUs)}
}

// addTo gives a spec one more disk.
func addTo(spec *api.Spec, d newDisk) error {
	table, err := spec.Table()
	if err != nil {
		return err
	}
	spec.Volumes, _, err = table.Add(volumes.Disk, d.name, d.bytes)
	return err
}

// addVars gives a spec the volume for its firmware's variables.
func addVars(spec *api.Spec) error {
	table, err := spec.Table()
	if err != nil {
		return err
	}
	spec.Volumes, _, err = table.Add(volumes.Vars, "", hypervisor.FirmwareVarsBytes)
	return err
}

// fillVars makes a fresh store of variables, as the installed firmware brings it along: one of zeros is none.
func (e *Engine) fillVars(ctx context.Context, w *window.Disk) error {
	s, err := e.survey(ctx)
	if err != nil {
		return explainHypervisor(err)
	}
	if s.Firmware.Vars == "" {
		return explainHypervisor(hypervisor.ErrNoFirmware)
	}
	b, err := os.ReadFile(s.Firmware.Vars)
	if err != nil {
		return fmt.Errorf("read a fresh store of variables: %w", err)
	}
	if int64(len(b)) != w.Size() {
		return fmt.Errorf("%s has %d bytes, not %d: %w", s.Firmware.Vars, len(b), w.Size(), hypervisor.ErrNoFirmware)
	}
	if err := w.WriteAt(b, 0, false); err != nil {
		return fmt.Errorf("write the variables: %w", err)
	}
	return nil
}

// checkName says whether a new VM can have this name.
func (e *Engine) checkName(name string) error {
	trimmed := strings.TrimSpace(name)
	if trimmed == "" || trimmed != name || len([]rune(name)) > maxNameRunes || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return &api.Error{Code: api.CodeUsage, Sentence: fmt.Sprintf("%q can't be a VM's name.", name), Next: "Use one to 64 letters, without spaces at the ends."}
	}
	for _, r := range e.records() {
		if r.Name == name {
			return errConflict(fmt.Sprintf("There is a VM called %q already.", name), "Choose another name.")
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, j := range e.jobs {
		if s := j.snapshot(); !s.Done && s.VMName == name {
			return errConflict(fmt.Sprintf("A VM called %q is being made already.", name), "Wait for it, or choose another name.")
		}
	}
	return nil
}

// marker says that a VM's directory holds something unfinished: a crash before its removal
// leaves what the next engine deletes.
func marker(dir string) string { return filepath.Join(dir, "unfinished") }

func unfinished(dir string) bool {
	_, err := os.Stat(marker(dir))
	return err == nil
}

// create makes the disk, fills it, and only then lets the fleet know.
// Each disk has its image; one without a path is empty.
func (e *Engine) create(ctx context.Context, j *job, spec api.Spec, images []diskimage.Image) (err error) {
	id, name := j.vm, j.snapshot().VMName
	dir := e.vmDir(id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return dataDirError(e.opt.DataDir, err)
	}
	if err := durable.Write(marker(dir), nil); err != nil {
		return dataDirError(e.opt.DataDir, err)
	}
	var disk *vmdisk.Store
	defer func() {
		if err == nil {
			return
		}
		if disk != nil {
			err = errors.Join(err, disk.Close())
		}
		if rmErr := os.RemoveAll(dir); rmErr != nil {
			e.log.Warn("Clearing an unfinished VM failed", "vm", id, "error", rmErr)
		}
	}()
	diskID := vmdisk.NewID()
	table, err := spec.Table()
	if err != nil {
		return err
	}
	disk, err = vmdisk.Create(filepath.Join(dir, "disk"), diskID, table.Space(), e.diskOptions(id))
	if err != nil {
		return fmt.Errorf("make the disk: %w", err)
	}
	if err := disk.Activate(1); err != nil {
		return fmt.Errorf("activate the disk: %w", err)
	}
	var filled int64
	for i, img := range images {
		if img.Path == "" {
			continue
		}
		if err := e.fill(ctx, j, window.New(disk, table.Volumes[i]), img, filled); err != nil {
			return err
		}
		filled += img.Size
	}
	for _, w := range table.Of(volumes.Vars) {
		if err := e.fillVars(ctx, window.New(disk, w)); err != nil {
			return err
		}
	}
	if err := disk.Flush(); err != nil {
		return fmt.Errorf("flush the disk: %w", err)
	}
	return e.publish(id, name, spec, disk)
}

// publish makes the VM known: from here on it exists.
func (e *Engine) publish(id, name string, spec api.Spec, disk *vmdisk.Store) error {
	raw, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	machine, err := baton.NewOwner(baton.Config{}, 1)
	if err != nil {
		return err
	}
	record := directory.VM{
		ID: id, Name: name, Spec: raw, Disk: disk.ID().String(), DiskBytes: disk.Size(), State: string(api.VMStopped),
		Position: directory.Position(disk.Info().Position), At: time.Now(),
	}
	// An earlier try may have been cut short after this step: it is signed once.
	created, again := e.dir.Transfer(id, 1)
	if !again {
		if created, err = e.dir.NewCreated(id); err != nil {
			return fmt.Errorf("sign the VM's first transfer: %w", err)
		}
	}
	if err := e.dir.AppendTransfer(created, directory.BatonEntry(id, machine.Encode())); err != nil {
		return fmt.Errorf("write the VM's first transfer: %w", err)
	}
	if err := e.dir.PutVM(record); err != nil {
		return fmt.Errorf("write the VM's record: %w", err)
	}
	if err := os.Remove(marker(e.vmDir(id))); err != nil {
		return fmt.Errorf("finish the VM's directory: %w", err)
	}
	v := e.newVM(id, machine, disk, nil, nil)
	e.mu.Lock()
	e.vms[id] = v
	e.mu.Unlock()
	v.syncFeeds()
	e.tell("vm.created", v, name+" is ready.")
	return nil
}

// fill copies an image in. before is how many bytes the job has done already.
func (e *Engine) fill(ctx context.Context, j *job, disk vmdisk.Disk, img diskimage.Image, before int64) error {
	run := e.runDir(j.vm)
	defer os.RemoveAll(run)
	err := diskimage.Fill(ctx, disk, img, run, e.log, func(done int64) { j.progress(before + done) })
	if errors.Is(err, syscall.ENOSPC) {
		return errNoSpace(err)
	}
	return err
}
