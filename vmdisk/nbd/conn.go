package nbd

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	// readBuffer is how much of what a client sent is taken in at once. It holds the data of the longest inline write.
	readBuffer = 256 << 10
	// minCharge is the least that a request costs of the budgets, which also bounds their number.
	minCharge = 128 << 10
	// connWorkers is how many requests of a connection are with the Backend at a time.
	connWorkers = 64
)

// conn is one client. Its goroutine is serve; its workers end before serve does.
type conn struct {
	server *Server
	nc     net.Conn
	in     *input
	out    replies
	ctx    context.Context
	cancel context.CancelCauseFunc
	// dead is set before the wire is interrupted. From then on no reply leaves and no request starts.
	dead atomic.Bool

	// wire is nc, and after the handshake what it became. It is replaced and closed under wireMu, by serve only: what serve
	// starts, and waits for, uses it without.
	wireMu sync.Mutex
	wire   wire
	closed bool

	// What the handshake agreed on.
	noZeroes, fixed, structured bool
	// metaExport is the export that the client chose base:allocation for, if metaChosen.
	metaExport string
	metaChosen bool
	wantStatus bool

	export  *export
	status  StatusBackend
	cache   CacheBackend
	prompt  PromptBackend
	workers *workers
	budget  *semaphore.Weighted
	open    sync.WaitGroup
	errors  atomic.Uint64

	// Of the goroutine that reads: the answers that it has not sent, how quick its own requests are, the
	// one that it carries out itself, and how much to take in before the next header.
	batch         []byte
	reads, writes pace
	own           request
	appetite      int
}

func newConn(ctx context.Context, s *Server, nc net.Conn) *conn {
	c := &conn{
		server:  s,
		nc:      nc,
		wire:    netWire{nc},
		in:      newInput(nc, readBuffer),
		workers: newWorkers(connWorkers),
		budget:  semaphore.NewWeighted(s.connMemory()),
	}
	c.out.conn = c
	c.out.idle.L = &c.out.mu
	c.own.conn = c
	c.reads.limit, c.writes.limit = readPace, writePace
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	return c
}

// abort ends the connection without further answers. It may be called from anywhere, more than once;
// the first cause counts.
func (c *conn) abort(cause error) {
	c.dead.Store(true)
	c.cancel(cause)
	c.wireMu.Lock()
	defer c.wireMu.Unlock()
	if !c.closed {
		c.wire.interrupt()
	}
}

// takeOver gives the connection the wire that is best for transmission.
func (c *conn) takeOver() {
	c.wireMu.Lock()
	defer c.wireMu.Unlock()
	if c.dead.Load() {
		return
	}
	c.wire = newWire(c.nc)
	c.in.from = c.wire
}

// close gives the connection back once nobody reads or writes any more.
func (c *conn) close() {
	c.wireMu.Lock()
	defer c.wireMu.Unlock()
	c.closed = true
	c.wire.close()
}

// gone reports whether the client is gone for good.
func (c *conn) gone() bool {
	c.wireMu.Lock()
	defer c.wireMu.Unlock()
	return c.closed || c.wire.gone()
}

// serve speaks with the client until it leaves or ctx ends, and returns when nothing of the connection
// is left.
func (c *conn) serve() {
	log := c.server.logger()
	stop := context.AfterFunc(c.ctx, func() { c.abort(context.Cause(c.ctx)) })
	err := c.handshake()
	if err == nil && c.export != nil {
		log.Debug("NBD client connected", "bytes", c.export.size)
		c.takeOver()
		err = c.transmit()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			// The client may have closed only its half: what it asked for is answered.
			err = nil
		}
	}
	if err != nil {
		c.abort(err)
	}
	if c.export != nil {
		c.flush()
		c.open.Wait()
	}
	c.workers.stop()
	if c.export != nil {
		c.server.registry.leave(c, c.export)
	}
	stop()
	c.abort(nil)
	c.close()
	c.report(log, err)
}

// report logs how the connection ended, once.
func (c *conn) report(log *slog.Logger, err error) {
	if cause := context.Cause(c.ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	switch {
	case errors.Is(err, ErrHangUp):
		log.Warn("NBD connection closed for the client to retry", "error", err)
	case errors.Is(err, errProtocol):
		log.Warn("NBD client broke the protocol", "error", err)
	default:
		log.Debug("NBD client left", "error", err)
	}
}

// hangUp ends the connection because the Backend said err, ErrHangUp.
func (c *conn) hangUp(err error) {
	c.server.counters.hangUps.Add(1)
	c.abort(err)
}

// failed logs a Backend's error. A guest that retries for ever must not fill the log: the 1st, 2nd, 4th,
// 8th … of a connection are written.
func (c *conn) failed(h *header, err error) {
	c.server.counters.errors.Add(1)
	if n := c.errors.Add(1); n&(n-1) == 0 {
		c.server.logger().Warn("NBD request failed", "command", h.cmd, "offset", h.off, "length", h.length, "count", n, "error", err)
	}
}

// transmit takes requests until the client leaves (io.EOF, or nil after it said so) or breaks the protocol.
func (c *conn) transmit() error {
	if c.prompt != nil {
		c.batch = make([]byte, 0, batchSize)
	}
	c.appetite = readBuffer
	for {
		if c.in.buffered() < requestSize {
			c.flush()
		}
		head, err := c.in.peek(requestSize, c.appetite)
		if err != nil {
			return err
		}
		h, ok := parseHeader(head)
		if !ok {
			return errProtocol
		}
		c.in.skip(requestSize)
		if h.cmd == cmdDisc {
			return nil
		}
		errno := c.check(&h)
		c.appetite = readBuffer
		if errno == nbdOK {
			if done, err := c.inline(&h); err != nil {
				return err
			} else if done {
				continue
			}
		}
		if err := c.submit(&h, errno); err != nil {
			return err
		}
	}
}

// submit gives a request that has a memory of its own to the workers, now or when the changes before it have ended,
// or answers it with errno.
func (c *conn) submit(h *header, errno uint32) error {
	r := newRequest(c, h)
	if err := c.acquire(r, errno); err != nil {
		return err
	}
	if err := c.payload(r, errno); err != nil {
		c.finish(r)
		return err
	}
	switch {
	case errno != nbdOK:
		c.server.counters.errors.Add(1)
		r.errno = errno
		c.out.add(r)
	case c.export.admit(r):
		c.workers.submit(r)
		if c.in.buffered() < requestSize {
			// This thread is awake: it begins with r, while another one is woken to read on.
			c.flush()
			runtime.Gosched()
		}
	}
	return nil
}

// acquire waits until the budgets have room for r.
func (c *conn) acquire(r *request, errno uint32) error {
	r.charge = minCharge
	if errno == nbdOK && (r.cmd == cmdRead || r.cmd == cmdWrite) {
		r.charge = max(r.length, minCharge)
	}
	total := c.server.budget
	if !c.budget.TryAcquire(r.charge) {
		// Queued replies hold what we wait for.
		c.flush()
		if err := c.budget.Acquire(c.ctx, r.charge); err != nil {
			return context.Cause(c.ctx)
		}
	}
	if !total.TryAcquire(r.charge) {
		c.flush()
		if err := total.Acquire(c.ctx, r.charge); err != nil {
			c.budget.Release(r.charge)
			return context.Cause(c.ctx)
		}
	}
	c.open.Add(1)
	return nil
}

// flush sends what is queued. It is for the reading goroutine, before it may block.
func (c *conn) flush() {
	c.out.flush(c.batch)
	c.batch = c.batch[:0]
}

// finish ends r, answered or not.
func (c *conn) finish(r *request) {
	charge := r.charge
	r.free()
	c.server.budget.Release(charge)
	c.budget.Release(charge)
	c.open.Done()
}

// payload reads the data that follows a WRITE, or passes over it when the request is refused.
func (c *conn) payload(r *request, errno uint32) error {
	if r.cmd != cmdWrite || r.length == 0 {
		return nil
	}
	if int64(c.in.buffered()) < r.length {
		c.flush()
	}
	if errno != nbdOK {
		_, err := io.CopyN(io.Discard, c.in, r.length)
		return err
	}
	if r.length > inlineMax {
		// The next one is probably long too: its data shall come straight to its place.
		c.appetite = requestSize
	}
	r.data = newBuffer(int(r.length))
	_, err := io.ReadFull(c.in, r.data.mem)
	return err
}

// deadline bounds the handshake; the zero time lifts the bound.
func (c *conn) deadline(d time.Duration) error {
	if d == 0 {
		return c.nc.SetDeadline(time.Time{})
	}
	return c.nc.SetDeadline(time.Now().Add(d))
}
