package directory

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxChunkBytes = 1 << 30 // of all chunks
	maxNamed      = 1 << 18 // chunks that may be known by name
	maxBad        = 4096    // chunks that are known to be nonsense
	maxPutChunks  = 64      // at once
	idleGrace     = 2 * time.Minute
	collectBatch  = 1000 // deletions in one commit
)

// Chunk is one piece of a stale set.
type Chunk struct {
	ID   ChunkID
	Code []byte // its encoding
}

// chunkKey has the size, so that the chunks can be counted without being read.
func chunkKey(id ChunkID, size int) string {
	return ChunkPrefix + id.String() + "/" + strconv.Itoa(size)
}

func parseChunkKey(key string) (id ChunkID, size int, err error) {
	name, digits, _ := strings.Cut(strings.TrimPrefix(key, ChunkPrefix), "/")
	id, err = ParseChunkID(name)
	if err == nil {
		size, err = strconv.Atoi(digits)
	}
	if err != nil || size <= 0 || size > MaxChunk || chunkKey(id, size) != key {
		return id, 0, fmt.Errorf("chunk %q: %w", key, ErrCorrupt)
	}
	return id, size, nil
}

// chunkState is what is known of a chunk: its size, 0 if it is missing, and how many places in records, and writers at work, name it.
type chunkState struct{ size, named int32 }

// idleChunk is one that nothing names any more.
type idleChunk struct {
	id    ChunkID
	since time.Time
}

// chunks is the index of the chunks; their content is in the store only. Guarded by Directory.mu; sizes grow only with Directory.write
// held, too.
//
// A chunk stays as long as a record names it, and idleGrace longer: the devices that got an older record may still be asking for it.
type chunks struct {
	limit   int64 // bytes
	state   map[ChunkID]chunkState
	bytes   int64 // of those that are stored
	written int64 // since the directory was opened
	missing int   // named, not stored
	idle    []idleChunk
	claims  map[ChunkID]string   // by the peer that was asked
	bad     map[ChunkID]struct{} // fit their ID, and are no chunks
}

func newChunks() chunks {
	return chunks{limit: maxChunkBytes, state: map[ChunkID]chunkState{}, claims: map[ChunkID]string{}, bad: map[ChunkID]struct{}{}}
}

// set changes one chunk's state by fn.
func (c *chunks) set(id ChunkID, fn func(*chunkState)) {
	s := c.state[id]
	count := func(by int) {
		c.bytes += int64(by) * int64(s.size)
		if s.size == 0 && s.named > 0 {
			c.missing += by
		}
	}
	count(-1)
	was := s.named
	fn(&s)
	count(1)
	switch {
	case s == chunkState{}:
		delete(c.state, id)
	default:
		c.state[id] = s
		if s.named == 0 && was > 0 {
			c.idle = append(c.idle, idleChunk{id, time.Now()})
		}
	}
	if s.size > 0 || s.named == 0 {
		delete(c.claims, id)
	}
}

// name notes the chunks of a record, or drops its set if there are too many.
func (c *chunks) name(h *heldReplica) {
	if len(c.state)+len(h.ids) > maxNamed {
		h.dropped = true
		return
	}
	for _, id := range h.ids {
		c.set(id, func(s *chunkState) { s.named++ })
	}
}

func (c *chunks) unname(h *heldReplica) {
	if h.dropped {
		return
	}
	for _, id := range h.ids {
		c.set(id, func(s *chunkState) { s.named-- })
	}
	h.dropped = true
}

// rememberChunk notes that a chunk was stored, or deleted.
func (d *Directory) rememberChunk(key string, there bool) error {
	id, size, err := parseChunkKey(key)
	if err != nil {
		return err
	}
	if !there {
		size = 0
	}
	d.chunks.set(id, func(s *chunkState) { s.size = int32(size) })
	return nil
}

// pin keeps a chunk until unpin, and says whether it is stored.
func (d *Directory) pin(id ChunkID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.chunks.set(id, func(s *chunkState) { s.named++ })
	return d.chunks.state[id].size > 0
}

func (d *Directory) unpin(ids []ChunkID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range ids {
		d.chunks.set(id, func(s *chunkState) { s.named-- })
	}
}

// storeChunks stores chunks of that many bytes, for which older sets give way.
func (d *Directory) storeChunks(batch map[string][]byte, size int) error {
	d.write.Lock()
	defer d.write.Unlock()
	if err := d.makeRoom(int64(size)); err != nil {
		return err
	}
	return d.commitChunks(batch, size)
}

func (d *Directory) commitChunks(batch map[string][]byte, size int) error {
	if err := d.commit(batch, true); err != nil {
		return err
	}
	d.mu.Lock()
	d.chunks.written += int64(size)
	d.mu.Unlock()
	return nil
}

// readChunk returns a chunk's encoding, or ErrNotFound. One that is damaged counts as missing from then on.
func (d *Directory) readChunk(id ChunkID) ([]byte, error) {
	d.reads.RLock()
	defer d.reads.RUnlock()
	d.mu.RLock()
	size, closed := d.chunks.state[id].size, d.closed
	d.mu.RUnlock()
	switch {
	case closed:
		return nil, ErrClosed
	case size == 0:
		return nil, fmt.Errorf("chunk %s: %w", id, ErrNotFound)
	}
	b, err := d.store.Get(chunkKey(id, int(size)))
	if err == nil && chunkID(b) != id {
		err = fmt.Errorf("chunk %s: %w", id, ErrCorrupt)
	}
	if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNotFound) {
		d.mu.Lock()
		lost := d.chunks.state[id].size > 0 // else it was deleted just now
		d.chunks.set(id, func(s *chunkState) { s.size = 0 })
		d.mu.Unlock()
		if lost {
			d.log.Error("A piece of a stale set is damaged and will be fetched again", "chunk", id, "error", err)
		}
		return nil, errors.Join(ErrNotFound, err)
	}
	return b, err
}

// Chunk returns a chunk's encoding, which is the caller's; ok is false if it isn't here.
func (d *Directory) Chunk(id ChunkID) (code []byte, ok bool) {
	b, err := d.readChunk(id)
	if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrClosed) {
		d.log.Error("A piece of a stale set can't be read", "chunk", id, "error", err)
	}
	return b, err == nil
}

// ChunkStats counts the chunks here.
type ChunkStats struct {
	Count   int
	Missing int   // that records name
	Bytes   int64 // of those that are stored
	Written int64 // bytes that were stored since the directory was opened
}

// ChunkStats returns what the stale sets take.
func (d *Directory) ChunkStats() ChunkStats {
	d.mu.RLock()
	defer d.mu.RUnlock()
	c := &d.chunks
	return ChunkStats{Count: len(c.state) - c.missing, Missing: c.missing, Bytes: c.bytes, Written: c.written}
}

// Has tells whether a chunk is here.
func (d *Directory) Has(id ChunkID) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.chunks.state[id].size > 0
}

// Wants returns at most max chunks that records name, that are missing here and of which skip, which doesn't call the directory, is
// false; and claims them for peer: nobody else is told to ask for them until they came, or Unwant.
func (d *Directory) Wants(peer string, max int, skip func(ChunkID) bool) []ChunkID {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := &d.chunks
	var list []ChunkID
	if c.missing <= len(c.claims) {
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(d.replicas)) {
		h := d.replicas[key]
		if h.dropped || !d.tellsReplica(key) {
			continue
		}
		for _, id := range h.ids {
			if len(list) >= max {
				return list
			}
			_, claimed := c.claims[id]
			_, bad := c.bad[id]
			if c.state[id].size == 0 && !claimed && !bad && !skip(id) {
				c.claims[id] = peer
				list = append(list, id)
			}
		}
	}
	return list
}

// Unwant gives up peer's claims to these chunks.
func (d *Directory) Unwant(peer string, ids []ChunkID) {
	d.mu.Lock()
	released := false
	for _, id := range ids {
		if d.chunks.claims[id] == peer {
			delete(d.chunks.claims, id)
			released = true
		}
	}
	if released {
		d.wake() // another one may be asked
	}
	d.mu.Unlock()
}

// PutChunks stores chunks that the device from has sent, at most 64, if they are missing. It doesn't keep their bytes. Errors:
// ErrUnknownDevice, ErrLie (one doesn't fit its ID; nothing is stored), ErrInvalid (too many or too large), ErrFull, ErrNoSpace, ErrUnsure, ErrClosed.
func (d *Directory) PutChunks(from string, list []Chunk) error {
	if err := d.putChunks(from, list); err != nil {
		return fmt.Errorf("directory: put chunks: %w", err)
	}
	d.collect()
	return nil
}

func (d *Directory) putChunks(from string, list []Chunk) error {
	if len(list) > maxPutChunks {
		return fmt.Errorf("%d chunks: %w", len(list), ErrInvalid)
	}
	batch, size := map[string][]byte{}, 0
	var bad []ChunkID
	for _, c := range list {
		if len(c.Code) > MaxChunk {
			return fmt.Errorf("chunk of %d bytes: %w", len(c.Code), ErrInvalid)
		}
		if chunkID(c.Code) != c.ID {
			return fmt.Errorf("chunk %s is another one: %w", c.ID, ErrLie)
		}
		if _, _, err := decodeChunk(c.Code); err != nil {
			bad = append(bad, c.ID)
			continue
		}
		batch[chunkKey(c.ID, len(c.Code))] = append([]byte(nil), c.Code...)
	}
	d.write.Lock()
	defer d.write.Unlock()
	if !d.isMember(from) {
		return fmt.Errorf("sender: %w", ErrUnknownDevice)
	}
	d.nonsense(bad)
	d.wanted(batch, &size)
	if len(batch) == 0 {
		return nil
	}
	if err := d.makeRoom(int64(size)); err != nil {
		return err
	}
	if d.wanted(batch, &size); len(batch) == 0 {
		return nil // their own set gave way
	}
	return d.commitChunks(batch, size)
}

// wanted leaves in batch what is missing, and adds it up.
func (d *Directory) wanted(batch map[string][]byte, size *int) {
	*size = 0
	d.mu.RLock()
	defer d.mu.RUnlock()
	for key, code := range batch {
		id, _, err := parseChunkKey(key)
		if s := d.chunks.state[id]; err != nil || s.named == 0 || s.size > 0 {
			delete(batch, key)
			continue
		}
		*size += len(code)
	}
}

// nonsense notes chunks that fit their IDs and yet are none: whoever signed a record that names them made them up, not the sender.
func (d *Directory) nonsense(bad []ChunkID) {
	for _, id := range bad {
		for _, h := range d.replicas {
			if slices.Contains(h.ids, id) {
				d.log.Warn("A stale set has a piece that is none", "vm", h.VM, "device", h.Device, "writer", h.writer, "chunk", id)
			}
		}
		d.mu.Lock()
		if len(d.chunks.bad) < maxBad {
			d.chunks.bad[id] = struct{}{}
		}
		delete(d.chunks.claims, id)
		d.mu.Unlock()
	}
}

// roomFor says whether size more bytes of chunks may be stored.
func (d *Directory) roomFor(size int64) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.chunks.bytes+size <= d.chunks.limit
}

// makeRoom deletes chunks until size more bytes may be stored: first what nothing names, then the oldest sets of the writer that has most.
// The caller holds write.
func (d *Directory) makeRoom(size int64) error {
	if d.roomFor(size) {
		return nil
	}
	if err := d.deleteIdle(func(idleChunk) bool { return true }); err != nil {
		return err
	}
	for !d.roomFor(size) {
		h := d.oldestOfMost()
		if h == nil {
			return fmt.Errorf("%d more bytes of stale sets: %w", size, ErrFull)
		}
		d.log.Warn("A stale set gives way to newer ones", "vm", h.VM, "device", h.Device)
		d.mu.Lock()
		d.chunks.unname(h)
		d.mu.Unlock()
		if err := d.deleteIdle(func(idleChunk) bool { return true }); err != nil {
			return err
		}
	}
	return nil
}

// oldestOfMost is the oldest set that has chunks here, of the writer that has most bytes of them, or nil.
func (d *Directory) oldestOfMost() *heldReplica {
	total := map[string]int64{}
	oldest := map[string]*heldReplica{}
	most := ""
	d.mu.RLock()
	defer d.mu.RUnlock()
	for _, key := range slices.Sorted(maps.Keys(d.replicas)) {
		h := d.replicas[key]
		var bytes int64
		for _, id := range h.ids {
			bytes += int64(d.chunks.state[id].size)
		}
		if h.dropped || bytes == 0 {
			continue
		}
		w := h.writer
		if total[w] += bytes; total[w] > total[most] {
			most = w
		}
		if oldest[w] == nil || oldest[w].arrived > h.arrived {
			oldest[w] = h
		}
	}
	return oldest[most]
}

// deleteIdle deletes the chunks that nothing names and that are due. The caller holds write.
func (d *Directory) deleteIdle(due func(idleChunk) bool) error {
	c := &d.chunks
	for {
		batch := map[string][]byte{}
		d.mu.Lock()
		n := 0
		for n < len(c.idle) && len(batch) < collectBatch && due(c.idle[n]) {
			id := c.idle[n].id
			if s := c.state[id]; s.named == 0 && s.size > 0 {
				batch[chunkKey(id, int(s.size))] = nil
				// Before it is gone, so that a writer who wants to name it now stores it again.
				c.set(id, func(s *chunkState) { s.size = 0 })
			}
			n++
		}
		gone := slices.Clone(c.idle[:n])
		c.idle = slices.Delete(c.idle, 0, n)
		d.mu.Unlock()
		if n == 0 {
			return nil
		}
		if len(batch) == 0 {
			continue
		}
		if err := d.commit(batch, false); isUnsure(err) {
			return err // they may be gone; if not, they are found when the directory is opened again
		} else if err != nil {
			d.mu.Lock()
			for key := range batch {
				_ = d.rememberChunk(key, true) // a key that was made here
			}
			c.idle = append(gone, c.idle...)
			d.mu.Unlock()
			return err
		}
	}
}

// committed brings memory in step with an entry that was stored, or deleted.
func (d *Directory) committed(key string, value []byte) error {
	switch {
	case strings.HasPrefix(key, ChunkPrefix):
		return d.rememberChunk(key, value != nil)
	case value == nil:
		d.forget(key)
		return nil
	}
	return d.remember(key, value)
}

// loadedChunks has the chunks that nothing names deleted soon: nobody can be asking for them any more.
func (d *Directory) loadedChunks() {
	for id, s := range d.chunks.state {
		if s.named == 0 {
			d.chunks.idle = append(d.chunks.idle, idleChunk{id: id})
		}
	}
}

// collect deletes what is of no use any more: replica records of removed VMs, and chunks that nothing has named for a while. What can't
// be deleted now is deleted another time.
func (d *Directory) collect() {
	d.write.Lock()
	defer d.write.Unlock()
	batch := map[string][]byte{}
	for key, h := range d.replicas {
		if d.isGone(h.VM) && len(batch) < collectBatch {
			batch[key] = nil
		}
	}
	var err error
	if len(batch) > 0 {
		err = d.commit(batch, false)
	}
	if err == nil {
		old := time.Now().Add(-idleGrace)
		err = d.deleteIdle(func(i idleChunk) bool { return !i.since.After(old) })
	}
	if err != nil && !errors.Is(err, ErrClosed) && !errors.Is(err, ErrNoSpace) {
		d.log.Warn("Deleting pieces of old stale sets failed", "error", err)
	}
}
