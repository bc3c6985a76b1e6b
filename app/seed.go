package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/diskimage"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/vmdisk"
)

// seedRun fills this device's copy of a VM from a file, before it was ever whole.
type seedRun struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// errSeeding is what an owner is told meanwhile; it asks again.
var errSeeding = &replica.Refusal{Code: replica.RefuseBusy, Text: "this device's copy is being filled from a file"}

// SeedVM implements api.Engine. The copy stays incomplete: it belongs to no position, can't be taken over or switched to, and counts for
// nothing before the owner has compared it and sent what differs. So it doesn't matter what the file has, and at which moment
// anything fails.
func (e *Engine) SeedVM(ctx context.Context, req api.SeedVM) (*api.Job, error) {
	v, err := e.find(req.VM)
	if err != nil {
		return nil, err
	}
	if err := v.maySeed(); err != nil {
		return nil, err
	}
	if req.Format != "" && !diskimage.Known(req.Format) {
		return nil, diskimage.ErrFormat(req.Format)
	}
	var image diskimage.Image
	if req.Format == "raw" {
		image, err = diskimage.Raw(req.File)
	} else {
		image, err = diskimage.Inspect(ctx, req.File, req.Format)
	}
	if err != nil {
		return nil, err
	}
	r, _ := v.record()
	about := api.Job{Kind: kindSeed, VM: v.id, VMName: r.Name, Total: min(image.Size, r.DiskBytes)}
	return e.startJob(about, func(ctx context.Context, j *job) error { return v.seed(ctx, j, image) })
}

// maySeed says why this device's copy can't be filled from a file, if it can't.
func (v *vm) maySeed() error {
	name := v.name()
	v.mu.Lock()
	state, disk := v.state, v.disk
	v.mu.Unlock()
	switch {
	case ownedState(state):
		return errConflict(name+" is on this device: there is no copy to fill.", "Do this on the device that shall get a copy.")
	case state != baton.Replica:
		return errBusy(name, opSwitch)
	case disk != nil && disk.Info().Complete:
		return errConflict("This device has a whole copy of "+name+" already: there is nothing to fill.", "It is brought up to date by itself, and only what differs is moved. See: tagalong status")
	case v.mayReceive() != nil:
		return errConflict("This device's copy of "+name+" can't be filled before it is decided which version of "+name+" goes on.", "See: tagalong conflict")
	}
	return nil
}

// seed does it.
func (v *vm) seed(ctx context.Context, j *job, image diskimage.Image) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	run := &seedRun{cancel: cancel, done: make(chan struct{})}
	disk, err := v.beginSeeding(run)
	if err != nil {
		return err
	}
	defer v.endSeeding(run)
	into, err := disk.Seed()
	if err != nil {
		return explainSeed(v.name(), err)
	}
	sockets := v.run + "-seed"
	got, err := diskimage.Seed(ctx, politeSeeding{into, func(n int64) error { return v.e.courtesy.Wait(ctx, n) }}, image, sockets, v.log, func(done int64) {
		j.progress(min(done, disk.Size()))
	})
	if err == nil {
		err = into.Flush()
	}
	if err = errors.Join(err, into.Close(), os.RemoveAll(sockets)); err != nil {
		return explainSeed(v.name(), err)
	}
	j.found(func(j *api.Job) { j.Seed = &api.DiskSeed{File: image.Path, Read: got.Read, Unreadable: got.Unreadable} })
	v.log.Info("A copy was filled from a file", "file", image.Path, "bytes", got.Read, "unreadable", got.Unreadable)
	return nil
}

func explainSeed(name string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return errNoSpace(err)
	case errors.Is(err, vmdisk.ErrComplete):
		return errConflict("This device's copy of "+name+" has become whole meanwhile: there is nothing to fill.", "See: tagalong status")
	case errors.Is(err, vmdisk.ErrClosed) && !errors.Is(err, context.Canceled):
		return errors.Join(context.Canceled, err)
	}
	return err
}

// beginSeeding keeps the owner away until endSeeding, and makes a copy to fill if there is none.
func (v *vm) beginSeeding(run *seedRun) (*vmdisk.Store, error) {
	v.mu.Lock()
	if v.closed || v.seeding != nil || v.sealed {
		v.mu.Unlock()
		return nil, errBusy(v.name(), opSeed)
	}
	v.seeding = run
	v.mu.Unlock()
	v.stopApplying()
	v.stopComparing()
	err := v.maySeed()
	if err == nil {
		err = v.makeReplica()
	}
	disk := v.currentDisk()
	if err == nil && disk == nil {
		err = errVMClosed
	}
	if err != nil {
		v.endSeeding(run)
		return nil, err
	}
	return disk, nil
}

func (v *vm) endSeeding(run *seedRun) {
	v.mu.Lock()
	v.seeding = nil
	v.mu.Unlock()
	close(run.done)
}

// stopSeeding ends the filling of this device's copy, if it is being filled, and waits for its end.
func (v *vm) stopSeeding() {
	v.mu.Lock()
	run := v.seeding
	v.mu.Unlock()
	if run != nil {
		run.cancel()
		<-run.done
	}
}

// makeReplica makes an empty replica of the VM's disk, as its record has it, where there is none.
func (v *vm) makeReplica() error {
	r, ok := v.record()
	if !ok {
		return errNoSuchVM(v.id, nil)
	}
	id, err := vmdisk.ParseID(r.Disk)
	if err != nil {
		return fmt.Errorf("the disk of the VM's record: %w", err)
	}
	return v.ensureReplica(replica.Target{Disk: replica.ID(id), Size: r.DiskBytes})
}

// politeSeeding lets guests go first.
type politeSeeding struct {
	*vmdisk.Seeding
	wait func(n int64) error
}

// WriteAt implements vmdisk.Disk.
func (s politeSeeding) WriteAt(p []byte, off int64, fua bool) error {
	if err := s.wait(int64(len(p))); err != nil {
		return err
	}
	return s.Seeding.WriteAt(p, off, fua)
}
