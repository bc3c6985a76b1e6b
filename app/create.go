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
	"tagalong.org/tagalong/app/hypervisor/qemu"
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
		Machine: qemu.DefaultMachine, CPU: qemu.DefaultCPU, Screen: req.Screen, Network: req.Network,
	}
	kind := kindCreate
	if req.Image != "" {
		kind = kindImport
	}
	return e.startJob(api.Job{Kind: kind, VM: newID(), VMName: req.Name, Total: image.Size}, func(ctx context.Context, j *job) error {
		return e.create(ctx, j, spec, image)
	})
}

func (e *Engine) checkCreate(req api.CreateVM) error {
	usage := func(sentence, next string) error {
		return &api.Error{Code: api.CodeUsage, Sentence: sentence, Next: next}
	}
	if err := e.checkName(req.Name); err != nil {
		return err
	}
	switch {
	case req.MemoryMiB < minMemoryMiB || req.MemoryMiB > maxMemoryMiB:
		return usage("That isn't a sensible amount of memory.", "Give at least 32M, for instance --memory 2G.")
	case req.CPUs < 0 || req.CPUs > maxCPUs:
		return usage("That isn't a sensible number of processors.", "Give between 1 and 64.")
	case req.Format != "" && !diskimage.Known(req.Format):
		return diskimage.ErrFormat(req.Format)
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
func (e *Engine) create(ctx context.Context, j *job, spec api.Spec, img diskimage.Image) (err error) {
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
	disk, err = vmdisk.Create(filepath.Join(dir, "disk"), diskID, spec.DiskBytes, e.diskOptions(id))
	if err != nil {
		return fmt.Errorf("make the disk: %w", err)
	}
	if err := disk.Activate(1); err != nil {
		return fmt.Errorf("activate the disk: %w", err)
	}
	if img.Path != "" {
		if err := e.fill(ctx, j, disk, img); err != nil {
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

// fill copies an image in.
func (e *Engine) fill(ctx context.Context, j *job, disk *vmdisk.Store, img diskimage.Image) error {
	run := e.runDir(j.vm)
	defer os.RemoveAll(run)
	err := diskimage.Fill(ctx, disk, img, run, e.log, func(done int64) { j.progress(done) })
	if errors.Is(err, syscall.ENOSPC) {
		return errNoSpace(err)
	}
	return err
}
