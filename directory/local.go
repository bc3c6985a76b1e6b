package directory

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Member is a device of the fleet as this one knows it: the allow-list.
type Member struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	Addrs    []string  `json:"addrs,omitempty"` // last known
	PairedAt time.Time `json:"pairedAt,omitzero"`
	// Removed keeps the place of a device that left.
	Removed bool `json:"removed,omitempty"`
}

// Entry is something local that is stored in the same commit as a transfer.
type Entry struct {
	key   string
	value []byte
}

// BatonEntry is the hand-off's state of a VM; see SaveBaton.
func BatonEntry(vm string, state []byte) Entry { return Entry{"baton/" + vm, state} }

// LocalEntry is a local value; see SetLocal.
func LocalEntry(key string, value []byte) Entry { return Entry{"kv/" + key, value} }

// AddMember lets a device into the fleet, or changes what is known of it.
// Errors: ErrInvalid, ErrNoSpace, ErrUnsure, ErrClosed.
func (d *Directory) AddMember(m Member) error {
	m.Removed = false
	return d.putMember(m)
}

// RemoveMember takes a device out of the fleet: its records are refused from now
// on, and what it wrote of itself is shown no more. Unknown ones are no error.
func (d *Directory) RemoveMember(id string) error {
	d.mu.RLock()
	m, ok := d.members[id]
	d.mu.RUnlock()
	if !ok || m.Removed {
		return nil
	}
	m.Removed = true
	return d.putMember(m)
}

// SetAddrs notes the addresses at which a member was last reached. Errors:
// ErrNotFound and those of AddMember.
func (d *Directory) SetAddrs(id string, addrs []string) error {
	d.mu.RLock()
	m, ok := d.members[id]
	d.mu.RUnlock()
	if !ok || m.Removed {
		return fmt.Errorf("directory: addresses: %w", ErrNotFound)
	}
	if slices.Equal(m.Addrs, addrs) {
		return nil
	}
	m.Addrs = slices.Clone(addrs)
	return d.putMember(m)
}

func (d *Directory) putMember(m Member) error {
	dev := Device{ID: m.ID, Name: m.Name, Addrs: m.Addrs}
	if err := dev.check(); err != nil {
		return fmt.Errorf("directory: member: %w", err)
	}
	b, err := encodeValue(m)
	if err != nil {
		return fmt.Errorf("directory: member: %w", err)
	}
	d.write.Lock()
	defer d.write.Unlock()
	if err := d.commit(map[string][]byte{"local/member/" + m.ID: b}, true); err != nil {
		return fmt.Errorf("directory: member: %w", err)
	}
	return nil
}

// Members returns the fleet without this device, in the order of IDs.
func (d *Directory) Members() []Member {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var list []Member
	for _, id := range slices.Sorted(maps.Keys(d.members)) {
		if m := d.members[id]; !m.Removed {
			m.Addrs = slices.Clone(m.Addrs)
			list = append(list, m)
		}
	}
	return list
}

// IsMember tells whether a device is in the fleet; this one always is.
func (d *Directory) IsMember(id string) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.isMember(id)
}

func (d *Directory) isMember(id string) bool {
	m, ok := d.members[id]
	return id == d.opt.Self || ok && !m.Removed
}

// SaveBaton stores the state of a VM's hand-off durably. Errors: ErrInvalid,
// ErrNoSpace, ErrUnsure, ErrClosed.
func (d *Directory) SaveBaton(vm string, state []byte) error {
	return d.setLocal(BatonEntry(vm, state))
}

// LoadBaton returns a copy of what SaveBaton or BatonEntry stored, or ErrNotFound.
func (d *Directory) LoadBaton(vm string) ([]byte, error) { return d.getLocal("baton/" + vm) }

// SetLocal stores a value of this device durably; it is never sent to others.
// Errors: ErrInvalid (larger than MaxValue), ErrNoSpace, ErrUnsure, ErrClosed.
func (d *Directory) SetLocal(key string, value []byte) error {
	return d.setLocal(LocalEntry(key, value))
}

// Local returns a copy of a value of this device, or ErrNotFound.
func (d *Directory) Local(key string) ([]byte, error) { return d.getLocal("kv/" + key) }

func (d *Directory) setLocal(e Entry) error {
	d.write.Lock()
	defer d.write.Unlock()
	entries := map[string][]byte{}
	if err := d.putLocal(entries, e); err != nil {
		return fmt.Errorf("directory: local: %w", err)
	}
	if err := d.commit(entries, false); err != nil {
		return fmt.Errorf("directory: local: %w", err)
	}
	return nil
}

func (d *Directory) putLocal(entries map[string][]byte, list ...Entry) error {
	for _, e := range list {
		if len(e.key) > MaxKey || strings.HasSuffix(e.key, "/") || len(e.value) > MaxValue {
			return fmt.Errorf("entry %.40q of %d bytes: %w", e.key, len(e.value), ErrInvalid)
		}
		if _, ok := d.local[e.key]; !ok && len(d.local) >= MaxRecords {
			return ErrFull
		}
		entries["local/"+e.key] = append([]byte{}, e.value...)
	}
	return nil
}

func (d *Directory) getLocal(key string) ([]byte, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	v, ok := d.local[key]
	if !ok {
		return nil, fmt.Errorf("directory: local %.40q: %w", key, ErrNotFound)
	}
	return append([]byte{}, v...), nil
}

func (d *Directory) rememberLocal(key string, value []byte) error {
	id, ok := strings.CutPrefix(key, "member/")
	if !ok {
		d.local[key] = value
		return nil
	}
	m, err := decodeValue[Member](value)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	d.members[id] = m
	return nil
}

func sortedKeys(m map[string][]byte) []string { return slices.Sorted(maps.Keys(m)) }
