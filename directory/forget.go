package directory

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// forgetBatch is how many records are deleted in one commit.
const forgetBatch = 2000

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
	var keys []string
	for key := range d.records {
		if vmOf(key) == id {
			keys = append(keys, key)
		}
	}
	if _, ok := d.local["baton/"+id]; ok {
		keys = append(keys, "local/baton/"+id)
	}
	for key := range d.pending {
		if vmOf(key) == id {
			delete(d.pending, key)
		}
	}
	// In several commits, as a long history may be too much for one: what proves other things goes last.
	rank := func(key string) int {
		if kindOf(key) == "transfer" {
			return 1
		}
		return 0
	}
	slices.SortFunc(keys, func(a, b string) int { return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(b, a)) })
	for batch := range slices.Chunk(keys, forgetBatch) {
		entries := make(map[string][]byte, len(batch))
		for _, key := range batch {
			entries[key] = nil
		}
		if err := d.commit(entries, true); err != nil {
			return err
		}
	}
	return nil
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
