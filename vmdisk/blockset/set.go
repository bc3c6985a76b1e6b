package blockset

import (
	"iter"
	"math/bits"
)

// pageChunks is how many chunks share a page of a set's table; the last page has as many as the disk has there.
const pageChunks = 256

// Set is a set of the blocks [0, Blocks()). Not safe for concurrent use; looking only (Has, Next, Run, Count) may go on in several
// goroutines while none changes it.
type Set struct {
	blocks int64
	pages  [][]*chunk // as many as were needed so far
	n      int64
	pool   *Pool
}

// Most is how many blocks the largest disk has. A set of that many is one of any disk, also while that grows.
const Most = int64(1) << 32

// New is an empty set of a disk of that many blocks. What lies beyond the last one that was ever added takes no memory.
func New(blocks int64) *Set { return &Set{blocks: blocks} }

// Grow makes it a set of a disk of that many blocks, with the same in it, if it is of a smaller one.
func (m *Set) Grow(blocks int64) {
	if blocks <= m.blocks {
		return
	}
	last := max(0, m.blocks-1) / ChunkBlocks
	before, full := m.blocks-last*ChunkBlocks, m.blocks > 0 && m.chunk(last) == fullChunk
	pages := int64(len(m.pages))
	m.blocks = blocks
	if pages > 0 && int64(len(m.pages[pages-1])) < pageChunks { // it may have been the disk's last
		if p := m.pages[pages-1]; p != nil {
			m.pages[pages-1] = append(make([]*chunk, 0, m.width(pages-1)), p...)[:m.width(pages-1)]
		}
	}
	if full && before < m.room(last) {
		m.place(last, nil, -before)
		m.Add(last*ChunkBlocks, last*ChunkBlocks+before)
	}
}

// width is how many chunks page i has.
func (m *Set) width(i int64) int64 { return min(pageChunks, m.chunks()-i*pageChunks) }

// chunks is how many chunks the disk has.
func (m *Set) chunks() int64 { return (m.blocks + ChunkBlocks - 1) / ChunkBlocks }

// used is the number of chunks from the first on beyond which all are empty.
func (m *Set) used() int64 { return min(m.chunks(), int64(len(m.pages))*pageChunks) }

// room is the number of blocks that chunk i has.
func (m *Set) room(i int64) int64 { return min(ChunkBlocks, m.blocks-i*ChunkBlocks) }

// chunk is chunk i, nil if it is empty.
func (m *Set) chunk(i int64) *chunk {
	if at := i / pageChunks; at < int64(len(m.pages)) && m.pages[at] != nil {
		return m.pages[at][i%pageChunks]
	}
	return nil
}

// place sets chunk i, which counts n blocks more than what was there. An empty or full c isn't kept.
func (m *Set) place(i int64, c *chunk, n int64) {
	at := i / pageChunks
	if c == nil && (at >= int64(len(m.pages)) || m.pages[at] == nil) {
		return
	}
	for at >= int64(len(m.pages)) {
		m.pages = append(m.pages, nil)
	}
	if m.pages[at] == nil {
		m.pages[at] = make([]*chunk, m.width(at))
	}
	m.pages[at][i%pageChunks] = c
	m.n += n
}

// from are the chunks that aren't empty, from chunk i on.
func (m *Set) from(i int64) iter.Seq2[int64, *chunk] {
	return func(yield func(int64, *chunk) bool) {
		for at := i / pageChunks; at < int64(len(m.pages)); at++ {
			p := m.pages[at]
			for j := max(0, i-at*pageChunks); j < int64(len(p)); j++ {
				if c := p[j]; c != nil && !yield(at*pageChunks+j, c) {
					return
				}
			}
		}
	}
}

// Blocks is how many blocks the disk has.
func (m *Set) Blocks() int64 { return m.blocks }

// Count is how many blocks are in the set.
func (m *Set) Count() int64 { return m.n }

// Empty says that none is.
func (m *Set) Empty() bool { return m.n == 0 }

// Has says whether block x, of the disk, is in the set.
func (m *Set) Has(x int64) bool {
	c := m.chunk(x / ChunkBlocks)
	if c == nil || c == fullChunk {
		return c != nil
	}
	w := c.words.Load()
	if w == nil {
		w = new(words)
		unpack(c.packed, w)
	}
	return w[x%ChunkBlocks/64]>>(x%64)&1 != 0
}

// Reset makes the set empty.
func (m *Set) Reset() {
	if m.n == 0 {
		return
	}
	for _, p := range m.pages {
		for i, c := range p {
			c.drop(m.pool, 1)
			p[i] = nil
		}
	}
	m.n = 0
}

// Add adds the blocks [a, b).
func (m *Set) Add(a, b int64) {
	for b = min(b, m.blocks); a < b; {
		i := a / ChunkBlocks
		end := min(b, (i+1)*ChunkBlocks)
		one := [1]*Set{m}
		addPiece(one[:], i, a-i*ChunkBlocks, end-i*ChunkBlocks)
		a = end
	}
}

// Remove removes the blocks [a, b).
func (m *Set) Remove(a, b int64) {
	for b = min(b, m.blocks); a < b; {
		i := a / ChunkBlocks
		end := min(b, (i+1)*ChunkBlocks)
		m.removePiece(i, a-i*ChunkBlocks, end-i*ChunkBlocks)
		a = end
	}
}

func (m *Set) removePiece(i, a, b int64) {
	c, room := m.chunk(i), m.room(i)
	if c == nil {
		return
	}
	if a == 0 && b == room {
		m.place(i, nil, -c.count(room))
		c.drop(m.pool, 1)
		return
	}
	if w := c.words.Load(); w != nil && w.next(a, b, true) == b {
		return
	}
	mine := c.own(m.pool, 1, room)
	gone := mine.words.Load().wipe(a, b)
	mine.n -= gone
	m.settle(i, mine, room, -gone)
}

// settle places what changed, dropping it if it became empty or full.
func (m *Set) settle(i int64, c *chunk, room, n int64) {
	switch c.n {
	case 0:
		c.drop(m.pool, 1)
		c = nil
	case room:
		c.drop(m.pool, 1)
		c = fullChunk
	default:
		m.pool.touch(c)
	}
	m.place(i, c, n)
}

// Or adds all of o, which has the same number of blocks.
func (m *Set) Or(o *Set) {
	var scratch words
	for i, oc := range o.from(0) {
		room := m.room(i)
		c := m.chunk(i)
		switch {
		case c == fullChunk || c == oc:
		case oc == fullChunk:
			m.place(i, fullChunk, room-c.count(room))
			c.drop(m.pool, 1)
		case c == nil && (m.pool == o.pool || m.pool == nil):
			oc.refs.Add(1)
			m.place(i, oc, oc.n)
		default:
			m.or(i, oc.look(&scratch, room))
		}
	}
}

// or adds w to chunk i.
func (m *Set) or(i int64, w *words) {
	room := m.room(i)
	c := m.chunk(i)
	if c == fullChunk {
		return
	}
	before := c.count(room)
	mine := c.own(m.pool, 1, room)
	to := mine.words.Load()
	mine.n = 0
	for x := range w {
		to[x] |= w[x]
		mine.n += int64(bits.OnesCount64(to[x]))
	}
	m.settle(i, mine, room, mine.n-before)
}

// Clone is a copy in no pool. It takes memory only for what is changed later in one of the two, from whatever goroutines. Who
// doesn't need it any more should Reset it, so that m has its memory to itself again.
func (m *Set) Clone() *Set {
	c := New(m.blocks)
	c.Or(m)
	return c
}

// Coarse is m with whole grains of that many blocks, a divisor of ChunkBlocks, in no pool.
func (m *Set) Coarse(grain int64) *Set {
	out := New(m.blocks)
	var scratch words
	for i, c := range m.from(0) {
		room, base := m.room(i), i*ChunkBlocks
		w := c.look(&scratch, room)
		for x := w.next(0, room, true); x < room; x = w.next(x, room, true) {
			end := (x/grain + 1) * grain
			out.Add(base+x/grain*grain, base+end)
			x = end
		}
	}
	return out
}

// UnionCount is how many blocks are in any of the three.
func UnionCount(a, b, c *Set) int64 {
	switch {
	case b.n == 0 && c.n == 0:
		return a.n
	case a.n == 0 && c.n == 0:
		return b.n
	case a.n == 0 && b.n == 0:
		return c.n
	}
	var n int64
	var sa, sb, sc words
	for i := range max(a.used(), b.used(), c.used()) {
		x, y, z := a.chunk(i), b.chunk(i), c.chunk(i)
		room := a.room(i)
		switch {
		case x == fullChunk || y == fullChunk || z == fullChunk:
			n += room
		case (y == nil || y == x) && (z == nil || z == x):
			n += x.count(room)
		case x == nil && (z == nil || z == y):
			n += y.count(room)
		case x == nil && y == nil:
			n += z.count(room)
		default:
			wx, wy, wz := x.look(&sa, room), y.look(&sb, room), z.look(&sc, room)
			for w := range chunkWords {
				n += int64(bits.OnesCount64(wx[w] | wy[w] | wz[w]))
			}
		}
	}
	return n
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
		c := m.chunk(i)
		if c == nil || c == fullChunk {
			if (c == fullChunk) == in {
				return x
			}
			if in && i/pageChunks >= int64(len(m.pages)) {
				break
			}
			if in && m.pages[i/pageChunks] == nil {
				x = (i/pageChunks + 1) * pageChunks * ChunkBlocks
				continue
			}
			x = (i + 1) * ChunkBlocks
			continue
		}
		w := c.words.Load()
		if w == nil {
			w = new(words)
			unpack(c.packed, w)
		}
		base, room := i*ChunkBlocks, m.room(i)
		if y := w.next(x-base, room, in); y < room {
			return base + y
		}
		x = base + room
	}
	return m.blocks
}
