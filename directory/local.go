package directory

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Entry is something local that is stored in the same commit as a transfer.
type Entry struct {
	key   string
	value []byte
	term  uint64 // if not 0, only a condition
}

// IfTerm is nothing to store, but a condition: unless the transfer begins this term, nothing is stored, and the error is
// ErrChain. It is for entries that name the term of a transfer which is still to be signed.
func IfTerm(term uint64) Entry { return Entry{term: term} }

// BatonEntry is the hand-off's state of a VM; see SaveBaton.
func BatonEntry(vm string, state []byte) Entry { return Entry{key: "baton/" + vm, value: state} }

// LocalEntry is a local value; see SetLocal.
func LocalEntry(key string, value []byte) Entry { return Entry{key: "kv/" + key, value: value} }

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

// DropLocal deletes values of this device, of which only the names are looked at; one that isn't there is fine.
// Errors: ErrNoSpace, ErrUnsure, ErrClosed.
func (d *Directory) DropLocal(list ...Entry) error {
	d.write.Lock()
	defer d.write.Unlock()
	entries := map[string][]byte{}
	for _, e := range list {
		if _, ok := d.local[e.key]; ok {
			entries["local/"+e.key] = nil
		}
	}
	if len(entries) == 0 {
		return nil
	}
	if err := d.commit(entries, false); err != nil {
		return fmt.Errorf("directory: local: %w", err)
	}
	return nil
}

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
		if e.term != 0 {
			continue
		}
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

func (d *Directory) rememberLocal(key string, value []byte) (err error) {
	if id, ok := strings.CutPrefix(key, "member/"); ok {
		return d.rememberLocalMember(id, value)
	}
	if from, ok := strings.CutPrefix(key, "strikes/"); ok {
		return d.rememberStrikes(from, value)
	}
	if "local/"+key == exileKey {
		d.exile, err = readExile(value)
		return err
	}
	d.local[key] = value
	return nil
}

func (d *Directory) forgetLocal(key string) {
	if id, ok := strings.CutPrefix(key, "member/"); ok {
		delete(d.members, id)
	}
	delete(d.local, key)
}

func sortedKeys(m map[string][]byte) []string { return slices.Sorted(maps.Keys(m)) }
