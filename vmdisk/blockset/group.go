package blockset

import "bytes"

// AddAll adds the blocks [a, b) to all sets, which have as many blocks and the same pool, and are different ones. Those
// that have a chunk in common, or both have it empty, have it in common afterwards: it is changed once, for all.
func AddAll(sets []*Set, a, b int64) {
	for len(sets) > 0 {
		part := sets[:min(len(sets), maxGroup)]
		sets = sets[len(part):]
		for x, end := a, min(b, part[0].blocks); x < end; {
			i := x / ChunkBlocks
			to := min(end, (i+1)*ChunkBlocks)
			addPiece(part, i, x-i*ChunkBlocks, to-i*ChunkBlocks)
			x = to
		}
	}
}

// maxGroup is how many sets are looked at together: the bits of a number.
const maxGroup = 64

// addPiece adds the blocks [a, b) of chunk i to the sets, at most maxGroup.
func addPiece(sets []*Set, i, a, b int64) {
	room := sets[0].room(i)
	for done, j := uint64(0), 0; j < len(sets); j++ {
		if done>>j&1 != 0 {
			continue
		}
		c := sets[j].chunk(i)
		k := int32(0)
		same := uint64(0)
		for l := j; l < len(sets); l++ {
			if sets[l].chunk(i) == c {
				same |= 1 << l
				k++
			}
		}
		done |= same
		mine, added := c.with(sets[j].pool, k, a, b, room)
		if mine == c && added == 0 {
			continue
		}
		for l := j; l < len(sets); l++ {
			if same>>l&1 != 0 {
				sets[l].place(i, mine, added)
			}
		}
	}
}

// with is c with the blocks [a, b), for who holds k references to it, and how many were added.
func (c *chunk) with(pool *Pool, k int32, a, b, room int64) (*chunk, int64) {
	before := c.count(room)
	switch {
	case c == fullChunk:
		return c, 0
	case a == 0 && b == room:
		c.drop(pool, k)
		return fullChunk, room - before
	}
	if c != nil {
		if w := c.words.Load(); w != nil && w.all(a, b) {
			return c, 0
		}
	}
	mine := c.own(pool, k, room)
	added := mine.words.Load().fill(a, b)
	if mine.n += added; mine.n == room {
		mine.drop(pool, k)
		return fullChunk, added
	}
	pool.touch(mine)
	return mine, added
}

// Share finds chunks of the sets, which have as many blocks and the same pool, that are equal, and has them in common from now on.
// It looks at everything: milliseconds for each TiB.
func Share(sets []*Set) {
	if len(sets) < 2 {
		return
	}
	var used int64
	for _, s := range sets {
		used = max(used, s.used())
	}
	for i := range used {
		for j := 1; j < len(sets); j++ {
			c := sets[j].chunk(i)
			if c == nil || c == fullChunk {
				continue
			}
			for _, o := range sets[:j] {
				if oc := o.chunk(i); oc != c && oc.equal(c) {
					oc.refs.Add(1)
					sets[j].place(i, oc, 0)
					c.drop(sets[j].pool, 1)
					break
				}
			}
		}
	}
}

// equal says whether two chunks, neither empty nor full, are seen to have the same content.
func (c *chunk) equal(o *chunk) bool {
	if c == nil || c == fullChunk || c.n != o.n {
		return false
	}
	v, w := c.words.Load(), o.words.Load()
	switch {
	case v != nil && w != nil:
		return *v == *w
	case v == nil && w == nil:
		return bytes.Equal(c.packed, o.packed)
	case v == nil:
		v, w = w, v
		c, o = o, c
	}
	var scratch words
	return *v == *o.look(&scratch, ChunkBlocks)
}
