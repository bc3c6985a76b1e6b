package p2p

import (
	"context"
	"encoding/binary"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// Each end opens one heartbeat stream and writes an 8-byte big-endian number, counting up from 1, every beatInterval;
// the other end writes it back.
const (
	beatProtocol = protocol.ID("/tagalong/heartbeat/1")
	beatSize     = 8
	// checkInterval is how often a connection's pulse is looked at.
	checkInterval = 250 * time.Millisecond
	// pausedAfter is how late a check must be to show that this process itself was stopped meanwhile.
	pausedAfter = time.Second
)

// supervise closes c once it is dead. It ends with the connection.
func (h *Host) supervise(c *conn) {
	tick := time.NewTicker(checkInterval)
	defer tick.Stop()
	last := h.now()
	for {
		select {
		case <-c.ctx.Done():
			// Close of the host, or the connection is lost; the latter has nothing left to do here.
			return
		case <-tick.C:
		}
		now := h.now()
		c.mu.Lock()
		if now-last > pausedAfter {
			// We weren't listening, so the silence proves nothing.
			c.pulse.heard(now)
		}
		dead := c.pulse.dead(now)
		c.mu.Unlock()
		last = now
		if dead {
			h.log.Warn("Connection is silent and gets closed", "device", c.peer.id.String(), "addr", c.c.RemoteMultiaddr().String())
			h.hangUp(c)
			return
		}
	}
}

// beat asks the other end of c again and again whether it is there, until the connection ends.
func (h *Host) beat(c *conn) {
	s, err := h.openOn(c.ctx, c, beatProtocol)
	if err != nil {
		// Nobody answers: supervise closes the connection if that is still so in a few seconds.
		return
	}
	stop := context.AfterFunc(c.ctx, func() { _ = s.Reset() })
	defer stop()
	defer func() { _ = s.Reset() }()
	if !h.spawn(func() { h.readAnswers(c, s) }) {
		return
	}
	tick := time.NewTicker(beatInterval)
	defer tick.Stop()
	var msg [beatSize]byte
	for {
		c.mu.Lock()
		c.pulse.received(c.read.Load())
		seq, ok := c.pulse.ask(h.now(), c.written.Load())
		c.mu.Unlock()
		if ok {
			binary.BigEndian.PutUint64(msg[:], seq)
			if _, err := s.Write(msg[:]); err != nil {
				return
			}
		}
		select {
		case <-c.ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// readAnswers takes in the answers to beat's questions until the stream ends.
func (h *Host) readAnswers(c *conn, s network.Stream) {
	var msg [beatSize]byte
	for {
		if _, err := io.ReadFull(s, msg[:]); err != nil {
			return
		}
		c.mu.Lock()
		c.pulse.received(c.read.Load())
		ok := c.pulse.answer(h.now(), binary.BigEndian.Uint64(msg[:]))
		rtt := c.pulse.rtt
		c.mu.Unlock()
		if !ok {
			h.log.Warn("Connection gets closed because of a wrong heartbeat", "device", c.peer.id.String())
			h.hangUp(c)
			return
		}
		h.mu.Lock()
		c.peer.rtt = rtt
		h.mu.Unlock()
		h.alive(c)
	}
}

// onBeat answers the questions of the other end. One such stream per connection is enough.
func (h *Host) onBeat(s network.Stream) {
	defer func() { _ = s.Reset() }()
	h.mu.Lock()
	c := h.conns[s.Conn()]
	if c == nil || h.closed || !h.gate.admitted(c.peer.id) || c.beaten.Swap(true) {
		h.mu.Unlock()
		return
	}
	h.wg.Add(1)
	h.mu.Unlock()
	defer h.wg.Done()
	stop := context.AfterFunc(c.ctx, func() { _ = s.Reset() })
	defer stop()
	var msg [beatSize]byte
	for {
		if _, err := io.ReadFull(s, msg[:]); err != nil {
			return
		}
		c.heard(h.now())
		if _, err := s.Write(msg[:]); err != nil {
			return
		}
	}
}
