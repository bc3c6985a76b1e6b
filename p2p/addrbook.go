package p2p

import (
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	ma "github.com/multiformats/go-multiaddr"
)

// addrBook is libp2p's book of addresses, without those of devices that aren't admitted: libp2p writes down what it was told, and what it knew of a
// connection that has ended, at moments of its own, also when a device has just been removed.
type addrBook struct {
	peerstore.Peerstore
	peerstore.CertifiedAddrBook
	gate *gater

	mu sync.RWMutex // held for reading from the look at the list until the address is in the book
}

func newAddrBook(gate *gater) (*addrBook, error) {
	ps, err := pstoremem.NewPeerstore()
	if err != nil {
		return nil, fmt.Errorf("address book: %w", err)
	}
	return &addrBook{Peerstore: ps, CertifiedAddrBook: ps, gate: gate}, nil
}

// AddAddrs implements peerstore.AddrBook.
func (b *addrBook) AddAddrs(p peer.ID, addrs []ma.Multiaddr, ttl time.Duration) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.gate.admitted(p) {
		b.Peerstore.AddAddrs(p, addrs, ttl)
	}
}

// AddAddr implements peerstore.AddrBook.
func (b *addrBook) AddAddr(p peer.ID, addr ma.Multiaddr, ttl time.Duration) {
	b.AddAddrs(p, []ma.Multiaddr{addr}, ttl)
}

// forget takes out all that is known of a device that isn't admitted any more. Nothing comes back.
func (b *addrBook) forget(p peer.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ClearAddrs(p)
	b.RemovePeer(p)
}
