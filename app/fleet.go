package app

import (
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"tagalong.org/tagalong/directory"
)

// fleet lends the directory's allow-list and address book to the network, which is built first
// because the directory is signed with its key. Until set, nobody is allowed.
type fleet struct {
	dir atomic.Pointer[directory.Directory]
	log atomic.Pointer[slog.Logger]
	// gone is where devices were last met that aren't in the fleet: []string by ID.
	gone sync.Map
}

func (f *fleet) set(d *directory.Directory, log *slog.Logger) {
	f.log.Store(log)
	f.dir.Store(d)
}

// Allowed says whether the device is in the fleet.
func (f *fleet) Allowed(id string) bool {
	d := f.dir.Load()
	return d != nil && d.IsMember(id)
}

// List is the IDs of the devices of the fleet.
func (f *fleet) List() []string {
	d := f.dir.Load()
	if d == nil {
		return nil
	}
	return idsOf(d.Members())
}

// Load is the device's last known addresses: where it was reached from here, then where it says that it listens.
func (f *fleet) Load(id string) []string {
	d := f.dir.Load()
	if d == nil {
		return nil
	}
	var addrs []string
	if at, met := f.gone.Load(id); met {
		addrs = at.([]string)
	}
	for _, m := range slices.Concat(d.Members(), d.RemovedMembers(), d.Former()) {
		if m.ID == id {
			addrs = slices.Concat(addrs, m.Addrs)
		}
	}
	for _, dev := range d.Devices() {
		if dev.ID != id {
			continue
		}
		for _, a := range dev.Addrs {
			if !slices.Contains(addrs, a) {
				addrs = append(addrs, a)
			}
		}
	}
	return addrs
}

// Save remembers the device's addresses; those of one that has left only as long as the engine runs.
func (f *fleet) Save(id string, addrs []string) {
	d := f.dir.Load()
	if d == nil {
		return
	}
	if !d.IsMember(id) {
		f.gone.Store(id, addrs)
		return
	}
	f.gone.Delete(id)
	if err := d.SetAddrs(id, addrs); err != nil {
		f.log.Load().Warn("Remembering a device's addresses failed", "device", id, "error", err)
	}
}

// farewells are the devices that left the fleet, or the fleet that this device left: they may be told so, and say so.
type farewells struct{ *fleet }

// Allowed says whether the device may be reached to say farewell. That one has been told already doesn't matter: it may not
// have understood, or have been set back to before.
func (f farewells) Allowed(id string) bool {
	d := f.dir.Load()
	return d != nil && slices.Contains(idsOf(slices.Concat(d.RemovedMembers(), d.Former())), id)
}

// List is the IDs of those to be dialled, because they have to be told.
func (f farewells) List() []string {
	d := f.dir.Load()
	if d == nil {
		return nil
	}
	return idsOf(toldNothing(d))
}

// toldNothing are the devices that this one has to say farewell to: those that others removed and that don't know, and if this
// one has left, those that it left, until one of them knows. That one tells the rest.
func toldNothing(d *directory.Directory) []directory.Member {
	list := d.Former()
	if slices.ContainsFunc(list, func(m directory.Member) bool { return m.Told }) {
		list = nil
	}
	for _, m := range d.RemovedMembers() {
		if !m.Told && m.By != m.ID {
			list = append(list, m)
		}
	}
	return list
}

func idsOf(list []directory.Member) []string {
	ids := make([]string, 0, len(list))
	for _, m := range list {
		ids = append(ids, m.ID)
	}
	return ids
}
