package directory

import (
	"bytes"
	"errors"
	"fmt"
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

// tells is false of what a removed device said of itself, and of replicas that count no more.
func (d *Directory) tells(r Record) bool {
	switch kindOf(r.Key) {
	case "device":
		return d.isMember(r.Writer)
	case replicaKind:
		return d.tellsReplica(r.Key)
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
// The transfers of a device that isn't in the fleet (any more) are accepted from
// one that is: without them nobody could follow a VM's chain. It takes r's bytes over.
// Errors: as AppendTransfer, and ErrUnknownDevice.
func (d *Directory) Apply(from string, r Record) error {
	if err := d.apply(from, r); err != nil {
		return fmt.Errorf("directory: apply %.80q: %w", r.Key, err)
	}
	if kindOf(r.Key) == replicaKind {
		d.collect()
	}
	return nil
}

func (d *Directory) apply(from string, r Record) error {
	if err := r.checkSize(); err != nil {
		return err
	}
	kind := kindOf(r.Key)
	switch kind {
	case "device", "vm", "transfer", "fork", replicaKind:
	default:
		return fmt.Errorf("kind of record: %w", ErrInvalid)
	}
	d.write.Lock()
	defer d.write.Unlock()
	if !d.isMember(from) {
		return fmt.Errorf("sender: %w", ErrUnknownDevice)
	}
	switch kind {
	case "transfer":
		t, err := readTransfer(r)
		if err != nil {
			return err
		}
		err = d.appendTransfer(t, nil)
		if errors.Is(err, ErrFork) {
			return nil // kept
		}
		return err
	case "fork":
		return d.applyFork(r)
	}
	if !d.isMember(r.Writer) {
		return fmt.Errorf("writer: %w", ErrUnknownDevice)
	}
	switch kind {
	case "vm":
		vm, err := readVM(r)
		if err != nil {
			return err
		}
		if err := d.wroteAsOwner(vm); err != nil {
			return err
		}
	case replicaKind:
		if void, err := d.mayReplica(r); void || err != nil {
			return err
		}
	default:
		if _, err := readDevice(r); err != nil {
			return err
		}
	}
	old, ok := d.records[r.Key]
	if ok && old.Version >= r.Version {
		if old.Version == r.Version && !bytes.Equal(old.Value, r.Value) {
			return fmt.Errorf("another value of the same version: %w", ErrInvalid)
		}
		return nil
	}
	if err := d.verify(r); err != nil {
		return err
	}
	entries := map[string][]byte{}
	if err := d.put(entries, r); err != nil {
		return err
	}
	return d.commit(entries, true)
}

// wroteAsOwner tells whether the chain gives vm's term to its writer.
func (d *Directory) wroteAsOwner(vm VM) error {
	chain := d.chains[vm.ID]
	if vm.Term > uint64(len(chain)) {
		return fmt.Errorf("term %d after %d: %w", vm.Term, len(chain), ErrGap)
	}
	t := chain[vm.Term-1]
	if t.To != vm.Owner {
		return ErrNotOwner
	}
	if t.Hash() != vm.Head {
		return fmt.Errorf("head of term %d: %w", vm.Term, ErrFork)
	}
	return nil
}

func (d *Directory) applyFork(r Record) error {
	if _, ok := d.records[r.Key]; ok {
		return nil
	}
	t, err := readFork(r)
	if err != nil {
		return err
	}
	if t.Term > uint64(len(d.chains[t.VM])) {
		return ErrGap
	}
	if d.chains[t.VM][t.Term-1].Hash() == t.Hash() {
		return nil // only ours; what contradicts it comes as a record of its own
	}
	if err := d.follows(t); err != nil {
		return err
	}
	if err := d.fork(t); !errors.Is(err, ErrFork) {
		return err
	}
	return nil
}

func isUnsure(err error) bool { return errors.Is(err, ErrUnsure) }
