package app

import (
	"log/slog"
	"sync/atomic"

	"tagalong.org/tagalong/directory"
)

// fleet lends the directory's allow-list and address book to the network, which is built first
// because the directory is signed with its key. Until set, nobody is allowed.
type fleet struct {
	dir atomic.Pointer[directory.Directory]
	log atomic.Pointer[slog.Logger]
}

func (f *fleet) set(d *directory.Directory, log *slog.Logger) {
	f.log.Store(log)
	f.dir.Store(d)
}

// Allowed says whether the device is paired.
func (f *fleet) Allowed(id string) bool {
	d := f.dir.Load()
	return d != nil && d.IsMember(id)
}

// List is the IDs of the paired devices.
func (f *fleet) List() []string {
	d := f.dir.Load()
	if d == nil {
		return nil
	}
	var ids []string
	for _, m := range d.Members() {
		ids = append(ids, m.ID)
	}
	return ids
}

// Load is the addresses at which the device was last reached from here, or, if it never was, those that it says it has: this
// device may know it only from another one.
func (f *fleet) Load(id string) []string {
	d := f.dir.Load()
	if d == nil {
		return nil
	}
	for _, m := range d.Members() {
		if m.ID == id && len(m.Addrs) > 0 {
			return m.Addrs
		}
	}
	for _, device := range d.Devices() {
		if device.ID == id {
			return device.Addrs
		}
	}
	return nil
}

// Save remembers the device's addresses.
func (f *fleet) Save(id string, addrs []string) {
	d := f.dir.Load()
	if d == nil {
		return
	}
	if err := d.SetAddrs(id, addrs); err != nil {
		f.log.Load().Warn("Remembering a device's addresses failed", "device", id, "error", err)
	}
}
