package pairing_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tagalong.org/tagalong/p2p/pairing"
)

// frame is one frame that crossed a relay.
type frame struct {
	toOfferer bool
	content   []byte
}

// relay joins a joiner and an offerer, passes whole frames through change,
// and returns them as they were before. It ends when either side does.
func relay(a, b net.Conn, change func(n int, f frame) []byte) []frame {
	var mu sync.Mutex
	var seen []frame
	var wg sync.WaitGroup
	pass := func(from, to net.Conn, toOfferer bool) {
		defer func() { _ = from.Close(); _ = to.Close() }()
		for {
			var h [4]byte
			if _, err := io.ReadFull(from, h[:]); err != nil {
				return
			}
			p := make([]byte, binary.BigEndian.Uint32(h[:]))
			if _, err := io.ReadFull(from, p); err != nil {
				return
			}
			f := frame{toOfferer, bytes.Clone(p)}
			mu.Lock()
			n := len(seen)
			seen = append(seen, f)
			mu.Unlock()
			p = change(n, f)
			if p == nil {
				return
			}
			if _, err := to.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(p))), p...)); err != nil {
				return
			}
		}
	}
	wg.Go(func() { pass(a, b, true) })
	wg.Go(func() { pass(b, a, false) })
	wg.Wait()
	return seen
}

// through pairs two devices through a relay and returns what both got and what
// crossed.
func through(t *testing.T, o, j device, change func(n int, f frame) []byte) (offerer, joiner outcome, seen []frame) {
	t.Helper()
	l := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	end := make(chan outcome, 1)
	var stored atomic.Bool
	oo := o.options()
	oo.Store = func(pairing.Result) error { stored.Store(true); return nil }
	go func() {
		r, err := pairing.Offer(ctx, l, code, o.Identity, oo)
		end <- outcome{r, err}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	mine, theirs := net.Pipe()
	frames := make(chan []frame, 1)
	go func() { frames <- relay(theirs, c, change) }()
	r, err := pairing.JoinConn(t.Context(), mine, code, j.Identity, j.options())
	joiner = outcome{r, err}
	seen = <-frames
	if !stored.Load() {
		cancel() // the offerer waits for the next joiner
	}
	return soon(t, end), joiner, seen
}

func unchanged(_ int, f frame) []byte { return f.content }

// Whoever alters anything, anywhere, prevents the pairing, but doesn't forge it.
func TestAlteredMessages(t *testing.T) {
	o, j := newDevice(t, "o"), newDevice(t, "j")
	offerer, joiner, seen := through(t, o, j, unchanged)
	if offerer.err != nil || joiner.err != nil || len(seen) != 10 {
		t.Fatalf("unaltered: %v, %v, %d messages", offerer.err, joiner.err, len(seen))
	}
	for n, f := range seen {
		step := 1
		if testing.Short() || len(f.content) > 100 {
			step = 7
		}
		for i := 0; i < len(f.content); i += step {
			offerer, joiner, _ := through(t, o, j, func(m int, f frame) []byte {
				p := bytes.Clone(f.content)
				if m == n && i < len(p) {
					p[i] ^= 1 << (i % 8)
				}
				return p
			})
			if joiner.err == nil {
				t.Errorf("message %d, byte %d: the joiner took it", n, i)
			}
			// The last message comes after the offerer has stored.
			if last := n == len(seen)-1; (offerer.err == nil) != last || last && !errors.Is(joiner.err, pairing.ErrUnconfirmed) {
				t.Errorf("message %d, byte %d: offerer %v, joiner %v", n, i, offerer.err, joiner.err)
			}
		}
	}
}

func TestShortenedLengthenedAndLostMessages(t *testing.T) {
	o, j := newDevice(t, "o"), newDevice(t, "j")
	for name, change := range map[string]func([]byte) []byte{
		"shortened":  func(p []byte) []byte { return p[:len(p)-1] },
		"lengthened": func(p []byte) []byte { return append(p, 0) },
		"emptied":    func([]byte) []byte { return []byte{} },
		"lost":       func([]byte) []byte { return nil },
	} {
		for n := range 10 {
			offerer, joiner, _ := through(t, o, j, func(m int, f frame) []byte {
				if m == n {
					return change(bytes.Clone(f.content))
				}
				return f.content
			})
			if joiner.err == nil || (offerer.err == nil) != (n == 9) {
				t.Errorf("message %d %s: offerer %v, joiner %v", n, name, offerer.err, joiner.err)
			}
			if n == 9 && !errors.Is(joiner.err, pairing.ErrUnconfirmed) {
				t.Errorf("last message %s: %v, want ErrUnconfirmed", name, joiner.err)
			}
		}
	}
}

// What a listener recorded is of no use, to either side.
func TestReplay(t *testing.T) {
	o, j := newDevice(t, "o"), newDevice(t, "j")
	_, _, seen := through(t, o, j, unchanged)
	addr, end, cancel := offer(t, o, o.options())
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range seen {
		if f.toOfferer {
			_, _ = c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(f.content))), f.content...))
		}
	}
	answer, _ := io.ReadAll(c)
	_ = c.Close()
	// A hello, a share and the refusal: no confirmation, no identity.
	if max := 38 + 37 + 6; len(answer) > max {
		t.Errorf("the replay got an answer of %d bytes", len(answer))
	}
	// It cost one try, so the window is open: two more wrong ones close it.
	for range 2 {
		if _, err := pairing.Join(t.Context(), addr, "0000-0000", j.Identity, j.options()); !errors.Is(err, pairing.ErrWrongCode) {
			t.Error(err)
		}
	}
	if got := soon(t, end); !errors.Is(got.err, pairing.ErrTooManyTries) {
		t.Errorf("the offerer: %v", got.err)
	}
	cancel()

	mine, theirs := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, theirs) }()
	go func() {
		defer func() { _ = theirs.Close() }()
		for _, f := range seen {
			if !f.toOfferer {
				_, _ = theirs.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(f.content))), f.content...))
			}
		}
	}()
	if _, err := pairing.JoinConn(t.Context(), mine, code, j.Identity, j.options()); !errors.Is(err, pairing.ErrWrongCode) {
		t.Errorf("the joiner: %v, want ErrWrongCode", err)
	}
}

// Neither identity may be on the wire before both have proved the code, and
// never readable.
func TestIdentitiesStaySecret(t *testing.T) {
	o, j := newDevice(t, "offerer-name"), newDevice(t, "joiner-name")
	_, _, seen := through(t, o, j, unchanged)
	for n, f := range seen {
		for _, secret := range []string{o.ID, j.ID, o.Name, j.Name, "192.0.2.1", "48210937"} {
			if bytes.Contains(f.content, []byte(secret)) {
				t.Errorf("message %d shows %q", n, secret)
			}
		}
		if proofs := 6; n < proofs && len(f.content) > 65 {
			t.Errorf("message %d has %d bytes", n, len(f.content))
		}
	}
}

// A door that reflects the joiner's own messages doesn't know the code.
func TestReflection(t *testing.T) {
	j := newDevice(t, "j")
	mine, theirs := net.Pipe()
	go func() { _, _ = io.Copy(theirs, theirs); _ = theirs.Close() }()
	if _, err := pairing.JoinConn(t.Context(), mine, code, j.Identity, j.options()); !errors.Is(err, pairing.ErrWrongCode) {
		t.Errorf("%v, want ErrWrongCode", err)
	}
}

func TestOtherVersion(t *testing.T) {
	j := newDevice(t, "j")
	mine, theirs := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, theirs) }()
	go func() {
		hello := append([]byte("\x01tagalong pairing\x02"), make([]byte, 16)...)
		_, _ = theirs.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(hello))), hello...))
	}()
	if _, err := pairing.JoinConn(t.Context(), mine, code, j.Identity, j.options()); !errors.Is(err, pairing.ErrVersion) {
		t.Errorf("%v, want ErrVersion", err)
	}
}

// input is a connection that reads given bytes, then ends.
type input struct{ r *bytes.Reader }

func (i input) Read(p []byte) (int, error)       { return i.r.Read(p) }
func (input) Write(p []byte) (int, error)        { return len(p), nil }
func (input) Close() error                       { return nil }
func (input) LocalAddr() net.Addr                { return &net.TCPAddr{} }
func (input) RemoteAddr() net.Addr               { return &net.TCPAddr{} }
func (input) SetDeadline(time.Time) error        { return nil }
func (input) SetReadDeadline(time.Time) error    { return nil }
func (input) SetWriteDeadline(t time.Time) error { return nil }

// once is a listener with one connection.
type once struct {
	mu sync.Mutex
	c  net.Conn
}

func (o *once) Accept() (net.Conn, error) {
	o.mu.Lock()
	c := o.c
	o.c = nil
	o.mu.Unlock()
	if c != nil {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (o *once) Close() error   { return nil }
func (o *once) Addr() net.Addr { return &net.TCPAddr{} }

func frames(contents ...string) []byte {
	var b []byte
	for _, c := range contents {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(c))), c...)
	}
	return b
}

func seeds(f *testing.F) {
	hello := "\x01tagalong pairing\x01" + "0123456789abcdef"
	point := "\x02\x2c\x3c\x6b\x8c\x4f\x38\x00\xe7\xae\xf6\x86\x40\x25\xb4\xed\x79\xbd\x59\x91\x17\xe4\x27\xc4\x1b\xd4\x7d\x93\xd6\x54\xb4\xa5\x1c"
	zero := "\x02" + string(make([]byte, 32))
	mac := "\x03" + string(make([]byte, 64))
	f.Add(frames(hello, point, mac))
	f.Add(frames(hello, zero, mac))
	f.Add(frames(hello, point, "\x7f\x01"))
	f.Add(frames("\x7f\x02"))
	f.Add(frames(hello, ""))
	f.Add([]byte("\xff\xff\xff\xff"))
}

func FuzzOffer(f *testing.F) {
	d := newDevice(f, "d")
	seeds(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		if _, err := pairing.Offer(t.Context(), &once{c: input{bytes.NewReader(in)}}, code, d.Identity, d.options()); err == nil {
			t.Fatal("paired with noise")
		}
	})
}

func FuzzJoin(f *testing.F) {
	d := newDevice(f, "d")
	seeds(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		if _, err := pairing.JoinConn(t.Context(), input{bytes.NewReader(in)}, code, d.Identity, d.options()); err == nil {
			t.Fatal("paired with noise")
		}
	})
}
