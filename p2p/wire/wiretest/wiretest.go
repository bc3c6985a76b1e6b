// Package wiretest makes pairs of connected streams for the tests of
// Tagalong's protocols: over memory without any buffer (Pipe), which finds
// deadlocks, and over TCP on the loopback interface (TCP), which is real.
// It guarantees what wire.Stream asks and is not for production.
package wiretest

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"tagalong.org/tagalong/p2p/wire"
)

// ErrReset is what both ends of a Pipe get after one of them was reset.
var ErrReset = errors.New("wiretest: stream reset")

// Pipe returns the two ends of an unbuffered stream in memory. Both are closed
// when the test ends.
func Pipe(t testing.TB) (a, b wire.Stream) {
	t.Helper()
	r1, w1 := net.Pipe()
	r2, w2 := net.Pipe()
	reset := new(atomic.Bool)
	a, b = &pipe{r: r1, w: w2, reset: reset}, &pipe{r: r2, w: w1, reset: reset}
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	return a, b
}

type pipe struct {
	r, w  net.Conn
	reset *atomic.Bool
}

func (p *pipe) fix(n int, err error) (int, error) {
	if err != nil && p.reset.Load() {
		return n, ErrReset
	}
	return n, err
}

func (p *pipe) Read(b []byte) (int, error)  { return p.fix(p.r.Read(b)) }
func (p *pipe) Write(b []byte) (int, error) { return p.fix(p.w.Write(b)) }
func (p *pipe) CloseWrite() error           { return p.w.Close() }
func (p *pipe) Close() error                { return errors.Join(p.r.Close(), p.w.Close()) }
func (p *pipe) Reset() error                { p.reset.Store(true); return p.Close() }

func (p *pipe) SetReadDeadline(t time.Time) error  { return p.r.SetReadDeadline(t) }
func (p *pipe) SetWriteDeadline(t time.Time) error { return p.w.SetWriteDeadline(t) }
func (p *pipe) SetDeadline(t time.Time) error {
	return errors.Join(p.r.SetReadDeadline(t), p.w.SetWriteDeadline(t))
}

// TCP returns the two ends of a TCP connection over the loopback interface.
// Both are closed when the test ends.
func TCP(t testing.TB) (a, b wire.Stream) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen on the loopback interface: %v", err)
	}
	defer func() { _ = l.Close() }()
	c1, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatalf("dial the loopback interface: %v", err)
	}
	c2, err := l.Accept()
	if err != nil {
		_ = c1.Close()
		t.Fatalf("accept on the loopback interface: %v", err)
	}
	a, b = tcp{c1.(*net.TCPConn)}, tcp{c2.(*net.TCPConn)}
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	return a, b
}

type tcp struct{ *net.TCPConn }

// Reset drops what was not delivered: with no linger time the kernel answers
// the peer with a reset.
func (c tcp) Reset() error {
	_ = c.SetLinger(0)
	return c.Close()
}

// Kinds names the two kinds of pairs, for tests that run over both.
var Kinds = map[string]func(testing.TB) (a, b wire.Stream){"pipe": Pipe, "tcp": TCP}

// Input is a stream that reads what it is given, then io.EOF, and throws away
// what is written: for feeding hostile bytes to a protocol.
type Input struct{ io.Reader }

func (Input) Write(p []byte) (int, error)      { return len(p), nil }
func (Input) Close() error                     { return nil }
func (Input) CloseWrite() error                { return nil }
func (Input) Reset() error                     { return nil }
func (Input) SetDeadline(time.Time) error      { return nil }
func (Input) SetReadDeadline(time.Time) error  { return nil }
func (Input) SetWriteDeadline(time.Time) error { return nil }
