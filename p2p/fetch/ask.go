package fetch

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/p2p/wire"
)

// stallLimit is how long a holder may be silent while it is waited for.
const stallLimit = 60 * time.Second

// session is the asker's end of one stream: it asks, and puts the answers where they belong.
type session struct {
	s    Stream
	br   *bufio.Reader
	size int64
	// answered is told when a want has ended, abandoned or not. It is called without mu.
	answered func(w *want, err error)

	mu      sync.Mutex
	pending map[uint32]*want
	last    uint32        // ID
	out     []byte        // questions that weren't written yet
	filled  chan struct{} // 1-buffered: out isn't empty
	ended   chan struct{} // closed when err is set
	err     error
}

// want is what was asked for and isn't answered.
type want struct {
	n, got int
	sudden bool   // a demand that nobody foresaw
	p      []byte // where the answer goes; nil when nobody waits any more. Under session.mu
	asked  time.Time
	done   chan error // 1-buffered
}

// greet opens a session over s. If it fails, s is reset.
func greet(ctx context.Context, s Stream, h Hello) (*session, State, error) {
	br := bufio.NewReaderSize(s, 16<<10)
	st, err := replica.Greet(ctx, s, br, h)
	if err == nil && !st.Complete {
		err = fmt.Errorf("a holder without a complete disk: %w", ErrProtocol)
	}
	if err != nil {
		_ = s.Reset()
		return nil, st, err
	}
	return &session{
		s: s, br: br, size: h.Size, pending: map[uint32]*want{}, filled: make(chan struct{}, 1), ended: make(chan struct{}),
	}, st, nil
}

// run reads and writes until the session ends, and says why: ctx's cause, that of end, or what went wrong. answered must be set.
func (x *session) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { x.end(context.Cause(ctx)) })
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { x.end(x.write()) })
	x.end(x.read())
	wg.Wait()
	return x.err
}

// end ends the session, once: everything that was asked for fails with err.
func (x *session) end(err error) {
	x.mu.Lock()
	if x.err != nil {
		x.mu.Unlock()
		return
	}
	x.err = err
	left := x.pending
	x.pending = nil
	close(x.ended)
	x.mu.Unlock()
	_ = x.s.Reset()
	for _, w := range left {
		x.finish(w, err)
	}
}

func (x *session) finish(w *want, err error) {
	x.answered(w, err)
	w.done <- err
}

// ask asks for len(p) bytes at off, for a demand that nobody foresaw or not, or, if that is 0, for nothing but an answer. It doesn't wait. p is the caller's again when
// something came over the want's done, or after abandon.
func (x *session) ask(off int64, p []byte, sudden bool) *want {
	w := &want{n: len(p), p: p, sudden: sudden, asked: time.Now(), done: make(chan error, 1)}
	q := question{kind: kindWant, off: off, len: len(p)}
	if w.n == 0 {
		q.kind = kindPing
	}
	x.mu.Lock()
	if x.err != nil {
		x.mu.Unlock()
		x.finish(w, x.err)
		return w
	}
	for x.last++; x.pending[x.last] != nil; x.last++ {
		continue
	}
	q.id = x.last
	x.pending[q.id] = w
	if len(x.pending) == 1 {
		x.watch(true)
	}
	x.out = q.appendTo(x.out)
	x.mu.Unlock()
	select {
	case x.filled <- struct{}{}:
	default:
	}
	return w
}

// abandon says that nobody waits for w any more.
func (x *session) abandon(w *want) {
	x.mu.Lock()
	defer x.mu.Unlock()
	w.p = nil
}

// watch makes a silent holder an error, or no longer. The caller holds mu.
func (x *session) watch(on bool) {
	var at time.Time
	if on {
		at = time.Now().Add(stallLimit)
	}
	// A stream that can't take it is closed: reading says so.
	_ = x.s.SetReadDeadline(at)
}

func (x *session) write() error {
	var spare []byte
	for {
		select {
		case <-x.filled:
		case <-x.ended:
			return nil
		}
		x.mu.Lock()
		p := x.out
		x.out = spare[:0]
		x.mu.Unlock()
		if err := x.s.SetWriteDeadline(time.Now().Add(stallLimit)); err != nil {
			return fmt.Errorf("set write deadline: %w", err)
		}
		if _, err := x.s.Write(p); err != nil {
			return fmt.Errorf("write question: %w", err)
		}
		spare = p
	}
}

func (x *session) read() error {
	buf := make([]byte, MaxWant)
	for {
		a, err := readAnswer(x.br)
		if err == nil {
			err = x.take(a, buf)
		}
		if err != nil {
			return fmt.Errorf("read answer: %w", stalled(wire.CutShort(err)))
		}
	}
}

// stalled names the error of a deadline.
func stalled(err error) error {
	if t, ok := err.(interface{ Timeout() bool }); ok && t.Timeout() {
		return fmt.Errorf("%w: %w", ErrStalled, err)
	}
	return err
}

// take takes one answer, whose content is still to be read; buf has room for it.
func (x *session) take(a answer, buf []byte) error {
	x.mu.Lock()
	w := x.pending[a.id]
	x.mu.Unlock()
	// Only this goroutine takes wants out, but for end.
	switch {
	case w == nil:
		return fmt.Errorf("answer to %d, which wasn't asked: %w", a.id, ErrProtocol)
	case (w.n == 0) != (a.kind == kindPong) && a.kind != kindSorry:
		return fmt.Errorf("answer 0x%02x to a question of %d bytes: %w", byte(a.kind), w.n, ErrProtocol)
	case a.kind == kindData || a.kind == kindZero:
		if a.len > w.n-w.got {
			return fmt.Errorf("%d bytes, %d are missing: %w", a.len, w.n-w.got, ErrProtocol)
		}
		if a.kind == kindData {
			if _, err := io.ReadFull(x.br, buf[:a.len]); err != nil {
				return wire.CutShort(err)
			}
		} else {
			clear(buf[:a.len])
		}
	}
	sorry := sorryOf(a)
	x.mu.Lock()
	if w.p != nil {
		copy(w.p[w.got:], buf[:a.len])
	}
	w.got += a.len
	over := x.err == nil && (sorry != nil || w.got == w.n) // else end has finished it
	if over {
		delete(x.pending, a.id)
	}
	if x.err == nil {
		x.watch(len(x.pending) > 0)
	}
	x.mu.Unlock()
	if over {
		x.finish(w, sorry)
	}
	if sorry == ErrOver {
		return sorry
	}
	return nil
}

// sorryOf is what a Sorry means, nil if a isn't one.
func sorryOf(a answer) error {
	switch {
	case a.kind != kindSorry:
		return nil
	case a.code == sorryNotHere:
		return ErrNotHere
	case a.code == sorryOver:
		return ErrOver
	default:
		return ErrRead
	}
}
