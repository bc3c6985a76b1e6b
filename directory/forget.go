package directory

import (
	"fmt"
	"strings"
)

// ForgetVM drops every record of a VM from this device's copy, its history and the hand-off's state too: for a device that has
// nothing to do with the VM any more, because it left the fleet. From a device that knows the VM, all of it would come back.
// Errors: ErrNoSpace, ErrUnsure, ErrClosed.
func (d *Directory) ForgetVM(id string) error {
	if err := d.forgetVM(id); err != nil {
		return fmt.Errorf("directory: forget vm: %w", err)
	}
	d.collect()
	return nil
}

func (d *Directory) forgetVM(id string) error {
	d.write.Lock()
	defer d.write.Unlock()
	entries := map[string][]byte{}
	for key := range d.records {
		if vmOf(key) == id {
			entries[key] = nil
		}
	}
	for key := range d.local {
		if key == "baton/"+id {
			entries["local/"+key] = nil
		}
	}
	for key := range d.pending {
		if vmOf(key) == id {
			delete(d.pending, key)
		}
	}
	if len(entries) == 0 {
		return nil
	}
	return d.commit(entries, true)
}

// vmOf is the VM that a record is about, or nothing.
func vmOf(key string) string {
	kind, rest, _ := strings.Cut(key, "/")
	switch kind {
	case "vm", "transfer", "fork", "vmnote", replicaKind:
		id, _, _ := strings.Cut(rest, "/")
		return id
	}
	return ""
}

// forgetOfVM takes one record of a VM, of which all are being forgotten, out of memory.
func (d *Directory) forgetOfVM(key string) {
	id := vmOf(key)
	switch kindOf(key) {
	case "vm":
		delete(d.vms, id)
	case "transfer":
		delete(d.trees, id)
	case "fork":
		delete(d.forks, id)
	case "vmnote":
		delete(d.notes, key)
	}
}
