package p2p

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// relay forwards TCP connections until it is told to swallow everything, as a cut cable does: nothing is closed.
type relay struct {
	l     net.Listener
	to    string
	mute  atomic.Bool
	mu    sync.Mutex
	conns []net.Conn
	wg    sync.WaitGroup
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{l: l, to: to}
	r.wg.Go(r.accept)
	t.Cleanup(func() {
		_ = l.Close()
		r.mu.Lock()
		for _, c := range r.conns {
			_ = c.Close()
		}
		r.mu.Unlock()
		r.wg.Wait()
	})
	return r
}

func (r *relay) accept() {
	for {
		in, err := r.l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp4", r.to)
		if err != nil {
			_ = in.Close()
			continue
		}
		r.mu.Lock()
		r.conns = append(r.conns, in, out)
		r.mu.Unlock()
		r.wg.Go(func() { r.copy(in, out) })
		r.wg.Go(func() { r.copy(out, in) })
	}
}

func (r *relay) copy(from, to net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if r.mute.Load() {
			if err != nil {
				return
			}
			continue
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			_ = to.Close()
			return
		}
	}
}

// silenceCounter counts the connections that the heartbeat gave up.
type silenceCounter struct{ n *atomic.Int32 }

func (c silenceCounter) Enabled(context.Context, slog.Level) bool { return true }
func (c silenceCounter) WithAttrs([]slog.Attr) slog.Handler       { return c }
func (c silenceCounter) WithGroup(string) slog.Handler            { return c }

func (c silenceCounter) Handle(_ context.Context, r slog.Record) error {
	if strings.HasPrefix(r.Message, "Connection is silent") {
		c.n.Add(1)
	}
	return nil
}

func TestHeartbeatNoticesABlackHole(t *testing.T) {
	var silent [2]atomic.Int32
	a := newDevice(t, func(o *Options) { o.Log = slog.New(silenceCounter{&silent[0]}) })
	b := newDevice(t, func(o *Options) { o.Log = slog.New(silenceCounter{&silent[1]}) })
	pair(a, b)
	target, ok := endpoint(a.h.Network().ListenAddresses()[0])
	if !ok {
		t.Fatal("a has no address")
	}
	r := newRelay(t, target.String())
	through, ok := r.l.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatal("the relay has no address")
	}
	addr, err := multiaddr(through.AddrPort())
	if err != nil {
		t.Fatal(err)
	}
	b.book.Save(a.ID(), []string{addr.String()})
	a.Handle("/test/echo/1", echo)
	a.serve(t)
	b.serve(t)
	await(t, b, a.ID(), true)
	await(t, a, b.ID(), true)
	s, err := b.Open(patiently(t), a.ID(), "/test/echo/1")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	// The identities told the direct addresses; only the relay is to be used.
	identified(t, a, b)
	identified(t, b, a)
	b.book.Save(a.ID(), []string{addr.String()})
	a.book.Save(b.ID(), nil)

	r.mute.Store(true)
	// Both ends must notice, and a reader must be woken.
	failed := make(chan error, 1)
	go func() {
		_, err := s.Read(make([]byte, 1))
		failed <- err
	}()
	await(t, b, a.ID(), false)
	await(t, a, b.ID(), false)
	if err := receive(t, failed, "the reader isn't woken"); !errors.Is(err, ErrConnLost) || errors.Is(err, io.EOF) {
		t.Errorf("read: %v, want ErrConnLost", err)
	}
	// The library alone would also notice, but needs more than 30 s.
	for i := range silent {
		if silent[i].Load() == 0 {
			t.Errorf("device %d: the connection ended, but not by the heartbeat", i)
		}
	}
	r.mute.Store(false)
	await(t, b, a.ID(), true)
	say(t, b, a.ID(), "again")
}
