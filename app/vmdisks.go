package app

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/diskimage"
	"tagalong.org/tagalong/app/volumes"
	"tagalong.org/tagalong/app/volumes/window"
	"tagalong.org/tagalong/vmdisk"
)

const (
	kindAddDisk = "add disk"
	opDisks     = "its disks are being changed"
	// maxDisks is how many disks a VM may have: as many as there are places for.
	maxDisks = 8
)

// newDisk is a disk to be made, looked at.
type newDisk struct {
	name  string
	bytes int64
	image diskimage.Image
}

// inspectDisk looks at what a new disk is to be.
func inspectDisk(ctx context.Context, d api.NewDisk) (newDisk, error) {
	if d.Format != "" && !diskimage.Known(d.Format) {
		return newDisk{}, diskimage.ErrFormat(d.Format)
	}
	made := newDisk{name: d.Name}
	if d.Image != "" {
		var err error
		if made.image, err = diskimage.Inspect(ctx, d.Image, d.Format); err != nil {
			return made, err
		}
	}
	made.bytes = max(d.Bytes, made.image.Size)
	switch {
	case made.bytes <= 0:
		return made, &api.Error{Code: api.CodeUsage, Sentence: "A new disk needs a size.", Next: "Say how large it may grow, for instance 40G, or name an image."}
	case made.bytes > vmdisk.MaxSize:
		return made, errDiskTooLarge()
	}
	made.bytes = (made.bytes + blockSize - 1) / blockSize * blockSize
	return made, nil
}

func errDiskTooLarge() error {
	return &api.Error{Code: api.CodeUsage, Sentence: "That disk is too large.", Next: "The disks of a VM may have up to 16 TiB together, with those that were removed."}
}

func errTooManyDisks() error {
	return errConflict(fmt.Sprintf("A VM can have %d disks at most.", maxDisks), "Enlarge one of them instead: tagalong disk grow --help")
}

// explainTable makes a sentence of why a table can't become what was asked for.
func explainTable(what string, err error) error {
	switch {
	case errors.Is(err, volumes.ErrFull):
		return errDiskTooLarge()
	case errors.Is(err, volumes.ErrName):
		return &api.Error{Code: api.CodeUsage, Sentence: fmt.Sprintf("%q can't be the disk's name.", what), Next: "Use up to 64 letters that no other disk of the VM is called."}
	case errors.Is(err, volumes.ErrFirst):
		return errConflict("The first disk can't be removed: it is the one that the VM boots from.", "To delete the whole VM: tagalong vm remove")
	case errors.Is(err, volumes.ErrSmaller):
		return &api.Error{Code: api.CodeUsage, Sentence: "A disk can't become smaller.", Next: "Give a size that is larger than what it has."}
	case errors.Is(err, volumes.ErrUnknown):
		return &api.Error{Code: api.CodeNotFound, Sentence: fmt.Sprintf("The VM has no disk %q.", what), Next: "tagalong vm show lists its disks."}
	case errors.Is(err, syscall.ENOSPC):
		return errNoSpace(err)
	}
	return err
}

// forDisks takes a VM for a change of its disks: it is this device's, and stopped.
func (e *Engine) forDisks(name string) (*vm, error) {
	v, err := e.find(name)
	if err != nil {
		return nil, err
	}
	if err := v.decided(); err != nil {
		return nil, err
	}
	if err := v.mine(); err != nil {
		return nil, err
	}
	if err := v.begin(opDisks); err != nil {
		return nil, err
	}
	if err := v.standsForDisks(); err != nil {
		v.end(opDisks)
		return nil, err
	}
	// Who starts it next serves the disks as they are then.
	v.stopExport()
	return v, nil
}

func (v *vm) standsForDisks() error {
	if err := v.mine(); err != nil {
		return err
	}
	if v.currentGuest() != nil {
		return errConflict("The disks of "+v.name()+" can only be changed while it is stopped.", fmt.Sprintf("Shut it down first: tagalong vm stop %q", v.name()))
	}
	s, err := v.isSaved()
	if err != nil {
		return err
	}
	if s.there() || v.oldMemory() {
		return errConflict(v.name()+" is suspended: its saved memory fits only the disks that it has.",
			fmt.Sprintf("Resume it and shut it down first: tagalong vm resume %q", v.name()))
	}
	return nil
}

// diskOf is one of the VM's disks, by its ID or name; "" is the first.
func (v *vm) diskOf(name string) (volumes.Volume, error) {
	table, err := v.table()
	if err != nil {
		return volumes.Volume{}, err
	}
	if name == "" {
		return table.Volumes[0], nil
	}
	w, ok := table.Find(name)
	if !ok || w.Kind != volumes.Disk {
		return w, explainTable(name, volumes.ErrUnknown)
	}
	return w, nil
}

// AddDisk implements api.Engine. Nobody sees the disk before it is whole; one that is never finished is cleared away.
func (e *Engine) AddDisk(ctx context.Context, req api.AddDisk) (*api.Job, error) {
	d, err := inspectDisk(ctx, req.NewDisk)
	if err != nil {
		return nil, err
	}
	v, err := e.forDisks(req.VM)
	if err != nil {
		return nil, err
	}
	job, err := e.startJob(api.Job{Kind: kindAddDisk, VM: v.id, VMName: v.name(), Total: d.image.Size}, func(ctx context.Context, j *job) error {
		defer v.end(opDisks)
		w, err := v.addDisk(ctx, j, d)
		if err != nil {
			return explainTable(d.name, err)
		}
		j.say(fmt.Sprintf("%s has a new disk, %s.", v.name(), w.Called()))
		return nil
	})
	if err != nil {
		v.end(opDisks)
	}
	return job, err
}

func (v *vm) addDisk(ctx context.Context, j *job, d newDisk) (w volumes.Volume, err error) {
	if err := v.clearUnmade(); err != nil {
		return w, err
	}
	err = v.changeTable(func(t volumes.Table) (volumes.Table, error) {
		if len(t.Of(volumes.Disk)) >= maxDisks {
			return t, errTooManyDisks()
		}
		t, w, err = t.Begin(volumes.Disk, d.name, d.bytes)
		return t, err
	})
	if err != nil {
		return w, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, v.clearUnmade())
		}
	}()
	disk := v.currentDisk()
	if disk == nil {
		return w, errVMClosed
	}
	if d.image.Path != "" {
		if err := v.e.fill(ctx, j, window.New(disk, w), d.image, 0); err != nil {
			return w, err
		}
	}
	if err := disk.Flush(); err != nil {
		return w, fmt.Errorf("flush the disk: %w", err)
	}
	return w, v.changeTable(func(t volumes.Table) (volumes.Table, error) { return t.Made(w.ID) })
}

// clearUnmade removes disks whose making ended early: by a failure, or with an engine.
func (v *vm) clearUnmade() error {
	table, err := v.table()
	if err != nil {
		return err
	}
	for _, w := range table.Volumes {
		if w.Making && !w.Removed {
			if err := v.removeVolume(w); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeVolume takes a volume away for good, and gives its space back, here and wherever there is a copy.
func (v *vm) removeVolume(w volumes.Volume) error {
	if err := v.changeTable(func(t volumes.Table) (volumes.Table, error) { return t.Remove(w.ID) }); err != nil {
		return err
	}
	disk := v.currentDisk()
	if disk == nil {
		return errVMClosed
	}
	// It is nobody's by now, so what fails here costs space and nothing else.
	gone := window.New(disk, w)
	if err := errors.Join(gone.Trim(0, gone.Size(), false), gone.Flush()); err != nil {
		v.log.Warn("Giving back the space of a removed disk failed", "volume", w.ID, "error", err)
	}
	return nil
}

// GrowDisk implements api.Engine.
func (e *Engine) GrowDisk(_ context.Context, req api.GrowDisk) error {
	v, err := e.forDisks(req.VM)
	if err != nil {
		return err
	}
	defer v.end(opDisks)
	w, err := v.diskOf(req.Disk)
	if err != nil {
		return err
	}
	if req.Bytes > vmdisk.MaxSize {
		return errDiskTooLarge()
	}
	if req.Bytes <= w.Bytes() {
		return explainTable(w.Called(), volumes.ErrSmaller)
	}
	err = v.changeTable(func(t volumes.Table) (volumes.Table, error) { return t.Grow(w.ID, volumes.Round(req.Bytes)) })
	if err != nil {
		return explainTable(w.Called(), err)
	}
	e.tell("vm.disks", v, fmt.Sprintf("%s of %s has more room.", w.Called(), v.name()))
	return nil
}

// RemoveDisk implements api.Engine.
func (e *Engine) RemoveDisk(_ context.Context, req api.RemoveDisk) error {
	v, err := e.forDisks(req.VM)
	if err != nil {
		return err
	}
	defer v.end(opDisks)
	w, err := v.diskOf(req.Disk)
	if err != nil {
		return err
	}
	if err := v.removeVolume(w); err != nil {
		return explainTable(w.Called(), err)
	}
	e.tell("vm.disks", v, fmt.Sprintf("%s was removed from %s.", w.Called(), v.name()))
	return nil
}
