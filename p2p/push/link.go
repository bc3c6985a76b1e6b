package push

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	// stallLimit is how long one write may take, and how long the receiver may say nothing when it is waited for.
	stallLimit = 2 * time.Minute
	// maxPiece and minPiece bound what is written at once, in bytes: a rate limit and the window are kept at this grain.
	maxPiece = 64 << 10
	minPiece = 4 << 10
)

// link is the sender's stream with what bounds it: who writes waits for the pace and the window. write is for one goroutine; the other methods are
// for any.
type link struct {
	s     Stream
	pace  Pace // may be nil
	stats *Stats
	begun time.Time

	mu   sync.Mutex
	cond *sync.Cond // something below changed, or what the receiver said
	win  window
	safe int64 // how much of what was sent is durable
	err  error // final
}

func newLink(s Stream, pace Pace, stats *Stats) *link {
	l := &link{s: s, pace: pace, stats: stats, begun: time.Now()}
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
	if got > uint64(l.win.sent) || safe < uint64(l.safe) || !l.win.ack(time.Since(l.begun), int64(got)) {
		return fmt.Errorf("acknowledgement of %d, %d of them durable, of %d bytes sent: %w", got, safe, l.win.sent, ErrProtocol)
	}
	l.safe = int64(safe)
	l.cond.Broadcast()
	return nil
}

// speed of the link in bytes a second; 0 is unknown.
func (l *link) speed() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.win.speed()
}

// sent is how much was sent so far, in bytes, and how much of it is durable.
func (l *link) sent() (sent, safe int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.win.sent, l.safe
}

// write sends p, as fast as it may.
func (l *link) write(ctx context.Context, p []byte) error {
	for len(p) > 0 {
		n, err := l.wait(len(p))
		if err != nil {
			return err
		}
		if l.pace != nil {
			if err := l.pace.Wait(ctx, int64(n)); err != nil {
				return fmt.Errorf("wait for the pace: %w", err)
			}
		}
		l.mu.Lock()
		l.win.send(time.Since(l.begun), int64(n))
		l.mu.Unlock()
		within(l.s.SetWriteDeadline)
		m, err := l.s.Write(p[:n])
		l.stats.Sent.Add(int64(m))
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		p = p[n:]
	}
	return nil
}

// wait waits for room in the window, and says how much of n bytes to write.
func (l *link) wait(n int) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.err == nil {
		piece := min(n, maxPiece, max(minPiece, int(l.win.limit()/4)))
		if l.win.room() >= int64(piece) || l.win.sent == l.win.got {
			return piece, nil
		}
		l.sleep()
	}
	return 0, l.err
}

// sleep waits until something changes. The receiver must say something meanwhile; otherwise it may be silent, as the pace may be very slow. The caller
// holds mu.
func (l *link) sleep() {
	within(l.s.SetReadDeadline)
	l.cond.Wait()
	_ = l.s.SetReadDeadline(time.Time{})
}

// within bounds the next call of a stream. One that can't take a deadline is closed or broken, and the call says so itself: it may still have
// the other end's last words.
func within(set func(time.Time) error) { _ = set(time.Now().Add(stallLimit)) }
