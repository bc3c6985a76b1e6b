package nbd

import (
	"encoding/binary"
	"net"
	"sync"
)

// replies sends what is finished. Whoever flushes while nobody else is sending sends for all, in as few
// system calls as it takes.
type replies struct {
	conn *conn

	mu      sync.Mutex
	pending []*request
	sending bool
	// idle is signalled when sending ends, for the one goroutine that may wait for that.
	idle sync.Cond

	// spare and iov keep their memory between calls; rest is what is left of iov. Only the one who sends touches them.
	spare     []*request
	iov, rest net.Buffers
}

// add queues r's reply. It goes out with the next flush, by whomever.
func (o *replies) add(r *request) {
	o.mu.Lock()
	o.pending = append(o.pending, r)
	o.mu.Unlock()
}

// flush sends batch, which are whole answers, and all queued replies. Queued ones are left to the one who is sending already, if
// there is one; batch, which only the goroutine that reads has, waits for its turn.
func (o *replies) flush(batch []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sending && len(batch) == 0 {
		return
	}
	for o.sending {
		o.idle.Wait()
	}
	o.sending = true
	for len(o.pending) > 0 || len(batch) > 0 {
		list := o.pending
		o.pending = o.spare[:0]
		o.mu.Unlock()
		o.send(batch, list)
		batch = nil
		clear(list)
		o.mu.Lock()
		o.spare = list
	}
	o.sending = false
	o.idle.Signal()
}

// send writes batch and the replies of list and ends the requests. On a dead connection it only ends them.
func (o *replies) send(batch []byte, list []*request) {
	c := o.conn
	switch {
	case c.dead.Load():
	case len(list) == 0:
		if _, err := c.wire.Write(batch); err != nil {
			c.abort(err)
		}
	default:
		o.iov = o.iov[:0]
		if len(batch) > 0 {
			o.iov = append(o.iov, batch)
		}
		for _, r := range list {
			o.iov = r.appendReply(o.iov)
		}
		// writev moves rest along; iov keeps the start.
		o.rest = o.iov
		if err := c.wire.writev(&o.rest); err != nil {
			c.abort(err)
		}
		clear(o.iov)
	}
	for _, r := range list {
		c.finish(r)
	}
}

// appendReply appends the pieces of r's reply to iov. They live in r and its buffer.
func (r *request) appendReply(iov net.Buffers) net.Buffers {
	var tail []byte
	switch {
	case r.errno != nbdOK:
	case r.cmd == cmdBlockStatus:
		tail = r.extents
	case r.cmd == cmdRead && r.data != nil:
		tail = r.data.mem
	}
	iov = append(iov, appendReplyHead(r.head[:0], r.conn.structured, &r.header, r.errno, len(tail)))
	if len(tail) > 0 {
		iov = append(iov, tail)
	}
	return iov
}

// appendReplyHead appends to p, at most chunkSize+8 bytes, what comes before the n bytes that answer h.
func appendReplyHead(p []byte, structured bool, h *header, errno uint32, n int) []byte {
	if !structured || h.cmd != cmdRead && h.cmd != cmdBlockStatus {
		p = binary.BigEndian.AppendUint32(p, magicSimple)
		p = binary.BigEndian.AppendUint32(p, errno)
		return binary.BigEndian.AppendUint64(p, h.cookie)
	}
	kind, size := chunkNone, 0
	switch {
	case errno != nbdOK:
		kind, size = chunkError, 6
	case h.cmd == cmdBlockStatus:
		kind, size = chunkBlockStatus, 4
	case n > 0:
		kind, size = chunkOffsetData, 8
	}
	p = binary.BigEndian.AppendUint32(p, magicStructured)
	p = binary.BigEndian.AppendUint16(p, chunkFlagDone)
	p = binary.BigEndian.AppendUint16(p, kind)
	p = binary.BigEndian.AppendUint64(p, h.cookie)
	p = binary.BigEndian.AppendUint32(p, uint32(size+n))
	switch kind {
	case chunkError:
		// The number, and a message of no length.
		p = binary.BigEndian.AppendUint32(p, errno)
		p = binary.BigEndian.AppendUint16(p, 0)
	case chunkBlockStatus:
		p = binary.BigEndian.AppendUint32(p, contextID)
	case chunkOffsetData:
		p = binary.BigEndian.AppendUint64(p, uint64(h.off))
	}
	return p
}
