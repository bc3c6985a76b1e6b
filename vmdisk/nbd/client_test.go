package nbd

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must come. It is not a measure of anything.
const patience = 2 * time.Minute

// socketPath is a path for Listen. t.TempDir alone may be too long for a socket, and open to others.
func socketPath(t testing.TB) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "d", "s")
}

// running is a server that a test started.
type running struct {
	*Server
	path string
	stop func()
}

// serve starts s on a socket of its own, until the test ends or stop is called.
func serve(t testing.TB, s *Server) *running {
	t.Helper()
	return serveAt(t, s, socketPath(t))
}

func serveAt(t testing.TB, s *Server, path string) *running {
	t.Helper()
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if s.Log == nil {
		s.Log = discard()
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	ended := false
	stop := func() {
		if ended {
			return
		}
		ended = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(patience):
			t.Error("Serve doesn't return")
		}
	}
	t.Cleanup(stop)
	return &running{s, path, stop}
}

// client is a raw NBD client: it checks the form of what it gets, and lets a test send anything.
type client struct {
	t  testing.TB
	nc net.Conn
	in *bufio.Reader

	structured bool
	size       int64
	flags      uint16
	cookie     uint64
}

// dial connects and takes the greeting.
func dial(t testing.TB, path string, flags uint32) *client {
	t.Helper()
	c := &client{t: t}
	c.nc, c.in = dialRaw(t, path)
	hello := c.take(18)
	if be64(hello) != magicHello || be64(hello[8:]) != magicOption || hello[17]&3 != 3 {
		t.Fatalf("greeting %x", hello)
	}
	c.send(binary.BigEndian.AppendUint32(nil, flags))
	return c
}

func be32(p []byte) uint32 { return binary.BigEndian.Uint32(p) }
func be64(p []byte) uint64 { return binary.BigEndian.Uint64(p) }

func (c *client) send(p []byte) {
	c.t.Helper()
	if _, err := c.nc.Write(p); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

func (c *client) take(n int) []byte {
	c.t.Helper()
	p := make([]byte, n)
	if _, err := io.ReadFull(c.in, p); err != nil {
		c.t.Fatalf("receive %d bytes: %v", n, err)
	}
	return p
}

// hungUp fails the test unless the server closes without another byte.
func (c *client) hungUp() {
	c.t.Helper()
	b, err := c.in.ReadByte()
	var timeout net.Error
	if err == nil {
		c.t.Fatalf("got byte %#x instead of a hang-up", b)
	}
	if errors.As(err, &timeout) && timeout.Timeout() {
		c.t.Fatal("no hang-up")
	}
}

// optReply is the server's answer to an option.
type optReply struct {
	kind uint32
	data []byte
}

func optionBytes(opt uint32, data []byte) []byte {
	p := binary.BigEndian.AppendUint64(nil, magicOption)
	p = binary.BigEndian.AppendUint32(p, opt)
	p = binary.BigEndian.AppendUint32(p, uint32(len(data)))
	return append(p, data...)
}

// option sends an option and returns all replies, the last of which is an ACK or an error.
func (c *client) option(opt uint32, data []byte) []optReply {
	c.t.Helper()
	c.send(optionBytes(opt, data))
	var list []optReply
	for {
		head := c.take(20)
		if be64(head) != magicOptReply || be32(head[8:]) != opt {
			c.t.Fatalf("option reply %x", head)
		}
		r := optReply{be32(head[12:]), c.take(int(be32(head[16:])))}
		list = append(list, r)
		if r.kind == repAck || r.kind>>31 == 1 {
			return list
		}
	}
}

// outcome is the kind of the last reply.
func outcome(list []optReply) uint32 { return list[len(list)-1].kind }

func nameInfo(name string, infos ...uint16) []byte {
	p := binary.BigEndian.AppendUint32(nil, uint32(len(name)))
	p = append(p, name...)
	p = binary.BigEndian.AppendUint16(p, uint16(len(infos)))
	for _, i := range infos {
		p = binary.BigEndian.AppendUint16(p, i)
	}
	return p
}

func metaQuery(name string, queries ...string) []byte {
	p := binary.BigEndian.AppendUint32(nil, uint32(len(name)))
	p = append(p, name...)
	p = binary.BigEndian.AppendUint32(p, uint32(len(queries)))
	for _, q := range queries {
		p = binary.BigEndian.AppendUint32(p, uint32(len(q)))
		p = append(p, q...)
	}
	return p
}

// connect goes all the way into the transmission phase.
func connect(t testing.TB, path, name string, structured bool) *client {
	t.Helper()
	c := dial(t, path, 3)
	if structured {
		if k := outcome(c.option(optStructuredReply, nil)); k != repAck {
			t.Fatalf("structured replies: %#x", k)
		}
		c.structured = true
		if k := outcome(c.option(optSetMetaContext, metaQuery(name, contextName))); k != repAck {
			t.Fatalf("meta context: %#x", k)
		}
	}
	list := c.option(optGo, nameInfo(name))
	if outcome(list) != repAck {
		t.Fatalf("go: %#x", outcome(list))
	}
	for _, r := range list {
		if r.kind == repInfo && binary.BigEndian.Uint16(r.data) == infoExport {
			c.size, c.flags = int64(be64(r.data[2:])), binary.BigEndian.Uint16(r.data[10:])
		}
	}
	return c
}

func requestBytes(cmd, flags uint16, cookie, off uint64, n uint32) []byte {
	p := binary.BigEndian.AppendUint32(nil, magicRequest)
	p = binary.BigEndian.AppendUint16(p, flags)
	p = binary.BigEndian.AppendUint16(p, cmd)
	p = binary.BigEndian.AppendUint64(p, cookie)
	p = binary.BigEndian.AppendUint64(p, off)
	return binary.BigEndian.AppendUint32(p, n)
}

// ask sends a request and returns its cookie.
func (c *client) ask(cmd, flags uint16, off uint64, n uint32, data []byte) uint64 {
	c.t.Helper()
	c.cookie++
	c.send(append(requestBytes(cmd, flags, c.cookie, off, n), data...))
	return c.cookie
}

// answer is a reply; data is a READ's bytes or a BLOCK_STATUS's extents.
type answer struct {
	cookie uint64
	errno  uint32
	data   []byte
}

// next takes a reply. A simple reply doesn't say what it answers, so for one the caller says how many
// bytes follow if it is no error.
func (c *client) next(readLen int) answer {
	c.t.Helper()
	a, err := parseAnswer(c.in, readLen)
	if err != nil {
		c.t.Fatalf("reply: %v", err)
	}
	return a
}

func parseAnswer(in io.Reader, readLen int) (answer, error) {
	var head [simpleSize]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return answer{}, err
	}
	switch be32(head[:]) {
	case magicSimple:
		a := answer{cookie: be64(head[8:]), errno: be32(head[4:])}
		if a.errno == 0 && readLen > 0 {
			a.data = make([]byte, readLen)
			if _, err := io.ReadFull(in, a.data); err != nil {
				return a, fmt.Errorf("data: %w", err)
			}
		}
		return a, nil
	case magicStructured:
		a := answer{cookie: be64(head[8:])}
		var size [4]byte
		if _, err := io.ReadFull(in, size[:]); err != nil {
			return a, fmt.Errorf("length: %w", err)
		}
		if be32(size[:]) > maxData+8 {
			return a, fmt.Errorf("chunk of %d bytes", be32(size[:]))
		}
		a.data = make([]byte, be32(size[:]))
		if _, err := io.ReadFull(in, a.data); err != nil {
			return a, fmt.Errorf("payload: %w", err)
		}
		return a, a.structured(binary.BigEndian.Uint16(head[4:]), binary.BigEndian.Uint16(head[6:]))
	default:
		return answer{}, fmt.Errorf("magic %x", head[:4])
	}
}

// structured checks a chunk's form and leaves the content in data.
func (a *answer) structured(flags, kind uint16) error {
	n := len(a.data)
	switch {
	case flags != chunkFlagDone:
	case kind == chunkNone && n == 0:
		return nil
	case kind == chunkOffsetData && n > 8:
		a.data = a.data[8:]
		return nil
	case kind == chunkBlockStatus && n > 4 && n%8 == 4 && be32(a.data) == contextID:
		a.data = a.data[4:]
		return nil
	case kind == chunkError && n == 6 && a.data[4] == 0 && a.data[5] == 0:
		a.errno = be32(a.data)
		a.data = nil
		if a.errno != 0 {
			return nil
		}
	}
	return fmt.Errorf("chunk kind %d flags %d length %d", kind, flags, n)
}

// do sends a request and takes its answer, which must be the next one.
func (c *client) do(cmd, flags uint16, off uint64, n uint32, data []byte) answer {
	c.t.Helper()
	cookie := c.ask(cmd, flags, off, n, data)
	readLen := 0
	if cmd == cmdRead {
		readLen = int(n)
	}
	a := c.next(readLen)
	if a.cookie != cookie {
		c.t.Fatalf("answer to %d instead of %d", a.cookie, cookie)
	}
	return a
}

// must is do for what has to succeed.
func (c *client) must(cmd, flags uint16, off uint64, n uint32, data []byte) []byte {
	c.t.Helper()
	a := c.do(cmd, flags, off, n, data)
	if a.errno != 0 {
		c.t.Fatalf("command %d at %d+%d: error %d", cmd, off, n, a.errno)
	}
	return a.data
}

// dialRaw connects and does nothing else.
func dialRaw(t testing.TB, path string) (net.Conn, *bufio.Reader) {
	t.Helper()
	nc, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return nc, bufio.NewReader(nc)
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func yield() { runtime.Gosched() }

func readFull(r io.Reader, n int) ([]byte, error) {
	p := make([]byte, n)
	_, err := io.ReadFull(r, p)
	return p, err
}

// prefixed reads head, then the rest.
type prefixed struct {
	head []byte
	rest io.Reader
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.head) == 0 {
		return p.rest.Read(b)
	}
	n := copy(b, p.head)
	p.head = p.head[n:]
	return n, nil
}
