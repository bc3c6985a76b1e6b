package nbd

import "sync"

// buffer is a request's data. Its memory comes from a pool of its size class.
type buffer struct {
	mem   []byte
	class int
}

// bufferClasses are the sizes that are kept for reuse. Longer ones are rare and are left to the
// collector, so that a burst of 32 MiB requests doesn't stay in memory.
var bufferClasses = [...]int{4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20}

var bufferPools [len(bufferClasses)]sync.Pool

// newBuffer returns a buffer of n bytes, n > 0, whose content is anything.
func newBuffer(n int) *buffer {
	for class, size := range bufferClasses {
		if n > size {
			continue
		}
		if b, ok := bufferPools[class].Get().(*buffer); ok {
			b.mem = b.mem[:n]
			return b
		}
		return &buffer{mem: make([]byte, n, size), class: class}
	}
	return &buffer{mem: make([]byte, n), class: -1}
}

// free gives the memory back. b must not be used any more.
func (b *buffer) free() {
	if b.class >= 0 {
		bufferPools[b.class].Put(b)
	}
}
