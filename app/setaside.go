package app

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/zeebo/blake3"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/custody"
	"tagalong.org/tagalong/app/durable"
	"tagalong.org/tagalong/app/restore"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// What a device held when the person chose the other side is set aside before anything overwrites it. Each step is durable
// before the next, and finds out by itself whether it was done already, so that it goes on after a crash:
//
//	restore point:  kept/<id>/note.json │ disk/ renamed to kept/<id>/disk │ disk.new/ cloned from there │ renamed to disk/
//	second VM:      vms/<new>/unfinished │ vms/<new>/disk cloned, with an ID and a history of its own │ signed, and in the directory
//
// The second VM's IDs follow from the choice, so that a second try makes the same one.

// asideRun is this work, while it lasts.
type asideRun struct {
	term  uint64
	poke  chan struct{} // 1-buffered: there may be room now
	ended chan struct{} // closed when nothing is written any more

	// guarded by mu
	mu          sync.Mutex
	phase       string
	done, total int64
	err         error // why it waits, until it is tried again
}

func (r *asideRun) progress() (phase string, done, total int64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.phase, r.done, r.total, r.err
}

func (r *asideRun) tell(done, total int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.phase, r.done, r.total = phaseKeeping, done, total
}

func (r *asideRun) failed(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

func (v *vm) asideRun() *asideRun {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.aside
}

// asideRetry is how often it is tried again when there was no room.
const asideRetry = 30 * time.Second

// startSetAside carries out a choice against this device, beside the loop, until it has worked. Called by the loop, with the
// guest gone.
func (v *vm) startSetAside(ctx context.Context, term uint64) {
	t, ok := v.e.dir.Transfer(v.id, term)
	if !ok {
		v.log.Error("The choice isn't in the directory", "term", term)
		return
	}
	run := &asideRun{term: term, poke: make(chan struct{}, 1), ended: make(chan struct{})}
	v.mu.Lock()
	if v.aside != nil {
		v.mu.Unlock()
		return
	}
	v.aside = run
	v.mu.Unlock()
	v.stopHydrate()
	v.stopFeeds()
	v.stopApplying()
	v.stopSeeding()
	if disk := v.currentDisk(); disk != nil {
		disk.EndWaiting()
	}
	v.stopExport()
	v.resolutionJob(t)
	v.e.spawn(func() {
		for {
			err := v.setAside(ctx, t, run)
			if err == nil || ctx.Err() != nil {
				break
			}
			v.log.Error("Setting the disk aside failed", "error", err)
			run.failed(err)
			v.setProblem(api.AsError(err))
			select {
			case <-ctx.Done():
			case <-run.poke:
			case <-time.After(asideRetry):
			}
			run.failed(nil)
		}
		v.mu.Lock()
		v.aside = nil
		v.mu.Unlock()
		close(run.ended)
		if ctx.Err() == nil {
			v.post(ctx, baton.Event{Kind: baton.EvSetAside})
		}
	})
}

// setAside does it once; it may be called again after any failure.
func (v *vm) setAside(ctx context.Context, t directory.SignedTransfer, run *asideRun) error {
	if disk := v.currentDisk(); disk != nil && !v.oldMemory() && v.custody().Stand() == custody.Behind {
		return nil // the side that goes on has all of it
	}
	var err error
	point := t.How != string(api.ResolveBoth)
	if _, begun := v.shelf().Get(pointID(t)); begun == nil {
		point = true // that a second VM can't be made was found before a crash
	}
	if !point {
		// A disk that isn't whole can't be a VM's: nobody would ever bring what it lacks. Nothing of it is lost as a restore point.
		err = v.makeSecond(ctx, t, run)
		point = errors.Is(err, vmdisk.ErrHydrating)
	}
	if point {
		err = v.makePoint(ctx, t, run)
	}
	if err == nil {
		// It belongs to a state of the disk that no VM has any more.
		v.removeOldMemory()
	}
	return err
}

func (v *vm) shelf() restore.Shelf { return restore.Shelf(filepath.Join(v.dir, "kept")) }

// pointID names the restore point of a choice.
func pointID(t directory.SignedTransfer) string {
	h := t.Hash()
	return hex.EncodeToString(h[:6])
}

// unwanted is where it is noted that the person deleted the restore point before there was room for a second copy.
func unwanted(vm string) string { return "unwanted/" + vm }

// makePoint makes the disk a restore point, and a replica of it for the side that goes on to be written into.
func (v *vm) makePoint(ctx context.Context, t directory.SignedTransfer, run *asideRun) error {
	id, shelf := pointID(t), v.shelf()
	if b, err := v.e.dir.Local(unwanted(v.id)); err == nil && string(b) == id {
		return errors.Join(v.putBack(id), v.openDisk())
	}
	lacks := v.lacksText()
	pos, err := v.letGoOfDisk()
	if err != nil {
		return err
	}
	point := restore.Point{
		ID: id, Term: pos.Term, Barrier: pos.Barrier, At: time.Now(), Open: t.How == string(api.ResolveOpen),
		Why:    fmt.Sprintf("You chose the version of %s on %s; this is the one that was on %s.", v.name(), v.e.deviceName(t.To), v.e.name) + lacks,
		Chosen: v.e.deviceName(t.To),
	}
	switch err := shelf.Take(point, v.diskDir()); {
	case errors.Is(err, restore.ErrNoDisk):
		return nil // there was never anything
	case err != nil:
		return err
	}
	if _, err := os.Stat(v.diskDir()); errors.Is(err, fs.ErrNotExist) {
		options := vmdisk.CloneOptions{Options: v.e.diskOptions(v.id)}
		err := vmdisk.Clone(ctx, v.diskDir(), shelf.Disk(id), options, run.tell)
		if errors.Is(err, vmdisk.ErrHydrating) {
			// What it lacks is nowhere here. The point keeps what was written; the copy is made anew by the side that goes on.
			v.log.Warn("A disk that lacks blocks was set aside as it is", "point", id)
			p, err := shelf.Get(id)
			if err == nil {
				v.e.tell("vm.incomplete", v, fmt.Sprintf("%s It is kept as a restore point.", p.Why))
			}
			return err
		}
		if err != nil {
			return v.explainClone(err, shelf.Bytes(id), fmt.Sprintf("Free some space, or delete the restore point: tagalong restore-points delete %s", id))
		}
	}
	return v.openDisk()
}

// lacksText says, behind a sentence, that the disk isn't whole, and so what it can't be; "" if it is.
func (v *vm) lacksText() string {
	disk := v.currentDisk()
	if disk == nil {
		return ""
	}
	p, lacks := disk.Hydration()
	if !lacks {
		return ""
	}
	return fmt.Sprintf(" %s of its disk had not come to this device, so it can't run by itself; opened, that part can't be read.", sayBytes(p.Left))
}

// putBack moves the disk of a restore point that isn't wanted back to its place, unless that was done.
func (v *vm) putBack(id string) error {
	if _, err := os.Stat(v.diskDir()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := durable.Rename(v.shelf().Disk(id), v.diskDir()); err != nil {
		return fmt.Errorf("put the disk back: %w", err)
	}
	return nil
}

// explainClone says what a failed copy means for the person.
func (v *vm) explainClone(err error, need int64, next string) error {
	if !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("copy the disk: %w", err)
	}
	free, _ := vfs.OS(v.e.opt.DataDir).Free() // 0 if that can't be told
	return &api.Error{
		Code: api.CodeSpace, Next: next, Cause: err.Error(),
		Sentence: fmt.Sprintf("There is no room for a second copy of %s on this device: it takes up to %s, and %s are free. Nothing is lost, and %s goes on on %s.",
			v.name(), sayBytes(need), sayBytes(free), v.name(), v.e.deviceName(v.ownerID())),
	}
}

// letGoOfDisk closes the disk, and says what it was at. Without one it does nothing.
func (v *vm) letGoOfDisk() (vmdisk.Position, error) {
	v.mu.Lock()
	disk := v.disk
	v.disk = nil
	v.mu.Unlock()
	if disk == nil {
		return vmdisk.Position{}, nil
	}
	pos := disk.Info().Position
	if err := disk.Close(); err != nil {
		return pos, fmt.Errorf("close the disk: %w", err)
	}
	return pos, nil
}

// openDisk opens the disk that lies in its place, if it isn't open.
func (v *vm) openDisk() error {
	if v.currentDisk() != nil {
		return nil
	}
	disk, err := vmdisk.Open(v.diskDir(), v.e.diskOptions(v.id))
	if err != nil {
		return fmt.Errorf("open the copy: %w", err)
	}
	v.mu.Lock()
	v.disk = disk
	v.mu.Unlock()
	return nil
}

// secondIDs are those of the VM, and its disk, that a device makes of its side of vm when the person keeps both.
func secondIDs(choice directory.SignedTransfer, vm, device string) (id string, disk vmdisk.ID) {
	h := choice.Hash()
	sum := blake3.Sum256([]byte("tagalong second vm v1 " + vm + hex.EncodeToString(h[:]) + device))
	return hex.EncodeToString(sum[:16]), vmdisk.ID(sum[16:32])
}

// makeSecond makes what this device holds a VM of its own. The disk stays, to become a replica.
func (v *vm) makeSecond(ctx context.Context, t directory.SignedTransfer, run *asideRun) error {
	id, diskID := secondIDs(t, v.id, v.e.host.ID())
	if _, known := v.e.dir.VM(id); known || v.e.dir.Removed(id) {
		return nil
	}
	disk := v.currentDisk()
	r, ok := v.record()
	if disk == nil || !ok {
		return fmt.Errorf("make a second VM: %w", custody.ErrNoDisk)
	}
	spec, err := specOf(r)
	if err != nil {
		return err
	}
	dir := v.e.vmDir(id)
	// What an earlier try has left was never anything.
	if err := errors.Join(os.RemoveAll(dir), durable.Mkdir(dir), durable.Write(marker(dir), nil)); err != nil {
		return dataDirError(v.e.opt.DataDir, err)
	}
	diskDir := filepath.Join(dir, "disk")
	options := vmdisk.CloneOptions{Fresh: true, ID: diskID, Options: v.e.diskOptions(id)}
	if err := disk.Clone(ctx, diskDir, options, run.tell); err != nil {
		err = v.explainClone(err, disk.Info().Allocated, "Free some space; it is tried again by itself.")
		return errors.Join(err, os.RemoveAll(dir))
	}
	second, err := vmdisk.Open(diskDir, v.e.diskOptions(id))
	if err != nil {
		return fmt.Errorf("open the second VM's disk: %w", err)
	}
	err = second.Activate(1)
	if err == nil {
		err = v.e.publish(id, v.e.freeName(t.Name, r.Name), spec, second)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("make a second VM: %w", err), second.Close())
	}
	return nil
}

// freeName is the name that was asked for, or one like that of the first VM, if that is taken.
func (e *Engine) freeName(wanted, first string) string {
	if wanted != "" && e.checkName(wanted) == nil {
		return wanted
	}
	runes := []rune(first)
	for n := 2; ; n++ {
		end := " " + strconv.Itoa(n)
		name := string(runes[:min(len(runes), maxNameRunes-len(end))]) + end
		if e.checkName(name) == nil {
			return name
		}
	}
}

// sweepVM deletes what interrupted steps have left in a VM's directory.
func (e *Engine) sweepVM(id string) error {
	return errors.Join(vmdisk.SweepClones(e.vmDir(id)), restore.Shelf(filepath.Join(e.vmDir(id), "kept")).Sweep())
}

// keepsPoints says that the VM has restore points on this device.
func (e *Engine) keepsPoints(id string) bool {
	list, err := restore.Shelf(filepath.Join(e.vmDir(id), "kept")).List()
	return err == nil && len(list) > 0
}

func (e *Engine) custodyOf(id string, disk *vmdisk.Store) custody.Custody {
	return custody.Custody{VM: id, Self: e.host.ID(), Dir: e.dir, Disk: disk, Log: e.log.With("vm", id)}
}
