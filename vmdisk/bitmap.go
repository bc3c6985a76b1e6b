package vmdisk

import "math/bits"

// A chunk covers 128 MiB of disk in 4 KiB of memory.
const (
	chunkBits  = 1 << 15
	chunkWords = chunkBits / 64
)

type chunk struct {
	words [chunkWords]uint64
	n     int64
}

// fullChunk stands for a chunk with all its bits set. It is never written.
var fullChunk = &chunk{}

// bitmap is a set of blocks. Chunks that are empty or full take no memory. Not safe for concurrent use.
type bitmap struct {
	blocks int64
	chunks []*chunk
	n      int64
}

func newBitmap(blocks int64) *bitmap {
	return &bitmap{blocks: blocks, chunks: make([]*chunk, (blocks+chunkBits-1)/chunkBits)}
}

// room is the number of bits that chunk i has.
func (m *bitmap) room(i int64) int64 { return min(chunkBits, m.blocks-i*chunkBits) }

func (m *bitmap) count() int64 { return m.n }
func (m *bitmap) empty() bool  { return m.n == 0 }

func (m *bitmap) reset() {
	if m.n > 0 {
		clear(m.chunks)
		m.n = 0
	}
}

// own makes chunk i writable.
func (m *bitmap) own(i int64) *chunk {
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
func (m *bitmap) tidy(i int64) {
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

// set adds the blocks [a, b).
func (m *bitmap) set(a, b int64) {
	b = min(b, m.blocks)
	for a < b {
		i := a / chunkBits
		base := i * chunkBits
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

func (m *bitmap) chunkCount(i int64) int64 {
	switch c := m.chunks[i]; c {
	case nil:
		return 0
	case fullChunk:
		return m.room(i)
	default:
		return c.n
	}
}

// clear removes the blocks [a, b).
func (m *bitmap) clear(a, b int64) {
	b = min(b, m.blocks)
	for a < b {
		i := a / chunkBits
		base := i * chunkBits
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

// or adds all of o, which has the same number of blocks.
func (m *bitmap) or(o *bitmap) {
	for i, oc := range o.chunks {
		i := int64(i)
		switch {
		case oc == nil || m.chunks[i] == fullChunk:
		case oc == fullChunk:
			m.set(i*chunkBits, i*chunkBits+m.room(i))
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

func (m *bitmap) clone() *bitmap {
	c := newBitmap(m.blocks)
	c.or(m)
	return c
}

// unionCount is how many blocks are in any of the three.
func unionCount(a, b, c *bitmap) int64 {
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

// run finds the first run of blocks from 'from' on, going round at the end. A run is not longer than limit.
func (m *bitmap) run(from, limit int64) (a, b int64, ok bool) {
	if m.n == 0 {
		return 0, 0, false
	}
	if from < 0 || from >= m.blocks {
		from = 0
	}
	a = m.next(from, true)
	if a == m.blocks {
		a = m.next(0, true)
	}
	return a, min(m.next(a, false), a+limit), true
}

// next is the first block from x on that is in the set (or, if !in, isn't), or the number of blocks.
func (m *bitmap) next(x int64, in bool) int64 {
	for x < m.blocks {
		i := x / chunkBits
		c := m.chunks[i]
		if c == nil || c == fullChunk {
			if (c == fullChunk) == in {
				return x
			}
			x = (i + 1) * chunkBits
			continue
		}
		w := c.words[x%chunkBits/64]
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
