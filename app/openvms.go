package app

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"tagalong.org/tagalong/app/disktool"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/vmdisk"
)

// openVMs takes hold of every VM that this device has something of.
func (e *Engine) openVMs() error {
	entries, err := os.ReadDir(filepath.Join(e.opt.DataDir, "vms"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return dataDirError(e.opt.DataDir, err)
	}
	for _, entry := range entries {
		id := entry.Name()
		if !validVMID(id) {
			continue
		}
		e.openOrNote(id)
	}
	return nil
}

func (e *Engine) openVM(id string) error {
	if unfinished(e.vmDir(id)) {
		if _, published := e.dir.VM(id); !published {
			e.log.Info("Removing a VM that was never finished", "vm", id)
			return os.RemoveAll(e.vmDir(id))
		}
		if err := os.Remove(marker(e.vmDir(id))); err != nil {
			return fmt.Errorf("finish the VM's directory: %w", err)
		}
	}
	if e.dir.Removed(id) {
		e.log.Info("Deleting a removed VM", "vm", id)
		return errors.Join(e.dropNotes(id), os.RemoveAll(e.vmDir(id)))
	}
	if err := e.sweepVM(id); err != nil {
		e.log.Warn("Clearing what an interrupted step left failed", "vm", id, "error", err)
	}
	disk, err := vmdisk.Open(e.diskDir(id), e.diskOptions(id))
	if errors.Is(err, vmdisk.ErrNoDisk) && e.keepsPoints(id) {
		disk, err = nil, nil // it was being set aside
	}
	if err != nil {
		return disktool.Explain(e.diskDir(id), fmt.Errorf("open the disk: %w", err))
	}
	shut := func() error {
		if disk == nil {
			return nil
		}
		return disk.Close()
	}
	saved, err := e.dir.LoadBaton(id)
	if err != nil && !errors.Is(err, directory.ErrNotFound) {
		return errors.Join(fmt.Errorf("load the hand-off's state: %w", err), shut())
	}
	if saved == nil {
		// Nothing could be written of what an earlier engine began, but it may have left a hypervisor.
		saved = baton.NewReplica(baton.Config{}).Encode()
	}
	machine, err := baton.Decode(baton.Config{}, saved)
	if err != nil {
		return errors.Join(err, shut())
	}
	v := e.makeVM(id, machine, disk)
	var guest hypervisor.Guest
	if r, ok := e.dir.VM(id); ok {
		guest = v.findGuest(r)
	}
	v.enter(guest, &baton.Event{Kind: baton.EvRestart, Facts: e.restartFacts(id, machine, disk, guest != nil)})
	e.mu.Lock()
	e.vms[id] = v
	e.mu.Unlock()
	return nil
}

// closeVMs lets go of every VM; guests go on.
func (e *Engine) closeVMs() {
	e.mu.Lock()
	vms := e.vms
	e.vms = map[string]*vm{}
	e.mu.Unlock()
	for _, v := range vms {
		v.close()
	}
}
