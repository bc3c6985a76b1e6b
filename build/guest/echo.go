//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
)

// echoPort is where the guest sends back what it gets, as RFC 862 has it.
const echoPort = 7

// echo answers on the network: what comes in a UDP packet, or on a TCP connection, goes back.
type echo struct {
	ctx context.Context
	// goes runs something that the program waits for.
	goes func(func() error)

	mu sync.Mutex
	on bool // guarded by mu
}

// begin gives the network card an address ("10.0.0.7/24") and answers there.
func (e *echo) begin(prefix string) error {
	p, err := netip.ParsePrefix(prefix)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.on {
		return errors.New("it answers already")
	}
	for _, step := range [][]string{{"link", "set", "eth0", "up"}, {"addr", "add", p.String(), "dev", "eth0"}} {
		out, err := exec.CommandContext(e.ctx, "/bin/busybox", append([]string{"ip"}, step...)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ip %s: %w: %s", strings.Join(step, " "), err, strings.TrimSpace(string(out)))
		}
	}
	var listen net.ListenConfig
	at := netip.AddrPortFrom(p.Addr(), echoPort).String()
	packets, err := listen.ListenPacket(e.ctx, "udp4", at)
	if err != nil {
		return err
	}
	connections, err := listen.Listen(e.ctx, "tcp4", at)
	if err != nil {
		packets.Close()
		return err
	}
	e.on = true
	context.AfterFunc(e.ctx, func() { packets.Close(); connections.Close() })
	e.goes(func() error { return echoPackets(packets) })
	e.goes(func() error { return e.echoConnections(connections) })
	return nil
}

func echoPackets(conn net.PacketConn) error {
	b := make([]byte, 64<<10)
	for {
		n, from, err := conn.ReadFrom(b)
		if err != nil {
			return fmt.Errorf("answer packets: %w", err)
		}
		_, _ = conn.WriteTo(b[:n], from) // a network that is gone for a moment loses packets
	}
}

func (e *echo) echoConnections(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return fmt.Errorf("answer connections: %w", err)
		}
		e.goes(func() error {
			defer conn.Close()
			stop := context.AfterFunc(e.ctx, func() { conn.Close() })
			defer stop()
			_, _ = io.Copy(conn, conn) // its other end says how it went
			return nil
		})
	}
}
