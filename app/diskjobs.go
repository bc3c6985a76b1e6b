package app

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/disktool"
	"tagalong.org/tagalong/vmdisk"
)

// heldDisk is a disk that this engine has open.
type heldDisk struct {
	v    *vm
	name string
	disk *vmdisk.Store
}

// findDisk finds an open disk by its VM, or by its directory.
func (e *Engine) findDisk(name string) (heldDisk, error) {
	v, err := e.find(name)
	if err != nil && filepath.IsAbs(name) {
		v, err = e.findDir(name)
	}
	if err != nil {
		return heldDisk{}, err
	}
	disk := v.currentDisk()
	if disk == nil {
		return heldDisk{}, errConflict("The disk of "+v.name()+" isn't on this device.", "See where it is with: tagalong vm show")
	}
	return heldDisk{v, v.name(), disk}, nil
}

func (e *Engine) findDir(dir string) (*vm, error) {
	want, err := os.Stat(dir)
	if err != nil {
		return nil, &api.Error{Code: api.CodeNotFound, Sentence: fmt.Sprintf("There is no disk in %s.", dir), Next: "Check the path.", Cause: err.Error()}
	}
	e.mu.Lock()
	vms := make([]*vm, 0, len(e.vms))
	for _, v := range e.vms {
		vms = append(vms, v)
	}
	e.mu.Unlock()
	for _, v := range vms {
		if have, err := os.Stat(v.diskDir()); err == nil && os.SameFile(have, want) {
			return v, nil
		}
	}
	return nil, &api.Error{Code: api.CodeNotFound, Sentence: fmt.Sprintf("This engine doesn't have the disk in %s.", dir),
		Next: "If another program has it open, end that; if another engine has, name it with --data."}
}

// DiskInfo implements api.Engine.
func (e *Engine) DiskInfo(_ context.Context, name string) (*api.DiskInfo, error) {
	h, err := e.findDisk(name)
	if err != nil {
		return nil, err
	}
	table, err := h.v.table()
	if err != nil {
		return nil, err
	}
	info := disktool.Describe(h.v.diskDir(), h.disk.Info(), table)
	info.VM, info.VMName = h.v.id, h.name
	for i := range info.Peers {
		info.Peers[i].DeviceName = e.deviceName(info.Peers[i].Device)
	}
	return &info, nil
}

// ExportDisk implements api.Engine: the copy is made of a cut, so the guest goes on writing.
func (e *Engine) ExportDisk(_ context.Context, req api.ExportDisk) (*api.Job, error) {
	h, err := e.findDisk(req.Disk)
	if err != nil {
		return nil, err
	}
	if err := disktool.CheckExport(&req); err != nil {
		return nil, err
	}
	w, err := h.v.diskOf(req.Volume)
	if err != nil {
		return nil, err
	}
	table, err := h.v.table()
	if err != nil {
		return nil, err
	}
	about := api.Job{Kind: kindExport, VM: h.v.id, VMName: h.name, Total: w.Bytes()}
	return e.startJob(about, func(ctx context.Context, j *job) error {
		made, err := disktool.Export(ctx, h.disk, table, req, func(done, _ int64) { j.progress(done) })
		if err != nil {
			return disktool.Explain(h.v.diskDir(), err)
		}
		j.found(func(j *api.Job) { j.Export = made })
		return nil
	})
}

// CheckDisk implements api.Engine: the guest goes on meanwhile.
func (e *Engine) CheckDisk(_ context.Context, req api.CheckDisk) (*api.Job, error) {
	h, err := e.findDisk(req.Disk)
	if err != nil {
		return nil, err
	}
	about := api.Job{Kind: kindCheck, VM: h.v.id, VMName: h.name, Total: h.disk.Size()}
	return e.startJob(about, func(ctx context.Context, j *job) error {
		report, err := disktool.CheckOpen(ctx, h.disk, h.v.diskDir(), req, func(done, _ int64) { j.progress(done) })
		if err != nil {
			return disktool.Explain(h.v.diskDir(), err)
		}
		j.found(func(j *api.Job) { j.Check = report })
		return nil
	})
}
