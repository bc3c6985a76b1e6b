package mirror

import (
	"context"
	"sync"
)

const (
	// batchLimit is how many bytes may wait for the writer before the pump waits.
	// One frame may exceed it.
	batchLimit = 256 << 10
	// lendFrom is from how many bytes on the data of a write is sent from where it lies: shorter data is
	// copied, which is cheaper than a message of the multiplexer of its own.
	lendFrom = 128 << 10
)

// batch collects frames while the writer is busy with the batch before, so that
// many small frames cost one write to the stream and none of them waits for a
// timer: an idle writer takes the first one at once.
type batch struct {
	mu     sync.Mutex
	load   load
	closed bool
	filled chan struct{} // 1-buffered: the load is no longer empty, or closed
	taken  chan struct{} // 1-buffered: the load was taken
}

// load is frames in their order: the bytes of buf, with what was lent in between.
type load struct {
	buf  []byte
	lent []lent
	size int // bytes, all together
}

// lent is data that belongs behind the first at bytes of buf. done is called when it isn't needed any more.
type lent struct {
	at   int
	data []byte
	done func()
}

// release gives back what was lent and not sent.
func (l *load) release() {
	for _, x := range l.lent {
		x.done()
	}
	clear(l.lent)
	l.lent = l.lent[:0]
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
	return b.put(ctx, add, nil, nil)
}

// lend is add with data behind what add appends, which it doesn't copy. Unless it fails, done is called once: when data is sent, or
// will never be.
func (b *batch) lend(ctx context.Context, add func([]byte) []byte, data []byte, done func()) error {
	return b.put(ctx, add, data, done)
}

func (b *batch) put(ctx context.Context, add func([]byte) []byte, data []byte, done func()) error {
	for {
		b.mu.Lock()
		if l := &b.load; l.size < batchLimit {
			before := len(l.buf)
			l.buf = add(l.buf)
			l.size += len(l.buf) - before + len(data)
			if done != nil {
				l.lent = append(l.lent, lent{len(l.buf), data, done})
			}
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

// close ends the batch: take returns what is left and then nothing.
func (b *batch) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	wake(b.filled)
}

// release gives back what was lent and not taken. Nothing may be added any more.
func (b *batch) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.load.release()
}

// take returns all that there is; spare is memory to collect the next in. A load
// without bytes means that the batch is closed and empty.
func (b *batch) take(ctx context.Context, spare load) (load, error) {
	for {
		b.mu.Lock()
		if l := b.load; l.size > 0 {
			b.load = load{buf: spare.buf[:0], lent: spare.lent[:0]}
			b.mu.Unlock()
			wake(b.taken)
			return l, nil
		}
		closed := b.closed
		b.mu.Unlock()
		if closed {
			return load{}, nil
		}
		select {
		case <-b.filled:
		case <-ctx.Done():
			return load{}, context.Cause(ctx)
		}
	}
}
