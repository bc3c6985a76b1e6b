package p2p

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	// dialTimeout bounds one attempt; all addresses are tried at once.
	dialTimeout = 5 * time.Second
	// steady is how long a connection must have lasted for the next one to be dialled without any wait.
	steady = 5 * time.Second
	// hintLife is how long what discovery saw is dialled.
	hintLife = time.Minute
)

// waits between attempts; the last one repeats.
var waits = []time.Duration{
	200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 15 * time.Second,
}

// backoff hands out waits. Its jitter only shortens, so the longest wait is a promise.
type backoff struct{ n int }

func (b *backoff) reset() { b.n = 0 }

func (b *backoff) next() time.Duration {
	w := waits[min(b.n, len(waits)-1)]
	b.n++
	return w - rand.N(w/5)
}

// keeper keeps one member connected.
type keeper struct {
	id     peer.ID
	ctx    context.Context
	cancel context.CancelFunc
	news   chan struct{} // 1-buffered: a connection came or went
	seen   chan struct{} // 1-buffered: discovery saw the device
	fresh  atomic.Bool   // what it saw is new, so earlier failures mean nothing
	hint   atomic.Pointer[hint]
}

// hint is where discovery saw a device.
type hint struct {
	at    time.Duration
	addrs []netip.AddrPort
}

func newKeeper(ctx context.Context, id peer.ID) *keeper {
	k := &keeper{id: id, news: make(chan struct{}, 1), seen: make(chan struct{}, 1)}
	k.ctx, k.cancel = context.WithCancel(ctx)
	return k
}

// keep dials whenever there is no live connection, until the keeper's context ends.
func (h *Host) keep(k *keeper) {
	defer k.cancel()
	var b backoff
	for k.ctx.Err() == nil {
		if h.best(k.id) != nil {
			since := h.now()
			if !h.whileConnected(k) {
				return
			}
			b.reset()
			if h.now()-since < steady {
				// It came and went at once: so may the next one, and the one after.
				h.pause(k, b.next())
				continue
			}
		}
		if k.fresh.Swap(false) {
			b.reset()
		}
		if h.dial(k) {
			continue
		}
		h.pause(k, b.next())
	}
}

// whileConnected waits until no live connection is left; false means that the keeper is to end.
func (h *Host) whileConnected(k *keeper) bool {
	for h.best(k.id) != nil {
		select {
		case <-k.ctx.Done():
			return false
		case <-k.news:
		}
	}
	return true
}

// pause waits for d, less if the device gets connected or is seen.
func (h *Host) pause(k *keeper, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		select {
		case <-k.ctx.Done():
			return
		case <-t.C:
			return
		case <-k.seen:
			return
		case <-k.news:
			// Also a failed attempt is news; only a live connection ends the pause.
			if h.best(k.id) != nil {
				return
			}
		}
	}
}

// dial makes one attempt and reports whether the device is connected afterwards.
func (h *Host) dial(k *keeper) bool {
	addrs := h.candidates(k)
	if len(addrs) == 0 {
		return false
	}
	// libp2p keeps its own, much longer list of grudges.
	if s, ok := h.h.Network().(interface{ Backoff() *swarm.DialBackoff }); ok {
		s.Backoff().Clear(k.id)
	}
	h.h.Peerstore().ClearAddrs(k.id)
	h.h.Peerstore().AddAddrs(k.id, addrs, peerstore.TempAddrTTL)
	ctx, cancel := context.WithTimeout(k.ctx, dialTimeout)
	defer cancel()
	result := make(chan error, 1)
	if !h.spawn(func() {
		_, err := h.h.Network().DialPeer(network.WithDialPeerTimeout(ctx, dialTimeout), k.id)
		result <- err
	}) {
		return false
	}
	for waiting := true; waiting; {
		select {
		case err := <-result:
			if err != nil {
				h.log.Debug("Dial failed", "device", k.id.String(), "err", err)
				return h.best(k.id) != nil
			}
			waiting = false
		case <-k.seen:
			if k.fresh.Load() {
				// The addresses that are being tried are out of date.
				cancel()
				<-result
				return h.best(k.id) != nil
			}
		case <-k.news:
			if h.best(k.id) != nil {
				cancel()
				<-result
				return true
			}
		}
	}
	return h.awaitLive(k)
}

// awaitLive waits until a connection to the device has proved to be alive, or none is left, or it takes too long.
func (h *Host) awaitLive(k *keeper) bool {
	t := time.NewTimer(silence)
	defer t.Stop()
	for h.best(k.id) == nil {
		if !h.has(k.id) {
			return false
		}
		select {
		case <-k.ctx.Done():
			return false
		case <-t.C:
			return false
		case <-k.news:
		}
	}
	return true
}

// has reports whether there is any connection to id, live or not yet.
func (h *Host) has(id peer.ID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.conns {
		if c.peer.id == id {
			return true
		}
	}
	return false
}

// candidates are the addresses worth dialling: what discovery saw lately, then what is remembered.
func (h *Host) candidates(k *keeper) []ma.Multiaddr {
	var out []ma.Multiaddr
	add := func(a ma.Multiaddr) {
		if len(out) < maxAddrs && plainTCP(a) && !slices.ContainsFunc(out, a.Equal) {
			out = append(out, a)
		}
	}
	if hint := k.hint.Load(); hint != nil && h.now()-hint.at < hintLife {
		for _, ap := range hint.addrs {
			if a, err := multiaddr(ap); err == nil {
				add(a)
			}
		}
	}
	if h.opt.Addresses != nil {
		for _, s := range h.opt.Addresses.Load(k.id.String()) {
			if a, err := ma.NewMultiaddr(s); err == nil {
				add(a)
			}
		}
	}
	return out
}

// seen takes in a sighting by discovery.
func (h *Host) seen(id string, addrs []netip.AddrPort, news bool) {
	p, err := decodeID(id)
	if err != nil {
		return
	}
	h.mu.Lock()
	k := h.keepers[p]
	if k == nil {
		h.mu.Unlock()
		return
	}
	m := h.memberLocked(p)
	m.announced, m.announcedAt = nil, h.now()
	for _, a := range addrs {
		m.announced = append(m.announced, a.Addr().Unmap())
	}
	h.mu.Unlock()
	k.hint.Store(&hint{h.now(), addrs})
	if h.best(p) != nil {
		return
	}
	if news {
		k.fresh.Store(true)
	}
	wake(k.seen)
}

// noteAddrs saves where a member says that it listens: the address that works for us first, older ones last, because
// the device may return to a network where it was before.
func (h *Host) noteAddrs(e event.EvtPeerIdentificationCompleted) {
	if h.opt.Addresses == nil || !h.gate.admitted(e.Peer) {
		return
	}
	remote, ok := endpoint(e.Conn.RemoteMultiaddr())
	if !ok {
		return
	}
	var told []netip.AddrPort
	for _, a := range e.ListenAddrs {
		if ap, ok := endpoint(a); ok && ap.Port() != 0 && tellable(ap.Addr()) && (!ap.Addr().IsLoopback() || remote.Addr().IsLoopback()) {
			told = append(told, ap)
		}
	}
	if e.Conn.Stat().Direction == network.DirOutbound {
		told = append(told, remote)
	}
	slices.SortStableFunc(told, func(a, b netip.AddrPort) int {
		return rank(b.Addr() == remote.Addr()) - rank(a.Addr() == remote.Addr())
	})
	id := e.Peer.String()
	old := h.opt.Addresses.Load(id)
	var out []string
	add := func(s string) {
		if len(out) < maxAddrs && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	for _, ap := range told {
		if a, err := multiaddr(ap); err == nil {
			add(a.String())
		}
	}
	for _, s := range old {
		add(s)
	}
	if !slices.Equal(out, old) {
		h.opt.Addresses.Save(id, out)
	}
}

func rank(b bool) int {
	if b {
		return 1
	}
	return 0
}
