package app

import (
	"errors"
	"fmt"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/disktool"
	"tagalong.org/tagalong/app/volumes"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/vmdisk"
)

// table is how the VM's store on this device is cut into volumes: as the record says, unless what is here is of another side, whose table the
// record's hasn't become of.
func (v *vm) table() (volumes.Table, error) {
	table, err := v.recordedTable()
	v.mu.Lock()
	own := v.kept
	v.mu.Unlock()
	if !own.IsZero() && (err != nil || !table.Extends(own)) {
		return own, nil
	}
	return table, err
}

// recordedTable is how the record says that the VM's store is cut.
func (v *vm) recordedTable() (volumes.Table, error) {
	r, ok := v.record()
	if !ok {
		return volumes.Table{}, errNoSuchVM(v.id, nil)
	}
	s, err := specOf(r)
	if err != nil {
		return volumes.Table{}, err
	}
	table, err := s.Table()
	if err != nil {
		return table, fmt.Errorf("read the VM's disks: %w", err)
	}
	return table, nil
}

// seen says that a guest has that volume.
func seen(w volumes.Volume) bool {
	return !w.Removed && !w.Making && (w.Kind == volumes.Disk || w.Kind == volumes.Vars)
}

// changeTable makes a new table of the VM's, of which change makes what it shall be. The record has it first: whoever is told of a larger store then finds
// there what it is for. Then the store grows. A crash between the two leaves one that grows when the VM is taken up again. The caller holds the
// VM for an operation, and sees to it that no guest uses what changes.
func (v *vm) changeTable(change func(t volumes.Table) (volumes.Table, error)) error {
	disk := v.currentDisk()
	if disk == nil {
		return errVMClosed
	}
	table, err := v.putTable(change)
	if err != nil {
		return err
	}
	if err := v.growTo(disk, table); err != nil {
		return fmt.Errorf("enlarge the disk: %w", err)
	}
	v.keepTable(table)
	v.e.hub.publish(api.Event{Kind: "vm.changed", VM: v.id})
	return nil
}

// putTable writes the record with what change makes of its table.
func (v *vm) putTable(change func(t volumes.Table) (volumes.Table, error)) (table volumes.Table, err error) {
	var refused error
	err = v.changeRecord(nil, func(r *directory.VM, spec map[string]any) {
		// Read again, as the record is now: nobody else writes it meanwhile.
		s, err := specOf(*r)
		if err == nil {
			table, err = s.Table()
		}
		if err == nil {
			table, err = change(table)
		}
		if refused = err; err != nil {
			return
		}
		spec["volumes"], spec["disk_bytes"] = table, table.Volumes[0].Bytes()
		r.DiskBytes = max(r.DiskBytes, table.Space())
	})
	return table, errors.Join(refused, err)
}

// growTo makes a store as large as its table says, if it isn't.
func (v *vm) growTo(disk *vmdisk.Store, table volumes.Table) error {
	if disk.Size() >= table.Space() {
		return nil
	}
	return disk.Resize(table.Space())
}

// reachTable makes the store as large as its table says, before a guest sees that: a full disk may have kept it from growing with the table.
func (v *vm) reachTable() error {
	disk := v.currentDisk()
	if disk == nil {
		return errVMClosed
	}
	table, err := v.table()
	if err != nil {
		return err
	}
	return explainTable("", v.growTo(disk, table))
}

// keepTable notes that the store here is cut so: for who works on it without an engine, and for when the record is another side's.
func (v *vm) keepTable(table volumes.Table) {
	v.mu.Lock()
	v.kept = table
	v.mu.Unlock()
	if err := disktool.KeepTable(v.diskDir(), table); err != nil {
		v.log.Warn("Keeping a copy of the table of disks failed", "error", err)
	}
}

// followsOwner says that what comes into the store from now on is the owner's, whose table is in the record.
func (v *vm) followsOwner() {
	if table, err := v.recordedTable(); err == nil {
		v.keepTable(table)
	}
}

// fitStore makes the store of a VM that is taken up here as large as its table says.
func (v *vm) fitStore() {
	disk := v.currentDisk()
	table, err := v.table()
	if disk == nil {
		return
	}
	if recorded, rerr := v.recordedTable(); err == nil && (rerr != nil || !recorded.Extends(table)) {
		// The side that goes on is this one, and the record another's.
		table, err = v.putTable(func(volumes.Table) (volumes.Table, error) { return table, nil })
	}
	if err == nil {
		err = v.growTo(disk, table)
		v.keepTable(table)
	}
	if err != nil {
		v.log.Error("Making the disk as large as it should be failed", "error", err)
	}
}
