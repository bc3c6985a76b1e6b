package nbd

import (
	"encoding/binary"
	"errors"
	"math"
	"sync"
	"time"
)

// header is what a client says of a request.
type header struct {
	flags, cmd  uint16
	cookie      uint64
	off, length int64
}

// parseHeader reads a header; p has requestSize bytes. ok is false if the magic number is wrong.
// An offset beyond what an int64 holds becomes the largest one, which no disk reaches.
func parseHeader(p []byte) (h header, ok bool) {
	return header{
		flags:  binary.BigEndian.Uint16(p[4:]),
		cmd:    binary.BigEndian.Uint16(p[6:]),
		cookie: binary.BigEndian.Uint64(p[8:]),
		off:    int64(min(binary.BigEndian.Uint64(p[16:]), math.MaxInt64)),
		length: int64(binary.BigEndian.Uint32(p[24:])),
	}, binary.BigEndian.Uint32(p) == magicRequest
}

// request is one command of a client, from its header to the end of its reply.
type request struct {
	header
	conn *conn
	// data is what a WRITE brought or what a READ found.
	data *buffer
	// charge is what the request costs of the budgets.
	charge int64

	// Of export, under its lock: the requests that wait for this one, how many this one waits for, and
	// its place in the list of changes.
	dependents []*request
	waits      int
	listed     bool
	prev, next *request

	// queue is the next in the line of workers.
	queue *request

	errno   uint32
	head    [chunkSize + 8]byte
	extents []byte
}

var requestPool sync.Pool

// newRequest is a request of c that free gives back.
func newRequest(c *conn, h *header) *request {
	r, _ := requestPool.Get().(*request)
	if r == nil {
		r = new(request)
	}
	r.conn, r.header = c, *h
	return r
}

// free gives the memory of the request and its data back. Nobody may know it any more.
func (r *request) free() {
	r.dropData()
	*r = request{dependents: r.dependents[:0]}
	requestPool.Put(r)
}

// check returns the error for a request that may not reach the Backend, else nbdOK.
func (c *conn) check(r *header) uint32 {
	allowed := cmdFlagFUA
	past := nbdEINVAL
	switch r.cmd {
	case cmdRead:
		if c.structured {
			allowed |= cmdFlagDF
		}
		if r.length > maxData {
			return nbdEINVAL
		}
	case cmdWrite:
		past = nbdENOSPC
		if r.length > maxData {
			return nbdEINVAL
		}
	case cmdFlush:
		if r.flags&^allowed != 0 || r.off != 0 || r.length != 0 {
			return nbdEINVAL
		}
		return nbdOK
	case cmdTrim:
	case cmdWriteZeroes:
		allowed |= cmdFlagNoHole
		past = nbdENOSPC
	case cmdCache:
		if c.cache == nil {
			return nbdEINVAL
		}
	case cmdBlockStatus:
		allowed |= cmdFlagReqOne
		if !c.wantStatus || r.length == 0 {
			return nbdEINVAL
		}
	default:
		return nbdEINVAL
	}
	if r.flags&^allowed != 0 {
		return nbdEINVAL
	}
	if size := c.export.size; r.off > size || r.length > size-r.off {
		return past
	}
	return nbdOK
}

// changes reports whether the request changes the disk's content.
func (r *header) changes() bool {
	return r.length > 0 && (r.cmd == cmdWrite || r.cmd == cmdTrim || r.cmd == cmdWriteZeroes)
}

// ranged reports whether the request has a place in the order of changes.
func (r *header) ranged() bool {
	return r.changes() || r.length > 0 && (r.cmd == cmdRead || r.cmd == cmdBlockStatus)
}

// overlaps reports whether the two have a byte of the disk in common.
func (r *header) overlaps(w *header) bool {
	return r.off < w.off+w.length && w.off < r.off+r.length
}

// run carries the request out and queues its reply. When the connection has ended before, nothing is
// done: the client sends the request again if it still cares.
func (r *request) run() {
	c := r.conn
	if c.dead.Load() {
		c.export.done(r)
		c.finish(r)
		return
	}
	n := &c.server.counters
	start := time.Now()
	n.open.Add(1)
	err := r.perform()
	n.spent(time.Since(start))
	n.open.Add(-1)
	c.export.done(r)
	switch {
	case errors.Is(err, ErrHangUp):
		c.hangUp(err)
		c.finish(r)
		return
	case err != nil:
		r.errno = errnoOf(err)
		c.failed(&r.header, err)
	default:
		n.count(&r.header)
	}
	c.out.add(r)
}

// perform calls the Backend.
func (r *request) perform() error {
	b := r.conn.export.backend
	fua := r.flags&cmdFlagFUA != 0
	switch {
	case r.cmd == cmdFlush:
		return b.Flush()
	case r.length == 0:
		return nil
	case r.cmd == cmdRead:
		r.data = newBuffer(int(r.length))
		return b.ReadAt(r.data.mem, r.off)
	case r.cmd == cmdWrite:
		err := b.WriteAt(r.data.mem, r.off, fua)
		r.dropData()
		return err
	case r.cmd == cmdTrim:
		return b.Trim(r.off, r.length, fua)
	case r.cmd == cmdWriteZeroes:
		return b.Zero(r.off, r.length, r.flags&cmdFlagNoHole == 0, fua)
	case r.cmd == cmdCache:
		return r.conn.cache.Cache(r.off, r.length)
	case r.cmd == cmdBlockStatus:
		return r.blockStatus()
	default:
		return errProtocol
	}
}

// blockStatus asks the Backend and encodes its answer, cut to the request, equal neighbours joined.
func (r *request) blockStatus() error {
	list, err := r.conn.status.BlockStatus(r.off, r.length)
	if err != nil {
		return err
	}
	limit := maxExtents
	if r.flags&cmdFlagReqOne != 0 {
		limit = 1
	}
	out := make([]byte, 0, 8*min(len(list), limit))
	left := r.length
	for _, x := range list {
		if x.Len <= 0 || left == 0 {
			break
		}
		n := min(x.Len, left)
		left -= n
		var state uint32
		if x.Hole {
			state |= stateHole
		}
		if x.Zero {
			state |= stateZero
		}
		if k := len(out) - 8; k >= 0 && binary.BigEndian.Uint32(out[k+4:]) == state {
			// The sum stays below the request's length, which is a uint32.
			binary.BigEndian.PutUint32(out[k:], binary.BigEndian.Uint32(out[k:])+uint32(n))
			continue
		}
		if len(out) == 8*limit {
			break
		}
		out = binary.BigEndian.AppendUint32(out, uint32(n))
		out = binary.BigEndian.AppendUint32(out, state)
	}
	if len(out) == 0 {
		return errExtents
	}
	r.extents = out
	return nil
}

func (r *request) dropData() {
	if r.data != nil {
		r.data.free()
		r.data = nil
	}
}
