package app

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/disknbd"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/app/restore"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/nbd"
)

// openPoint is a restore point that is served to the VM's hypervisor, read-only.
type openPoint struct {
	disk   *vmdisk.Store
	socket string
	cancel context.CancelFunc
	done   chan struct{}
}

// opPoint is what a VM is busy with while its restore points change.
const opPoint = "its restore points are being changed"

// detachTimeout is how long a guest may take to let go of a disk.
const detachTimeout = 15 * time.Second

// restorePoints lists those on this device.
func (v *vm) restorePoints() []api.RestorePoint {
	points, err := v.shelf().List()
	if err != nil {
		v.log.Warn("Listing restore points failed", "error", err)
	}
	var out []api.RestorePoint
	for _, p := range points {
		out = append(out, api.RestorePoint{
			ID: p.ID, VM: v.id, VMName: v.name(), Device: v.e.host.ID(), DeviceName: v.e.name,
			Position: api.Position{Term: p.Term, Barrier: p.Barrier}, At: p.At, Bytes: v.shelf().Bytes(p.ID), Why: p.Why, Chosen: p.Chosen, Open: p.Open,
		})
	}
	return out
}

// findPoint finds a VM and one of its restore points on this device.
func (e *Engine) findPoint(ref api.RestorePointRef) (*vm, restore.Point, error) {
	v, err := e.find(ref.VM)
	if err != nil {
		return nil, restore.Point{}, err
	}
	p, err := v.shelf().Get(ref.ID)
	if errors.Is(err, restore.ErrNotFound) {
		return nil, p, &api.Error{Code: api.CodeNotFound, Sentence: fmt.Sprintf("%s has no restore point %q on this device.", v.name(), ref.ID), Next: "See them with: tagalong restore-points"}
	}
	if err != nil {
		p = restore.Point{ID: ref.ID} // it can still be deleted
	}
	return v, p, nil
}

// DeleteRestorePoint implements api.Engine.
func (e *Engine) DeleteRestorePoint(_ context.Context, ref api.RestorePointRef) error {
	v, p, err := e.findPoint(ref)
	if err != nil {
		return err
	}
	if err := v.begin(opPoint); err != nil {
		return err
	}
	defer v.end(opPoint)
	v.mu.Lock()
	run, state, open := v.aside, v.state, v.opened[p.ID] != nil
	v.mu.Unlock()
	if open || p.Open && p.Attached && v.currentGuest() != nil {
		return errConflict("The VM sees this restore point as a disk.", fmt.Sprintf("Take it away first: tagalong restore-points close %s", p.ID))
	}
	if run != nil || state == baton.Ousted {
		return v.deleteUnfinished(run, p)
	}
	if err := v.shelf().Remove(p.ID); err != nil {
		return fmt.Errorf("delete the restore point: %w", err)
	}
	e.tell("vm.restore-point-deleted", v, fmt.Sprintf("A restore point of %s was deleted.", v.name()))
	return nil
}

// deleteUnfinished gives up a restore point from which the VM's copy couldn't be made for want of room: the disk goes back to where it was,
// and what differs is overwritten.
func (v *vm) deleteUnfinished(run *asideRun, p restore.Point) error {
	busy := errBusy(v.name(), "its copy is being made from this restore point")
	if run == nil {
		return busy
	}
	if _, _, _, waits := run.progress(); waits == nil || !v.pointOf(run, p.ID) {
		return busy
	}
	if err := v.e.dir.SetLocal(unwanted(v.id), []byte(p.ID)); err != nil {
		return fmt.Errorf("note that the restore point isn't wanted: %w", err)
	}
	if err := v.putBack(p.ID); err != nil {
		return err
	}
	select {
	case run.poke <- struct{}{}:
	default:
	}
	return nil
}

// pointOf says that the restore point is the one that run makes.
func (v *vm) pointOf(run *asideRun, id string) bool {
	t, ok := v.e.dir.Transfer(v.id, run.term)
	return ok && pointID(t) == id
}

// OpenRestorePoint implements api.Engine.
func (e *Engine) OpenRestorePoint(ctx context.Context, ref api.RestorePointRef) error {
	v, p, err := e.findPoint(ref)
	if err != nil {
		return err
	}
	if !v.owner() {
		return &api.Error{Code: api.CodeElsewhere, Sentence: fmt.Sprintf("%s is on %s, and this restore point is here.", v.name(), e.deviceName(v.ownerID())),
			Next: fmt.Sprintf("Bring it here first: tagalong switch %q", v.name())}
	}
	if err := v.begin(opPoint); err != nil {
		return err
	}
	defer v.end(opPoint)
	if err := v.shelf().Change(p.ID, func(p *restore.Point) { p.Open = true }); err != nil {
		return fmt.Errorf("note that the restore point is open: %w", err)
	}
	if guest := v.currentGuest(); guest != nil {
		return v.attachPoint(ctx, guest, p.ID)
	}
	return nil
}

// CloseRestorePoint implements api.Engine.
func (e *Engine) CloseRestorePoint(ctx context.Context, ref api.RestorePointRef) error {
	v, p, err := e.findPoint(ref)
	if err != nil {
		return err
	}
	if err := v.begin(opPoint); err != nil {
		return err
	}
	defer v.end(opPoint)
	if guest := v.currentGuest(); guest != nil && p.Attached {
		ctx, cancel := context.WithTimeout(ctx, detachTimeout)
		defer cancel()
		if err := guest.Detach(ctx, p.ID); err != nil {
			return &api.Error{Code: api.CodeConflict, Sentence: v.name() + " didn't let go of the disk.", Next: "Eject it inside the VM, or shut the VM down, and try again.", Cause: err.Error()}
		}
	}
	if err := v.shelf().Change(p.ID, func(p *restore.Point) { p.Open, p.Attached = false, false }); err != nil {
		return fmt.Errorf("note that the restore point is closed: %w", err)
	}
	v.stopPoint(p.ID)
	return nil
}

// servePoint opens a restore point's disk for the hypervisor; it is harmless if it is open.
func (v *vm) servePoint(id string) (socket string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if o := v.opened[id]; o != nil {
		return o.socket, nil
	}
	disk, err := vmdisk.Open(v.shelf().Disk(id), vmdisk.Options{Log: v.log})
	if err != nil {
		return "", fmt.Errorf("open the restore point: %w", err)
	}
	socket = filepath.Join(v.run, "rp-"+id+".sock")
	l, err := nbd.Listen(socket)
	if err != nil {
		return "", errors.Join(fmt.Errorf("serve the restore point: %w", err), disk.Close())
	}
	ctx, cancel := context.WithCancel(v.e.ctx)
	o := &openPoint{disk: disk, socket: socket, cancel: cancel, done: make(chan struct{})}
	v.opened[id] = o
	server := &nbd.Server{Backend: disknbd.ReadOnly{Reader: disknbd.Known{Store: disk}}, Log: v.log.With("part", "nbd")}
	v.e.spawn(func() {
		defer close(o.done)
		if err := server.Serve(ctx, l); err != nil && ctx.Err() == nil {
			v.log.Error("Serving a restore point ended", "error", err)
		}
	})
	return socket, nil
}

// stopPoint ends the serving of one.
func (v *vm) stopPoint(id string) {
	v.mu.Lock()
	o := v.opened[id]
	delete(v.opened, id)
	v.mu.Unlock()
	if o == nil {
		return
	}
	o.cancel()
	<-o.done
	if err := o.disk.Close(); err != nil {
		v.log.Warn("Closing a restore point failed", "error", err)
	}
}

// stopPoints ends the serving of all.
func (v *vm) stopPoints() {
	v.mu.Lock()
	ids := make([]string, 0, len(v.opened))
	for id := range v.opened {
		ids = append(ids, id)
	}
	v.mu.Unlock()
	for _, id := range ids {
		v.stopPoint(id)
	}
}

// openPoints are the restore points that the VM is to see.
func (v *vm) openPoints() []restore.Point {
	points, err := v.shelf().List()
	if err != nil {
		v.log.Warn("Listing restore points failed", "error", err)
	}
	var open []restore.Point
	for _, p := range points {
		if p.Open {
			open = append(open, p)
		}
	}
	return open
}

// extraDisks serves the open restore points for a guest that is about to start. One that can't be opened stays away, with a
// word.
func (v *vm) extraDisks() []hypervisor.ExtraDisk {
	var disks []hypervisor.ExtraDisk
	for _, p := range v.openPoints() {
		socket, err := v.servePoint(p.ID)
		if err != nil {
			v.log.Error("Opening a restore point failed", "error", err)
			v.e.tell("vm.restore-point-failed", v, fmt.Sprintf("A restore point of %s couldn't be opened; the VM starts without it.", v.name()))
			continue
		}
		disks = append(disks, hypervisor.ExtraDisk{ID: p.ID, Socket: socket})
	}
	return disks
}

// attached notes which restore points the VM's process has.
func (v *vm) attached(disks []hypervisor.ExtraDisk) {
	has := map[string]bool{}
	for _, d := range disks {
		has[d.ID] = true
	}
	for _, p := range v.openPoints() {
		if err := v.shelf().Change(p.ID, func(p *restore.Point) { p.Attached = has[p.ID] }); err != nil {
			v.log.Warn("Noting an open restore point failed", "error", err)
		}
	}
}

// attachPoint shows a restore point to a running guest.
func (v *vm) attachPoint(ctx context.Context, guest hypervisor.Guest, id string) error {
	mark := func(attached bool) error {
		return v.shelf().Change(id, func(p *restore.Point) { p.Attached = attached })
	}
	socket, err := v.servePoint(id)
	if err == nil {
		// Noted first: from the moment when the guest has it, its memory must not leave.
		if err := mark(true); err != nil {
			return err
		}
		err = guest.Attach(ctx, hypervisor.ExtraDisk{ID: id, Socket: socket})
	}
	if err != nil {
		v.log.Warn("A restore point couldn't be shown to the running VM", "error", err)
		v.e.tell("vm.restore-point-later", v, fmt.Sprintf("%s sees the restore point at its next start.", v.name()))
		return mark(false)
	}
	return nil
}

// showPoints shows the open restore points to a guest that has just come here, with none.
func (v *vm) showPoints(guest hypervisor.Guest) {
	v.attached(nil)
	ctx, cancel := context.WithTimeout(v.e.ctx, actionTimeout)
	defer cancel()
	for _, p := range v.openPoints() {
		if err := v.attachPoint(ctx, guest, p.ID); err != nil {
			v.log.Warn("Noting an open restore point failed", "error", err)
		}
	}
}

// reservePoints serves what a guest that an earlier engine started still has.
func (v *vm) reservePoints() {
	for _, p := range v.openPoints() {
		if !p.Attached {
			continue
		}
		if _, err := v.servePoint(p.ID); err != nil {
			v.log.Error("Opening a restore point failed", "error", err)
		}
	}
}

// seesPoint says that the running guest has a restore point as a disk, so that its memory can't leave.
func (v *vm) seesPoint() (id string, sees bool) {
	if v.currentGuest() == nil {
		return "", false
	}
	for _, p := range v.openPoints() {
		if p.Attached {
			return p.ID, true
		}
	}
	return "", false
}

func errSeesPoint(name, id string) error {
	return errConflict(name+" sees a restore point as a disk, and that can't come along.", "Take it away first: tagalong restore-points close "+id)
}
