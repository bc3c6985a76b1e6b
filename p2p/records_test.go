package p2p

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
)

// countedConn counts writes, and fails them while broken is set.
type countedConn struct {
	net.Conn
	writes atomic.Int64
	broken atomic.Bool
}

var errBroken = errors.New("broken on purpose")

func (c *countedConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	if c.broken.Load() {
		return 0, errBroken
	}
	return c.Conn.Write(p)
}

// tlsPair is a connection that is encrypted as the host does it, and what is below its first end.
func tlsPair(t *testing.T) (a, b sec.SecureConn, below *countedConn) {
	t.Helper()
	transport := func() (*tlsTransport, peer.ID) {
		key, _, err := crypto.GenerateEd25519Key(nil)
		if err != nil {
			t.Fatal(err)
		}
		id, err := peer.IDFromPrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		tr, err := newTLS(libp2ptls.ID, key, nil)
		if err != nil {
			t.Fatal(err)
		}
		return tr, id
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	from, _ := transport()
	to, id := transport()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	below = &countedConn{Conn: raw}
	var wg sync.WaitGroup
	var berr error
	wg.Go(func() { b, berr = to.SecureInbound(context.Background(), other, "") })
	a, err = from.SecureOutbound(context.Background(), below, id)
	if wg.Wait(); err != nil || berr != nil {
		t.Fatal(err, berr)
	}
	t.Cleanup(func() {
		_ = a.Close()
		_ = b.Close()
	})
	return a, b, below
}

func TestRecordsLeaveTogether(t *testing.T) {
	a, b, below := tlsPair(t)
	var got []byte
	for _, n := range []int{1, recordMost, recordMost + 1, 64 << 10, 64<<10 - 1, 5, 256 << 10} {
		p := make([]byte, n)
		for i := range p {
			p[i] = byte(rand.Uint32())
		}
		before := below.writes.Load()
		done := make(chan error, 1)
		go func() {
			got = make([]byte, n)
			_, err := io.ReadFull(b, got)
			done <- err
		}()
		if m, err := a.Write(p); m != n || err != nil {
			t.Fatalf("%d bytes: wrote %d: %v", n, m, err)
		}
		if err := <-done; err != nil || !bytes.Equal(got, p) {
			t.Fatalf("%d bytes: they come as others: %v", n, err)
		}
		// TLS begins a connection with records of a packet; those that one write brings leave together all the same.
		if w := below.writes.Load() - before; w != 1 && n > recordMost {
			t.Fatalf("%d bytes took %d calls", n, w)
		}
	}
}

// Writes from several goroutines, long and short, come whole and each in order.
func TestRecordsOfSeveral(t *testing.T) {
	a, b, _ := tlsPair(t)
	const writers, times = 4, 40
	sizes := []int{1, 100, recordMost + 7, 64 << 10}
	var wg sync.WaitGroup
	total := 0
	for w := range writers {
		n := sizes[w]
		total += n * times
		wg.Go(func() {
			for range times {
				if _, err := a.Write(bytes.Repeat([]byte{byte(w)}, n)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	got := make([]byte, total)
	if _, err := io.ReadFull(b, got); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	for len(got) > 0 {
		n := sizes[got[0]]
		if !bytes.Equal(got[:n], bytes.Repeat(got[:1], n)) {
			t.Fatal("two writes are mixed")
		}
		got = got[n:]
	}
}

func TestRecordsFail(t *testing.T) {
	a, _, below := tlsPair(t)
	below.broken.Store(true)
	if _, err := a.Write(make([]byte, 64<<10)); !errors.Is(err, errBroken) {
		t.Fatalf("a long write: %v", err)
	}
	below.broken.Store(false)
	// What was lost can't be made good: the other side would see a gap.
	if _, err := a.Write(make([]byte, 1)); err == nil {
		t.Fatal("the connection goes on behind a gap")
	}
}

// A write that nobody takes ends when the connection is closed.
func TestRecordsStuck(t *testing.T) {
	a, _, _ := tlsPair(t)
	ended := make(chan error, 1)
	began := make(chan struct{})
	go func() {
		close(began)
		for {
			if _, err := a.Write(make([]byte, 256<<10)); err != nil {
				ended <- err
				return
			}
		}
	}()
	<-began
	_ = a.Close() // whether the write is stuck yet or not
	if err := <-ended; err == nil {
		t.Fatal("no error")
	}
}
