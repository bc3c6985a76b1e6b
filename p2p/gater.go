package p2p

import (
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"tagalong.org/tagalong/p2p/farewell"
)

// FarewellProtocol is the one protocol that a device may use which isn't a member but has to be told, or to tell, that
// somebody has left the fleet (Options.Farewells). Members may use it too: a device that was removed is the last to know.
const FarewellProtocol = farewell.Protocol

// gater is the allow-list at the door: nobody but members and those to say farewell to, and nobody before Serve runs, so
// that no device meets a host whose protocols aren't all there yet.
type gater struct {
	members   Members
	farewells Members // may be nil
	open      atomic.Bool
}

// allowed says whether p is a member: it may use every protocol.
func (g *gater) allowed(p peer.ID) bool { return g.members.Allowed(p.String()) }

// admitted says whether p may be connected at all.
func (g *gater) admitted(p peer.ID) bool {
	return g.allowed(p) || g.farewells != nil && g.farewells.Allowed(p.String())
}

// permitted says whether a stream of the protocol may go to or come from p.
func (g *gater) permitted(p peer.ID, proto string) bool {
	return g.allowed(p) || proto == FarewellProtocol && g.admitted(p)
}

// InterceptPeerDial implements connmgr.ConnectionGater.
func (g *gater) InterceptPeerDial(p peer.ID) bool { return g.open.Load() && g.admitted(p) }

// InterceptAddrDial implements connmgr.ConnectionGater.
func (g *gater) InterceptAddrDial(_ peer.ID, a ma.Multiaddr) bool { return plainTCP(a) }

// InterceptAccept implements connmgr.ConnectionGater.
func (g *gater) InterceptAccept(network.ConnMultiaddrs) bool { return g.open.Load() }

// InterceptSecured implements connmgr.ConnectionGater. It is the first moment at which the other end is known.
func (g *gater) InterceptSecured(_ network.Direction, p peer.ID, _ network.ConnMultiaddrs) bool {
	return g.open.Load() && g.admitted(p)
}

// InterceptUpgraded implements connmgr.ConnectionGater.
func (g *gater) InterceptUpgraded(c network.Conn) (bool, control.DisconnectReason) {
	return g.open.Load() && g.admitted(c.RemotePeer()), 0
}
