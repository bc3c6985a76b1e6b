package verify

import (
	"iter"

	"tagalong.org/tagalong/p2p/replica"
)

// Block is the unit of what a copy lacks, in bytes.
const Block = replica.Block

// Mask says which blocks of a leaf are left out of a comparison, the lowest bit first: they count as zeros.
type Mask uint16

// all says that nothing of a leaf of n bytes is left.
func (m Mask) all(n int64) bool { return ^uint64(m)<<(64-n/Block) == 0 }

// within says that all that m leaves out o leaves out, too.
func (m Mask) within(o Mask) bool { return m&^o == 0 }

// left is how many of a leaf's n bytes aren't left out.
func (m Mask) left(n int64) (sum int64) {
	for range m.blocks(n) {
		sum += Block
	}
	return sum
}

// blocks are the blocks of a leaf of n bytes that aren't left out, by where they begin in the leaf.
func (m Mask) blocks(n int64) iter.Seq[int64] {
	return func(yield func(int64) bool) {
		for x := int64(0); x < n; x += Block {
			if m>>(x/Block)&1 == 0 && !yield(x) {
				return
			}
		}
	}
}

// apply makes zeros of what is left out of the leaf p.
func (m Mask) apply(p []byte) {
	for x := int64(0); m != 0 && x < int64(len(p)); x += Block {
		if m>>(x/Block)&1 == 1 {
			clear(p[x : x+Block])
		}
	}
}
