package p2p

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"tagalong.org/tagalong/p2p/discovery"
)

const (
	// maxAddrs bounds what is kept, dialled and told of one device.
	maxAddrs = 16
	// linksAge is how long a list of interfaces is reused.
	linksAge = time.Second
)

// virtual begins the names of interfaces that only lead to containers and guests of this very device.
var virtual = []string{"docker", "virbr", "br-", "cni"}

func physical(name string) bool {
	return !slices.ContainsFunc(virtual, func(v string) bool { return strings.HasPrefix(name, v) })
}

// plainTCP accepts addresses of the form /ip4|ip6/…/tcp/… and nothing else: no names to resolve, no relays.
func plainTCP(a ma.Multiaddr) bool {
	protocols := a.Protocols()
	if len(protocols) != 2 || protocols[1].Code != ma.P_TCP {
		return false
	}
	return protocols[0].Code == ma.P_IP4 || protocols[0].Code == ma.P_IP6
}

// endpoint returns the address and port of a plainTCP multiaddr.
func endpoint(a ma.Multiaddr) (netip.AddrPort, bool) {
	if !plainTCP(a) {
		return netip.AddrPort{}, false
	}
	na, err := manet.ToNetAddr(a)
	if err != nil {
		return netip.AddrPort{}, false
	}
	t, ok := na.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, false
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), true
}

// multiaddr is the reverse of endpoint.
func multiaddr(ap netip.AddrPort) (ma.Multiaddr, error) {
	return manet.FromNetAddr(net.TCPAddrFromAddrPort(ap))
}

func parseListen(listen []string) ([]ma.Multiaddr, error) {
	out := make([]ma.Multiaddr, 0, len(listen))
	for _, s := range listen {
		a, err := ma.NewMultiaddr(s)
		if err != nil || !plainTCP(a) {
			return nil, fmt.Errorf("listen address %q: %w", s, ErrOptions)
		}
		out = append(out, a)
	}
	return out, nil
}

// linkCache lists the interfaces that take part, at most once per linksAge.
type linkCache struct {
	use func(name string) bool

	mu    sync.Mutex
	at    time.Time
	links []discovery.Link
}

func (c *linkCache) list() ([]discovery.Link, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.at.IsZero() && time.Since(c.at) < linksAge {
		return c.links, nil
	}
	ifaces, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var links []discovery.Link
	for _, i := range ifaces {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 || !c.use(i.Name) {
			continue
		}
		// An interface that vanishes meanwhile has no addresses.
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		l := discovery.Link{Interface: i}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok {
				if ip, ok := netip.AddrFromSlice(n.IP); ok && tellable(ip.Unmap()) {
					l.Addrs = append(l.Addrs, ip.Unmap())
				}
			}
		}
		if len(l.Addrs) > 0 {
			links = append(links, l)
		}
	}
	c.links, c.at = links, time.Now()
	return links, nil
}

// tellable leaves out addresses that another device can't use. Link-local IPv6 needs the other's interface name.
func tellable(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() && !(a.Is6() && a.IsLinkLocalUnicast())
}

// advertised is what other devices are told. libp2p's own list of interfaces may be a minute old, so it isn't used.
func (h *Host) advertised(given []ma.Multiaddr) []ma.Multiaddr {
	listen := given
	if n := h.network.Load(); n != nil {
		listen = (*n).ListenAddresses()
	}
	links, err := h.links.list()
	if err != nil {
		h.log.Debug("Interfaces can't be listed", "err", err)
	}
	var out []ma.Multiaddr
	for _, ap := range expand(listen, links) {
		if a, err := multiaddr(ap); err == nil {
			out = append(out, a)
		}
	}
	return out
}

// expand puts the addresses of links in place of unspecified listen addresses. Loopback appears only if it was asked for.
func expand(listen []ma.Multiaddr, links []discovery.Link) []netip.AddrPort {
	var out []netip.AddrPort
	add := func(ap netip.AddrPort) {
		if len(out) < maxAddrs && !slices.Contains(out, ap) {
			out = append(out, ap)
		}
	}
	for _, l := range listen {
		ap, ok := endpoint(l)
		if !ok {
			continue
		}
		if !ap.Addr().IsUnspecified() {
			add(ap)
			continue
		}
		for _, link := range links {
			for _, a := range link.Addrs {
				if a.Is4() == ap.Addr().Is4() {
					add(netip.AddrPortFrom(a, ap.Port()))
				}
			}
		}
	}
	return out
}

// advertisedLinks are the links with only those of their addresses that the host listens on.
func (h *Host) advertisedLinks() ([]discovery.Link, error) {
	links, err := h.links.list()
	if err != nil {
		return nil, err
	}
	told := expand(h.h.Network().ListenAddresses(), links)
	var out []discovery.Link
	for _, l := range links {
		kept := discovery.Link{Interface: l.Interface}
		for _, a := range l.Addrs {
			if slices.ContainsFunc(told, func(ap netip.AddrPort) bool { return ap.Addr() == a }) {
				kept.Addrs = append(kept.Addrs, a)
			}
		}
		if len(kept.Addrs) > 0 {
			out = append(out, kept)
		}
	}
	return out, nil
}

// Addrs returns the multiaddrs under which other devices can reach this one now, for example to put into a pairing.
func (h *Host) Addrs() []string {
	var out []string
	for _, a := range h.advertised(nil) {
		out = append(out, a.String())
	}
	return out
}

// Doors returns "host:port" for each address under which other devices can reach this one now, with the given port in place of the
// host's own: where a door stands that is open on all interfaces.
func (h *Host) Doors(port int) []string {
	var out []string
	for _, a := range h.advertised(nil) {
		if ap, ok := endpoint(a); ok {
			door := netip.AddrPortFrom(ap.Addr(), uint16(port)).String()
			if !slices.Contains(out, door) {
				out = append(out, door)
			}
		}
	}
	return out
}
