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
	// spare and iov keep their memory between calls. Only the one who sends touches them.
	spare   []*request
	iov     net.Buffers
	sending bool
}

// add queues r's reply. It goes out with the next flush, by whomever.
func (o *replies) add(r *request) {
	o.mu.Lock()
	o.pending = append(o.pending, r)
	o.mu.Unlock()
}

// flush sends all queued replies, or leaves them to the one who is sending already.
func (o *replies) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sending {
		return
	}
	o.sending = true
	for len(o.pending) > 0 {
		batch := o.pending
		o.pending = o.spare[:0]
		o.mu.Unlock()
		o.send(batch)
		clear(batch)
		o.mu.Lock()
		o.spare = batch
	}
	o.sending = false
}

// send writes the replies of batch and ends the requests. On a dead connection it only ends them.
func (o *replies) send(batch []*request) {
	c := o.conn
	if !c.dead.Load() {
		iov := o.iov[:0]
		for _, r := range batch {
			iov = r.appendReply(iov)
		}
		o.iov = iov
		// WriteTo moves its receiver along; o.iov keeps the start.
		if _, err := iov.WriteTo(c.nc); err != nil {
			c.abort(err)
		}
		clear(o.iov)
	}
	for _, r := range batch {
		c.finish(r)
	}
}

// appendReply appends the pieces of r's reply to iov. They live in r and its buffer.
func (r *request) appendReply(iov net.Buffers) net.Buffers {
	if !r.conn.structured || r.cmd != cmdRead && r.cmd != cmdBlockStatus {
		binary.BigEndian.PutUint32(r.head[0:], magicSimple)
		binary.BigEndian.PutUint32(r.head[4:], r.errno)
		binary.BigEndian.PutUint64(r.head[8:], r.cookie)
		iov = append(iov, r.head[:simpleSize])
		if r.errno == nbdOK && r.cmd == cmdRead && r.data != nil {
			iov = append(iov, r.data.mem)
		}
		return iov
	}
	kind, size := chunkNone, 0
	var tail []byte
	switch {
	case r.errno != nbdOK:
		// The number, and a message of no length.
		kind, size = chunkError, 6
		binary.BigEndian.PutUint32(r.head[chunkSize:], r.errno)
		binary.BigEndian.PutUint16(r.head[chunkSize+4:], 0)
	case r.cmd == cmdBlockStatus:
		kind, size, tail = chunkBlockStatus, 4, r.extents
		binary.BigEndian.PutUint32(r.head[chunkSize:], contextID)
	case r.data != nil:
		kind, size, tail = chunkOffsetData, 8, r.data.mem
		binary.BigEndian.PutUint64(r.head[chunkSize:], uint64(r.off))
	}
	binary.BigEndian.PutUint32(r.head[0:], magicStructured)
	binary.BigEndian.PutUint16(r.head[4:], chunkFlagDone)
	binary.BigEndian.PutUint16(r.head[6:], kind)
	binary.BigEndian.PutUint64(r.head[8:], r.cookie)
	binary.BigEndian.PutUint32(r.head[16:], uint32(size+len(tail)))
	iov = append(iov, r.head[:chunkSize+size])
	if len(tail) > 0 {
		iov = append(iov, tail)
	}
	return iov
}
