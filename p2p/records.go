package p2p

import (
	"context"
	"net"
	"sync"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	tptu "github.com/libp2p/go-libp2p/p2p/net/upgrader"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
)

const (
	// recordMost is the most that one TLS record carries, recordExtra what it adds in TLS 1.3, in bytes.
	recordMost  = 16 << 10
	recordExtra = 5 + 1 + 16
)

// tlsTransport is libp2p's TLS, with one call of the operating system for each write, not for each record of 16 KiB: what the multiplexer
// writes at once is 64 KiB, and the calls, and that the other side is woken for each, cost more than the encryption.
type tlsTransport struct{ *libp2ptls.Transport }

func newTLS(id protocol.ID, key crypto.PrivKey, muxers []tptu.StreamMuxer) (*tlsTransport, error) {
	t, err := libp2ptls.New(id, key, muxers)
	return &tlsTransport{t}, err
}

// SecureInbound implements sec.SecureTransport.
func (t *tlsTransport) SecureInbound(ctx context.Context, insecure net.Conn, p peer.ID) (sec.SecureConn, error) {
	raw := &recordBatch{Conn: insecure}
	return raw.under(t.Transport.SecureInbound(ctx, raw, p))
}

// SecureOutbound implements sec.SecureTransport.
func (t *tlsTransport) SecureOutbound(ctx context.Context, insecure net.Conn, p peer.ID) (sec.SecureConn, error) {
	raw := &recordBatch{Conn: insecure}
	return raw.under(t.Transport.SecureOutbound(ctx, raw, p))
}

// recordBatch is what is below TLS. It keeps the records of a long write until the last one comes, and writes them at once, in the call that
// brings that: so TLS hears of errors, and a Close ends a write that is stuck, as without it. All else passes through, in order.
type recordBatch struct {
	net.Conn
	mu   sync.Mutex // held while writing
	left int        // bytes that the records to be kept carry
	buf  []byte
}

// under is the connection above, which was made on r.
func (r *recordBatch) under(c sec.SecureConn, err error) (sec.SecureConn, error) {
	if err != nil {
		return nil, err
	}
	return &batchedConn{c, r}, nil
}

// Write implements net.Conn, for one record, or some.
func (r *recordBatch) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.left <= 0 {
		return r.Conn.Write(p)
	}
	r.buf = append(r.buf, p...)
	if r.left -= len(p) - recordExtra; r.left > 0 {
		return len(p), nil
	}
	if err := r.flush(); err != nil {
		return 0, err
	}
	return len(p), nil
}

// flush writes what is kept. The caller holds mu.
func (r *recordBatch) flush() error {
	if len(r.buf) == 0 {
		return nil
	}
	_, err := r.Conn.Write(r.buf)
	r.buf = r.buf[:0]
	return err
}

// batchedConn is a TLS connection on a recordBatch.
type batchedConn struct {
	sec.SecureConn
	raw *recordBatch
}

// Write implements net.Conn.
func (c *batchedConn) Write(p []byte) (int, error) {
	if len(p) <= recordMost {
		return c.SecureConn.Write(p)
	}
	c.raw.mu.Lock()
	c.raw.left += len(p)
	c.raw.mu.Unlock()
	n, err := c.SecureConn.Write(p)
	// Should the count be wrong (a record of TLS itself, or an error), nothing may stay behind.
	c.raw.mu.Lock()
	defer c.raw.mu.Unlock()
	c.raw.left = 0
	if ferr := c.raw.flush(); err == nil {
		err = ferr
	}
	return n, err
}
