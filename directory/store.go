package directory

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/zeebo/blake3"
)

// Store is what a directory needs of the disk: whole commits of a few small values. Its methods are called by one goroutine
// at a time, except Get.
type Store interface {
	// Commit stores all entries or none, durably; a nil value deletes its key. An error leaves it open which. The bytes, at most
	// about 1 MiB, stay as they are. A Store that also has a method Room() error is asked before each commit: if that is ErrNoSpace, nothing is written.
	Commit(entries map[string][]byte) error
	// Load calls fn for every entry, in the order of keys. fn owns the bytes. Of keys that begin with ChunkPrefix it wants to know
	// only that they are there: the store should leave out their values, which may be a gigabyte in all.
	Load(fn func(key string, value []byte) error) error
	// Get returns one value, which is the caller's, or ErrNotFound. It may be called from several goroutines, beside a Commit too,
	// but not after Close.
	Get(key string) ([]byte, error)
	Close() error
}

// ChunkPrefix begins the keys of the pieces of stale sets.
const ChunkPrefix = "chunk/"

// The formats of what is stored, in the order in which a directory climbs them:
//
//	1  members are local values; the history of a VM is a chain
//	2  members are signed records; the history is a tree
const (
	formatKey     = "meta/format"
	formatVersion = "2"
)

// badgerStore keeps the entries in Badger, each behind a checksum of its own.
type badgerStore struct {
	db  *badger.DB
	log *slog.Logger
}

// levelZeroTables is from how many tables on they are put together: each time that the store is closed makes one.
const levelZeroTables = 2

// openBadger opens the store. Badger puts tables together by itself, within a second of being opened; where that finds no room it ends the process. So on a
// tight disk it doesn't: nothing is written there, and consolidate does it when there is room.
func openBadger(dir string, tight bool, log *slog.Logger) (*badgerStore, error) {
	o := badger.DefaultOptions(dir).
		WithLogger(badgerLog{log}).
		WithSyncWrites(true).
		WithDetectConflicts(false). // one writer at a time
		WithMetricsEnabled(false).
		WithCompression(options.None).
		WithChecksumVerificationMode(options.OnTableAndBlockRead).
		// A few hundred KiB of records and some MiB of chunks: the defaults are made for gigabytes.
		WithMemTableSize(8 << 20).
		WithNumMemtables(2).
		WithNumLevelZeroTables(levelZeroTables).
		WithNumLevelZeroTablesStall(4).
		WithNumCompactors(2).
		WithBlockCacheSize(0). // what isn't compressed is mapped, and the kernel's cache is enough
		WithIndexCacheSize(8 << 20).
		WithValueLogFileSize(64 << 20)
	if tight {
		o = o.WithNumCompactors(0).WithNumLevelZeroTablesStall(1 << 20) // else it would wait for a compactor when it is closed
	}
	db, err := badger.Open(o)
	if err != nil {
		return nil, fmt.Errorf("open badger: %w", err)
	}
	return &badgerStore{db, log}, nil
}

// consolidate puts the tables together of a store that was opened on a tight disk, if there are some.
func (s *badgerStore) consolidate() {
	if s.levelZero() < levelZeroTables {
		return
	}
	if err := s.db.Flatten(1); err != nil {
		s.log.Warn("The directory's store couldn't be put together", "error", err)
	}
}

// levelZero is how many tables wait to be put together.
func (s *badgerStore) levelZero() (n int) {
	for _, t := range s.db.Tables() {
		if t.Level == 0 {
			n++
		}
	}
	return n
}

func (s *badgerStore) Commit(entries map[string][]byte) error {
	return s.db.Update(func(txn *badger.Txn) error {
		for k, v := range entries {
			var err error
			if v == nil {
				err = txn.Delete([]byte(k))
			} else {
				err = txn.Set([]byte(k), seal(v))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *badgerStore) Get(key string) (value []byte, err error) {
	err = s.db.View(func(txn *badger.Txn) error {
		item, err := txn.Get([]byte(key))
		if errors.Is(err, badger.ErrKeyNotFound) {
			return ErrNotFound
		}
		if err != nil {
			return err
		}
		sealed, err := item.ValueCopy(nil)
		if err != nil {
			return err
		}
		value, err = unseal(sealed)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("get %q: %w", key, err)
	}
	return value, nil
}

func (s *badgerStore) Load(fn func(key string, value []byte) error) error {
	return s.db.View(func(txn *badger.Txn) error {
		o := badger.DefaultIteratorOptions
		o.PrefetchValues = false
		it := txn.NewIterator(o)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			key := string(it.Item().Key())
			if strings.HasPrefix(key, ChunkPrefix) {
				if err := fn(key, nil); err != nil {
					return fmt.Errorf("read %q: %w", key, err)
				}
				continue
			}
			sealed, err := it.Item().ValueCopy(nil)
			if err != nil {
				return fmt.Errorf("read %q: %w", key, err)
			}
			value, err := unseal(sealed)
			if err != nil {
				return fmt.Errorf("read %q: %w", key, err)
			}
			if err := fn(key, value); err != nil {
				return fmt.Errorf("read %q: %w", key, err)
			}
		}
		return nil
	})
}

func (s *badgerStore) Close() error { return s.db.Close() }

const sumSize = 16

func seal(v []byte) []byte {
	sum := blake3.Sum256(v)
	return append(sum[:sumSize:sumSize], v...)
}

func unseal(b []byte) ([]byte, error) {
	if len(b) < sumSize {
		return nil, fmt.Errorf("%d bytes: %w", len(b), ErrCorrupt)
	}
	sum := blake3.Sum256(b[sumSize:])
	if !bytes.Equal(sum[:sumSize], b[:sumSize]) {
		return nil, fmt.Errorf("checksum: %w", ErrCorrupt)
	}
	return b[sumSize:], nil
}

// badgerLog passes on what Badger has to say, if it matters.
type badgerLog struct{ log *slog.Logger }

func (l badgerLog) Errorf(f string, a ...any) {
	l.log.Error("Badger reports an error", "text", fmt.Sprintf(f, a...))
}
func (l badgerLog) Warningf(f string, a ...any) {
	l.log.Warn("Badger warns", "text", fmt.Sprintf(f, a...))
}
func (l badgerLog) Infof(string, ...any)  {}
func (l badgerLog) Debugf(string, ...any) {}

// unsure marks an error of a commit.
func unsure(err error) error {
	if err == nil {
		return nil
	}
	return errors.Join(ErrUnsure, err)
}
