package p2p

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	msmux "github.com/multiformats/go-multistream"
)

// openTimeout bounds how long opening a stream may take when the caller's context doesn't.
const openTimeout = 10 * time.Second

// Stream is a two-way ordered byte stream to another device, encrypted, both ends authenticated. Read and Write may run
// at the same time as each other and as Reset; buffers are not kept after the call. A finished Write is no proof of
// delivery. Close doesn't wait: for "sent means received" CloseWrite, read the other's acknowledgement, then Close. Every
// stream must end with Close or Reset. When the connection ends, calls fail with an error that matches ErrConnLost.
type Stream interface {
	io.ReadWriteCloser
	CloseWrite() error
	Reset() error
	SetDeadline(t time.Time) error
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
	Peer() string // the other device's ID
}

// Handle registers fn for incoming streams of a protocol, in place of an earlier one. fn runs in its own goroutine; its
// context ends when the connection or the host does, and Close waits for it. When fn returns the stream is closed. Register
// before Serve: a protocol that comes later is refused until then.
func (h *Host) Handle(proto string, fn func(ctx context.Context, s Stream)) {
	h.h.SetStreamHandler(protocol.ID(proto), func(ns network.Stream) {
		h.mu.Lock()
		c := h.conns[ns.Conn()]
		if c == nil || h.closed || !h.gate.permitted(c.peer.id, proto) {
			h.mu.Unlock()
			_ = ns.Reset()
			return
		}
		h.wg.Add(1)
		h.mu.Unlock()
		defer h.wg.Done()
		s := &stream{Stream: ns, h: h, c: c}
		// Closing after Close or Reset changes nothing, so the error says nothing.
		defer func() { _ = s.Close() }()
		fn(c.ctx, s)
	})
}

// Open opens a stream of a protocol to a device. ctx bounds the opening only (10 s if it has no deadline). The error is
// ErrNotPaired, ErrNotConnected, ErrProtocol, ErrClosed or ErrConnLost, or that of ctx. Open never dials: that is Serve's.
func (h *Host) Open(ctx context.Context, id, proto string) (Stream, error) {
	p, err := decodeID(id)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", proto, err)
	}
	if h.ctx.Err() != nil {
		return nil, fmt.Errorf("open %s: %w", proto, ErrClosed)
	}
	if !h.gate.permitted(p, proto) {
		return nil, fmt.Errorf("open %s: %w", proto, ErrNotPaired)
	}
	c := h.best(p)
	if c == nil {
		return nil, fmt.Errorf("open %s: %w", proto, ErrNotConnected)
	}
	ns, err := h.openOn(ctx, c, protocol.ID(proto))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", proto, err)
	}
	return &stream{Stream: ns, h: h, c: c}, nil
}

// openOn opens a stream on a given connection and agrees on the protocol. libp2p's own way picks the connection itself
// and learns only at the first read that the protocol isn't there.
func (h *Host) openOn(ctx context.Context, c *conn, proto protocol.ID) (network.Stream, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, openTimeout)
		defer cancel()
	}
	s, err := c.c.NewStream(ctx)
	if err != nil {
		if ctx.Err() != nil && !c.lost.Load() {
			return nil, ctx.Err()
		}
		return nil, c.explain(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	err = s.SetProtocol(proto)
	if err == nil {
		err = msmux.SelectProtoOrFail(proto, s)
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil {
		return s, nil
	}
	_ = s.Reset()
	var unsupported msmux.ErrNotSupported[protocol.ID]
	switch {
	case errors.As(err, &unsupported):
		return nil, ErrProtocol
	case ctx.Err() != nil && !c.lost.Load():
		return nil, ctx.Err()
	}
	return nil, c.explain(err)
}

// explain marks an error as the consequence of the lost connection, if it is one. The cause becomes text: yamux wraps
// io.EOF in it, and nobody must take a lost connection for the regular end of a stream.
func (c *conn) explain(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if c.lost.Load() || c.c.IsClosed() {
		return fmt.Errorf("%w: %v", ErrConnLost, err)
	}
	return err
}

// stream counts what passes and tells the connection that it lives.
type stream struct {
	network.Stream
	h *Host
	c *conn
}

func (s *stream) Peer() string { return s.c.peer.id.String() }

// CloseWrite is no end of what was sent once the connection is given up: the other device may still be there to take it for one.
func (s *stream) CloseWrite() error {
	if s.c.lost.Load() {
		_ = s.Reset()
		return fmt.Errorf("close for writing: %w", ErrConnLost)
	}
	return s.c.explain(s.Stream.CloseWrite())
}

// Close is a Reset then.
func (s *stream) Close() error {
	if s.c.lost.Load() {
		return s.Reset()
	}
	return s.Stream.Close()
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	if n > 0 {
		s.c.peer.in.Add(int64(n))
		s.c.read.Add(int64(n))
		s.c.heard(s.h.now())
	}
	return n, s.c.explain(err)
}

func (s *stream) Write(p []byte) (int, error) {
	n, err := s.Stream.Write(p)
	if n > 0 {
		s.c.peer.out.Add(int64(n))
		s.c.written.Add(int64(n))
	}
	return n, s.c.explain(err)
}
