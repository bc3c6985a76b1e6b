package discovery

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Link is a network interface that takes part in discovery, with the addresses to advertise there.
type Link struct {
	Interface net.Interface
	Addrs     []netip.Addr
}

// signature tells two sets of links apart, whatever their order.
func signature(links []Link) string {
	lines := make([]string, 0, len(links))
	for _, l := range links {
		addrs := make([]string, 0, len(l.Addrs))
		for _, a := range l.Addrs {
			addrs = append(addrs, a.String())
		}
		slices.Sort(addrs)
		lines = append(lines, strconv.Itoa(l.Interface.Index)+" "+strings.Join(addrs, " "))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// family returns the interfaces that have an address of the wanted family.
func family(links []Link, v4 bool) []net.Interface {
	var out []net.Interface
	for _, l := range links {
		if slices.ContainsFunc(l.Addrs, func(a netip.Addr) bool { return a.Is4() == v4 }) {
			out = append(out, l.Interface)
		}
	}
	return out
}

// multicast returns the links that can carry multicast now.
func multicast(links []Link) []Link {
	return slices.DeleteFunc(slices.Clone(links), func(l Link) bool {
		return l.Interface.Flags&net.FlagUp == 0 || l.Interface.Flags&net.FlagMulticast == 0 || len(l.Addrs) == 0
	})
}
