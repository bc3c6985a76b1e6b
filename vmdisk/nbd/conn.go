package nbd

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	// readBuffer is how much of what a client sent is taken in at once.
	readBuffer = 128 << 10
	// minCharge is the least that a request costs of the budgets, which also bounds their number.
	minCharge = 128 << 10
	// inlineMax is the longest request that may run in the goroutine that reads.
	inlineMax = 128 << 10
	// batchCharge is how much may be answered in one go while more requests are waiting to be read.
	batchCharge = 32 * minCharge
	// connWorkers is how many requests of a connection are with the Backend at a time.
	connWorkers = 64
)

// conn is one client. Its goroutine is serve; its workers end before serve does.
type conn struct {
	server *Server
	nc     net.Conn
	in     *bufio.Reader
	out    replies
	ctx    context.Context
	cancel context.CancelCauseFunc
	// dead is set before nc is closed. From then on no reply leaves and no request starts.
	dead atomic.Bool

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
	// batched is the charge of the replies that the reading goroutine has queued and not flushed.
	batched int64
	open    sync.WaitGroup
	errors  atomic.Uint64
}

func newConn(ctx context.Context, s *Server, nc net.Conn) *conn {
	c := &conn{
		server:  s,
		nc:      nc,
		in:      bufio.NewReaderSize(nc, readBuffer),
		workers: newWorkers(connWorkers),
		budget:  semaphore.NewWeighted(s.connMemory()),
	}
	c.out.conn = c
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	return c
}

// abort ends the connection without further answers. It may be called from anywhere, more than once;
// the first cause counts.
func (c *conn) abort(cause error) {
	c.dead.Store(true)
	c.cancel(cause)
	// The error of Close says nothing that matters: nothing was left to be sent.
	_ = c.nc.Close()
}

// serve speaks with the client until it leaves or ctx ends, and returns when nothing of the connection
// is left.
func (c *conn) serve() {
	log := c.server.logger()
	stop := context.AfterFunc(c.ctx, func() { c.abort(context.Cause(c.ctx)) })
	err := c.handshake()
	if err == nil && c.export != nil {
		log.Debug("NBD client connected", "bytes", c.export.size)
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
		c.out.flush()
		c.open.Wait()
	}
	c.workers.stop()
	if c.export != nil {
		c.server.registry.leave(c, c.export)
	}
	stop()
	c.abort(nil)
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

// failed logs a Backend's error. A guest that retries for ever must not fill the log: the 1st, 2nd, 4th,
// 8th … of a connection are written.
func (c *conn) failed(r *request, err error) {
	c.server.counters.errors.Add(1)
	if n := c.errors.Add(1); n&(n-1) == 0 {
		c.server.logger().Warn("NBD request failed", "command", r.cmd, "offset", r.off, "length", r.length, "count", n, "error", err)
	}
}

// transmit takes requests until the client leaves (io.EOF, or nil after it said so) or breaks the protocol.
func (c *conn) transmit() error {
	var head [requestSize]byte
	for {
		if c.in.Buffered() < requestSize {
			c.flush()
		}
		if _, err := io.ReadFull(c.in, head[:]); err != nil {
			return err
		}
		r, ok := parseRequest(c, head[:])
		if !ok {
			return errProtocol
		}
		if r.cmd == cmdDisc {
			return nil
		}
		errno := r.check()
		if err := c.acquire(r, errno); err != nil {
			return err
		}
		if err := c.payload(r, errno); err != nil {
			c.finish(r)
			return err
		}
		if errno != nbdOK {
			c.server.counters.errors.Add(1)
			r.errno = errno
			c.out.add(r)
			continue
		}
		c.start(r)
	}
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
	c.batched = 0
	c.out.flush()
}

// finish ends r, answered or not.
func (c *conn) finish(r *request) {
	r.dropData()
	r.extents = nil
	c.server.budget.Release(r.charge)
	c.budget.Release(r.charge)
	c.open.Done()
}

// payload reads the data that follows a WRITE, or passes over it when the request is refused.
func (c *conn) payload(r *request, errno uint32) error {
	if r.cmd != cmdWrite || r.length == 0 {
		return nil
	}
	if int64(c.in.Buffered()) < r.length {
		c.flush()
	}
	if errno != nbdOK {
		_, err := io.CopyN(io.Discard, c.in, r.length)
		return err
	}
	r.data = newBuffer(int(r.length))
	_, err := io.ReadFull(c.in, r.data.mem)
	return err
}

// start lets r go, now or when the changes before it have ended.
func (c *conn) start(r *request) {
	switch {
	case !c.export.admit(r):
	case r.prompt():
		charge := r.charge
		r.run()
		if c.batched += charge; c.batched >= batchCharge {
			c.flush()
		}
	default:
		c.workers.submit(r)
	}
}

// deadline bounds the handshake; the zero time lifts the bound.
func (c *conn) deadline(d time.Duration) error {
	if d == 0 {
		return c.nc.SetDeadline(time.Time{})
	}
	return c.nc.SetDeadline(time.Now().Add(d))
}
