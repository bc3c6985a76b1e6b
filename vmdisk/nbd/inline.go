package nbd

import "errors"

const (
	// inlineMax is the longest request that may run in the goroutine that reads.
	inlineMax = 128 << 10
	// batchSize is the room for answers that the goroutine that reads gives itself. It holds more than the longest.
	batchSize = 512 << 10
	// batchFull is how much is answered in one go while more requests are waiting.
	batchFull = 256 << 10
)

// inline carries out a checked request in the goroutine that reads, if it is quick and waits for no other, and
// appends its answer to the batch: that saves two thread switches, a buffer and a system call. ok is false if it isn't;
// then nothing was done.
func (c *conn) inline(h *header) (ok bool, err error) {
	if c.prompt == nil || h.length == 0 || h.length > inlineMax {
		return false, nil
	}
	switch {
	case h.cmd == cmdRead && c.reads.quick() && c.prompt.Prompt(h.off, h.length, false):
		return c.inlineRead(h), nil
	case h.cmd == cmdWrite && h.flags&cmdFlagFUA == 0 && c.writes.quick() && c.prompt.Prompt(h.off, h.length, true):
		return c.inlineWrite(h)
	default:
		return false, nil
	}
}

// inlineRead reads to where the answer will be sent from.
func (c *conn) inlineRead(h *header) bool {
	if !c.export.unchanging(h) {
		return false
	}
	if len(c.batch)+chunkSize+8+int(h.length) > cap(c.batch) {
		c.flush()
	}
	// Asked after the order was looked at, as in run.
	if c.dead.Load() {
		return true
	}
	began := len(c.batch)
	c.batch = appendReplyHead(c.batch, c.structured, h, nbdOK, int(h.length))
	at := len(c.batch)
	c.batch = c.batch[:at+int(h.length)]
	start := c.reads.begin()
	err := c.export.backend.ReadAt(c.batch[at:], h.off)
	c.server.counters.spent(c.reads.end(start, h.length))
	if err != nil {
		c.batch = c.batch[:began]
	}
	c.answer(h, err)
	return true
}

// inlineWrite writes from where the data has come in.
func (c *conn) inlineWrite(h *header) (ok bool, err error) {
	n := int(h.length)
	if c.in.buffered() < n {
		c.flush()
	}
	p, err := c.in.peek(n, len(c.in.buf))
	if err != nil {
		return true, err
	}
	r := &c.own
	r.header = *h
	if !c.export.admitAlone(r) {
		return false, nil
	}
	if c.dead.Load() {
		c.export.done(r)
		return true, nil
	}
	start := c.writes.begin()
	err = c.export.backend.WriteAt(p, h.off, false)
	c.server.counters.spent(c.writes.end(start, h.length))
	c.export.done(r)
	c.in.skip(n)
	c.answer(h, err)
	return true, nil
}

// answer counts an inline request and adds what is still missing of its answer to the batch.
func (c *conn) answer(h *header, err error) {
	switch {
	case err == nil:
		c.server.counters.count(h)
		if h.cmd != cmdRead {
			c.batch = appendReplyHead(c.batch, c.structured, h, nbdOK, 0)
		}
	case errors.Is(err, ErrHangUp):
		c.hangUp(err)
		return
	default:
		c.failed(h, err)
		c.batch = appendReplyHead(c.batch, c.structured, h, errnoOf(err), 0)
	}
	if len(c.batch) >= batchFull {
		c.flush()
	}
}
