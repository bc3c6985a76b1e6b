package vmdisk

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// buffer is a piece of the disk, or zeros, and the operation that writes it, which the queues of several peers share. It goes
// back to its pool when the last of them has released it.
type buffer struct {
	op   Op
	data []byte
	full []byte
	refs atomic.Int32
}

// write is the operation that writes the buffer at off. It may be asked for before the buffer is shared.
func (b *buffer) write(off int64) *Op {
	b.op = Op{Kind: OpWrite, Off: off, Len: int64(len(b.data)), Data: b.data, buf: b}
	return &b.op
}

// pools has one pool for each power of two from 4 KiB to MaxOp.
var pools [9]sync.Pool

func poolFor(n int) int { return max(0, bits.Len(uint(n-1))-12) }

// newBuffer has n bytes, 0 < n <= MaxOp, of arbitrary content, and one reference.
func newBuffer(n int) *buffer {
	i := poolFor(n)
	b, _ := pools[i].Get().(*buffer)
	if b == nil {
		b = &buffer{full: make([]byte, Block<<i)}
	}
	b.data = b.full[:n]
	b.refs.Store(1)
	return b
}

// emptyBuffers are those of zeros, which have no content.
var emptyBuffers sync.Pool

// newZeros is the operation that makes n bytes at off zeros, in a buffer without content that has one reference.
func newZeros(off, n int64) *buffer {
	b, _ := emptyBuffers.Get().(*buffer)
	if b == nil {
		b = &buffer{}
	}
	b.op = Op{Kind: OpZero, Off: off, Len: n, buf: b}
	b.refs.Store(1)
	return b
}

func (b *buffer) retain() { b.refs.Add(1) }

func (b *buffer) release() {
	switch {
	case b.refs.Add(-1) > 0:
	case b.full == nil:
		emptyBuffers.Put(b)
	default:
		pools[poolFor(len(b.full))].Put(b)
	}
}
