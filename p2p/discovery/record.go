package discovery

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Limits on what one advertisement may make us keep.
const (
	maxAddrs    = 16
	maxTexts    = 16
	maxTextLen  = 255
	maxInstance = 63
)

// record is an advertisement that has been checked.
type record struct {
	instance string
	tag      string
	port     uint16
	pair     uint16 // 0: no pairing window
	addrs    []netip.Addr
}

// text returns the TXT strings of an advertisement.
func text(tag string, pair int) []string {
	out := []string{"v=1", "tag=" + tag}
	if pair > 0 {
		out = append(out, "pair="+strconv.Itoa(pair))
	}
	return out
}

// parse checks an advertisement. It reports false for anything that isn't of our version or can't be dialled.
func parse(instance string, port int, txt []string, v4, v6 []net.IP) (record, bool) {
	r := record{instance: instance}
	if instance == "" || len(instance) > maxInstance || port < 1 || port > 65535 || len(txt) > maxTexts {
		return record{}, false
	}
	r.port = uint16(port)
	version := ""
	for _, t := range txt {
		if len(t) > maxTextLen {
			return record{}, false
		}
		key, value, _ := strings.Cut(t, "=")
		switch key {
		case "v":
			version = value
		case "tag":
			r.tag = value
		case "pair":
			n, err := strconv.ParseUint(value, 10, 16)
			if err != nil {
				return record{}, false
			}
			r.pair = uint16(n)
		}
	}
	if version != "1" || len(r.tag) != 2*tagBytes {
		return record{}, false
	}
	for _, ips := range [][]net.IP{v4, v6} {
		for _, ip := range ips {
			a, ok := netip.AddrFromSlice(ip)
			a = a.Unmap()
			if !ok || !dialable(a) || slices.Contains(r.addrs, a) {
				continue
			}
			if len(r.addrs) == maxAddrs {
				return r, true
			}
			r.addrs = append(r.addrs, a)
		}
	}
	return r, len(r.addrs) > 0
}

// dialable leaves out addresses that mean nothing to another host. Link-local IPv6 needs a zone that a record can't carry.
func dialable(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && !(a.Is6() && a.IsLinkLocalUnicast())
}

// at returns the addresses of r with the given port.
func (r record) at(port uint16) []netip.AddrPort {
	out := make([]netip.AddrPort, 0, len(r.addrs))
	for _, a := range r.addrs {
		out = append(out, netip.AddrPortFrom(a, port))
	}
	return out
}
