package app

import (
	"errors"

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

func (r records) Wants(peer string, max int, skip func(string) bool) []string {
	ids := r.dir.Wants(peer, max, func(id directory.ChunkID) bool { return skip(id.String()) })
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = id.String()
	}
	return out
}

func (r records) Unwant(peer string, hashes []string) { r.dir.Unwant(peer, chunkIDs(hashes)) }

func (r records) Has(hash string) bool {
	id, err := directory.ParseChunkID(hash)
	return err == nil && r.dir.Has(id)
}

func (r records) Chunk(hash string) ([]byte, bool) {
	id, err := directory.ParseChunkID(hash)
	if err != nil {
		return nil, false
	}
	return r.dir.Chunk(id)
}

func (r records) PutChunks(from string, chunks []exchange.Chunk) error {
	list := make([]directory.Chunk, len(chunks))
	for i, c := range chunks {
		id, err := directory.ParseChunkID(c.Hash)
		if err != nil {
			return errors.Join(exchange.ErrProtocol, err)
		}
		list[i] = directory.Chunk{ID: id, Code: c.Data}
	}
	err := r.dir.PutChunks(from, list)
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
