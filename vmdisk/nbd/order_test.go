package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// gate lets a test hold operations of a disk: entered tells which one came, release lets it go on.
type gate struct {
	entered chan string
	release chan error
}

func newGate() *gate { return &gate{make(chan string, 100), make(chan error)} }

// hold is a hook that holds the operations at off; all others pass.
func (g *gate) hold(at int64) func(string, int64, int64) error {
	return func(op string, off, n int64) error {
		if off != at || op == "flush" {
			return nil
		}
		g.entered <- op
		return <-g.release
	}
}

func wait[T any](t testing.TB, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatal("nothing comes")
	}
	return v
}

// A held write holds what overlaps it, and nothing else; flushes don't wait for what is unanswered.
func TestHeldWrite(t *testing.T) {
	d := newMemDisk(1 << 20)
	g := newGate()
	d.setHook(g.hold(0))
	s := serve(t, &Server{Backend: d})
	c := connect(t, s.path, "", true)
	first := c.ask(cmdWrite, 0, 0, 8192, fill(8192, 1))
	wait(t, g.entered)
	second := c.ask(cmdWrite, 0, 4096, 8192, fill(8192, 2))
	third := c.ask(cmdRead, 0, 8192, 4096, nil)
	c.must(cmdWrite, 0, 3*4096, 4096, fill(4096, 3))
	c.must(cmdFlush, 0, 0, 0, nil)
	if got := c.must(cmdRead, 0, 3*4096, 4096, nil); got[0] != 3 {
		t.Errorf("read %d beside the held write", got[0])
	}
	g.release <- nil
	answers := map[uint64]answer{}
	for range 3 {
		a := c.next(0)
		answers[a.cookie] = a
	}
	for _, cookie := range []uint64{first, second, third} {
		if a, ok := answers[cookie]; !ok || a.errno != 0 {
			t.Fatalf("answers %v", answers)
		}
	}
	if got := answers[third].data; !bytes.Equal(got, fill(4096, 2)) {
		t.Error("a read overtook the write before it")
	}
	want := append(fill(4096, 1), fill(8192, 2)...)
	if !bytes.Equal(d.bytes()[:len(want)], want) {
		t.Error("a write overtook another")
	}
	s.stop()
	if err := d.breach(); err != nil {
		t.Error(err)
	}
}

// Whatever a client sends without waiting, on a connection the result is that of one after the other. A
// read sees all writes before it; of those after it, it may see some.
func TestPipelinedModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const size = 1 << 14
		d := newMemDisk(size)
		var seed sync.Mutex
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		d.setHook(func(string, int64, int64) error {
			seed.Lock()
			n := rnd.IntN(20)
			seed.Unlock()
			for range n {
				yield()
			}
			return nil
		})
		var b Backend = d
		if rapid.Bool().Draw(t, "prompt") {
			b = promptDisk{d}
		}
		nc, stop := pipeServer(b)
		defer stop()
		structured := rapid.Bool().Draw(t, "structured")
		if err := pipeEnter(nc, structured); err != nil {
			t.Fatal(err)
		}
		model := make([]byte, size)
		var sent []byte
		reads := map[uint64]*pendingRead{}
		var versions [][]byte
		count := rapid.IntRange(1, 60).Draw(t, "count")
		for i := range count {
			cookie := uint64(i)
			off := rapid.IntRange(0, size).Draw(t, "off")
			n := rapid.IntRange(0, min(size-off, 5000)).Draw(t, "n")
			switch cmd := rapid.SampledFrom([]uint16{cmdRead, cmdWrite, cmdWrite, cmdTrim, cmdWriteZeroes, cmdFlush}).Draw(t, "cmd"); cmd {
			case cmdRead:
				sent = append(sent, requestBytes(cmd, 0, cookie, uint64(off), uint32(n))...)
				reads[cookie] = &pendingRead{off, n, len(versions)}
			case cmdWrite:
				sent = append(sent, requestBytes(cmd, 0, cookie, uint64(off), uint32(n))...)
				p := fill(n, byte(i+1))
				sent = append(sent, p...)
				copy(model[off:], p)
			case cmdFlush:
				sent = append(sent, requestBytes(cmd, 0, cookie, 0, 0)...)
			default:
				sent = append(sent, requestBytes(cmd, 0, cookie, uint64(off), uint32(n))...)
				clear(model[off : off+n])
			}
			versions = append(versions, bytes.Clone(model))
		}
		sendErr := make(chan error, 1)
		go func() {
			_, err := nc.Write(sent)
			sendErr <- err
		}()
		seen := map[uint64]bool{}
		for range count {
			a, err := readAnswer(nc, reads, versions)
			if err != nil {
				t.Fatal(err)
			}
			if a.errno != 0 || seen[a.cookie] {
				t.Fatalf("answer to %d: error %d, again: %v", a.cookie, a.errno, seen[a.cookie])
			}
			seen[a.cookie] = true
		}
		if err := <-sendErr; err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(d.bytes(), model) {
			t.Fatal("the disk differs from the model")
		}
		if err := d.breach(); err != nil {
			t.Fatal(err)
		}
	})
}

// pipeServer serves b to one client over a socket pair on the loopback, without files.
func pipeServer(b Backend) (client net.Conn, stop func()) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	s := &Server{Backend: b, Log: discard()}
	go func() { done <- s.Serve(ctx, l) }()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		panic(err)
	}
	return nc, func() {
		cancel()
		<-done
		_ = nc.Close()
	}
}

// pipeEnter goes into the transmission phase.
func pipeEnter(nc net.Conn, structured bool) error {
	p := binary.BigEndian.AppendUint32(nil, 3)
	skip := 18
	if structured {
		p = append(p, optionBytes(optStructuredReply, nil)...)
		skip += 20
	}
	p = append(p, optionBytes(optExportName, nil)...)
	_ = nc.SetDeadline(time.Now().Add(patience))
	if _, err := nc.Write(p); err != nil {
		return err
	}
	_, err := readFull(nc, skip+10)
	return err
}

// pendingRead is a read whose answer is to come, and the version of the disk that it was sent after.
type pendingRead struct{ off, n, version int }

// readAnswer takes an answer and, for a read, checks that each byte is that of a version it may see.
func readAnswer(nc net.Conn, reads map[uint64]*pendingRead, versions [][]byte) (answer, error) {
	head, err := readFull(nc, simpleSize)
	if err != nil {
		return answer{}, err
	}
	r := reads[be64(head[8:])]
	if r == nil {
		return parseAnswer(&prefixed{head, nc}, 0)
	}
	a, err := parseAnswer(&prefixed{head, nc}, r.n)
	if err != nil || len(a.data) != r.n {
		return a, fmt.Errorf("read of %d bytes gave %d: %w", r.n, len(a.data), err)
	}
	for i, b := range a.data {
		known := false
		for v := r.version; v < len(versions) && !known; v++ {
			known = versions[v][r.off+i] == b
		}
		if !known {
			return a, fmt.Errorf("byte %d of a read at %d is %d: older than the writes before it", i, r.off, b)
		}
	}
	return a, nil
}

// The first try of a write may still be under way when the client, hung up on, sends it again. It must
// not be carried out after what the client writes next.
func TestRepeatedWriteIsNotOvertaken(t *testing.T) {
	d := newMemDisk(1 << 20)
	g := newGate()
	var hangUp sync.Once
	d.setHook(func(op string, off, n int64) error {
		err := error(nil)
		if off == 1<<19 {
			hangUp.Do(func() { err = ErrHangUp })
			return err
		}
		return g.hold(0)(op, off, n)
	})
	s := serve(t, &Server{Backend: d})
	old := connect(t, s.path, "", false)
	old.ask(cmdWrite, 0, 0, 4096, fill(4096, 1))
	wait(t, g.entered)
	// Waits for the first and must be forgotten, as the connection ends before its turn.
	old.ask(cmdWrite, 0, 0, 4096, fill(4096, 9))
	old.ask(cmdWrite, 0, 1<<19, 4096, fill(4096, 1))
	old.hungUp()

	c := connect(t, s.path, "", false)
	again := c.ask(cmdWrite, 0, 0, 4096, fill(4096, 1))
	next := c.ask(cmdWrite, 0, 0, 4096, fill(4096, 2))
	c.must(cmdWrite, 0, 1<<19, 4096, fill(4096, 1))
	select {
	case op := <-g.entered:
		t.Fatalf("a second %s started beside the first", op)
	default:
	}
	g.release <- nil
	for _, cookie := range []uint64{again, next} {
		wait(t, g.entered)
		g.release <- nil
		if a := c.next(0); a.cookie != cookie || a.errno != 0 {
			t.Fatalf("answer %+v", a)
		}
	}
	s.stop()
	if got := d.bytes()[0]; got != 2 {
		t.Errorf("block holds write %d", got)
	}
	if len(g.entered) != 0 {
		t.Error("a write of the old connection was carried out late")
	}
	if s.Stats().HangUps != 1 {
		t.Errorf("stats %+v", s.Stats())
	}
	if err := d.breach(); err != nil {
		t.Error(err)
	}
}
