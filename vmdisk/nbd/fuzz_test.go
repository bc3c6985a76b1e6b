package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// script is a connection whose client sends fixed bytes and then closes its half. It keeps the answers.
// It is also the listener that has this one connection to give.
type script struct {
	in    io.Reader
	taken atomic.Bool
	ended chan struct{}

	mu     sync.Mutex
	out    bytes.Buffer
	closed bool
}

func (s *script) Read(p []byte) (int, error) { return s.in.Read(p) }

func (s *script) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, net.ErrClosed
	}
	return s.out.Write(p)
}

func (s *script) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.ended)
	}
	return nil
}

func (s *script) LocalAddr() net.Addr              { return &net.UnixAddr{} }
func (s *script) RemoteAddr() net.Addr             { return &net.UnixAddr{} }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// Accept gives the script as its own only connection, and fails when that has ended.
func (s *script) Accept() (net.Conn, error) {
	if s.taken.CompareAndSwap(false, true) {
		return s, nil
	}
	<-s.ended
	return nil, net.ErrClosed
}

// listener lets Serve close the listener without closing the connection.
type listener struct{ *script }

func (listener) Close() error { return nil }

func (listener) Addr() net.Addr { return &net.UnixAddr{} }

// play lets s serve a client that sends data and returns what it got.
func play(t *testing.T, s *Server, data []byte) []byte {
	t.Helper()
	s.Log = discard()
	s.HandshakeTimeout = time.Hour
	nc := &script{in: bytes.NewReader(data), ended: make(chan struct{})}
	if err := s.Serve(context.Background(), listener{nc}); !errors.Is(err, net.ErrClosed) {
		t.Fatal(err)
	}
	if !s.budget.TryAcquire(DefaultTotalMemory) {
		t.Fatal("the budget didn't come back")
	}
	if len(s.registry.exports) != 0 {
		t.Fatal("an export stays in use")
	}
	return nc.out.Bytes()
}

func flagBytes(flags uint32) []byte { return binary.BigEndian.AppendUint32(nil, flags) }

func FuzzNegotiation(f *testing.F) {
	all := slices.Concat(flagBytes(3),
		optionBytes(optList, nil), optionBytes(5, nil), optionBytes(optStructuredReply, nil),
		optionBytes(optListMetaContext, metaQuery("Work")), optionBytes(optListMetaContext, metaQuery("", "base:")),
		optionBytes(optSetMetaContext, metaQuery("Work", contextName, "x:y")),
		optionBytes(optInfo, nameInfo("Work", infoName, infoBlockSize)))
	f.Add(slices.Concat(all, optionBytes(optGo, nameInfo("Work"))))
	f.Add(slices.Concat(all, optionBytes(optAbort, nil)))
	f.Add(slices.Concat(all, optionBytes(optExportName, []byte("Work"))))
	f.Add(slices.Concat(flagBytes(0), optionBytes(optExportName, nil)))
	f.Add(slices.Concat(flagBytes(1), optionBytes(optExportName, []byte("none"))))
	f.Add(slices.Concat(flagBytes(3), optionBytes(optGo, []byte{0xff, 0xff, 0xff, 0xff, 0, 0})))
	f.Add(slices.Concat(flagBytes(3), optionBytes(optSetMetaContext, []byte{0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})))
	f.Add(slices.Concat(flagBytes(3), optionBytes(9, make([]byte, 70000)), optionBytes(optGo, nameInfo(""))))
	f.Add(slices.Concat(flagBytes(3), optionBytes(optGo, nameInfo(""))[:13]))
	f.Add(flagBytes(0xffffffff))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		d := newMemDisk(8192)
		s := &Server{Backend: d, Name: "Work"}
		out := play(t, s, data)
		if len(out) < 18 || be64(out) != magicHello || be64(out[8:]) != magicOption {
			t.Fatalf("greeting %x", out)
		}
		out = out[18:]
		// One option at a time: the replies to it end with an acknowledgement or an error.
		in := data[min(4, len(data)):]
		for len(in) >= 16 && be64(in) == magicOption && len(out) >= 20 && be64(out) == magicOptReply {
			opt, size := be32(in[8:]), be32(in[12:])
			in = in[min(16+uint64(size), uint64(len(in))):]
			for last := false; !last; {
				if len(out) < 20 || be64(out) != magicOptReply || be32(out[8:]) != opt {
					t.Fatalf("reply to option %d: %x", opt, out)
				}
				kind, n := be32(out[12:]), be32(out[16:])
				if uint64(n) > uint64(len(out)-20) {
					t.Fatalf("reply to option %d is %d bytes short", opt, n)
				}
				out = out[20+n:]
				last = kind == repAck || kind>>31 == 1
				if last && opt == optGo && kind == repAck || last && opt == optAbort {
					return // what follows is the transmission phase, or nothing
				}
			}
		}
		switch {
		case len(out) == 0:
		case len(out) >= 10 && be64(out) == 8192 && len(in) >= 16 && be32(in[8:]) == optExportName:
		default:
			t.Fatalf("%d bytes answer nothing: %x", len(out), out[:min(len(out), 64)])
		}
	})
}

// sent is what the fuzzer's client asked for.
type sent struct {
	cmd    uint16
	off, n uint64
	data   []byte
}

// requests splits data as a server must, and numbers the cookies so that answers can be told apart.
// sound is false when a wrong magic number ends it.
func requests(data []byte) (list []sent, sound bool) {
	for len(data) >= requestSize {
		if be32(data) != magicRequest {
			return list, false
		}
		r := sent{cmd: binary.BigEndian.Uint16(data[6:]), off: be64(data[16:]), n: uint64(be32(data[24:]))}
		if r.cmd == cmdDisc {
			return list, true
		}
		binary.BigEndian.PutUint64(data[8:], uint64(len(list)))
		data = data[requestSize:]
		if r.cmd == cmdWrite {
			if uint64(len(data)) < r.n {
				return list, true
			}
			r.data, data = data[:r.n], data[r.n:]
		}
		list = append(list, r)
	}
	return list, true
}

func FuzzTransmission(f *testing.F) {
	const size = 16384
	f.Add(true, true, slices.Concat(
		requestBytes(cmdWrite, 0, 0, 100, 5), []byte("hello"),
		requestBytes(cmdRead, cmdFlagDF, 0, 0, size),
		requestBytes(cmdFlush, 0, 0, 0, 0),
		requestBytes(cmdTrim, cmdFlagFUA, 0, 0, 4096),
		requestBytes(cmdWriteZeroes, cmdFlagNoHole, 0, 50, 9000),
		requestBytes(cmdCache, 0, 0, 0, size),
		requestBytes(cmdBlockStatus, cmdFlagReqOne, 0, 0, size),
		requestBytes(cmdRead, 0, 0, 99, 7),
		requestBytes(cmdDisc, 0, 0, 0, 0)))
	f.Add(false, true, slices.Concat(
		requestBytes(cmdWrite, cmdFlagFUA, 0, 0, 1), []byte("x"),
		requestBytes(cmdWrite, 0, 0, size, 1), []byte("y"),
		requestBytes(cmdRead, 0, 0, size-1, 2),
		requestBytes(cmdRead, 0, 0, 1<<63, 2),
		requestBytes(cmdTrim, 0, 0, 1, 1<<32-1),
		requestBytes(99, 0xffff, 0, 1, 1),
		requestBytes(cmdRead, 0, 0, 0, 0)))
	f.Add(false, false, slices.Concat(requestBytes(cmdWrite, 0, 0, 0, 1<<32-1), []byte("short")))
	f.Add(true, false, slices.Concat(requestBytes(cmdWrite, 0, 0, 0, 4096), make([]byte, 4096), make([]byte, 28)))
	f.Add(true, false, requestBytes(cmdRead, 0, 0, 0, 1)[:20])
	f.Fuzz(func(t *testing.T, structured, prompt bool, data []byte) {
		data = bytes.Clone(data)
		list, sound := requests(data)
		hello := flagBytes(3)
		skip := 18
		if structured {
			hello = slices.Concat(hello, optionBytes(optStructuredReply, nil), optionBytes(optSetMetaContext, metaQuery("", contextName)))
			skip += 20 + 20 + 4 + len(contextName) + 20
		}
		d := newMemDisk(size)
		var b Backend = d
		if prompt {
			b = promptDisk{d}
		}
		out := play(t, &Server{Backend: b}, slices.Concat(hello, optionBytes(optExportName, nil), data))
		if err := d.breach(); err != nil {
			t.Fatal(err)
		}
		errnos := answers(t, bytes.NewReader(out[skip+10:]), list)
		if !sound {
			return // some answers may have been lost with the connection
		}
		if len(errnos) != len(list) {
			t.Fatalf("%d answers to %d requests", len(errnos), len(list))
		}
		model := make([]byte, size)
		for i, r := range list {
			switch {
			case errnos[uint64(i)] != nbdOK:
			case r.cmd == cmdWrite:
				copy(model[r.off:], r.data)
			case r.cmd == cmdTrim, r.cmd == cmdWriteZeroes:
				clear(model[r.off : r.off+r.n])
			}
		}
		if !bytes.Equal(model, d.bytes()) {
			t.Fatal("the disk is not what the answers say")
		}
	})
}

// answers reads all answers to list, none of which may come twice, and returns their errors by cookie.
func answers(t *testing.T, in *bytes.Reader, list []sent) map[uint64]uint32 {
	errnos := map[uint64]uint32{}
	for in.Len() > 0 {
		head, err := readFull(in, simpleSize)
		if err != nil {
			t.Fatal(err)
		}
		cookie := be64(head[8:])
		if cookie >= uint64(len(list)) {
			t.Fatalf("answer to %d, which nobody asked", cookie)
		}
		length := 0
		if r := list[cookie]; r.cmd == cmdRead && be32(head[4:]) == 0 {
			length = int(r.n)
		}
		a, err := parseAnswer(&prefixed{head, in}, length)
		if err != nil {
			t.Fatal(err)
		}
		if _, again := errnos[cookie]; again {
			t.Fatalf("second answer to %d", cookie)
		}
		if r := list[cookie]; a.errno == 0 && r.cmd == cmdRead && uint64(len(a.data)) != r.n {
			t.Fatalf("read of %d bytes gave %d", r.n, len(a.data))
		}
		errnos[cookie] = a.errno
	}
	return errnos
}
