package blockset

import (
	"math/bits"
	"sync/atomic"
)

// ChunkBlocks is how many blocks share a chunk, which takes at most 4 KiB of memory: 128 MiB of disk.
const ChunkBlocks = 1 << 15

const chunkWords = ChunkBlocks / 64

// words has a bit for each block of a chunk, the lowest first.
type words [chunkWords]uint64

// chunk is a piece of one or more sets, neither empty nor full.
//
// What it contains changes only by who holds all references to it, and has the pool that it was made for (or also none): a set
// whose chunk others have too gets one of its own first. How it is kept may change at any time, by who holds the pool: packed is
// set before words is taken away, so that others who look meanwhile see the same content either way.
type chunk struct {
	refs   atomic.Int32 // sets that have it; may be too many, never too few
	n      int64        // blocks
	words  atomic.Pointer[words]
	packed []byte // if words is nil

	pool *Pool
	at   int  // in the pool's ring, or -1
	used bool // since the pool's hand passed
}

// fullChunk stands for a chunk with all its blocks. It is never changed, and its references aren't counted.
var fullChunk = &chunk{}

func newChunk(pool *Pool, refs int32) *chunk {
	c := &chunk{pool: pool, at: -1}
	c.refs.Store(refs)
	c.words.Store(pool.blank())
	return c
}

// look is the content of a chunk, which may be nil, with that many blocks if it is full. It is either the chunk's own or in
// scratch, and not to be changed.
func (c *chunk) look(scratch *words, room int64) *words {
	switch c {
	case nil:
		*scratch = words{}
		return scratch
	case fullChunk:
		*scratch = words{}
		scratch.fill(0, room)
		return scratch
	}
	if w := c.words.Load(); w != nil {
		return w
	}
	unpack(c.packed, scratch)
	return scratch
}

// count is how many blocks the chunk has, with room for so many.
func (c *chunk) count(room int64) int64 {
	switch c {
	case nil:
		return 0
	case fullChunk:
		return room
	}
	return c.n
}

// own is a chunk with the content of c that who holds k references to c, from sets with that pool, may change: c itself if
// they are all, else a copy, which takes these references over.
func (c *chunk) own(pool *Pool, k int32, room int64) *chunk {
	if c != nil && c != fullChunk && c.pool == pool && c.refs.Load() == k {
		if c.words.Load() == nil {
			w := pool.blank()
			unpack(c.packed, w)
			c.words.Store(w)
			c.packed = nil
		}
		return c
	}
	mine := newChunk(pool, k)
	w := mine.words.Load()
	mine.n = c.count(room)
	if from := c.look(w, room); from != w {
		*w = *from
	}
	c.drop(pool, k)
	return mine
}

// drop gives k references of sets with that pool back.
func (c *chunk) drop(pool *Pool, k int32) {
	if c == nil || c == fullChunk {
		return
	}
	if c.refs.Add(-k) == 0 && c.pool == pool {
		pool.forget(c)
	}
}

// fill adds the blocks [a, b), and says how many weren't there.
func (w *words) fill(a, b int64) (added int64) {
	for a < b {
		mask, next := wordMask(a, b)
		old := w[a/64]
		w[a/64] = old | mask
		added += int64(bits.OnesCount64(mask &^ old))
		a = next
	}
	return added
}

// wipe removes the blocks [a, b), and says how many were there.
func (w *words) wipe(a, b int64) (gone int64) {
	for a < b {
		mask, next := wordMask(a, b)
		gone += int64(bits.OnesCount64(w[a/64] & mask))
		w[a/64] &^= mask
		a = next
	}
	return gone
}

// all says whether all of the blocks [a, b) are there.
func (w *words) all(a, b int64) bool {
	for a < b {
		mask, next := wordMask(a, b)
		if w[a/64]&mask != mask {
			return false
		}
		a = next
	}
	return true
}

// next is the first block from x on that is there (or, if !in, isn't), at most end.
func (w *words) next(x, end int64, in bool) int64 {
	for x < end {
		v := w[x/64]
		if !in {
			v = ^v
		}
		if v &= ^uint64(0) << (x % 64); v != 0 {
			return min(end, x/64*64+int64(bits.TrailingZeros64(v)))
		}
		x = (x/64 + 1) * 64
	}
	return end
}

// wordMask has the bits of a's word that are in [a, b), and where the next word begins.
func wordMask(a, b int64) (mask uint64, next int64) {
	next = min(b, (a/64+1)*64)
	mask = ^uint64(0) << (a % 64)
	if r := next % 64; r != 0 {
		mask &= 1<<r - 1
	}
	return mask, next
}
