package directory

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// Digest returns the version of every record that is for others, in a map of the
// caller's.
func (d *Directory) Digest() map[string]uint64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	m := make(map[string]uint64, len(d.records))
	for k, r := range d.records {
		if d.tells(r) {
			m[k] = r.Version
		}
	}
	return m
}

// tells is false of what a removed device said of itself, of words about a
// device's standing that newer ones have ended, and of replicas that count no more.
func (d *Directory) tells(r Record) bool {
	switch kindOf(r.Key) {
	case "device":
		return d.isMember(r.Writer)
	case replicaKind:
		return d.tellsReplica(r.Key)
	case "member":
		_, rest, _ := strings.Cut(r.Key, "/")
		id, _, _ := strings.Cut(rest, "/")
		return r.Version>>2 == d.standings[id].Gen
	}
	return true
}

// Get returns the records of these keys that exist. The caller doesn't change
// their bytes.
func (d *Directory) Get(keys []string) []Record {
	d.mu.RLock()
	defer d.mu.RUnlock()
	list := make([]Record, 0, min(len(keys), len(d.records)))
	for _, k := range keys {
		if r, ok := d.records[k]; ok && d.tells(r) {
			list = append(list, r)
		}
	}
	return list
}

// Apply verifies a record that the device from has sent, and stores it durably
// if it is newer. nil means that it is stored, or that it or a newer one is known.
// From a member, what a removed device has written of VMs is accepted too: without it
// nobody could follow their history. What nobody honest can have sent is counted against from: see Strikes. It takes r's
// bytes over. Errors: as AppendTransfer, and ErrUnknownDevice, ErrFuture.
func (d *Directory) Apply(from string, r Record) error {
	if err := d.applyLocked(from, r); err != nil {
		return fmt.Errorf("directory: apply %.80q: %w", r.Key, err)
	}
	if kindOf(r.Key) == replicaKind {
		d.collect()
	}
	return nil
}

func (d *Directory) applyLocked(from string, r Record) error {
	d.write.Lock()
	defer d.write.Unlock()
	err := d.apply(from, r)
	if err != nil {
		d.struck(from, r, err)
	}
	return err
}

func (d *Directory) apply(from string, r Record) error {
	if !d.isMember(from) {
		return fmt.Errorf("sender: %w", ErrUnknownDevice)
	}
	if err := r.checkSize(); err != nil {
		return err
	}
	switch kindOf(r.Key) {
	case "transfer":
		t, err := readTransfer(r)
		if err != nil {
			return err
		}
		err = d.appendTransfer(t, nil)
		if errors.Is(err, ErrFork) && d.hasFork(t) {
			return nil // kept
		}
		return err
	case "fork":
		return d.applyFork(r)
	case "member":
		return d.applyMember(r)
	case "vm":
		vm, err := readVM(r)
		if err != nil {
			return err
		}
		if err := d.ownsTerm(vm.ID, vm.Term, vm.Owner, vm.Head); err != nil {
			return err
		}
		if r.Key != vmKey(vm.ID, d.trees[vm.ID].terms[vm.Term].root) {
			return fmt.Errorf("key of another branch: %w", ErrInvalid)
		}
	case "vmnote":
		n, err := readNote(r)
		if err != nil {
			return err
		}
		if err := d.mayNote(n, r.Writer); err != nil {
			return err
		}
	case replicaKind:
		if void, err := d.mayReplica(from, r); void || err != nil {
			return err
		}
	case "device":
		if !d.isMember(r.Writer) {
			return fmt.Errorf("writer: %w", ErrUnknownDevice)
		}
		if _, err := readDevice(r); err != nil {
			return err
		}
	case "local", "meta", "chunk", r.Key:
		return fmt.Errorf("kind of record: %w", ErrInvalid)
	default:
		return fmt.Errorf("kind of record: %w", ErrVersion)
	}
	if done, err := d.newer(r); done || err != nil {
		return err
	}
	entries := map[string][]byte{}
	if err := d.put(entries, r); err != nil {
		return err
	}
	return d.commit(entries, true)
}

// newer says that there is nothing to do for r, or verifies it.
func (d *Directory) newer(r Record) (done bool, err error) {
	old, ok := d.records[r.Key]
	if ok && old.Version >= r.Version {
		if old.Version == r.Version && !bytes.Equal(old.Value, r.Value) {
			return false, fmt.Errorf("%w: %w", errSame, ErrInvalid)
		}
		return true, nil
	}
	return false, d.verify(r)
}

// hasFork says that t is kept as evidence.
func (d *Directory) hasFork(t SignedTransfer) bool {
	_, ok := d.records[forkKey(t)]
	return ok
}
