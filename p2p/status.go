package p2p

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"tagalong.org/tagalong/p2p/discovery"
)

// PeerStatus is what is known about one member.
type PeerStatus struct {
	ID        string
	Connected bool          // it answered within the last seconds
	RTT       time.Duration // of the latest heartbeat; 0 if there was none yet
	// Trip is the round trip of a present connection without what data on it adds: the shortest of its last quiet heartbeats.
	// 0 if there was none yet. Of several connections it is that of one for which OnLink holds, or else the shortest.
	Trip time.Duration
	// OnLink says that the device announced itself on a link that both share, at the address of a present connection, since
	// that began or up to two minutes before. It is a hint only: announcements can be forged, and carried elsewhere.
	OnLink   bool
	Addr     string    // multiaddr of the current or latest connection
	LastSeen time.Time // zero: not since this process started
}

// Peers returns the status of every member but this device, in the order of their IDs.
func (h *Host) Peers() []PeerStatus {
	var out []PeerStatus
	for _, m := range h.opt.Members.List() {
		id, err := decodeID(m)
		if err != nil || id == h.id {
			continue
		}
		st := PeerStatus{ID: m}
		best := h.best(id)
		h.mu.Lock()
		if p := h.peers[id]; p != nil {
			st.RTT, st.Addr, st.LastSeen = p.rtt, p.addr, p.lastSeen
		}
		h.mu.Unlock()
		if best != nil {
			st.Connected = true
			st.Addr = best.c.RemoteMultiaddr().String()
			st.LastSeen = h.start.Add(best.silentSince())
			st.Trip, st.OnLink = h.way(id)
		}
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b PeerStatus) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// announcedBefore is for how long an announcement speaks for a connection that begins after it.
const announcedBefore = 2 * time.Minute

// way is the shortest round trip of the connections to a device, of those on a link of ours if there are any, and whether there are.
func (h *Host) way(id peer.ID) (trip time.Duration, onLink bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.conns {
		if c.peer.id != id || !c.live.Load() || c.lost.Load() {
			continue
		}
		here := c.onLinkLocked()
		if onLink && !here {
			continue
		}
		if t := c.trip(); here && !onLink || trip == 0 || t > 0 && t < trip {
			trip = t
		}
		onLink = onLink || here
	}
	return trip, onLink
}

// onLinkLocked says whether the other end of c is known to be on a link of ours at the address that c leads to. The caller holds Host.mu.
func (c *conn) onLinkLocked() bool {
	at, ok := endpoint(c.c.RemoteMultiaddr())
	return ok && c.opened-c.peer.announcedAt <= announcedBefore && slices.Contains(c.peer.announced, at.Addr())
}

// LocalAddrs returns the addresses of this device's own ends of the connections to members that answer.
func (h *Host) LocalAddrs() []netip.Addr {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []netip.Addr
	for _, c := range h.conns {
		if at, ok := endpoint(c.c.LocalMultiaddr()); ok && c.live.Load() && !slices.Contains(out, at.Addr()) {
			out = append(out, at.Addr())
		}
	}
	return out
}

// Connected says whether a device, a member or one to say farewell to, answered within the last seconds.
func (h *Host) Connected(id string) bool {
	p, err := decodeID(id)
	return err == nil && h.best(p) != nil
}

// Watch returns a channel that gets a wake-up whenever a device was connected or disconnected since the last one was
// taken; look at Peers then. cancel ends it; the channel is never closed.
func (h *Host) Watch() (<-chan struct{}, func()) {
	w := make(chan struct{}, 1)
	h.mu.Lock()
	h.watchers[w] = struct{}{}
	h.mu.Unlock()
	return w, func() {
		h.mu.Lock()
		delete(h.watchers, w)
		h.mu.Unlock()
	}
}

// Traffic returns how many bytes were read from and written to streams of a device since this process started or the
// device was last removed.
func (h *Host) Traffic(id string) (in, out int64) {
	p, err := decodeID(id)
	if err != nil {
		return 0, 0
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.peers[p]
	if m == nil {
		return 0, 0
	}
	return m.in.Load(), m.out.Load()
}

// SetPairPort says on which TCP port the pairing door is open, so that it can be found; 0 closes it. Without discovery
// nothing happens.
func (h *Host) SetPairPort(port int) {
	if h.disco != nil {
		h.disco.SetPairPort(port)
	}
}

// FindPairing waits until ctx ends for open pairing doors on the local network and returns those known as soon as there
// is one. Nothing is found while Serve doesn't run. The errors are ErrNoDiscovery and discovery.ErrNothingFound.
func (h *Host) FindPairing(ctx context.Context) ([]discovery.Found, error) {
	if h.disco == nil {
		return nil, fmt.Errorf("find pairing: %w", ErrNoDiscovery)
	}
	return h.disco.FindPairing(ctx)
}

// someoneMissing tells discovery whether browsing is urgent.
func (h *Host) someoneMissing() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	live := 0
	for id := range h.keepers {
		for _, c := range h.conns {
			if c.peer.id == id && c.live.Load() {
				live++
				break
			}
		}
	}
	return live < len(h.keepers)
}
