package viewer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// maxStrangers is how many connections without the password end a bridge.
	maxStrangers = 8
	// admitTime is how long somebody may take to say the password.
	admitTime = 10 * time.Second
)

// bridge leads from a port of the loopback to a VNC server behind a Unix socket, for one connection that knows its password.
type bridge struct {
	l        net.Listener
	password string // of the bridge
	socket   string
	inner    string // of the server behind
}

func newBridge(socket, inner string) (*bridge, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("viewer: open a port for the screen: %w", err)
	}
	return &bridge{l: l, password: rand.Text()[:8], socket: socket, inner: inner}, nil
}

func (b *bridge) port() int { return b.l.Addr().(*net.TCPAddr).Port }

// serve lets one connection in and carries it until either end hangs up, or ctx ends. Nothing of it is left when it returns.
func (b *bridge) serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { b.l.Close() })
	defer stop()
	defer b.l.Close()
	for range maxStrangers {
		conn, err := b.l.Accept()
		if err != nil {
			return err
		}
		if conn.SetDeadline(time.Now().Add(admitTime)) != nil || admit(conn, b.password) != nil || conn.SetDeadline(time.Time{}) != nil {
			conn.Close()
			continue
		}
		b.l.Close()
		return b.carry(ctx, conn)
	}
	return errors.New("viewer: too many connections without the password")
}

func (b *bridge) carry(ctx context.Context, conn net.Conn) error {
	defer conn.Close()
	var d net.Dialer
	server, err := d.DialContext(ctx, "unix", b.socket)
	if err != nil {
		return fmt.Errorf("viewer: reach the screen: %w", err)
	}
	defer server.Close()
	if err := server.SetDeadline(time.Now().Add(admitTime)); err != nil {
		return err
	}
	if err := enter(server, b.inner); err != nil {
		return fmt.Errorf("viewer: reach the screen: %w", err)
	}
	if err := server.SetDeadline(time.Time{}); err != nil {
		return err
	}
	hangUp := func() { conn.Close(); server.Close() }
	stop := context.AfterFunc(ctx, hangUp)
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { _, _ = io.Copy(server, conn); hangUp() })
	both.Go(func() { _, _ = io.Copy(conn, server); hangUp() })
	both.Wait()
	return nil
}
