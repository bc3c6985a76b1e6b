package fsx

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// The numbers of the protocol that a client needs, as in the NBD project's doc/proto.md.
const (
	cmdRead, cmdWrite, cmdFlush, cmdTrim, cmdCache, cmdZero, cmdStatus uint16 = 0, 1, 3, 4, 5, 6, 7

	flagFUA, flagNoHole, flagDF, flagReqOne uint16 = 1, 2, 4, 8

	errINVAL, errNOSPC uint32 = 22, 28

	magicOption, magicOptReply                      uint64 = 0x49484156454f5054, 0x3e889045565a9
	magicRequest, magicSimple, magicStructured      uint32 = 0x25609513, 0x67446698, 0x668e33ef
	optGo, optStructured, optMeta                   uint32 = 7, 8, 10
	chunkNone, chunkData, chunkHole, chunkStatusExt uint16 = 0, 1, 2, 5
)

// errTorn says that the connection ended before the answer came.
var errTorn = errors.New("the connection is gone")

// extent is one of a BLOCK_STATUS reply.
type extent struct {
	n     int64
	state uint32
}

// answer is what the server said to a request.
type answer struct {
	errno   uint32
	data    []byte
	extents []extent
}

type call struct {
	cmd  uint16
	off  int64
	got  answer
	done chan error
}

// conn is one connection, for many requests at a time.
type conn struct {
	nc         net.Conn
	structured bool

	sending sync.Mutex

	mu      sync.Mutex
	cookie  uint64
	pending map[uint64]*call
	gone    error
}

// dial connects. Without structured replies there is no block status. readers waits for the goroutine that takes the answers.
func dial(path string, structured bool, readers *sync.WaitGroup) (*conn, error) {
	nc, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	c := &conn{nc: nc, structured: structured, pending: map[uint64]*call{}}
	in := bufio.NewReaderSize(nc, 1<<16)
	if err := c.handshake(in); err != nil {
		return nil, errors.Join(errTorn, err, nc.Close())
	}
	readers.Go(func() { c.take(in) })
	return c, nil
}

func (c *conn) handshake(in *bufio.Reader) error {
	if _, err := io.ReadFull(in, make([]byte, 18)); err != nil {
		return err
	}
	if _, err := c.nc.Write([]byte{0, 0, 0, 3}); err != nil { // fixed newstyle, no zeroes
		return err
	}
	none := make([]byte, 4) // the length of the default export's name
	if c.structured {
		meta := append([]byte{0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 15}, "base:allocation"...)
		if err := errors.Join(c.option(in, optStructured, nil), c.option(in, optMeta, meta)); err != nil {
			return err
		}
	}
	return c.option(in, optGo, append(none, 0, 0))
}

func (c *conn) option(in io.Reader, opt uint32, data []byte) error {
	be := binary.BigEndian
	p := be.AppendUint32(be.AppendUint32(be.AppendUint64(nil, magicOption), opt), uint32(len(data)))
	if _, err := c.nc.Write(append(p, data...)); err != nil {
		return err
	}
	for {
		head := make([]byte, 20)
		if _, err := io.ReadFull(in, head); err != nil {
			return err
		}
		if be.Uint64(head) != magicOptReply || be.Uint32(head[8:]) != opt {
			return fmt.Errorf("option reply %x", head)
		}
		if _, err := io.CopyN(io.Discard, in, int64(be.Uint32(head[16:]))); err != nil {
			return err
		}
		switch kind := be.Uint32(head[12:]); {
		case kind == 1:
			return nil
		case kind>>31 == 1:
			return fmt.Errorf("option %d is refused: %#x", opt, kind)
		}
	}
}

// tear ends the connection as a crash of the client would.
func (c *conn) tear() { _ = c.nc.Close() }

// lost reports whether the connection has ended.
func (c *conn) lost() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gone != nil
}

// do sends a request and waits for its answer. The error is errTorn, or says what the server did wrong.
func (c *conn) do(cmd, flags uint16, off int64, n uint32, data []byte) (answer, error) {
	k := &call{cmd: cmd, off: off, done: make(chan error, 1)}
	if cmd == cmdRead {
		k.got.data = make([]byte, n)
	}
	c.mu.Lock()
	if c.gone != nil {
		defer c.mu.Unlock()
		return answer{}, c.gone
	}
	c.cookie++
	cookie := c.cookie
	c.pending[cookie] = k
	c.mu.Unlock()
	be := binary.BigEndian
	p := be.AppendUint16(be.AppendUint16(be.AppendUint32(nil, magicRequest), flags), cmd)
	p = be.AppendUint32(be.AppendUint64(be.AppendUint64(p, cookie), uint64(off)), n)
	c.sending.Lock()
	_, err := (&net.Buffers{p, data}).WriteTo(c.nc)
	c.sending.Unlock()
	if err != nil {
		c.tear() // take tells all who wait
	}
	err = <-k.done
	return k.got, err
}

// take takes answers until the connection ends.
func (c *conn) take(in *bufio.Reader) {
	err := error(nil)
	for err == nil {
		err = c.next(in)
	}
	_ = c.nc.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = err
	for _, k := range c.pending {
		k.done <- err
	}
}

func (c *conn) next(in *bufio.Reader) error {
	be := binary.BigEndian
	head := make([]byte, 20)
	if _, err := io.ReadFull(in, head[:16]); err != nil {
		return fmt.Errorf("%w: %w", errTorn, err)
	}
	cookie := be.Uint64(head[8:])
	c.mu.Lock()
	k := c.pending[cookie]
	c.mu.Unlock()
	if k == nil {
		return fmt.Errorf("an answer to %d, which nobody asked", cookie)
	}
	done := true
	switch be.Uint32(head) {
	case magicSimple:
		if k.got.errno = be.Uint32(head[4:]); k.got.errno == 0 {
			if _, err := io.ReadFull(in, k.got.data); err != nil {
				return fmt.Errorf("%w: %w", errTorn, err)
			}
		}
	case magicStructured:
		if _, err := io.ReadFull(in, head[16:]); err != nil {
			return fmt.Errorf("%w: %w", errTorn, err)
		}
		payload := make([]byte, min(be.Uint32(head[16:]), 33<<20))
		if _, err := io.ReadFull(in, payload); err != nil {
			return fmt.Errorf("%w: %w", errTorn, err)
		}
		if err := k.chunk(be.Uint16(head[6:]), payload); err != nil {
			return err
		}
		done = be.Uint16(head[4:])&1 != 0
	default:
		return fmt.Errorf("an answer begins with %x", head[:4])
	}
	if done {
		c.mu.Lock()
		delete(c.pending, cookie)
		c.mu.Unlock()
		k.done <- nil
	}
	return nil
}

// chunk takes one chunk of a structured reply.
func (k *call) chunk(kind uint16, p []byte) error {
	be := binary.BigEndian
	malformed := fmt.Errorf("a chunk of kind %d with %d bytes, for command %d", kind, len(p), k.cmd)
	switch {
	case kind == chunkNone && len(p) == 0:
	case kind>>15 == 1 && len(p) >= 6:
		k.got.errno = be.Uint32(p)
	case (kind == chunkData && len(p) > 8 || kind == chunkHole && len(p) == 12) && k.cmd == cmdRead:
		at, n := int64(be.Uint64(p))-k.off, int64(len(p)-8)
		if kind == chunkHole {
			n = int64(be.Uint32(p[8:]))
		}
		if at < 0 || n > int64(len(k.got.data))-at {
			return malformed
		}
		if kind == chunkData {
			copy(k.got.data[at:], p[8:])
		} else {
			clear(k.got.data[at : at+n])
		}
	case kind == chunkStatusExt && k.cmd == cmdStatus && len(p) > 4 && len(p)%8 == 4:
		for p = p[4:]; len(p) > 0; p = p[8:] {
			k.got.extents = append(k.got.extents, extent{int64(be.Uint32(p)), be.Uint32(p[4:])})
		}
	default:
		return malformed
	}
	return nil
}
