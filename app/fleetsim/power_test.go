package fleetsim

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// A host's durable things are the disk's files (vfs.Mem) and the directory's records. Its fuse lets the power fail, or the
// engine be killed, in the middle of an event: at the n-th call that would change one of them.

var (
	errPower = errors.New("the power failed")
	errFlaky = errors.New("the store had a passing trouble")
)

// fuse burns after a number of durable calls; then nothing more becomes durable until the crash.
type fuse struct {
	left  int  // calls that still work, of the records; the disk's files count theirs
	lit   bool // it burns
	blown bool
	host  bool // the power fails; else only the engine is killed
}

// light lets the fuse burn for n calls, of whichever of the two comes first.
func (d *device) light(n int, host bool) {
	d.fuse = fuse{left: n, lit: true, host: host}
	d.mem.FailAt(n, vfs.ErrGone, true)
}

// burnt says whether the fuse has blown.
func (d *device) burnt() bool {
	if d.fuse.lit && !d.fuse.blown && d.mem.Calls() >= d.fuse.left {
		d.fuse.blown = true
	}
	return d.fuse.blown
}

// records is the crash-faithful store under a directory: a commit that returned nil is durable; of one that failed it may be
// either, which shows when the store is loaded again.
type records struct {
	d       *device
	durable map[string][]byte
	doubt   []map[string][]byte
	calls   int // commits since the fuse was lit
	closed  bool
}

// Commit implements directory.Store.
func (s *records) Commit(entries map[string][]byte) error {
	d, w := s.d, s.d.w
	switch {
	case s.closed:
		return errPower // an engine that was killed writes nothing
	case d.burnt():
		return errPower
	}
	if d.fuse.lit {
		if s.calls++; s.calls >= d.fuse.left {
			d.fuse.blown = true
			d.mem.FailAt(1, vfs.ErrGone, true)
			if w.rng.IntN(2) == 0 {
				s.store(entries)
			}
			return errPower
		}
	}
	if w.chance(150) {
		w.note("%s's directory has trouble with %v", d.id, keysOf(entries))
		s.doubt = append(s.doubt, maps.Clone(entries))
		return errFlaky
	}
	s.store(entries)
	return nil
}

// Room is what a directory asks before it commits.
func (s *records) Room() error {
	if s.d.full {
		return directory.ErrNoSpace
	}
	return nil
}

func (s *records) store(entries map[string][]byte) {
	s.d.w.truth.signed(s.d, entries)
	s.put(entries)
	for k := range entries {
		for _, doubt := range s.doubt {
			delete(doubt, k) // what is known now is newer
		}
	}
}

func (s *records) put(entries map[string][]byte) {
	for k, v := range entries {
		if v == nil {
			delete(s.durable, k)
		} else {
			s.durable[k] = v
		}
	}
}

// Load implements directory.Store.
func (s *records) Load(fn func(key string, value []byte) error) error {
	for _, entries := range s.doubt {
		if s.d.w.rng.IntN(2) == 0 {
			s.d.w.truth.signed(s.d, entries)
			s.put(entries)
		}
	}
	s.doubt = nil
	for _, k := range slices.Sorted(maps.Keys(s.durable)) {
		if err := fn(k, slices.Clone(s.durable[k])); err != nil {
			return err
		}
	}
	return nil
}

// Get implements directory.Store.
func (s *records) Get(key string) ([]byte, error) {
	if v, ok := s.durable[key]; ok {
		return slices.Clone(v), nil
	}
	return nil, directory.ErrNotFound
}

// Close implements directory.Store.
func (s *records) Close() error {
	s.closed = true
	return nil
}

// again is the store that a new engine finds.
func (s *records) again() *records {
	return &records{d: s.d, durable: s.durable, doubt: s.doubt}
}

func keysOf(m map[string][]byte) []string { return slices.Sorted(maps.Keys(m)) }

// transferIn reads a stored record if it is a transfer.
func transferIn(key string, value []byte) (t directory.SignedTransfer, ok bool, err error) {
	if !strings.HasPrefix(key, "transfer/") {
		return t, false, nil
	}
	var stored struct {
		Body json.RawMessage `json:"body"`
	}
	if err := json.Unmarshal(value, &stored); err != nil {
		return t, false, fmt.Errorf("stored record %s: %w", key, err)
	}
	if err := json.Unmarshal(stored.Body, &t); err != nil {
		return t, false, fmt.Errorf("stored transfer %s: %w", key, err)
	}
	return t, true, nil
}
