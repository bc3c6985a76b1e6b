package app

import (
	"errors"
	"fmt"

	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/vmdisk"
)

// How a VM's disk becomes larger on all devices. The owner tells the fleet the size in the VM's record, and makes its own disk as large. Whoever speaks about
// a disk names its size in the hello: a replica that is smaller grows before it takes anything, but never beyond what the record says that this device knows, so that nobody
// has content beyond the VM's table of volumes. One that is larger than the owner's (the owner went on with what a side of a fork had that
// hadn't grown) makes zeros of the rest (vmdisk.Applier.Within), and stays as large.

// tellSize makes the VM's record, which this device writes, say that the disk has so many bytes, if it says fewer: as when this device, which became the owner, had a larger one.
func (v *vm) tellSize(bytes int64) error {
	r, ok := v.record()
	if !ok {
		return errNoSuchVM(v.id, nil)
	}
	if r.DiskBytes >= bytes {
		return nil
	}
	return v.changeRecord(nil, func(r *directory.VM, _ map[string]any) { r.DiskBytes = max(r.DiskBytes, bytes) })
}

// fit makes this device's copy as large as the disk of which a device speaks that has so many bytes, as far as the VM's record says that.
func (v *vm) fit(disk *vmdisk.Store, bytes int64) error {
	if disk.Size() >= bytes {
		return nil
	}
	if r, ok := v.record(); !ok || r.DiskBytes < bytes {
		return &replica.Refusal{Code: replica.RefuseUnknown, Text: "this device hasn't heard yet that the disk has become larger"}
	}
	err := disk.Reach(bytes)
	if errors.Is(err, vmdisk.ErrClosed) {
		return &replica.Refusal{Code: replica.RefuseBusy, Text: "the disk is in use"}
	}
	if err != nil {
		return fmt.Errorf("make the copy larger: %w", err)
	}
	return nil
}
