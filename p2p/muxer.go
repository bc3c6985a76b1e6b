package p2p

import (
	"fmt"
	"net"

	"github.com/libp2p/go-libp2p/core/network"
	libyamux "github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-yamux/v5"
)

// A stream's window is how much may be on its way, or wait to be read. yamux lets it grow while half of it is read within four round
// trips, and a stream that has rested gives that up once: with its own first window whoever begins to send much stands still for a
// round trip, again and again, and takes that for a full line. With its own largest one a stream carries no more than 16 MiB each round trip.
const (
	protocolWindow = 256 << 10 // yamux' own, which every stream begins with; its memory is reserved by the library
	firstWindow    = 2 << 20   // as soon as something was read
	mostWindow     = 64 << 20
)

// muxer is libp2p's yamux with other windows. What they take is reserved in the peer's scope, the first one for sure and what it grows by as
// long as half of the peer's memory is left.
type muxer struct{ config yamux.Config }

func newMuxer() *muxer {
	m := &muxer{config: *libyamux.DefaultTransport.Config()}
	m.config.InitialStreamWindowSize, m.config.MaxStreamWindowSize = firstWindow, mostWindow
	return m
}

// NewConn implements network.Multiplexer.
func (m *muxer) NewConn(c net.Conn, isServer bool, scope network.PeerScope) (network.MuxedConn, error) {
	span := func() (yamux.MemoryManager, error) {
		s, err := scope.BeginSpan()
		if err != nil {
			return nil, fmt.Errorf("reserve a stream's window: %w", err)
		}
		if err := s.ReserveMemory(firstWindow-protocolWindow, network.ReservationPriorityAlways); err != nil {
			s.Done()
			return nil, fmt.Errorf("reserve a stream's window: %w", err)
		}
		return s, nil
	}
	begin := yamux.Client
	if isServer {
		begin = yamux.Server
	}
	s, err := begin(c, &m.config, span)
	if err != nil {
		return nil, fmt.Errorf("begin yamux: %w", err)
	}
	return libyamux.NewMuxedConn(s), nil
}
