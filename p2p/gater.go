package p2p

import (
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// gater is the allow-list at the door: nobody but members, and nobody before Serve runs, so that no device meets a
// host whose protocols aren't all there yet.
type gater struct {
	members Members
	open    atomic.Bool
}

func (g *gater) allowed(p peer.ID) bool { return g.members.Allowed(p.String()) }

// InterceptPeerDial implements connmgr.ConnectionGater.
func (g *gater) InterceptPeerDial(p peer.ID) bool { return g.open.Load() && g.allowed(p) }

// InterceptAddrDial implements connmgr.ConnectionGater.
func (g *gater) InterceptAddrDial(_ peer.ID, a ma.Multiaddr) bool { return plainTCP(a) }

// InterceptAccept implements connmgr.ConnectionGater.
func (g *gater) InterceptAccept(network.ConnMultiaddrs) bool { return g.open.Load() }

// InterceptSecured implements connmgr.ConnectionGater. It is the first moment at which the other end is known.
func (g *gater) InterceptSecured(_ network.Direction, p peer.ID, _ network.ConnMultiaddrs) bool {
	return g.open.Load() && g.allowed(p)
}

// InterceptUpgraded implements connmgr.ConnectionGater.
func (g *gater) InterceptUpgraded(c network.Conn) (bool, control.DisconnectReason) {
	return g.open.Load() && g.allowed(c.RemotePeer()), 0
}
