package p2p

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// conn is what we know about one connection of libp2p.
type conn struct {
	c      network.Conn
	peer   *member
	opened time.Duration
	// limited is a connection to a device that isn't a member. What a connection is good for never changes: when the
	// device's standing does, it is closed.
	limited bool
	ctx     context.Context // ends when the connection is lost or closed
	cancel  context.CancelFunc

	live    atomic.Bool  // the other end answered: it is there and accepts us
	lost    atomic.Bool  // given up
	beaten  atomic.Bool  // the other end has opened its heartbeat
	written atomic.Int64 // bytes handed to the connection
	read    atomic.Int64 // bytes taken from it

	mu    sync.Mutex
	pulse pulse
}

// member is what we know about another device, a member or one to say farewell to. It outlives its connections.
type member struct {
	id       peer.ID
	in, out  atomic.Int64
	lastSeen time.Time // guarded by Host.mu, as the rest
	addr     string
	rtt      time.Duration
	// announced are the addresses that it was last seen to announce on a link of ours, announcedAt when.
	announced   []netip.Addr
	announcedAt time.Duration
}

func (c *conn) heard(now time.Duration) {
	c.mu.Lock()
	c.pulse.heard(now)
	c.mu.Unlock()
}

func (c *conn) silentSince() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pulse.heardAt
}

// trip is the round trip of the way; 0: not known yet.
func (c *conn) trip() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pulse.trips.shortest()
}

// connected is libp2p's notification of a new connection. It comes before the first stream of that connection.
func (h *Host) connected(_ network.Network, nc network.Conn) {
	id := nc.RemotePeer()
	h.mu.Lock()
	// The list may have changed since the gater was asked, and AllowChanged only knows the connections in this map.
	if h.closed || !h.gate.admitted(id) {
		h.mu.Unlock()
		// Not from here: closing waits for this notification.
		go nc.Close()
		return
	}
	p := h.memberLocked(id)
	c := &conn{c: nc, peer: p, opened: h.now(), limited: !h.gate.allowed(id)}
	c.pulse = newPulse(c.opened)
	c.ctx, c.cancel = context.WithCancel(h.ctx)
	h.conns[nc] = c
	h.wg.Go(func() { h.supervise(c) })
	h.wg.Go(func() { h.beat(c) })
	h.mu.Unlock()
}

// disconnected is libp2p's notification that a connection has ended.
func (h *Host) disconnected(_ network.Network, nc network.Conn) {
	h.mu.Lock()
	c := h.conns[nc]
	h.mu.Unlock()
	if c != nil {
		h.forget(c)
	}
}

func (h *Host) memberLocked(id peer.ID) *member {
	p := h.peers[id]
	if p == nil {
		p = &member{id: id}
		h.peers[id] = p
	}
	return p
}

// alive records that the other end answered on c for the first time.
func (h *Host) alive(c *conn) {
	if c.lost.Load() || c.live.Swap(true) {
		return
	}
	h.h.ConnManager().Protect(c.peer.id, "member")
	h.mu.Lock()
	c.peer.addr = c.c.RemoteMultiaddr().String()
	h.mu.Unlock()
	h.log.Info("Device connected", "device", c.peer.id.String(), "addr", c.c.RemoteMultiaddr().String())
	h.changed(c.peer.id)
}

// forget takes c out of the books and ends everything that hangs on it. Only the first call does.
func (h *Host) forget(c *conn) {
	if c.lost.Swap(true) {
		return
	}
	c.cancel()
	h.mu.Lock()
	delete(h.conns, c.c)
	if c.live.Load() {
		c.peer.lastSeen = h.start.Add(c.silentSince())
	}
	h.mu.Unlock()
	if c.live.Load() {
		h.log.Info("Device disconnected", "device", c.peer.id.String(), "addr", c.c.RemoteMultiaddr().String())
	}
	h.changed(c.peer.id)
	if h.disco != nil {
		h.disco.Kick()
	}
}

// hangUp forgets c and closes it. The streams are woken first: closing can take seconds when nothing gets through.
func (h *Host) hangUp(c *conn) {
	h.forget(c)
	past := time.Unix(1, 0)
	for _, s := range c.c.GetStreams() {
		// An error means that the stream is gone already.
		_ = s.SetDeadline(past)
	}
	// The error says how the socket ended, which nobody asks any more.
	_ = c.c.Close()
}

// best returns the live connection to id that was heard last, or nil.
func (h *Host) best(id peer.ID) *conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	var best *conn
	for _, c := range h.conns {
		if c.peer.id == id && c.live.Load() && !c.lost.Load() && (best == nil || c.silentSince() > best.silentSince()) {
			best = c
		}
	}
	return best
}

// changed wakes everybody who waits for news about id.
func (h *Host) changed(id peer.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		wake(w)
	}
	if k := h.keepers[id]; k != nil {
		wake(k.news)
	}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
