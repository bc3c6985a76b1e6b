package fleetsim

import (
	"tagalong.org/tagalong/vmdisk"
)

// grow is the person's, on d: the owner makes the disk larger, if it is there. The fleet is told before, as package app does.
func (w *world) grow(d *device) {
	if _, owner, ok := d.e.dir.Owner(vmID); ok && d.sees[owner] {
		d = w.dev(owner)
	}
	e := d.e
	if e == nil || !e.owner() || e.disk == nil || d.burnt() || !e.disk.Info().Active {
		return
	}
	size := (e.disk.Size()/vmdisk.GrowUnit + 1 + int64(w.rng.IntN(2))) * vmdisk.GrowUnit
	if size > mostSize || !w.tellsSize(d, size) {
		return
	}
	w.note("%s's disk becomes larger: %d bytes", d.id, size)
	d.touched = true
	if err := e.disk.Resize(size); err != nil {
		w.trouble(d, "grow", err)
		return
	}
	w.acts.grown++
}

// tellsSize has an owner tell the fleet how large the disk is, or is to be; false if it can't.
func (w *world) tellsSize(d *device, size int64) bool {
	vm, ok := d.e.dir.VM(vmID)
	if !ok || vm.DiskBytes >= size {
		return ok
	}
	if _, owner, _ := d.e.dir.Owner(vmID); !d.e.owner() || owner != d.id {
		return false
	}
	vm.DiskBytes = size
	if err := d.e.dir.PutVM(vm); err != nil {
		w.note("%s can't tell how large the disk is: %v", d.id, err)
		return false
	}
	return true
}

// fits has p make its replica as large as the disk of which d speaks; false if p hasn't heard of that size, or can't.
func (w *world) fits(p *device, size int64) bool {
	if p.e.disk.Size() >= size {
		return true
	}
	if vm, ok := p.e.dir.VM(vmID); !ok || vm.DiskBytes < size {
		w.note("%s hasn't heard of a disk of %d bytes", p.id, size)
		return false
	}
	if err := p.e.disk.Reach(size); err != nil {
		w.trouble(p, "grow a replica", err)
		return false
	}
	w.acts.followed++
	return true
}
