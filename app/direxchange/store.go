// Package direxchange lends a directory to the protocols that carry its records (p2p/exchange, p2p/told): the two packages don't know each
// other. It keeps nothing. What the directory calls a lie is, to the exchange, against its protocol, and ends the stream.
//
// To test: go test ./app (fleets in one process), build/bench.sh directory (three directories as processes).
package direxchange

import (
	"errors"

	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/p2p/exchange"
)

// Store is a directory as the exchange sees it. Its methods may be called from several goroutines.
type Store struct{ Dir *directory.Directory }

// Digest implements exchange.Store.
func (r Store) Digest() map[string]uint64 { return r.Dir.Digest() }

// Get implements exchange.Store.
func (r Store) Get(keys []string) []exchange.Record {
	found := r.Dir.Get(keys)
	out := make([]exchange.Record, len(found))
	for i, record := range found {
		out[i] = exchange.Record(record)
	}
	return out
}

// Apply implements exchange.Store.
func (r Store) Apply(from string, record exchange.Record) error {
	return r.Dir.Apply(from, directory.Record(record))
}

// Holds implements told.Store.
func (r Store) Holds(key string, version uint64) bool {
	found := r.Dir.Get([]string{key})
	return len(found) == 1 && found[0].Version >= version
}

// Changed implements exchange.Store.
func (r Store) Changed() (<-chan struct{}, func()) { return r.Dir.Changed() }

// Wants implements exchange.Chunks.
func (r Store) Wants(peer string, max int, skip func(string) bool) []string {
	ids := r.Dir.Wants(peer, max, func(id directory.ChunkID) bool { return skip(id.String()) })
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = id.String()
	}
	return out
}

// Unwant implements exchange.Chunks.
func (r Store) Unwant(peer string, hashes []string) { r.Dir.Unwant(peer, chunkIDs(hashes)) }

// Has implements exchange.Chunks.
func (r Store) Has(hash string) bool {
	id, err := directory.ParseChunkID(hash)
	return err == nil && r.Dir.Has(id)
}

// Chunk implements exchange.Chunks.
func (r Store) Chunk(hash string) ([]byte, bool) {
	id, err := directory.ParseChunkID(hash)
	if err != nil {
		return nil, false
	}
	return r.Dir.Chunk(id)
}

// PutChunks implements exchange.Chunks.
func (r Store) PutChunks(from string, chunks []exchange.Chunk) error {
	list := make([]directory.Chunk, len(chunks))
	for i, c := range chunks {
		id, err := directory.ParseChunkID(c.Hash)
		if err != nil {
			return errors.Join(exchange.ErrProtocol, err)
		}
		list[i] = directory.Chunk{ID: id, Code: c.Data}
	}
	err := r.Dir.PutChunks(from, list)
	if errors.Is(err, directory.ErrLie) {
		err = errors.Join(exchange.ErrProtocol, err)
	}
	return err
}

// chunkIDs are those of the hashes that are any.
func chunkIDs(hashes []string) []directory.ChunkID {
	var ids []directory.ChunkID
	for _, h := range hashes {
		if id, err := directory.ParseChunkID(h); err == nil {
			ids = append(ids, id)
		}
	}
	return ids
}
