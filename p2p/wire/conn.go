package wire

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// SendTimeout is how long one message may take to be handed to the network. A
// peer that reads nothing for so long is given up.
const SendTimeout = 30 * time.Second

// bodyTimeout is how long the rest of a message may take once its first byte
// has come, so that a peer can't hold a half-read message open for ever.
const bodyTimeout = 30 * time.Second

// Conn exchanges JSON messages and blobs over a Stream. Send methods may be
// called from several goroutines, and so may Recv methods: each message is
// handled whole. The Conn never closes the stream.
type Conn struct {
	s  Stream
	br *bufio.Reader

	wmu    sync.Mutex
	wbuf   []byte
	broken error

	rmu     sync.Mutex
	rbuf    []byte
	rbroken error
}

// NewConn returns a Conn over s. It reads ahead, so nobody else may read from s
// afterwards.
func NewConn(s Stream) *Conn {
	return &Conn{s: s, br: bufio.NewReaderSize(s, 4096)}
}

// Send writes v as one JSON message. It returns within SendTimeout, or earlier
// when ctx ends. After an error the Conn takes no further messages (ErrBroken),
// unless the message was refused before its first byte: ErrTooLarge, or a value
// that isn't JSON.
func (c *Conn) Send(ctx context.Context, v any) error {
	p, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("send: encode: %w", err)
	}
	return c.send(ctx, p)
}

func (c *Conn) send(ctx context.Context, p []byte) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	return c.sendLocked(ctx, p)
}

func (c *Conn) sendLocked(ctx context.Context, p []byte) error {
	if c.broken != nil {
		return fmt.Errorf("send: %w: %w", ErrBroken, c.broken)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("send: %w", context.Cause(ctx))
	}
	f, err := AppendFrame(c.wbuf[:0], p)
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	if cap(f) <= 64<<10 {
		c.wbuf = f
	}
	done := Bound(ctx, c.s.SetWriteDeadline, SendTimeout)
	_, err = c.s.Write(f)
	if err = done(err); err != nil {
		c.broken = err
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// Recv reads the next JSON message into v, waiting for it as long as ctx
// allows. The end of the stream before a message is io.EOF. A Recv that ctx
// ends before the first byte of a message leaves the Conn usable; after any
// other error it is not (ErrBroken), except that a message whose JSON doesn't
// fit v (ErrMalformed) has been read to its end.
func (c *Conn) Recv(ctx context.Context, v any) error {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	p, err := c.recvLocked(ctx, MaxMessage)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(p, v); err != nil {
		return fmt.Errorf("receive: decode: %w: %w", ErrMalformed, err)
	}
	return nil
}

// recvLocked returns the next frame; the slice is valid until the next call.
func (c *Conn) recvLocked(ctx context.Context, limit int) ([]byte, error) {
	if c.rbroken != nil {
		return nil, fmt.Errorf("receive: %w: %w", ErrBroken, c.rbroken)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("receive: %w", context.Cause(ctx))
	}
	done := Bound(ctx, c.s.SetReadDeadline, 0)
	_, err := c.br.Peek(1)
	if err = done(err); err != nil {
		if err == io.EOF {
			return nil, io.EOF
		}
		if ctx.Err() == nil {
			c.rbroken = err
		}
		return nil, fmt.Errorf("receive: %w", err)
	}
	done = Bound(ctx, c.s.SetReadDeadline, bodyTimeout)
	p, err := ReadFrame(c.br, limit, c.rbuf)
	if err = done(err); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		c.rbroken = err
		return nil, fmt.Errorf("receive: %w", err)
	}
	c.rbuf = nil
	if cap(p) <= 64<<10 {
		c.rbuf = p
	}
	return p, nil
}
