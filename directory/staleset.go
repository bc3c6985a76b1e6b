package directory

import (
	"encoding/hex"
	"errors"
	"fmt"
	"iter"

	"github.com/zeebo/blake3"
)

const (
	blockBytes = 4096
	maxChunks  = 4096     // of one set
	maxBlocks  = 16 << 28 // of one disk: 16 TiB
	batchBytes = 512 << 10
)

// StaleSet is where a replica may differ from its owner's disk.
type StaleSet interface {
	// Runs are the blocks of 4 KiB in order, as the first of a run and their count. Runs don't overlap.
	Runs() iter.Seq2[uint64, uint64]
}

// ChunkID names a chunk by what it holds: the first half of its encoding's BLAKE3.
type ChunkID [16]byte

// String returns id in hexadecimal.
func (id ChunkID) String() string { return hex.EncodeToString(id[:]) }

// ParseChunkID reads what String returns. Errors: ErrInvalid.
func ParseChunkID(s string) (id ChunkID, err error) {
	if len(s) != 2*len(id) {
		return id, fmt.Errorf("chunk ID of %d digits: %w", len(s), ErrInvalid)
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil || id.String() != s {
		return id, fmt.Errorf("chunk ID: %w", ErrInvalid)
	}
	return id, nil
}

func chunkID(b []byte) ChunkID {
	sum := blake3.Sum256(b)
	return ChunkID(sum[:16])
}

// spanOf is how many blocks a chunk of a disk with that many has, except perhaps the last.
func spanOf(blocks uint64) uint32 {
	span := uint32(minSpan)
	for blocks > uint64(span)*maxChunks {
		span *= 2
	}
	return span
}

// slotsOf is how many chunks that are.
func slotsOf(blocks uint64) int {
	span := uint64(spanOf(blocks))
	return int((blocks + span - 1) / span)
}

// blocksOf is how many blocks a disk has; ok is false if that is none, or too many.
func blocksOf(diskBytes int64) (n uint64, ok bool) {
	if diskBytes > 0 {
		n = uint64(diskBytes+blockBytes-1) / blockBytes
	}
	return n, n > 0 && n <= maxBlocks
}

// split cuts a set of a disk with that many blocks into chunks, calls fn for each that isn't empty with its encoding, which fn copies
// if it keeps it, and returns the number of blocks in the set. Errors: ErrInvalid, and fn's.
func split(set StaleSet, blocks uint64, fn func(slot int, code []byte) error) (count uint64, err error) {
	span := uint64(spanOf(blocks))
	m := newBitmap(uint32(span))
	code := make([]byte, 0, MaxChunk)
	slot, used := uint64(0), false
	flush := func() error {
		if !used {
			return nil
		}
		code = encodeChunk(code[:0], m, uint32(min(span, blocks-slot*span)))
		clear(m)
		used = false
		return fn(int(slot), code)
	}
	end := uint64(0)
	for first, n := range set.Runs() {
		if first < end || n == 0 || first >= blocks || n > blocks-first {
			return 0, fmt.Errorf("run of %d blocks at %d after %d, of %d: %w", n, first, end, blocks, ErrInvalid)
		}
		end, count = first+n, count+n
		for first < end {
			if s := first / span; s != slot {
				if err := flush(); err != nil {
					return 0, err
				}
				slot = s
			}
			to := min(end, (slot+1)*span)
			m.add(uint32(first-slot*span), uint32(to-slot*span))
			first, used = to, true
		}
	}
	return count, flush()
}

// PutReplica writes what this device, the VM's owner, knows of another one's replica: info, but StaleBlocks is counted from set, which
// says where those blocks are. Without a set (nil) only their number is told. At is filled in if it is zero. Chunks of the set that are
// stored already take nothing anew. It reads set before it returns, while others may go on. Errors: ErrNotOwner, ErrNotFound (no record
// of the VM), ErrInvalid (a set larger than the disk, too, or more than 4 KiB of Sync), ErrFull (the set is larger than all that may be stored; its number can still be
// told), ErrNoSpace, ErrUnsure, ErrClosed, and Sign's.
func (d *Directory) PutReplica(vm, device string, info ReplicaInfo, set StaleSet) error {
	d.putting.Lock()
	defer d.putting.Unlock()
	if err := d.putReplica(vm, device, info, set); err != nil {
		return fmt.Errorf("directory: put replica: %w", err)
	}
	d.collect()
	return nil
}

func (d *Directory) putReplica(vm, device string, info ReplicaInfo, set StaleSet) error {
	record, ok := d.VM(vm)
	switch {
	case !ok:
		return ErrNotFound
	case record.Owner != d.opt.Self:
		return ErrNotOwner
	case !d.IsMember(device):
		return fmt.Errorf("device: %w", ErrUnknownDevice)
	}
	blocks, ok := blocksOf(record.DiskBytes)
	if !ok {
		return fmt.Errorf("disk of %d bytes: %w", record.DiskBytes, ErrInvalid)
	}
	if len(info.Sync) > maxSync { // of others' records only the limit of all values holds, as of Device.Site
		return fmt.Errorf("%d bytes about how it gets on: %w", len(info.Sync), ErrInvalid)
	}
	r := replica{VM: vm, Device: device, ReplicaInfo: info, Blocks: blocks}
	if set != nil {
		var pins []ChunkID
		defer func() { d.unpin(pins) }()
		r.Span = spanOf(blocks)
		r.Present = make([]byte, (slotsOf(blocks)+7)/8)
		batch, size := map[string][]byte{}, 0
		store := func() error {
			err := d.storeChunks(batch, size)
			clear(batch)
			size = 0
			return err
		}
		count, err := split(set, blocks, func(slot int, code []byte) error {
			id := chunkID(code)
			r.Present[slot/8] |= 1 << (slot % 8)
			r.Hashes = append(r.Hashes, id[:]...)
			pins = append(pins, id)
			if d.pin(id) {
				return nil
			}
			key := chunkKey(id, len(code))
			if _, twice := batch[key]; !twice {
				batch[key] = append([]byte(nil), code...)
				size += len(code)
			}
			if size < batchBytes {
				return nil
			}
			return store()
		})
		if err == nil && size > 0 {
			err = store()
		}
		if err != nil {
			return err
		}
		r.StaleBlocks = count
	}
	d.write.Lock()
	defer d.write.Unlock()
	return d.signReplica(r)
}

// StaleSet returns where a device's replica may differ from its owner's disk at the position Of of its record, as runs of blocks of 4 KiB
// in order: the first, and how many. They are read while the caller goes on; a piece that can't be read then counts as stale altogether.
// Errors: ErrNotFound: nobody has said (yet), or chunks are missing here; ErrLie: it contradicts itself; ErrClosed.
func (d *Directory) StaleSet(vm, device string) (iter.Seq2[uint64, uint64], error) {
	fail := func(err error) (iter.Seq2[uint64, uint64], error) {
		return nil, fmt.Errorf("directory: stale set: %w", err)
	}
	d.mu.RLock()
	held := d.replicas[replicaKey(vm, device)]
	ok := held != nil && d.speaks(held) && held.Span > 0 && !held.dropped
	d.mu.RUnlock()
	if !ok {
		return fail(ErrNotFound)
	}
	record, _ := d.VM(vm)
	blocks, _ := held.blocks(record.DiskBytes)
	span := uint64(held.Span)
	total := uint64(0)
	slots := held.slots()
	for i, slot := range slots {
		b, err := d.readChunk(held.ids[i])
		if err != nil {
			return fail(err)
		}
		m, got, err := parseChunk(b)
		if err != nil {
			return fail(errors.Join(ErrLie, err))
		}
		if uint64(slot)*span >= blocks || uint64(got) != min(span, blocks-uint64(slot)*span) {
			return fail(fmt.Errorf("chunk %d has %d blocks: %w", slot, got, ErrLie))
		}
		total += m.count()
	}
	if total != held.StaleBlocks {
		return fail(fmt.Errorf("%d blocks, said to be %d: %w", total, held.StaleBlocks, ErrLie))
	}
	return func(yield func(uint64, uint64) bool) {
		var first, n uint64 // a run that may go on in the next chunk
		for i, slot := range slots {
			base := uint64(slot) * span
			room := uint32(min(span, blocks-base))
			m := d.chunkOrAll(held.ids[i], room)
			done := false
			m.runs(room, func(a, b uint32) bool {
				at := base + uint64(a)
				if n > 0 && first+n != at {
					if done = !yield(first, n); done {
						return false
					}
					n = 0
				}
				if n == 0 {
					first = at
				}
				n += uint64(b - a)
				return true
			})
			if done {
				return
			}
		}
		if n > 0 {
			yield(first, n)
		}
	}, nil
}

// chunkOrAll is a chunk that was there a moment ago, or, if it can't be read any more, all of its blocks.
func (d *Directory) chunkOrAll(id ChunkID, room uint32) bitmap {
	b, err := d.readChunk(id)
	if err == nil {
		var m bitmap
		var span uint32
		if m, span, err = parseChunk(b); err == nil && span == room {
			return m
		}
	}
	d.log.Warn("A piece of a stale set is gone, all of it counts as stale", "chunk", id, "error", err)
	m := newBitmap(room)
	m.add(0, room)
	return m
}
