package nbd

import (
	"io"
	"net"
)

// wire is a client's connection after the handshake. Reading is for one goroutine, writing for one at a time; the rest may
// be called from anywhere until close.
type wire interface {
	io.Reader
	io.Writer
	// writev writes all of list, which it uses up.
	writev(list *net.Buffers) error
	// interrupt ends reads and writes under way, and all that come.
	interrupt()
	// gone reports whether the other end is closed for good, whether or not all that it sent has been read. A client that
	// has only closed its sending half is not gone.
	gone() bool
	// close gives the connection back to the system. Nobody may use it any more.
	close()
}

// netWire is the wire where nothing better is known.
type netWire struct{ net.Conn }

func (w netWire) writev(list *net.Buffers) error {
	_, err := list.WriteTo(w.Conn)
	return err
}

// The error of Close says nothing that matters: nothing was left to be sent.
func (w netWire) interrupt() { _ = w.Close() }
func (w netWire) close()     { _ = w.Close() }
func (w netWire) gone() bool { return peerGone(w.Conn) }
