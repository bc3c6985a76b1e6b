package push

import (
	"context"
	"fmt"
	"sync"
	"time"

	"tagalong.org/tagalong/p2p/flow"
)

// stallLimit is how long one write may take, and how long the receiver may say nothing when it is waited for.
const stallLimit = 2 * time.Minute

// link is the sender's stream with what bounds it. write hands over what is to be sent, while what was handed over before waits for the pace and the
// window: so the link isn't idle while the next is read and summed up. serve sends; write is for one goroutine; the other methods are for any.
type link struct {
	s     Stream
	pace  Pace // may be nil
	stats *Stats
	begun time.Time

	mu      sync.Mutex
	cond    *sync.Cond // something below changed, or what the receiver said
	win     flow.Window
	pending []byte // to be sent
	written int64  // how much of the stream was handed over
	sending bool   // what was taken from it isn't sent yet
	closed  bool   // nothing more will be handed over
	safe    int64  // how much of what was sent is durable
	err     error  // final
	served  chan struct{}
}

// maxPending is how much may have been handed over and not be sent, in bytes: some 150 ms of a home's uplink. One frame more fits in any case.
const maxPending = 128 << 10

func newLink(s Stream, pace Pace, stats *Stats) *link {
	l := &link{s: s, pace: pace, stats: stats, begun: time.Now(), served: make(chan struct{})}
	l.cond = sync.NewCond(&l.mu)
	return l
}

// fail ends all waiting; the first error is the one that counts.
func (l *link) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
	}
	l.cond.Broadcast()
}

// acked takes an acknowledgement.
func (l *link) acked(got, safe uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if got > uint64(l.win.Sent()) || safe < uint64(l.safe) || !l.win.Ack(time.Since(l.begun), int64(got)) {
		return fmt.Errorf("acknowledgement of %d, %d of them durable, of %d bytes sent: %w", got, safe, l.win.Sent(), ErrProtocol)
	}
	l.safe = int64(safe)
	l.cond.Broadcast()
	return nil
}

// speed of the link in bytes a second; 0 is unknown.
func (l *link) speed() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.win.Speed()
}

// place is how much was handed over so far, in bytes of the stream, and how much of that is durable.
func (l *link) place() (written, safe int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.written, l.safe
}

// write hands p over to be sent. It waits while much is.
func (l *link) write(p []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.err == nil && len(l.pending) >= maxPending {
		l.sleep(false)
	}
	if l.err != nil {
		return l.err
	}
	l.pending = append(l.pending, p...)
	l.written += int64(len(p))
	l.cond.Broadcast()
	return nil
}

// end says that nothing more will be handed over: serve ends when all is sent.
func (l *link) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.cond.Broadcast()
}

// serve sends what is handed over, as fast as it may, until end or fail. Then served is closed.
func (l *link) serve(ctx context.Context) error {
	defer close(l.served)
	var buf []byte
	for {
		p, err := l.wait(buf[:0])
		if err != nil || len(p) == 0 {
			return err
		}
		if l.pace != nil {
			if err := l.pace.Wait(ctx, int64(len(p))); err != nil {
				return fmt.Errorf("wait for the pace: %w", err)
			}
		}
		l.mu.Lock()
		l.win.Send(time.Since(l.begun), int64(len(p)))
		l.mu.Unlock()
		within(l.s.SetWriteDeadline)
		n, err := l.s.Write(p)
		l.stats.Sent.Add(int64(n))
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		l.mu.Lock()
		l.sending = false
		l.cond.Broadcast()
		l.mu.Unlock()
		buf = p
	}
}

// wait waits until there is something to be sent and room for it in the window, and returns it, appended to p: nothing at the end.
func (l *link) wait(p []byte) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.err == nil {
		n := min(len(l.pending), int(l.win.Piece()))
		switch {
		case n > 0 && (l.win.Room() >= int64(n) || l.win.Sent() == l.win.Got()):
			p = append(p, l.pending[:n]...)
			l.pending = l.pending[:copy(l.pending, l.pending[n:])]
			l.sending = true
			l.cond.Broadcast()
			return p, nil
		case n == 0 && l.closed:
			return nil, nil
		case n == 0:
			l.cond.Wait()
		default:
			l.sleep(true)
		}
	}
	return nil, l.err
}

// sleep waits until something changes. If that can only be the receiver's word (for the window, or once all is sent) it must come in time; otherwise the
// receiver may be silent, as the pace may be very slow. The caller holds mu.
func (l *link) sleep(forWindow bool) {
	if !forWindow && (len(l.pending) > 0 || l.sending) {
		l.cond.Wait()
		return
	}
	within(l.s.SetReadDeadline)
	l.cond.Wait()
	_ = l.s.SetReadDeadline(time.Time{})
}

// within bounds the next call of a stream. One that can't take a deadline is closed or broken, and the call says so itself: it may still have
// the other end's last words.
func within(set func(time.Time) error) { _ = set(time.Now().Add(stallLimit)) }
