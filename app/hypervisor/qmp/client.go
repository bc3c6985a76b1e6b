// Package qmp speaks the QEMU Machine Protocol, QEMU's JSON control socket.
//
// It guarantees that every call ends: with the reply, with the context, or with
// [ErrClosed] when the socket dies; that events are kept in order for those who
// [Client.Subscribe]d before they came; and that a line longer than 1 MiB or not
// JSON closes the client instead of filling memory.
//
// It doesn't guarantee that QEMU answers: some commands block QEMU's main loop
// (QEMU's docs/interop/qmp-spec, and "stop" while the disk can't drain), so callers
// give each call a deadline and treat its end as "unknown", not as "no". A command
// that nobody waits for any more is still QEMU's to answer, and no more than a few
// are sent to one that doesn't: later ones wait here, so that the urgent get through.
// Such a QEMU hears no new client on its socket at all; a session of [TakeUp] it does.
//
// The tests run it against a scripted peer; package qemu runs it against the real one.
package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

// maxLine bounds one message: query-qmp-schema, the largest reply, is about 200 KiB.
const maxLine = 1 << 20

// maxBacklog bounds the events kept for one slow subscriber; older ones are dropped first.
const maxBacklog = 4096

// maxUnanswered bounds the ordinary commands that QEMU has and hasn't answered: one that has eight of them reads no further, and so wouldn't hear of
// urgent ones.
const maxUnanswered = 4

// oob is the capability of commands that don't wait for others.
const oob = "oob"

// defaultDeadline holds for calls whose context has none.
const defaultDeadline = 30 * time.Second

var (
	// ErrClosed says that the socket is gone: QEMU ended, or the client was closed.
	ErrClosed = errors.New("qmp: connection closed")
	// ErrProtocol says that the other end doesn't speak QMP.
	ErrProtocol = errors.New("qmp: not a QMP peer")
)

// CommandError is QEMU's refusal of one command.
type CommandError struct {
	Command string
	Class   string
	Desc    string
}

func (e *CommandError) Error() string { return fmt.Sprintf("qmp: %s: %s", e.Command, e.Desc) }

// Event is one asynchronous message of QEMU.
type Event struct {
	Name string
	Data json.RawMessage
	At   time.Time // when it was read here
}

// Client is one connection to a QEMU monitor. It is safe for concurrent use.
type Client struct {
	conn  conn
	kept  bool          // the session is older than the client: lines may be left in it of others
	done  chan struct{} // closed when the reader has ended
	ready chan struct{} // closed when commands are taken
	wg    sync.WaitGroup

	writing sync.Mutex    // one command on the wire at a time: SCM_RIGHTS belong to the next command
	room    chan struct{} // has an element for each ordinary command that QEMU hasn't answered

	// guarded by mu
	mu      sync.Mutex
	nextID  uint64
	pending map[uint64]waiting
	subs    map[*Subscription]struct{}
	err     error
	urgent  bool // QEMU takes commands that don't wait for others; guarded by mu
}

// conn is what carries the protocol: a socket, or a pair of pipes.
type conn interface {
	io.ReadWriteCloser
	SetWriteDeadline(t time.Time) error
}

type reply struct {
	Return json.RawMessage
	Err    *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	}
}

// waiting is a command that was sent and isn't answered.
type waiting struct {
	answer   chan<- reply // 1-buffered; nobody may be waiting for it any more
	ordinary bool
}

type message struct {
	ID     *uint64         `json:"id"`
	Event  string          `json:"event"`
	Data   json.RawMessage `json:"data"`
	Return json.RawMessage `json:"return"`
	QMP    json.RawMessage `json:"QMP"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
}

// Dial connects to the monitor socket at path, retrying until it exists or ctx ends,
// and negotiates capabilities. giveUp, if not nil, is asked between tries; its error
// ends the waiting (for instance: QEMU has exited).
func Dial(ctx context.Context, path string, giveUp func() error) (*Client, error) {
	c, err := Attach(ctx, path, giveUp)
	if err != nil {
		return nil, err
	}
	select {
	case <-c.ready:
		return c, nil
	case <-c.done:
		err = c.Err()
	case <-ctx.Done():
		err = ctx.Err()
	}
	_ = c.Close()
	return nil, fmt.Errorf("qmp: greeting: %w", err)
}

// Attach is Dial that doesn't wait for QEMU to answer: it may not for a while, for instance because its guest's disk is about to be served only
// now. Commands wait until it does.
func Attach(ctx context.Context, path string, giveUp func() error) (*Client, error) {
	var d net.Dialer
	for {
		conn, err := d.DialContext(ctx, "unix", path)
		if err == nil {
			return newClient(conn.(*net.UnixConn)), nil
		}
		if giveUp != nil {
			if gone := giveUp(); gone != nil {
				return nil, gone
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("qmp: connect to %s: %w", path, errors.Join(ctx.Err(), err))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func newClient(conn *net.UnixConn) *Client {
	c := &Client{
		conn:    conn,
		done:    make(chan struct{}),
		ready:   make(chan struct{}),
		room:    make(chan struct{}, maxUnanswered),
		pending: map[uint64]waiting{},
		subs:    map[*Subscription]struct{}{},
	}
	greeted := make(chan struct{})
	go c.read(greeted)
	c.wg.Go(func() { c.negotiate(greeted) })
	return c
}

// negotiate brings the connection to where commands are taken. It takes as long as QEMU takes, or until the connection ends.
func (c *Client) negotiate(greeted <-chan struct{}) {
	select {
	case <-greeted:
	case <-c.done:
		return
	}
	var args any
	c.mu.Lock()
	if c.urgent {
		args = map[string]any{"enable": []string{oob}}
	}
	c.mu.Unlock()
	if err := c.exchange(context.Background(), "execute", "qmp_capabilities", args, nil, nil); err != nil {
		_ = c.conn.Close()
		return
	}
	close(c.ready)
}

// Ready is closed when QEMU takes commands.
func (c *Client) Ready() <-chan struct{} { return c.ready }

// read is the only reader of the socket; it ends when the socket does.
func (c *Client) read(greeted chan struct{}) {
	scan := bufio.NewScanner(c.conn)
	scan.Buffer(make([]byte, 0, 64<<10), maxLine)
	var err error
	for scan.Scan() {
		var m message
		if e := json.Unmarshal(scan.Bytes(), &m); e != nil {
			if c.kept {
				continue // a client before has read its beginning
			}
			err = fmt.Errorf("%w: %w", ErrProtocol, e)
			break
		}
		switch {
		case m.QMP != nil:
			select {
			case <-greeted:
			default:
				c.greet(m.QMP)
				close(greeted)
			}
		case m.Event != "":
			c.publish(Event{Name: m.Event, Data: m.Data, At: time.Now()})
		case m.ID != nil:
			c.mu.Lock()
			w, asked := c.pending[*m.ID]
			delete(c.pending, *m.ID)
			c.mu.Unlock()
			if asked {
				w.answer <- reply{Return: m.Return, Err: m.Error}
				c.answered(w)
			}
		}
	}
	if err == nil {
		err = scan.Err()
	}
	c.conn.Close()
	c.mu.Lock()
	if c.err == nil {
		c.err = ErrClosed
		if err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrClosed) {
			c.err = fmt.Errorf("%w: %w", ErrClosed, err)
		}
	}
	for s := range c.subs {
		s.signal()
	}
	c.mu.Unlock()
	close(c.done)
}

// greet notes what QEMU's greeting offers.
func (c *Client) greet(greeting json.RawMessage) {
	var g struct {
		Capabilities []string `json:"capabilities"`
	}
	if err := json.Unmarshal(greeting, &g); err != nil {
		return // it offers nothing that is known here
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.urgent = slices.Contains(g.Capabilities, oob)
}

// Done is closed when the connection has ended.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err tells why the connection ended; nil while it lives.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close hangs up and waits for the reader to end. QEMU goes on.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.done
	c.wg.Wait()
	return err
}

// Do runs one command. args is marshalled as its arguments (nil for none), the
// reply is unmarshalled into out (nil to ignore it).
func (c *Client) Do(ctx context.Context, command string, args, out any) error {
	return c.do(ctx, command, args, out, nil)
}

// DoUrgent is Do for the few commands that QEMU runs at once, even while another one, or its guest's disk or memory, keeps it from running any
// other. Of a QEMU that can't, it is Do.
func (c *Client) DoUrgent(ctx context.Context, command string, args, out any) error {
	ctx, cancel, err := c.await(ctx, command)
	if err != nil {
		return err
	}
	defer cancel()
	c.mu.Lock()
	verb := "execute"
	if c.urgent {
		verb = "exec-oob"
	}
	c.mu.Unlock()
	return c.exchange(ctx, verb, command, args, out, nil)
}

// DoFile runs one command with an open file attached (SCM_RIGHTS), as "getfd" wants.
// The file stays the caller's.
func (c *Client) DoFile(ctx context.Context, command string, args any, file *os.File) error {
	return c.do(ctx, command, args, nil, file)
}

func (c *Client) do(ctx context.Context, command string, args, out any, file *os.File) error {
	ctx, cancel, err := c.await(ctx, command)
	if err != nil {
		return err
	}
	defer cancel()
	return c.exchange(ctx, "execute", command, args, out, file)
}

// await waits until commands are taken, and gives a context without a deadline one.
func (c *Client) await(ctx context.Context, command string) (context.Context, context.CancelFunc, error) {
	cancel := context.CancelFunc(func() {})
	if _, ok := ctx.Deadline(); !ok {
		ctx, cancel = context.WithTimeout(ctx, defaultDeadline)
	}
	select {
	case <-c.ready:
		return ctx, cancel, nil
	case <-c.done:
		cancel()
		return nil, nil, fmt.Errorf("qmp: %s: %w", command, c.Err())
	case <-ctx.Done():
		cancel()
		return nil, nil, fmt.Errorf("qmp: %s: %w", command, ctx.Err())
	}
}

// exchange writes a command and waits for its answer.
func (c *Client) exchange(ctx context.Context, verb, command string, args, out any, file *os.File) error {
	ch := make(chan reply, 1)
	w := waiting{answer: ch, ordinary: verb == "execute"}
	if w.ordinary {
		select {
		case c.room <- struct{}{}:
		case <-c.done:
			return fmt.Errorf("qmp: %s: %w", command, c.Err())
		case <-ctx.Done():
			return fmt.Errorf("qmp: %s: %w", command, ctx.Err())
		}
	}
	if err := c.send(ctx, w, verb, command, args, file); err != nil {
		return fmt.Errorf("qmp: %s: %w", command, err)
	}
	select {
	case r := <-ch:
		if r.Err != nil {
			return &CommandError{Command: command, Class: r.Err.Class, Desc: r.Err.Desc}
		}
		if out == nil {
			return nil
		}
		if err := json.Unmarshal(r.Return, out); err != nil {
			return fmt.Errorf("qmp: %s: %w: %w", command, ErrProtocol, err)
		}
		return nil
	case <-c.done:
		return fmt.Errorf("qmp: %s: %w", command, c.Err())
	case <-ctx.Done():
		return fmt.Errorf("qmp: %s: %w", command, ctx.Err())
	}
}

// send writes a command. From then on it is pending until it is answered, whether anybody waits for that or not.
func (c *Client) send(ctx context.Context, w waiting, verb, command string, args any, file *os.File) (err error) {
	c.mu.Lock()
	c.nextID++
	id := c.nextID
	if err = c.err; err == nil {
		c.pending[id] = w
	}
	c.mu.Unlock()
	if err != nil {
		c.answered(w)
		return err
	}
	m := map[string]any{verb: command, "id": id}
	if args != nil {
		m["arguments"] = args
	}
	line, err := json.Marshal(m)
	if err == nil {
		err = c.write(ctx, append(line, '\n'), file)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("%w: %w", context.DeadlineExceeded, err) // ctx's, as of every call that it ends
	}
	if err != nil {
		c.mu.Lock()
		_, still := c.pending[id]
		delete(c.pending, id)
		c.mu.Unlock()
		if still {
			c.answered(w)
		}
	}
	return err
}

// answered makes room for another command.
func (c *Client) answered(w waiting) {
	if w.ordinary {
		<-c.room
	}
}

func (c *Client) write(ctx context.Context, line []byte, file *os.File) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	deadline, _ := ctx.Deadline()
	if err := c.conn.SetWriteDeadline(deadline); err != nil {
		return err
	}
	if file != nil {
		socket, ok := c.conn.(*net.UnixConn)
		if !ok {
			return errors.ErrUnsupported
		}
		return writeWithFile(socket, line, file)
	}
	_, err := c.conn.Write(line)
	return err
}

func (c *Client) publish(e Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.subs {
		if len(s.backlog) >= maxBacklog {
			s.backlog = s.backlog[1:]
		}
		s.backlog = append(s.backlog, e)
		s.signal()
	}
}

// Subscription is an ordered view of the events since it was made.
type Subscription struct {
	c       *Client
	wake    chan struct{} // 1-buffered
	backlog []Event       // guarded by c.mu
}

// Subscribe starts to collect events. End it with Close.
func (c *Client) Subscribe() *Subscription {
	s := &Subscription{c: c, wake: make(chan struct{}, 1)}
	c.mu.Lock()
	c.subs[s] = struct{}{}
	c.mu.Unlock()
	return s
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.c.mu.Lock()
	delete(s.c.subs, s)
	s.c.mu.Unlock()
}

func (s *Subscription) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Next waits for the next event. It isn't safe for concurrent use.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	for {
		s.c.mu.Lock()
		if len(s.backlog) > 0 {
			e := s.backlog[0]
			s.backlog = s.backlog[1:]
			s.c.mu.Unlock()
			return e, nil
		}
		err := s.c.err
		s.c.mu.Unlock()
		if err != nil {
			return Event{}, err
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return Event{}, ctx.Err()
		}
	}
}
