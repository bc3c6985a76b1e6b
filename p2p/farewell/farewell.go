// Package farewell tells a device that somebody has left the fleet, when nothing else may pass between the two any more:
// protocol Protocol, one short stream, opened by whoever has something to tell.
//
// After the wire greeting everything is a JSON message in a wire frame:
//
//	opener:   {"record": …}                       the signed record of the removal
//	listener: {"refused": "why"}                  or
//	listener: {"heard": true}                     the record is genuine and durable here
//	listener: {"heard": true, "done": true, "record": …}   its own signed word of it, if the record was about itself
//	opener:   {"noted": true}                     the opener has that durably and won't tell this again
//
// Between heard and done a device may take its time to delete what it has. If the stream breaks, the opener tells the same
// again later, and the listener answers the same.
//
// Guaranteed: bounded memory, and that nothing but the records is taken from a peer. Not guaranteed, and the caller's
// business: that a record is genuine, and that this peer may tell of it.
//
// To test: go test -race ./p2p/farewell ; go test -fuzz=FuzzHear ./p2p/farewell (and FuzzTell)
package farewell

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"tagalong.org/tagalong/p2p/wire"
)

// Protocol is this protocol's name.
const Protocol = "/tagalong/farewell/1"

// answerTimeout is how long the opener may take for its first and its last word, and the listener to say that it heard.
const answerTimeout = 20 * time.Second

var (
	// ErrRefused: the listener doesn't believe the record, or has nothing to do with it.
	ErrRefused = errors.New("farewell: refused")
	// ErrProtocol: the peer sent what the protocol forbids.
	ErrProtocol = errors.New("farewell: protocol violation")
)

// Stream is the connection to the other device.
type Stream = wire.Stream

// message is any of the messages.
type message struct {
	Record  json.RawMessage `json:"record,omitempty"`
	Refused string          `json:"refused,omitempty"`
	Heard   bool            `json:"heard,omitempty"`
	Done    bool            `json:"done,omitempty"`
	Noted   bool            `json:"noted,omitempty"`
}

// maxReason bounds the text of a refusal, in bytes.
const maxReason = 200

var greeting = wire.Greeting{Protocol: Protocol, Version: 1, Oldest: 1}

// Tell shows the record, a JSON value, to the device at the other end, waits until it has done what follows for it, and
// calls note with the device's own word of that, which may be empty, to make it durable. The end of ctx gives up. The stream is closed or reset when Tell returns. Errors: ErrRefused, ErrProtocol, note's, those of the stream.
func Tell(ctx context.Context, s Stream, record []byte, note func(word []byte) error) error {
	return end(s, tell(ctx, wire.NewConn(s), record, note))
}

func tell(ctx context.Context, c *wire.Conn, record []byte, note func(word []byte) error) error {
	if _, err := c.Greet(ctx, greeting); err != nil {
		return err
	}
	if err := c.Send(ctx, message{Record: record}); err != nil {
		return err
	}
	first, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	var m message
	if err := c.Recv(first, &m); err != nil {
		return err
	}
	if m.Refused != "" {
		return fmt.Errorf("%w: %.200q", ErrRefused, m.Refused)
	}
	for !m.Done {
		if !m.Heard {
			return ErrProtocol
		}
		m = message{}
		if err := c.Recv(ctx, &m); err != nil {
			return err
		}
	}
	if err := note(m.Record); err != nil {
		return err
	}
	return c.Send(ctx, message{Noted: true})
}

// Hear reads a record and hands it to judge, which verifies it, makes it durable and returns what is to be done, or why
// the record is refused. The text of that error goes to the peer. Then Hear says that it heard, runs do, and says that it
// is done, with the word that do returns, a JSON value or nothing. noted tells whether the opener will not come again. The stream is closed or
// reset when Hear returns.
func Hear(ctx context.Context, s Stream, judge func(record []byte) (do func(context.Context) (word []byte, err error), err error)) (noted bool, err error) {
	c := wire.NewConn(s)
	noted, err = hear(ctx, c, judge)
	var refusal *refusal
	if errors.As(err, &refusal) {
		// A reset would overtake the refusal: the opener closes when it has read it.
		if sent := c.Send(ctx, message{Refused: refusal.text()}); sent == nil && s.CloseWrite() == nil {
			last, cancel := context.WithTimeout(ctx, answerTimeout)
			defer cancel()
			_ = c.Recv(last, new(message))
		}
		err = refusal.why
	}
	return noted, end(s, err)
}

// refusal is why a record isn't believed, which the opener is told.
type refusal struct{ why error }

func (r *refusal) Error() string { return r.why.Error() }

func (r *refusal) text() string {
	text := r.why.Error()
	return text[:min(len(text), maxReason)]
}

func hear(ctx context.Context, c *wire.Conn, judge func([]byte) (func(context.Context) ([]byte, error), error)) (bool, error) {
	if _, err := c.Greet(ctx, greeting); err != nil {
		return false, err
	}
	first, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	var m message
	if err := c.Recv(first, &m); err != nil {
		return false, err
	}
	if len(m.Record) == 0 {
		return false, ErrProtocol
	}
	do, err := judge(m.Record)
	if err != nil {
		return false, &refusal{err}
	}
	if err := c.Send(ctx, message{Heard: true}); err != nil {
		return false, err
	}
	word, err := do(ctx)
	if err != nil {
		return false, err
	}
	if err := c.Send(ctx, message{Heard: true, Done: true, Record: word}); err != nil {
		return false, err
	}
	last, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	m = message{}
	if err := c.Recv(last, &m); err != nil {
		return false, err
	}
	return m.Noted, nil
}

// end closes the stream, in order or not.
func end(s Stream, err error) error {
	if err == nil {
		err = s.Close()
	} else {
		_ = s.Reset()
	}
	if err != nil {
		return fmt.Errorf("farewell: %w", err)
	}
	return nil
}
