package p2p

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/x/rate"
)

// The library's own limits (8 connections and one new one in five seconds per address) lock out a device that
// reconnects a few times, and only off loopback. These are far above what a fleet needs and still finite: what is left
// to a stranger is a handful of handshakes a second.
const (
	maxConns        = 256
	maxPeerConns    = 16
	maxStreams      = 4096
	maxPeerStreams  = 512
	maxHostMemory   = 1 << 30
	maxPeerMemory   = 256 << 20
	maxTransient    = 128
	maxFiles        = 512
	connsPerAddress = 64
	connRate        = 10  // new connections a second from one address, on average
	connBurst       = 200 // and at once
	connRateAll     = 100
	connBurstAll    = 500
)

// newLimits returns a resource manager; the host closes it.
func newLimits() (network.ResourceManager, error) {
	var system, transient, one, proto rcmgr.ResourceLimits
	system = rcmgr.ResourceLimits{
		Conns: maxConns, ConnsInbound: maxConns, ConnsOutbound: maxConns,
		Streams: maxStreams, StreamsInbound: maxStreams, StreamsOutbound: maxStreams,
		Memory: maxHostMemory, FD: maxFiles,
	}
	transient = rcmgr.ResourceLimits{
		Conns: maxTransient, ConnsInbound: maxTransient, ConnsOutbound: maxTransient,
		Streams: maxPeerStreams, StreamsInbound: maxPeerStreams, StreamsOutbound: maxPeerStreams,
		Memory: maxPeerMemory, FD: maxTransient,
	}
	one = rcmgr.ResourceLimits{
		Conns: maxPeerConns, ConnsInbound: maxPeerConns, ConnsOutbound: maxPeerConns,
		Streams: maxPeerStreams, StreamsInbound: maxPeerStreams, StreamsOutbound: maxPeerStreams,
		Memory: maxPeerMemory, FD: maxPeerConns,
	}
	proto = rcmgr.ResourceLimits{
		Streams: maxStreams, StreamsInbound: maxStreams, StreamsOutbound: maxStreams, Memory: maxHostMemory,
	}
	protoPeer := proto
	protoPeer.Streams, protoPeer.StreamsInbound, protoPeer.StreamsOutbound = maxPeerStreams, maxPeerStreams, maxPeerStreams
	protoPeer.Memory = maxPeerMemory
	limits := rcmgr.PartialLimitConfig{
		System:              system,
		Transient:           transient,
		PeerDefault:         one,
		ProtocolDefault:     proto,
		ProtocolPeerDefault: protoPeer,
		ServiceDefault:      proto,
		ServicePeerDefault:  protoPeer,
	}.Build(rcmgr.DefaultLimits.AutoScale())

	perAddress := rate.Limit{RPS: connRate, Burst: connBurst}
	m, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits),
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: connsPerAddress}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 64, ConnCount: connsPerAddress}}),
		rcmgr.WithConnRateLimiters(&rate.Limiter{
			NetworkPrefixLimits: []rate.PrefixLimit{
				{Prefix: netip.MustParsePrefix("127.0.0.0/8")},
				{Prefix: netip.MustParsePrefix("::1/128")},
			},
			GlobalLimit: rate.Limit{RPS: connRateAll, Burst: connBurstAll},
			SubnetRateLimiter: rate.SubnetLimiter{
				IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: perAddress}},
				IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 64, Limit: perAddress}},
				GracePeriod:      time.Minute,
			},
		}))
	if err != nil {
		return nil, fmt.Errorf("resource limits: %w", err)
	}
	return m, nil
}
