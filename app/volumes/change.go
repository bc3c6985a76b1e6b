package volumes

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Round is bytes, rounded up to whole units.
func Round(bytes int64) int64 {
	if bytes > MaxSpace {
		return bytes // refused wherever it is used
	}
	return (bytes + Unit - 1) / Unit * Unit
}

// clone is a table whose volumes can be changed.
func (t Table) clone() Table {
	t.Volumes = slices.Clone(t.Volumes)
	for i := range t.Volumes {
		t.Volumes[i].Extents = slices.Clone(t.Volumes[i].Extents)
	}
	return t
}

// room is where n more bytes can be placed: beyond all there is. Nothing that was used before is used again.
func (t Table) room(n int64) (Extent, error) {
	at := Round(t.Space())
	if n <= 0 || n%block != 0 {
		return Extent{}, fmt.Errorf("%d bytes: %w", n, ErrInvalid)
	}
	if at > MaxSpace || n > MaxSpace-at {
		return Extent{}, fmt.Errorf("%d bytes beside %d: %w", n, at, ErrFull)
	}
	return Extent{At: at, Bytes: n}, nil
}

// Begin is Add of a volume that has to be filled before anybody may see it: see Made.
func (t Table) Begin(kind Kind, name string, bytes int64) (Table, Volume, error) {
	out, v, err := t.Add(kind, name, bytes)
	if err != nil {
		return t, v, err
	}
	v.Making = true
	out.Volumes[len(out.Volumes)-1].Making = true
	return out, v, nil
}

// Add makes a volume of that many bytes, a multiple of 4 KiB. name may be "". Errors: ErrInvalid, ErrFull, ErrName.
func (t Table) Add(kind Kind, name string, bytes int64) (Table, Volume, error) {
	if len(t.Volumes) >= MaxVolumes {
		return t, Volume{}, fmt.Errorf("volumes: add: %d already: %w", len(t.Volumes), ErrFull)
	}
	if err := t.checkName(name); err != nil {
		return t, Volume{}, fmt.Errorf("volumes: add: %w", err)
	}
	place, err := t.room(bytes)
	if err != nil {
		return t, Volume{}, fmt.Errorf("volumes: add: %w", err)
	}
	v := Volume{ID: t.freshID(kind), Kind: kind, Name: name, Extents: []Extent{place}}
	out := t.clone()
	out.Version = Version
	out.Volumes = append(out.Volumes, v)
	return out, v, nil
}

func (t Table) checkName(name string) error {
	if len(name) > MaxName || !utf8.ValidString(name) || strings.TrimSpace(name) != name || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return ErrName
	}
	for _, v := range t.Volumes {
		if name != "" && !v.Removed && (v.Name == name || v.ID == name) {
			return fmt.Errorf("%q: %w", name, ErrName)
		}
	}
	return nil
}

// freshID is an ID, or name, that nothing here has or had.
func (t Table) freshID(kind Kind) string {
	taken := map[string]bool{}
	for _, v := range t.Volumes {
		taken[v.ID], taken[v.Name] = true, true
	}
	for n := 1; ; n++ {
		if id := fmt.Sprint(kind, n); !taken[id] {
			return id
		}
	}
}

// Grow makes a volume that many bytes large, a multiple of Unit. One that is as large already stays as it is.
// Errors: ErrUnknown, ErrInvalid, ErrSmaller, ErrFull.
func (t Table) Grow(id string, bytes int64) (Table, error) {
	out := t.clone()
	for i := range out.Volumes {
		v := &out.Volumes[i]
		if v.ID != id || v.Removed {
			continue
		}
		more := bytes - v.Bytes()
		switch {
		case bytes%Unit != 0:
			return t, fmt.Errorf("volumes: grow: to %d bytes: %w", bytes, ErrInvalid)
		case more < 0:
			return t, fmt.Errorf("volumes: grow: %s from %d to %d bytes: %w", id, v.Bytes(), bytes, ErrSmaller)
		case more == 0:
			return t, nil
		}
		place, err := t.room(more)
		if err != nil {
			return t, fmt.Errorf("volumes: grow: %w", err)
		}
		last := &v.Extents[len(v.Extents)-1]
		if Round(last.At+last.Bytes) == place.At {
			// It ends where the space does, and goes on there.
			last.Bytes += more
			return out, nil
		}
		if len(v.Extents) >= MaxExtents {
			return t, fmt.Errorf("volumes: grow: %s is in %d pieces: %w", id, len(v.Extents), ErrFull)
		}
		v.Extents = append(v.Extents, place)
		return out, nil
	}
	return t, fmt.Errorf("volumes: grow: %q: %w", id, ErrUnknown)
}

// Made says of a volume that was Making that it is whole. Errors: ErrUnknown.
func (t Table) Made(id string) (Table, error) {
	out := t.clone()
	for i := range out.Volumes {
		if v := &out.Volumes[i]; v.ID == id && !v.Removed {
			v.Making = false
			return out, nil
		}
	}
	return t, fmt.Errorf("volumes: made: %q: %w", id, ErrUnknown)
}

// Remove marks a volume as removed. Its content should be trimmed. Errors: ErrUnknown, ErrFirst.
func (t Table) Remove(id string) (Table, error) {
	out := t.clone()
	for i := range out.Volumes {
		if v := &out.Volumes[i]; v.ID == id && !v.Removed {
			if i == 0 {
				return t, fmt.Errorf("volumes: remove: %w", ErrFirst)
			}
			v.Removed = true
			return out, nil
		}
	}
	return t, fmt.Errorf("volumes: remove: %q: %w", id, ErrUnknown)
}
