package directory

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/zeebo/blake3"
)

// Store is what a directory needs of the disk: whole commits of a few small values. Its methods are called by one goroutine
// at a time.
type Store interface {
	// Commit stores all entries or none, durably. An error leaves it open which. The bytes stay as they are.
	Commit(entries map[string][]byte) error
	// Load calls fn for every entry, in the order of keys. fn owns the bytes.
	Load(fn func(key string, value []byte) error) error
	Close() error
}

const (
	formatKey     = "meta/format"
	formatVersion = "1"
)

// badgerStore keeps the entries in Badger, each behind a checksum of its own.
type badgerStore struct{ db *badger.DB }

func openBadger(dir string, log *slog.Logger) (*badgerStore, error) {
	o := badger.DefaultOptions(dir).
		WithLogger(badgerLog{log}).
		WithSyncWrites(true).
		WithDetectConflicts(false). // one writer at a time
		WithMetricsEnabled(false).
		WithCompression(options.None).
		WithChecksumVerificationMode(options.OnTableAndBlockRead).
		// A few hundred KiB in all: the defaults are made for gigabytes.
		WithMemTableSize(8 << 20).
		WithNumMemtables(2).
		WithNumLevelZeroTables(2).
		WithNumLevelZeroTablesStall(4).
		WithNumCompactors(2).
		WithBlockCacheSize(8 << 20).
		WithIndexCacheSize(8 << 20).
		WithValueLogFileSize(64 << 20)
	db, err := badger.Open(o)
	if err != nil {
		return nil, fmt.Errorf("open badger: %w", err)
	}
	return &badgerStore{db}, nil
}

func (s *badgerStore) Commit(entries map[string][]byte) error {
	return s.db.Update(func(txn *badger.Txn) error {
		for k, v := range entries {
			if err := txn.Set([]byte(k), seal(v)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *badgerStore) Load(fn func(key string, value []byte) error) error {
	return s.db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.DefaultIteratorOptions)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			key := string(it.Item().Key())
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
