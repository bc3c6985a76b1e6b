package volumes

import (
	"errors"
	"fmt"
	"slices"
)

const (
	// Version is the newest format of a table that is understood.
	Version = 1
	// Unit is what extents begin at a multiple of, in bytes. They may end in between, in whole blocks of 4 KiB; what is left of
	// that unit is nobody's.
	Unit = 1 << 20
	// MaxSpace is how large an address space can be, in bytes: what a disk store can hold.
	MaxSpace = 16 << 40
	// MaxVolumes and MaxExtents bound a table, with all that was removed, and one volume.
	MaxVolumes = 128
	MaxExtents = 128
	// MaxName is how long a volume's name may be, in bytes.
	MaxName = 64

	block = 4096
	maxID = 20
)

var (
	// ErrInvalid says that a table contradicts itself, or exceeds a bound.
	ErrInvalid = errors.New("volumes: invalid table")
	// ErrVersion says that a later version wrote the table.
	ErrVersion = errors.New("volumes: table of a later version")
	// ErrUnknown says that there is no such volume, or none any more.
	ErrUnknown = errors.New("volumes: no such volume")
	// ErrSmaller says that a volume can't become smaller.
	ErrSmaller = errors.New("volumes: a volume can't become smaller")
	// ErrFull says that the address space, or the table, has no room.
	ErrFull = errors.New("volumes: no room for that")
	// ErrFirst says that the first disk can't be removed.
	ErrFirst = errors.New("volumes: the first disk can't be removed")
	// ErrName says that a name is too long, isn't plain text, or is another volume's.
	ErrName = errors.New("volumes: unusable name")
)

// Kind is what a volume is for.
type Kind string

// The kinds. A later version may know more: their place is respected, and nothing else is done with them.
const (
	Disk   Kind = "disk"   // a disk of the guest's
	Vars   Kind = "vars"   // the variables of its firmware
	Memory Kind = "memory" // its memory, while it is suspended
)

// Extent is a run of Bytes at At of the store's address space.
type Extent struct {
	At    int64 `json:"at"`
	Bytes int64 `json:"bytes"`
}

// Volume is one of the parts. Its content is that of its extents, one after the other.
type Volume struct {
	// ID names it for good: up to 20 letters and digits.
	ID   string `json:"id"`
	Kind Kind   `json:"kind"`
	// Name is what the person calls it; "" is its ID.
	Name    string   `json:"name,omitempty"`
	Extents []Extent `json:"extents"`
	// Removed says that nothing uses it any more. Its place stays its own.
	Removed bool `json:"removed,omitempty"`
	// Making says that it isn't whole yet: it is being filled, or was when that was interrupted. Nobody sees it.
	Making bool `json:"making,omitempty"`
}

// Bytes is the volume's size.
func (v Volume) Bytes() int64 {
	var n int64
	for _, e := range v.Extents {
		n += e.Bytes
	}
	return n
}

// Called is what a person reads.
func (v Volume) Called() string {
	if v.Name != "" {
		return v.Name
	}
	return v.ID
}

// Table is all volumes of a VM, in the order in which they were made. The zero Table has none. It is never changed in place:
// what its methods return shares nothing with it that anybody changes.
type Table struct {
	Version int      `json:"version"`
	Volumes []Volume `json:"volumes"`
}

// One is the table of a store that is one disk of that many bytes.
func One(bytes int64) Table {
	return Table{Version: Version, Volumes: []Volume{{ID: "disk1", Kind: Disk, Extents: []Extent{{Bytes: bytes}}}}}
}

// IsZero says that there is no table.
func (t Table) IsZero() bool { return t.Version == 0 && len(t.Volumes) == 0 }

// Check says whether the table may be used. Errors: ErrInvalid, ErrVersion.
func (t Table) Check() error {
	switch {
	case t.Version > Version:
		return fmt.Errorf("version %d: %w", t.Version, ErrVersion)
	case t.Version < 1, len(t.Volumes) == 0, len(t.Volumes) > MaxVolumes:
		return fmt.Errorf("version %d with %d volumes: %w", t.Version, len(t.Volumes), ErrInvalid)
	}
	ids := map[string]bool{}
	var all []Extent
	for i, v := range t.Volumes {
		if !validID(v.ID) || ids[v.ID] || len(v.Name) > MaxName || len(v.Extents) == 0 || len(v.Extents) > MaxExtents {
			return fmt.Errorf("volume %d: %w", i, ErrInvalid)
		}
		ids[v.ID] = true
		for j, e := range v.Extents {
			if e.At < 0 || e.At%Unit != 0 || e.Bytes <= 0 || e.At > MaxSpace || e.Bytes > MaxSpace-e.At || e.Bytes%block != 0 || i == 0 && j == 0 && e.At != 0 {
				return fmt.Errorf("extent %d of volume %d: %w", j, i, ErrInvalid)
			}
			all = append(all, e)
		}
	}
	if first := t.Volumes[0]; first.Kind != Disk || first.Removed {
		return fmt.Errorf("the first volume: %w", ErrInvalid)
	}
	slices.SortFunc(all, func(a, b Extent) int {
		switch {
		case a.At < b.At:
			return -1
		case a.At > b.At:
			return 1
		}
		return 0
	})
	for i := 1; i < len(all); i++ {
		if all[i].At < all[i-1].At+all[i-1].Bytes {
			return fmt.Errorf("extents overlap at %d: %w", all[i].At, ErrInvalid)
		}
	}
	return nil
}

func validID(id string) bool {
	if id == "" || len(id) > maxID {
		return false
	}
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return true
}

// Space is how large the store must be, in bytes: where the unit ends in which the last extent does. One that is the first disk alone
// is as large as that.
func (t Table) Space() int64 {
	var at, end int64
	for _, v := range t.Volumes {
		for _, e := range v.Extents {
			at, end = max(at, e.At), max(end, e.At+e.Bytes)
		}
	}
	if at == 0 {
		return end
	}
	return Round(end)
}

// Find is the volume with that ID, or with that name, unless it was removed.
func (t Table) Find(what string) (Volume, bool) {
	for _, by := range []func(v Volume) string{func(v Volume) string { return v.ID }, func(v Volume) string { return v.Name }} {
		for _, v := range t.Volumes {
			if !v.Removed && what != "" && by(v) == what {
				return v, true
			}
		}
	}
	return Volume{}, false
}

// Of are the volumes of a kind that weren't removed.
func (t Table) Of(kind Kind) []Volume {
	var list []Volume
	for _, v := range t.Volumes {
		if v.Kind == kind && !v.Removed {
			list = append(list, v)
		}
	}
	return list
}

// Extends says that t may have become of old by Add, Made, Grow and Remove, or is old: every place means the same in both.
func (t Table) Extends(old Table) bool {
	if len(t.Volumes) < len(old.Volumes) {
		return false
	}
	for i, o := range old.Volumes {
		v := t.Volumes[i]
		if v.ID != o.ID || v.Kind != o.Kind || o.Removed && !v.Removed || !o.Making && v.Making || len(v.Extents) < len(o.Extents) {
			return false
		}
		for j, e := range o.Extents {
			last := j == len(o.Extents)-1
			if v.Extents[j].At != e.At || v.Extents[j].Bytes < e.Bytes || !last && v.Extents[j].Bytes != e.Bytes {
				return false
			}
		}
	}
	return true
}
