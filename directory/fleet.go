package directory

import (
	"fmt"
	"maps"
	"slices"
)

// PutDevice writes this device's own record. ID is filled in, and At if it is
// zero. Errors: ErrInvalid, ErrNoSpace, ErrUnsure, ErrClosed, and Sign's.
func (d *Directory) PutDevice(dev Device) error {
	dev.ID = d.opt.Self
	if dev.At.IsZero() {
		dev.At = d.now().UTC()
	}
	if err := dev.check(); err != nil {
		return fmt.Errorf("directory: put device: %w", err)
	}
	// Of others' records only the limit of all values holds: a program that knows nothing of this field hands on what it was sent.
	if len(dev.Site) > maxSite {
		return fmt.Errorf("directory: put device: %d bytes about its site: %w", len(dev.Site), ErrInvalid)
	}
	if len(dev.Hardware) > maxHardware {
		return fmt.Errorf("directory: put device: %d bytes about its hardware: %w", len(dev.Hardware), ErrInvalid)
	}
	value, err := encodeValue(dev)
	if err != nil {
		return fmt.Errorf("directory: put device: %w", err)
	}
	d.write.Lock()
	defer d.write.Unlock()
	key := "device/" + dev.ID
	if err := d.write1(key, d.records[key].Version+1, value); err != nil {
		return fmt.Errorf("directory: put device: %w", err)
	}
	return nil
}

// Devices returns what the fleet's devices, this one too, say of themselves, in
// the order of IDs.
func (d *Directory) Devices() []Device {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var list []Device
	for _, id := range slices.Sorted(maps.Keys(d.devices)) {
		if d.isMember(id) {
			dev := d.devices[id]
			dev.Addrs = slices.Clone(dev.Addrs)
			dev.Site = slices.Clone(dev.Site)
			list = append(list, dev)
		}
	}
	return list
}

// PutVM writes the record of a VM that this device owns by its chain. Term,
// Owner, Head and Heeds are filled in, and At if it is zero. Errors: ErrNotOwner,
// ErrInvalid, ErrNoSpace, ErrUnsure, ErrClosed, and Sign's.
func (d *Directory) PutVM(vm VM) error {
	d.write.Lock()
	defer d.write.Unlock()
	if err := d.putVM(vm); err != nil {
		return fmt.Errorf("directory: put vm: %w", err)
	}
	return nil
}

// RemoveVM marks a VM that this device owns as removed, everywhere. Its history
// stays. Errors: ErrNotFound and those of PutVM.
func (d *Directory) RemoveVM(id string) error {
	d.write.Lock()
	defer d.write.Unlock()
	vm, ok := d.effective(id)
	if !ok {
		return fmt.Errorf("directory: remove vm: %w", ErrNotFound)
	}
	if err := d.putVM(VM{ID: id, Name: vm.Name, Removed: true}); err != nil {
		return fmt.Errorf("directory: remove vm: %w", err)
	}
	return nil
}

func (d *Directory) putVM(vm VM) error {
	head := d.preferred(vm.ID)
	if head == nil || head.To != d.opt.Self {
		return ErrNotOwner
	}
	vm.Term, vm.Owner, vm.Head, vm.Heeds = head.Term, d.opt.Self, head.hash, d.heeds(head)
	if vm.At.IsZero() {
		vm.At = d.now().UTC()
	}
	if err := vm.check(); err != nil {
		return err
	}
	value, err := encodeValue(vm)
	if err != nil {
		return err
	}
	key := vmKey(vm.ID, head.root)
	return d.write1(key, max(d.records[key].Version, vm.Term<<32)+1, value)
}

// write1 signs and commits one record.
func (d *Directory) write1(key string, version uint64, value []byte) error {
	r, err := d.sign(key, version, value)
	if err != nil {
		return err
	}
	entries := map[string][]byte{}
	if err := d.put(entries, r); err != nil {
		return err
	}
	return d.commit(entries, true)
}

// VMs returns all VMs that were not removed, in the order of IDs.
func (d *Directory) VMs() []VM {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var list []VM
	for _, id := range slices.Sorted(maps.Keys(d.vms)) {
		if vm, ok := d.vm(id); ok {
			list = append(list, vm)
		}
	}
	return list
}

// VM returns one VM; ok is false if it is unknown or removed. It is what the preferred head's owner has said, or,
// before it has, an owner before it. Before anybody has, the VM is unknown, though Owner may know it already.
func (d *Directory) VM(id string) (vm VM, ok bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.vm(id)
}

// VMRecord is the signed record of the VM in the preferred branch, whoever wrote it last. The caller doesn't change its bytes.
func (d *Directory) VMRecord(id string) (r Record, ok bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	head := d.preferred(id)
	if head == nil {
		return r, false
	}
	r, ok = d.records[vmKey(id, head.root)]
	return r, ok
}

// Removed says that the VM's owner has removed it: that word is here, signed. It is false of
// a VM of which nothing is known (yet).
func (d *Directory) Removed(id string) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.isGone(id)
}

func (d *Directory) isGone(id string) bool {
	vm, _ := d.effective(id)
	return vm.Removed
}

func (d *Directory) vm(id string) (VM, bool) {
	vm, ok := d.effective(id)
	if !ok || vm.Removed {
		return VM{}, false
	}
	vm.Spec = slices.Clone(vm.Spec)
	vm.Replicas, vm.Heeds = maps.Clone(vm.Replicas), slices.Clone(vm.Heeds)
	if head := d.preferred(id); head != nil {
		vm.Term, vm.Owner, vm.Head = head.Term, head.To, head.hash
	}
	return vm, true
}

// effective returns the newest word of the preferred head's ancestry, or, if that was overwritten by the other side's of a
// branch that began with a hand-off, the newest that is there.
func (d *Directory) effective(id string) (VM, bool) {
	records := d.vms[id]
	head := d.preferred(id)
	for n := head; n != nil; {
		vm, ok := records[vmKey(id, n.root)]
		if at := d.trees[id].terms[vm.Term]; ok && at != nil && head.descends(at) {
			return vm, true
		}
		if n.root == 0 {
			break
		}
		n = d.trees[id].terms[n.root].parent
	}
	var best VM
	for _, vm := range records {
		if !vm.Removed && vm.Term > best.Term {
			best = vm
		}
	}
	return best, best.ID != ""
}
