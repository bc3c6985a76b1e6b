package handoff

import (
	"context"
	"encoding/json"
	"fmt"

	"tagalong.org/tagalong/p2p/wire"
)

// Protocol is the ID under which the control stream is opened.
const Protocol = "/tagalong/handoff/1"

// Version is the newest version of the vocabulary.
const Version = 1

// MaxDirty is the largest Transfer.Dirty, in bytes.
const MaxDirty = 64 << 20

// maxName bounds the names of VMs and attempts, in bytes.
const maxName = 256

// Stream is the connection to the peer.
type Stream = wire.Stream

// Conn sends and receives messages. Send and Recv may be called from several
// goroutines.
type Conn struct {
	s Stream
	c *wire.Conn
}

// envelope is a message on the wire.
type envelope struct {
	Version int             `json:"v"`
	Type    Type            `json:"type"`
	VM      string          `json:"vm"`
	Ask     string          `json:"ask,omitempty"`
	Attempt string          `json:"attempt,omitempty"`
	Body    json.RawMessage `json:"body"`
	Blob    int             `json:"blob,omitempty"`
}

// Open greets the peer over s; both ends call it. On error s has been reset.
func Open(ctx context.Context, s Stream) (*Conn, error) {
	c := wire.NewConn(s)
	if _, err := c.Greet(ctx, wire.Greeting{Protocol: Protocol, Version: Version, Oldest: 1}); err != nil {
		_ = s.Reset()
		return nil, fmt.Errorf("handoff: open: %w", err)
	}
	return &Conn{s: s, c: c}, nil
}

// Send writes m. It returns when the network has taken it, or with an error
// after wire.SendTimeout for each MiB, or when ctx ends. It keeps nothing of m.
func (c *Conn) Send(ctx context.Context, m Msg) error {
	if m.Body == nil {
		return fmt.Errorf("handoff: send: no body: %w", ErrMalformed)
	}
	err := checkNames(m)
	if err == nil {
		err = m.Body.check()
	}
	if err != nil {
		return fmt.Errorf("handoff: send %s: %w", m.Body.Type(), err)
	}
	body, err := json.Marshal(m.Body)
	if err != nil {
		return fmt.Errorf("handoff: send %s: encode: %w", m.Body.Type(), err)
	}
	e := envelope{Version: Version, Type: m.Body.Type(), VM: m.VM, Ask: m.Ask, Attempt: m.Attempt, Body: body}
	var blob []byte
	if t, ok := m.Body.(Transfer); ok {
		if len(t.Dirty) > MaxDirty {
			return fmt.Errorf("handoff: send transfer: dirty sets of %d bytes: %w", len(t.Dirty), wire.ErrTooLarge)
		}
		blob, e.Blob = t.Dirty, len(t.Dirty)
	}
	if err := c.c.SendWithBlob(ctx, e, blob); err != nil {
		return fmt.Errorf("handoff: send %s: %w", e.Type, err)
	}
	return nil
}

// Recv returns the next message, waiting as long as ctx allows. io.EOF, as it
// is, means that the peer closed in order. After ErrUnknownType, and after
// ErrMalformed from this package, the next message can be received.
func (c *Conn) Recv(ctx context.Context) (Msg, error) {
	var e envelope
	blob, err := c.c.RecvWithBlob(ctx, &e, func() (int, error) {
		if e.Blob < 0 || e.Blob > MaxDirty {
			return 0, fmt.Errorf("blob of %d bytes: %w", e.Blob, wire.ErrTooLarge)
		}
		return e.Blob, nil
	})
	if err != nil {
		return Msg{}, recvError(err)
	}
	dec, ok := decoders[e.Type]
	if !ok {
		return Msg{}, fmt.Errorf("handoff: receive: %w: %.64q", ErrUnknownType, string(e.Type))
	}
	if e.Version > Version || e.Version < 1 {
		return Msg{}, fmt.Errorf("handoff: receive %s: version %d: %w", e.Type, e.Version, ErrMalformed)
	}
	if len(e.Body) == 0 {
		e.Body = json.RawMessage("{}")
	}
	b, err := dec(e.Body)
	if err != nil {
		return Msg{}, fmt.Errorf("handoff: receive: %w", err)
	}
	switch t, ok := b.(Transfer); {
	case ok:
		t.Dirty = blob
		b = t
	case len(blob) > 0:
		return Msg{}, fmt.Errorf("handoff: receive %s: unexpected blob: %w", e.Type, ErrMalformed)
	}
	m := Msg{VM: e.VM, Ask: e.Ask, Attempt: e.Attempt, Body: b}
	if err := checkNames(m); err != nil {
		return Msg{}, fmt.Errorf("handoff: receive %s: %w", e.Type, err)
	}
	if err := b.check(); err != nil {
		return Msg{}, fmt.Errorf("handoff: receive: %w", err)
	}
	return m, nil
}

// Close ends the stream in order.
func (c *Conn) Close() error { return c.s.Close() }

// Reset drops the stream.
func (c *Conn) Reset() error { return c.s.Reset() }

// checkNames tells whether m says what it is about.
func checkNames(m Msg) error {
	if m.VM == "" || len(m.VM) > maxName {
		return fmt.Errorf("VM name of %d bytes: %w", len(m.VM), ErrMalformed)
	}
	if len(m.Ask) > maxName || len(m.Attempt) > maxName {
		return fmt.Errorf("attempt names of %d and %d bytes: %w", len(m.Ask), len(m.Attempt), ErrMalformed)
	}
	return nil
}
