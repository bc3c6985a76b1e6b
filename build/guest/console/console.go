// Package console listens to the test guest from outside: it reads the guest's
// serial line from a Unix socket, gives it commands, and puts the ticks of
// several consoles (the giver's and the taker's) on one time line.
//
// What it guarantees: a tick's time is the host's monotonic clock at its
// arrival, so pauses are measured as the person feels them; a line that a switch
// tore in two is put together if both halves arrived, and never taken for
// something else if not. What it does not: bytes that the hypervisor sent while
// nobody was connected are gone, and their ticks count as missing.
//
// Test it with: go test ./build/guest/console/
package console

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"
)

// What a console may answer.
var (
	// ErrClosed says that the line ended: the hypervisor is gone, or Close was
	// called.
	ErrClosed = errors.New("console is closed")
	// ErrRefused says that the guest did not understand a command.
	ErrRefused = errors.New("guest refused the command")
)

const (
	maxLine  = 4096 // bytes; what is longer is cut
	maxLines = 8192 // lines kept besides ticks
	// redial is how long to wait for a socket that isn't there yet.
	redial = 20 * time.Millisecond
	// askAgain is after what time an unanswered question about readiness is put
	// again: what is said during a switch may be lost.
	askAgain = 5 * time.Second
)

// Line is one line from the guest that isn't a tick.
type Line struct {
	At   time.Duration // since the time line's start
	Text string
}

// Console is one guest's serial line. Its methods are safe for concurrent use.
type Console struct {
	name string
	conn net.Conn
	tl   *Timeline
	done chan struct{} // closed when the reader has ended

	ticking   chan struct{} // closed at the first tick here
	firstTick sync.Once

	command sync.Mutex // one command at a time

	mu      sync.Mutex
	lines   []Line
	dropped int // lines no longer in lines
	changed chan struct{}
	bad     []string
	last    uint64
	durable uint64
	err     error
}

// Dial connects to the serial socket at path, trying again until ctx ends, and
// listens from then on; name says in reports whose line it is. Ticks go to tl.
// Close it to release the socket and the reader.
func Dial(ctx context.Context, name, path string, tl *Timeline) (*Console, error) {
	var d net.Dialer
	for {
		conn, err := d.DialContext(ctx, "unix", path)
		if err == nil {
			return New(name, conn, tl), nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("dial console %s: %w: %w", name, ctx.Err(), err)
		case <-time.After(redial):
		}
	}
}

// New listens to an open line, which it closes in the end.
func New(name string, conn net.Conn, tl *Timeline) *Console {
	c := &Console{
		name:    name,
		conn:    conn,
		tl:      tl,
		done:    make(chan struct{}),
		ticking: make(chan struct{}),
		changed: make(chan struct{}),
	}
	go c.read(tl.open(name))
	return c
}

// Name is the name given to Dial.
func (c *Console) Name() string { return c.name }

// Close hangs up and waits for the reader. What was heard stays readable.
func (c *Console) Close() error {
	err := c.conn.Close()
	<-c.done
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Done is closed when the line has ended.
func (c *Console) Done() <-chan struct{} { return c.done }

func (c *Console) read(tr *track) {
	defer close(c.done)
	var part []byte // a line that hasn't ended yet
	buf := make([]byte, 16<<10)
	for {
		n, err := c.conn.Read(buf)
		at := c.tl.now()
		for b := buf[:n]; len(b) > 0; {
			head, rest, ended := bytes.Cut(b, []byte{'\n'})
			if room := maxLine - len(part); len(head) > room {
				head = head[:room]
			}
			part = append(part, head...)
			b = rest
			if ended {
				c.line(tr, at, strings.TrimRight(string(part), "\r"))
				part = part[:0]
			}
		}
		c.tl.setTail(tr, string(part))
		if err != nil {
			c.end(err)
			return
		}
	}
}

func (c *Console) line(tr *track, at time.Duration, text string) {
	first := c.tl.firstLine(tr, at, text)
	if t, ok := parseTick(text); ok {
		c.tl.add(tr, at, t)
		c.firstTick.Do(func() { close(c.ticking) })
		return
	}
	if text == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// The first line may be the second half of one, so it isn't believed.
	if last, durable, ok := parseProgress(text); ok && !first {
		c.last, c.durable = max(c.last, last), max(c.durable, durable)
	}
	if strings.HasPrefix(text, "BAD") && len(c.bad) < maxLines {
		c.bad = append(c.bad, text)
	}
	if len(c.lines) == maxLines {
		n := copy(c.lines, c.lines[maxLines/2:])
		c.dropped += len(c.lines) - n
		c.lines = c.lines[:n]
	}
	c.lines = append(c.lines, Line{At: at, Text: text})
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *Console) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = fmt.Errorf("console %s: %w: %w", c.name, ErrClosed, err)
	close(c.changed)
	c.changed = make(chan struct{})
}

// ended is why the reader has ended, nil while it has not.
func (c *Console) ended() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Lines is what the guest said besides ticks, oldest first; of a very long
// story, the end.
func (c *Console) Lines() []Line {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Line(nil), c.lines...)
}

// Bad is what the guest found wrong by itself.
func (c *Console) Bad() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.bad...)
}

// Progress is the newest record the guest told of here, and the newest that it
// knew durable: what any later start of it must still have.
func (c *Console) Progress() (last, durable uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last, c.durable
}

// mark is the number of the next line.
func (c *Console) mark() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dropped + len(c.lines)
}

// wait returns the first line from number mark on that is wanted. It ends with
// ctx or with the line (ErrClosed).
func (c *Console) wait(ctx context.Context, mark int, wanted func(string) bool) (string, error) {
	for {
		c.mu.Lock()
		for i := max(mark-c.dropped, 0); i < len(c.lines); i++ {
			if text := c.lines[i].Text; wanted(text) {
				c.mu.Unlock()
				return text, nil
			}
		}
		mark = c.dropped + len(c.lines)
		changed, err := c.changed, c.err
		c.mu.Unlock()
		if err != nil {
			return "", err
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("console %s: %w", c.name, ctx.Err())
		case <-changed:
		}
	}
}

// Wait returns the first line that starts with prefix, also one from before the
// call.
func (c *Console) Wait(ctx context.Context, prefix string) (string, error) {
	text, err := c.wait(ctx, 0, func(l string) bool { return strings.HasPrefix(l, prefix) })
	if err != nil {
		return "", fmt.Errorf("wait for %q: %w", prefix, err)
	}
	return text, nil
}

// Command sends a line and returns its answer, which must start with prefix. An
// answer of the guest that it did not understand is ErrRefused. Commands wait
// for each other; a late answer to an earlier one is never taken for this one's.
func (c *Console) Command(ctx context.Context, line, prefix string) (string, error) {
	c.command.Lock()
	defer c.command.Unlock()
	mark := c.mark()
	tag := fmt.Sprintf(" #%x", rand.Uint64())
	deadline, _ := ctx.Deadline()
	if err := c.conn.SetWriteDeadline(deadline); err != nil {
		return "", fmt.Errorf("console %s: %w: %w", c.name, ErrClosed, err)
	}
	if _, err := c.conn.Write([]byte(line + tag + "\n")); err != nil {
		return "", fmt.Errorf("console %s: send %q: %w", c.name, line, err)
	}
	text, err := c.wait(ctx, mark, func(l string) bool { return strings.HasSuffix(l, tag) })
	if err != nil {
		return "", fmt.Errorf("answer to %q: %w", line, err)
	}
	text = strings.TrimSuffix(text, tag)
	if !strings.HasPrefix(text, prefix) {
		return "", fmt.Errorf("console %s: %q: %w: %s", c.name, line, ErrRefused, text)
	}
	return text, nil
}
