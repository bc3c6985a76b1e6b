package p2p

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"tagalong.org/tagalong/p2p/discovery"
)

// PeerStatus is what is known about one member.
type PeerStatus struct {
	ID        string
	Connected bool          // it answered within the last seconds
	RTT       time.Duration // of the latest heartbeat; 0 if there was none yet
	Addr      string        // multiaddr of the current or latest connection
	LastSeen  time.Time     // zero: not since this process started
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
		}
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b PeerStatus) int { return strings.Compare(a.ID, b.ID) })
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
