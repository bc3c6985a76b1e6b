package blockset

import "math/bits"

// ChunkBlocks is how many blocks share a chunk, which takes 4 KiB of memory: 128 MiB of disk.
const ChunkBlocks = 1 << 15

const chunkWords = ChunkBlocks / 64

type chunk struct {
	words [chunkWords]uint64
	n     int64
}

// fullChunk stands for a chunk with all its bits set. It is never written.
var fullChunk = &chunk{}

// Set is a set of the blocks [0, Blocks()). Not safe for concurrent use.
type Set struct {
	blocks int64
	chunks []*chunk
	n      int64
}

// New is an empty set of a disk of that many blocks.
func New(blocks int64) *Set {
	return &Set{blocks: blocks, chunks: make([]*chunk, (blocks+ChunkBlocks-1)/ChunkBlocks)}
}

// room is the number of bits that chunk i has.
func (m *Set) room(i int64) int64 { return min(ChunkBlocks, m.blocks-i*ChunkBlocks) }

// Blocks is how many blocks the disk has.
func (m *Set) Blocks() int64 { return m.blocks }

// Count is how many blocks are in the set.
func (m *Set) Count() int64 { return m.n }

// Empty says that none is.
func (m *Set) Empty() bool { return m.n == 0 }

// Has says whether block x, of the disk, is in the set.
func (m *Set) Has(x int64) bool {
	c := m.chunks[x/ChunkBlocks]
	return c == fullChunk || c != nil && c.words[x%ChunkBlocks/64]>>(x%64)&1 != 0
}

// Reset makes the set empty.
func (m *Set) Reset() {
	if m.n > 0 {
		clear(m.chunks)
		m.n = 0
	}
}

// own makes chunk i writable.
func (m *Set) own(i int64) *chunk {
	c := m.chunks[i]
	switch c {
	case nil:
		c = &chunk{}
	case fullChunk:
		c = &chunk{n: m.room(i)}
		fillWords(&c.words, 0, c.n)
	default:
		return c
	}
	m.chunks[i] = c
	return c
}

// tidy drops the memory of a chunk that became empty or full.
func (m *Set) tidy(i int64) {
	switch c := m.chunks[i]; {
	case c == nil || c == fullChunk:
	case c.n == 0:
		m.chunks[i] = nil
	case c.n == m.room(i):
		m.chunks[i] = fullChunk
	}
}

func fillWords(w *[chunkWords]uint64, a, b int64) (added int64) {
	for a < b {
		mask, next := wordMask(a, b)
		old := w[a/64]
		w[a/64] = old | mask
		added += int64(bits.OnesCount64(mask &^ old))
		a = next
	}
	return added
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

// Add adds the blocks [a, b).
func (m *Set) Add(a, b int64) {
	b = min(b, m.blocks)
	for a < b {
		i := a / ChunkBlocks
		base := i * ChunkBlocks
		end := min(b, base+m.room(i))
		switch {
		case m.chunks[i] == fullChunk:
		case a == base && end == base+m.room(i):
			m.n += m.room(i) - m.chunkCount(i)
			m.chunks[i] = fullChunk
		default:
			c := m.own(i)
			added := fillWords(&c.words, a-base, end-base)
			c.n += added
			m.n += added
			m.tidy(i)
		}
		a = end
	}
}

func (m *Set) chunkCount(i int64) int64 {
	switch c := m.chunks[i]; c {
	case nil:
		return 0
	case fullChunk:
		return m.room(i)
	default:
		return c.n
	}
}

// Remove removes the blocks [a, b).
func (m *Set) Remove(a, b int64) {
	b = min(b, m.blocks)
	for a < b {
		i := a / ChunkBlocks
		base := i * ChunkBlocks
		end := min(b, base+m.room(i))
		switch {
		case m.chunks[i] == nil:
		case a == base && end == base+m.room(i):
			m.n -= m.chunkCount(i)
			m.chunks[i] = nil
		default:
			c := m.own(i)
			for x := a - base; x < end-base; {
				mask, next := wordMask(x, end-base)
				gone := int64(bits.OnesCount64(c.words[x/64] & mask))
				c.words[x/64] &^= mask
				c.n -= gone
				m.n -= gone
				x = next
			}
			m.tidy(i)
		}
		a = end
	}
}

// Or adds all of o, which has the same number of blocks.
func (m *Set) Or(o *Set) {
	for i, oc := range o.chunks {
		i := int64(i)
		switch {
		case oc == nil || m.chunks[i] == fullChunk:
		case oc == fullChunk:
			m.Add(i*ChunkBlocks, i*ChunkBlocks+m.room(i))
		default:
			c := m.own(i)
			var n int64
			for w := range c.words {
				c.words[w] |= oc.words[w]
				n += int64(bits.OnesCount64(c.words[w]))
			}
			m.n += n - c.n
			c.n = n
			m.tidy(i)
		}
	}
}

// Clone is a copy that shares nothing with m.
func (m *Set) Clone() *Set {
	c := New(m.blocks)
	c.Or(m)
	return c
}

// UnionCount is how many blocks are in any of the three.
func UnionCount(a, b, c *Set) int64 {
	var n int64
	for i := range a.chunks {
		x, y, z := a.chunks[i], b.chunks[i], c.chunks[i]
		switch {
		case x == fullChunk || y == fullChunk || z == fullChunk:
			n += a.room(int64(i))
		case y == nil && z == nil:
			n += a.chunkCount(int64(i))
		case x == nil && z == nil:
			n += b.chunkCount(int64(i))
		case x == nil && y == nil:
			n += c.chunkCount(int64(i))
		default:
			for w := range chunkWords {
				n += int64(bits.OnesCount64(x.word(w) | y.word(w) | z.word(w)))
			}
		}
	}
	return n
}

func (c *chunk) word(w int) uint64 {
	if c == nil {
		return 0
	}
	return c.words[w]
}

// Run finds the first run of blocks from 'from' on, going round at the end. A run is not longer than limit.
func (m *Set) Run(from, limit int64) (a, b int64, ok bool) {
	if m.n == 0 {
		return 0, 0, false
	}
	if from < 0 || from >= m.blocks {
		from = 0
	}
	a = m.Next(from, true)
	if a == m.blocks {
		a = m.Next(0, true)
	}
	return a, min(m.Next(a, false), a+limit), true
}

// Next is the first block from x on that is in the set (or, if !in, isn't), or the number of blocks.
func (m *Set) Next(x int64, in bool) int64 {
	for x < m.blocks {
		i := x / ChunkBlocks
		c := m.chunks[i]
		if c == nil || c == fullChunk {
			if (c == fullChunk) == in {
				return x
			}
			x = (i + 1) * ChunkBlocks
			continue
		}
		w := c.words[x%ChunkBlocks/64]
		if !in {
			w = ^w
		}
		if w &= ^uint64(0) << (x % 64); w != 0 {
			return min(m.blocks, x/64*64+int64(bits.TrailingZeros64(w)))
		}
		x = (x/64 + 1) * 64
	}
	return m.blocks
}
