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

func (r records) Changed() (<-chan struct{}, func()) { return r.dir.Changed() }
