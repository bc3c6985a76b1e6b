package app

import (
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/p2p/exchange"
)

// records lends the directory to the exchange protocol.
type records struct{ dir *directory.Directory }

func (r records) Digest() map[string]uint64 { return r.dir.Digest() }

func (r records) Get(keys []string) []exchange.Record {
	found := r.dir.Get(keys)
	out := make([]exchange.Record, len(found))
	for i, record := range found {
		out[i] = exchange.Record(record)
	}
	return out
}

func (r records) Apply(from string, record exchange.Record) error {
	return r.dir.Apply(from, directory.Record(record))
}

// Holds implements told.Store.
func (r records) Holds(key string, version uint64) bool {
	found := r.dir.Get([]string{key})
	return len(found) == 1 && found[0].Version >= version
}

func (r records) Changed() (<-chan struct{}, func()) { return r.dir.Changed() }
