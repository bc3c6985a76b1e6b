package nbd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"
)

// ErrHangUp closes the connection and nothing is answered, for every command.
func TestHangUp(t *testing.T) {
	for _, prompt := range []bool{false, true} {
		d := newMemDisk(1 << 20)
		d.setHook(func(string, int64, int64) error { return fmt.Errorf("fenced: %w", ErrHangUp) })
		var b Backend = d
		if prompt {
			b = promptDisk{d}
		}
		s := serve(t, &Server{Backend: b})
		for _, cmd := range []uint16{cmdRead, cmdWrite, cmdFlush, cmdTrim, cmdWriteZeroes, cmdCache, cmdBlockStatus} {
			c := connect(t, s.path, "", true)
			var n uint32
			var data []byte
			if cmd != cmdFlush {
				n = 4096
			}
			if cmd == cmdWrite {
				data = make([]byte, n)
			}
			c.ask(cmd, 0, 0, n, data)
			c.hungUp()
		}
		if st := s.Stats(); st.HangUps != 7 || st.Errors != 0 {
			t.Errorf("stats %+v", st)
		}
		s.stop()
	}
}

// When ctx ends, connections close without an answer, and Serve waits for what is with the Backend.
func TestCancel(t *testing.T) {
	d := newMemDisk(1 << 20)
	g := newGate()
	d.setHook(g.hold(0))
	l, err := Listen(socketPath(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	s := &Server{Backend: d, Log: discard()}
	go func() { done <- s.Serve(ctx, l) }()
	c := connect(t, l.Addr().String(), "", true)
	shy := dial(t, l.Addr().String(), 3)
	c.ask(cmdWrite, 0, 0, 4096, fill(4096, 1))
	wait(t, g.entered)
	c.ask(cmdRead, 0, 0, 4096, nil)
	cancel()
	c.hungUp()
	shy.hungUp()
	select {
	case err := <-done:
		t.Fatalf("Serve returned %v while a write was under way", err)
	default:
	}
	g.release <- nil
	if err := wait(t, done); err != nil {
		t.Fatalf("Serve: %v", err)
	}
	if st := s.Stats(); st.Conns != 0 || st.Reads != 0 {
		t.Errorf("stats %+v", st)
	}
	if _, err := net.Dial("unix", l.Addr().String()); err == nil {
		t.Error("the socket is still there")
	}
}

// A client that closes its sending half gets all its answers; so does one that says goodbye.
func TestHalfClosed(t *testing.T) {
	for _, goodbye := range []bool{false, true} {
		d := newMemDisk(1 << 20)
		g := newGate()
		d.setHook(g.hold(0))
		s := serve(t, &Server{Backend: d})
		c := connect(t, s.path, "", true)
		c.ask(cmdWrite, 0, 0, 4096, fill(4096, 5))
		c.ask(cmdRead, 0, 0, 4096, nil)
		if goodbye {
			c.ask(cmdDisc, 0, 0, 0, nil)
		} else if err := c.nc.(*net.UnixConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		// The next client doesn't take it for a client that is gone.
		other := connect(t, s.path, "", true)
		for range 2 {
			wait(t, g.entered)
			g.release <- nil
		}
		// The protocol lets answers come in any order.
		answered := map[uint64]bool{}
		for range 2 {
			a := c.next(0)
			if a.errno != 0 || answered[a.cookie] || a.cookie < 1 || a.cookie > 2 {
				t.Errorf("cookie %d, errno %d, answered before: %v", a.cookie, a.errno, answered)
			}
			answered[a.cookie] = true
		}
		c.hungUp()
		other.must(cmdFlush, 0, 0, 0, nil)
		s.stop()
	}
}

// What a client that is gone had sent, and nobody had looked at yet, is not carried out after what the
// next client sends.
func TestLeftoversOfDeadClient(t *testing.T) {
	d := newMemDisk(1 << 20)
	g := newGate()
	d.setHook(g.hold(0))
	s := serve(t, &Server{Backend: promptDisk{d}})
	old := connect(t, s.path, "", false)
	// The reading goroutine itself is held by the read, with the write behind it.
	old.send(append(requestBytes(cmdRead, 0, 1, 0, 1),
		append(requestBytes(cmdWrite, 0, 2, 4096, 4096), fill(4096, 1)...)...))
	wait(t, g.entered)
	if err := old.nc.Close(); err != nil {
		t.Fatal(err)
	}
	c := connect(t, s.path, "", false)
	c.must(cmdWrite, 0, 4096, 4096, fill(4096, 2))
	g.release <- nil
	for s.Stats().Conns != 1 {
		yield()
	}
	if got := c.must(cmdRead, 0, 4096, 1, nil); got[0] != 2 {
		t.Errorf("block holds write %d", got[0])
	}
}

// A connection that reached its budget starts nothing more once it has ended.
func TestBudgetOfDeadClient(t *testing.T) {
	d := newMemDisk(1 << 20)
	g := newGate()
	d.setHook(g.hold(0))
	s := serve(t, &Server{Backend: d, ConnMemory: maxData})
	old := connect(t, s.path, "", false)
	for range maxData / minCharge {
		old.ask(cmdRead, 0, 0, 1, nil)
	}
	old.ask(cmdWrite, 0, 4096, 4096, fill(4096, 1))
	for range connWorkers {
		wait(t, g.entered)
	}
	if err := old.nc.Close(); err != nil {
		t.Fatal(err)
	}
	connect(t, s.path, "", false)
	for range connWorkers {
		g.release <- nil
	}
	for s.Stats().Conns != 1 {
		yield()
	}
	if n := len(g.entered); n != 0 {
		t.Errorf("%d requests of the dead client started late", n)
	}
	if got := d.bytes()[4096]; got != 0 {
		t.Error("a write of the dead client was carried out late")
	}
}

func TestMaxConns(t *testing.T) {
	s := serve(t, &Server{Backend: newMemDisk(4096), MaxConns: 2})
	a, b := connect(t, s.path, "", false), connect(t, s.path, "", false)
	nc, in := dialRaw(t, s.path)
	if _, err := in.ReadByte(); err == nil {
		t.Fatal("a third client is greeted")
	}
	_ = nc.Close()
	if st := s.Stats(); st.Refused != 1 || st.Conns != 2 || st.Accepted != 2 {
		t.Errorf("stats %+v", st)
	}
	a.ask(cmdDisc, 0, 0, 0, nil)
	a.hungUp()
	for s.Stats().Conns != 1 {
		yield()
	}
	// The slot is free a moment after the count: try until it is.
	for deadline := time.Now().Add(patience); ; {
		_, in := dialRaw(t, s.path)
		if _, err := in.ReadByte(); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	b.must(cmdFlush, 0, 0, 0, nil)
}

// Many large requests at once stay within the budget: each waits for its turn and all are answered.
func TestBudget(t *testing.T) {
	s := serve(t, &Server{Backend: newMemDisk(maxData), ConnMemory: 1, TotalMemory: 1})
	const clients, each = 2, 3
	done := make(chan error, clients)
	for range clients {
		c := connect(t, s.path, "", true)
		go func() {
			done <- func() error {
				for i := range uint64(each) {
					if _, err := c.nc.Write(requestBytes(cmdRead, 0, i, 0, maxData)); err != nil {
						return err
					}
				}
				for range each {
					if a, err := parseAnswer(c.in, 0); err != nil || a.errno != 0 || len(a.data) != maxData {
						return errors.Join(err, fmt.Errorf("error %d, %d bytes", a.errno, len(a.data)))
					}
				}
				return nil
			}()
		}()
	}
	for range clients {
		if err := wait(t, done); err != nil {
			t.Error(err)
		}
	}
	// The last answer may arrive before its request has ended; when Serve returns, all have.
	s.stop()
	if !s.budget.TryAcquire(maxData) {
		t.Error("the budget doesn't come back")
	}
}

// Answers that are held back, to go out together, don't hold the budget that the next request waits for.
func TestBudgetAndBatch(t *testing.T) {
	s := serve(t, &Server{Backend: promptDisk{newMemDisk(maxData)}, ConnMemory: maxData})
	c := connect(t, s.path, "", true)
	const small = 10
	var p []byte
	for i := range uint64(small) {
		p = append(p, requestBytes(cmdRead, 0, i, 0, 4096)...)
	}
	c.send(append(p, requestBytes(cmdRead, 0, small, 0, maxData)...))
	// The long one is a worker's, whose answer may overtake those that are held back.
	answered := map[uint64]bool{}
	for range small + 1 {
		a := c.next(0)
		if a.errno != 0 || a.cookie > small || answered[a.cookie] {
			t.Fatalf("answer %d, error %d, answered before: %v", a.cookie, a.errno, answered)
		}
		answered[a.cookie] = true
	}
}

// What is answered in one go with a goodbye behind it is answered.
func TestGoodbyeInBatch(t *testing.T) {
	s := serve(t, &Server{Backend: promptDisk{newMemDisk(1 << 20)}})
	c := connect(t, s.path, "", true)
	c.send(append(requestBytes(cmdRead, 0, 1, 0, 4096), requestBytes(cmdDisc, 0, 2, 0, 0)...))
	if a := c.next(0); a.errno != 0 || len(a.data) != 4096 {
		t.Errorf("answer %+v", a)
	}
	c.hungUp()
}

// A client that never reads its answers doesn't keep the server from stopping.
func TestClientThatDoesNotRead(t *testing.T) {
	for _, b := range []Backend{newMemDisk(maxData), promptDisk{newMemDisk(maxData)}} {
		s := serve(t, &Server{Backend: b})
		c := connect(t, s.path, "", false)
		for range 20 {
			c.ask(cmdRead, 0, 0, 1<<20, nil)
		}
		other := connect(t, s.path, "", false)
		other.must(cmdRead, 0, 0, 4096, nil)
		s.stop()
	}
}

// Garbage after the handshake ends the connection.
func TestTransmissionGarbage(t *testing.T) {
	s := serve(t, &Server{Backend: newMemDisk(4096)})
	c := connect(t, s.path, "", false)
	c.send(make([]byte, requestSize))
	c.hungUp()
	// Half a request, half a write.
	for _, p := range [][]byte{make([]byte, 5), append(requestBytes(cmdWrite, 0, 1, 0, 4096), 1, 2, 3)} {
		c := connect(t, s.path, "", false)
		c.send(p)
		if err := c.nc.(*net.UnixConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		c.hungUp()
	}
	s.stop()
	if s.Stats().Writes != 0 {
		t.Error("half a write was carried out")
	}
}

func TestServeErrors(t *testing.T) {
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	if err := (&Server{}).Serve(context.Background(), listen()); !errors.Is(err, ErrNoBackend) {
		t.Errorf("no backend: %v", err)
	}
	l := listen()
	_ = l.Close()
	s := &Server{Backend: newMemDisk(1), Log: discard()}
	if err := s.Serve(context.Background(), l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed listener: %v", err)
	}
}
