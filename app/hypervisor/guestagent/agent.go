// Package guestagent speaks to the QEMU guest agent (qemu-ga) that may run inside a guest, through the Unix socket of its serial port, and
// sets the guest's clock by it.
//
// The guest is a stranger: what it answers is bounded in size and time, and believed in nothing but its clock. An agent that isn't
// there says nothing at all, so every call ends with its context, and ErrSilent says that nobody answered. Answers to questions that
// an earlier caller didn't wait for are skipped: each connection begins with a sync that has a number of its own.
//
// QEMU takes one connection at a time; hang up when done. It isn't safe for concurrent use.
//
// To test: go test -race ./app/hypervisor/guestagent ; go test -fuzz=FuzzAnswers ./app/hypervisor/guestagent
package guestagent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"
)

// maxAnswer bounds what is read for one call, stale answers included, in bytes.
const maxAnswer = 64 << 10

// delimiter comes before the answer to a sync, and nowhere in JSON.
const delimiter = 0xff

var (
	// ErrSilent says that no agent answered in time.
	ErrSilent = errors.New("guestagent: no answer")
	// ErrProtocol says that what answered isn't an agent.
	ErrProtocol = errors.New("guestagent: not an agent")
	// ErrRefused says that the agent doesn't do what it was asked for.
	ErrRefused = errors.New("guestagent: refused")
	// ErrOff says that the agent has set the clock, which is off all the same: a guest that is slow at the moment sets it late.
	ErrOff = errors.New("guestagent: the clock is still off")
)

// Conn is a connection to an agent that has answered.
type Conn struct {
	conn net.Conn
	r    *bufio.Reader
	left int // bytes that may still be read
}

// Dial connects and waits until the agent answers, or ctx ends.
func Dial(ctx context.Context, socket string) (*Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("guestagent: %w", err)
	}
	c := &Conn{conn: conn, r: bufio.NewReaderSize(conn, 4096)}
	if err := c.sync(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// Close hangs up.
func (c *Conn) Close() error { return c.conn.Close() }

// read is one byte, within what may be read.
func (c *Conn) read() (byte, error) {
	if c.left == 0 {
		return 0, fmt.Errorf("%w: an answer of more than %d bytes", ErrProtocol, maxAnswer)
	}
	c.left--
	return c.r.ReadByte()
}

// line is the next line, without its end.
func (c *Conn) line() ([]byte, error) {
	var line []byte
	for {
		b, err := c.read()
		if err != nil {
			return nil, err
		}
		switch b {
		case '\n':
			return line, nil
		case delimiter:
			line = line[:0] // what came before was somebody else's
		default:
			line = append(line, b)
		}
	}
}

// begin bounds a call by ctx; what it returns must be called at the call's end.
func (c *Conn) begin(ctx context.Context) func() {
	c.left = maxAnswer
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	return func() { stop() }
}

// silent turns the end of a call's context into ErrSilent.
func silent(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ErrSilent, ctx.Err())
	}
	return fmt.Errorf("guestagent: %w", err)
}

// sync makes sure that the next answer is to the next question.
func (c *Conn) sync(ctx context.Context) error {
	defer c.begin(ctx)()
	id := rand.Int64N(1 << 53) // JSON's numbers carry no more
	// The delimiter has the agent forget half a question of an earlier caller.
	question := append([]byte{delimiter}, fmt.Sprintf(`{"execute":"guest-sync-delimited","arguments":{"id":%d}}`+"\n", id)...)
	if _, err := c.conn.Write(question); err != nil {
		return silent(ctx, err)
	}
	for {
		line, err := c.line()
		if err != nil {
			return silent(ctx, err)
		}
		var a struct {
			Return json.Number `json:"return"`
		}
		if json.Unmarshal(line, &a) == nil && a.Return.String() == fmt.Sprint(id) {
			return nil
		}
	}
}

// call runs one command.
func (c *Conn) call(ctx context.Context, command string, args, out any) error {
	defer c.begin(ctx)()
	question, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{command, args})
	if err != nil {
		return fmt.Errorf("guestagent: %w", err)
	}
	if _, err := c.conn.Write(append(question, '\n')); err != nil {
		return silent(ctx, err)
	}
	line, err := c.line()
	if err != nil {
		return silent(ctx, err)
	}
	var a struct {
		Return json.RawMessage `json:"return"`
		Error  *struct {
			Class string `json:"class"`
			Desc  string `json:"desc"`
		} `json:"error"`
	}
	if err := json.Unmarshal(line, &a); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	switch {
	case a.Error != nil:
		return fmt.Errorf("%w: %s: %.200q", ErrRefused, command, a.Error.Desc)
	case a.Return == nil:
		return fmt.Errorf("%w: %s has no answer", ErrProtocol, command)
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(a.Return, out); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return nil
}

// Time is the guest's wall clock.
func (c *Conn) Time(ctx context.Context) (time.Time, error) {
	var ns int64
	err := c.call(ctx, "guest-get-time", nil, &ns)
	return time.Unix(0, ns), err
}

// SetTime sets the guest's wall clock.
func (c *Conn) SetTime(ctx context.Context, t time.Time) error {
	return c.call(ctx, "guest-set-time", map[string]int64{"time": t.UnixNano()}, nil)
}
