package exchange

import (
	"cmp"
	"fmt"
	"strings"

	"tagalong.org/tagalong/p2p/wire"
)

// Protocol is the ID under which the stream is opened.
const Protocol = "/tagalong/directory/1"

// Limits of what one device may hold.
const (
	MaxKeys  = 50_000    // records
	MaxKey   = 256       // bytes of a key, and of a writer's ID
	MaxValue = 256 << 10 // bytes of a value
	MaxSig   = 1024      // bytes of a signature
)

// Stream is the connection to the peer.
type Stream = wire.Stream

// Record is one signed record. What its fields mean is the store's business;
// only that a greater version of a key replaces a smaller one matters here.
type Record struct {
	Key     string `json:"key"`
	Version uint64 `json:"version"`
	Writer  string `json:"writer"`
	Value   []byte `json:"value"`
	Sig     []byte `json:"sig"`
}

// Store is the directory. All methods may be called from several goroutines.
type Store interface {
	// Digest returns the version of every record, in a map of the caller's.
	Digest() map[string]uint64
	// Get returns the records of these keys that exist; the caller doesn't
	// change them.
	Get(keys []string) []Record
	// Apply verifies a record that the peer from sent, and stores it if it is
	// newer. nil means stored or known already, an error rejected.
	Apply(from string, r Record) error
	// Changed returns a channel that gets a wake-up (at least one after the
	// last change, however many there were) and a function to stop that.
	Changed() (<-chan struct{}, func())
	Chunks
}

func checkKey(k string) error {
	if k == "" || len(k) > MaxKey {
		return fmt.Errorf("key of %d bytes: %w", len(k), ErrRecord)
	}
	return nil
}

func checkRecord(r *Record) error {
	if err := checkKey(r.Key); err != nil {
		return err
	}
	if len(r.Writer) > MaxKey || len(r.Value) > MaxValue || len(r.Sig) > MaxSig || r.Version == 0 {
		return fmt.Errorf("record of %d bytes, signature of %d, writer of %d, version %d: %w",
			len(r.Value), len(r.Sig), len(r.Writer), r.Version, ErrRecord)
	}
	return nil
}

// compareKeys sorts keys by name, but numbers in their last part by value: the
// links of a chain go out in the order in which they prove each other.
func compareKeys(a, b string) int {
	ai, bi := strings.LastIndexByte(a, '/')+1, strings.LastIndexByte(b, '/')+1
	return cmp.Or(strings.Compare(a[:ai], b[:bi]), cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}
