package mirror

import (
	"context"
	"sync"
)

// batchLimit is how many bytes may wait for the writer before the pump waits.
// One frame may exceed it.
const batchLimit = 256 << 10

// batch collects frames while the writer is busy with the batch before, so that
// many small frames cost one write to the stream and none of them waits for a
// timer: an idle writer takes the first one at once.
type batch struct {
	mu     sync.Mutex
	buf    []byte
	closed bool
	filled chan struct{} // 1-buffered: buf is no longer empty, or closed
	taken  chan struct{} // 1-buffered: buf was taken
}

func newBatch() *batch {
	return &batch{filled: make(chan struct{}, 1), taken: make(chan struct{}, 1)}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// add appends to the batch what add appends, after waiting for room.
func (b *batch) add(ctx context.Context, add func([]byte) []byte) error {
	for {
		b.mu.Lock()
		if len(b.buf) < batchLimit {
			b.buf = add(b.buf)
			b.mu.Unlock()
			wake(b.filled)
			return nil
		}
		b.mu.Unlock()
		select {
		case <-b.taken:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// close ends the batch: take returns what is left and then nil.
func (b *batch) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	wake(b.filled)
}

// take waits for bytes and returns all there are; spare is memory to collect
// the next ones in. nil means that the batch is closed and empty.
func (b *batch) take(ctx context.Context, spare []byte) ([]byte, error) {
	for {
		b.mu.Lock()
		if len(b.buf) > 0 {
			p := b.buf
			b.buf = spare[:0]
			b.mu.Unlock()
			wake(b.taken)
			return p, nil
		}
		closed := b.closed
		b.mu.Unlock()
		if closed {
			return nil, nil
		}
		select {
		case <-b.filled:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
