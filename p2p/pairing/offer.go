package pairing

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

const (
	// maxTries is how many wrong codes close the window.
	maxTries = 3
	// maxConns is how many connections are served at once.
	maxConns = 8
	// acceptPause is how long to wait when a connection can't be accepted, as
	// when file descriptors run out.
	acceptPause = 50 * time.Millisecond
)

// Offer lets one device that knows the code join, through connections to l,
// until one has (its Result), ctx ends (its cause; two minutes are customary)
// or three wrong codes were tried (ErrTooManyTries). l is closed and all
// connections are ended when Offer returns. A connection that fails otherwise
// is logged and forgotten. If Store fails, so does Offer.
func Offer(ctx context.Context, l net.Listener, code string, me Identity, o Options) (Result, error) {
	defer func() { _ = l.Close() }()
	prs, err := o.complete(code, me)
	if err != nil {
		return Result{}, fmt.Errorf("offer: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &window{prs: prs, me: me, o: &o, end: cancel, conns: map[net.Conn]*guest{}}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	w.accept(ctx, l)
	w.closeAll()
	w.wg.Wait()
	if w.won {
		return w.result, nil
	}
	return Result{}, fmt.Errorf("offer: %w", context.Cause(ctx))
}

// errWon ends the window after a success.
var errWon = errors.New("paired")

// window is one running Offer.
type window struct {
	prs []byte
	me  Identity
	o   *Options
	end context.CancelCauseFunc
	wg  sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]*guest
	count  int // connections so far
	tries  int // wrong codes
	won    bool
	result Result

	commit sync.Mutex // held while one guest's result is stored
}

// guest is one connection.
type guest struct {
	number int
	proved bool // knows the code
}

func (w *window) accept(ctx context.Context, l net.Listener) {
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = c.Close()
			}
			return
		}
		if errors.Is(err, net.ErrClosed) {
			w.end(fmt.Errorf("listener: %w", err))
			return
		}
		if err != nil {
			w.o.Log.Warn("Pairing connection not accepted", "error", err)
			select {
			case <-time.After(acceptPause):
			case <-ctx.Done():
				return
			}
			continue
		}
		g := w.admit(c)
		w.wg.Go(func() {
			defer w.leave(c)
			if err := w.serve(c, g); err != nil {
				w.o.Log.Info("Pairing connection failed", "from", c.RemoteAddr().String(), "error", err)
			}
		})
	}
}

// admit takes a connection in, in exchange for the oldest one that hasn't
// proved anything if there are many: a stranger who stalls must not take the
// place of the joiner, who needs it for an instant only.
func (w *window) admit(c net.Conn) *guest {
	w.mu.Lock()
	defer w.mu.Unlock()
	var oldest net.Conn
	for o, g := range w.conns {
		if !g.proved && (oldest == nil || g.number < w.conns[oldest].number) {
			oldest = o
		}
	}
	if len(w.conns) >= maxConns && oldest != nil {
		_ = oldest.Close()
		delete(w.conns, oldest)
	}
	w.count++
	g := &guest{number: w.count}
	w.conns[c] = g
	return g
}

func (w *window) leave(c net.Conn) {
	_ = c.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, c)
}

func (w *window) closeAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		_ = c.Close()
	}
}

func (w *window) serve(c net.Conn, g *guest) error {
	if err := c.SetDeadline(time.Now().Add(w.o.Timeout)); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	s := newSession(c, w.me, w.o, offerer, joiner)
	err := w.pair(s, g)
	if err != nil {
		s.reject(err)
	}
	// Only now: the end of the window ends the connection too.
	if errors.Is(err, ErrTooManyTries) || errors.Is(err, errStore) {
		w.end(err)
	}
	return err
}

func (w *window) pair(s *session, g *guest) error {
	if err := s.hello(); err != nil {
		return err
	}
	if err := s.shares(w.prs); err != nil {
		return err
	}
	proof, err := s.readProof()
	if err != nil {
		return err
	}
	if err := w.judge(s, proof, g); err != nil {
		return err
	}
	if err := s.proveKey(); err != nil {
		return err
	}
	if err := s.keys(); err != nil {
		return err
	}
	peer, err := s.readIdentity()
	if err != nil {
		return err
	}
	if err := s.tellIdentity(); err != nil {
		return err
	}
	if _, err := s.readSealed(msgDone); err != nil {
		return fmt.Errorf("done: %w", err)
	}
	if err := w.take(Result{Peer: peer, Words: s.words}); err != nil {
		return err
	}
	// The device is stored, so this window has its result. If these words are
	// lost, the joiner reports ErrUnconfirmed and pairs again.
	err = s.writeSealed(msgStored, nil)
	w.end(errWon)
	if err != nil {
		return fmt.Errorf("stored: %w", err)
	}
	return nil
}

// judge counts a wrong proof. One at a time, so that guesses made in parallel
// are not more than maxTries either.
func (w *window) judge(s *session, proof []byte, g *guest) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tries >= maxTries || w.won {
		return ErrClosed
	}
	if s.proofHolds(proof) {
		g.proved = true
		return nil
	}
	if w.tries++; w.tries >= maxTries {
		return ErrTooManyTries
	}
	return ErrWrongCode
}

// take stores the first result; a second joiner comes too late.
func (w *window) take(r Result) error {
	w.commit.Lock()
	defer w.commit.Unlock()
	w.mu.Lock()
	closed := w.won || w.tries >= maxTries
	w.mu.Unlock()
	if closed {
		return ErrClosed
	}
	if err := w.o.store(r); err != nil {
		return err
	}
	w.mu.Lock()
	w.won, w.result = true, r
	w.mu.Unlock()
	return nil
}
