package blockset

// Pool bounds the memory of sets that are much alike or seldom touched, such as what the peers of a disk lack. Chunks that weren't
// changed for long are packed when there are too many; Share and AddAll let sets have the same chunks. A pool and its sets are
// for one goroutine at a time, all together; a Clone of such a set belongs to no pool, and may be read and changed beside them.
type Pool struct {
	limit   int      // of ring
	ring    []*chunk // in words, changed lately
	hand    int
	free    []*words
	scratch [maxPacked + 16]byte
}

// freeWords is how many unused words are kept.
const freeWords = 32

// NewPool is a pool that keeps about that many bytes of its sets at hand; what is changed beside them has to be unpacked first,
// which takes some 10 µs.
func NewPool(hotBytes int64) *Pool {
	return &Pool{limit: max(16, int(hotBytes/(chunkWords*8)))}
}

// New is an empty set of a disk of that many blocks.
func (p *Pool) New(blocks int64) *Set {
	m := New(blocks)
	m.pool = p
	return m
}

// blank is words of any content.
func (p *Pool) blank() *words {
	if p == nil || len(p.free) == 0 {
		return new(words)
	}
	last := len(p.free) - 1
	w := p.free[last]
	p.free = p.free[:last]
	return w
}

// forget takes back the memory of a chunk that no set has any more.
func (p *Pool) forget(c *chunk) {
	if p == nil {
		return
	}
	if c.at >= 0 {
		p.remove(c)
	}
	if w := c.words.Load(); w != nil && len(p.free) < freeWords {
		c.words.Store(nil)
		p.free = append(p.free, w)
	}
}

// touch notes that c was changed.
func (p *Pool) touch(c *chunk) {
	if p == nil {
		return
	}
	c.used = true
	if c.at >= 0 {
		return
	}
	c.at = len(p.ring)
	p.ring = append(p.ring, c)
	for steps := 8; len(p.ring) > p.limit && steps > 0; steps-- {
		p.step()
	}
}

// step moves the hand over one chunk: one that was changed since it passed last stays, others leave the ring, packed if that saves
// something (the clock, Corbató 1968).
func (p *Pool) step() {
	if p.hand >= len(p.ring) {
		p.hand = 0
	}
	c := p.ring[p.hand]
	if c.used && c.refs.Load() > 0 {
		c.used = false
		p.hand++
		return
	}
	p.remove(c)
	w := c.words.Load()
	if w == nil || c.refs.Load() == 0 {
		return
	}
	if b := pack(w, c.n, &p.scratch); b != nil {
		c.packed = append(make([]byte, 0, len(b)), b...)
		c.words.Store(nil)
	}
}

// remove takes c out of the ring.
func (p *Pool) remove(c *chunk) {
	last := len(p.ring) - 1
	p.ring[c.at] = p.ring[last]
	p.ring[c.at].at = c.at
	p.ring[last] = nil
	p.ring = p.ring[:last]
	c.at = -1
}

// Crowded says that chunks had to leave for others, or soon will: then it is time to Share.
func (p *Pool) Crowded() bool { return len(p.ring) > p.limit/2 }
