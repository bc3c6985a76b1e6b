package surroundings

import (
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path"
	"strconv"
	"strings"

	"tagalong.org/tagalong/p2p/site"
)

// Look tells what this device runs on, and what kind of link it takes to elsewhere. Without a way to elsewhere it is the link of the
// first of used, the addresses at which it is connected to others.
func Look(used []netip.Addr) (site.Power, site.Link) {
	sys := os.DirFS("/sys")
	if out, ok := wayOut(); ok {
		used = []netip.Addr{out}
	}
	link := site.LinkUnknown
	if len(used) > 0 {
		link = linkOf(sys, interfaceOf(used[0]))
	}
	return power(sys), link
}

// Battery says whether this device runs on its battery, and how full that is, in percent (of several, on average); 0 is unknown.
func Battery() (draining bool, percent int) { return battery(os.DirFS("/sys")) }

func battery(sys fs.FS) (draining bool, percent int) {
	const dir = "class/power_supply"
	supplies, err := fs.ReadDir(sys, dir)
	if err != nil {
		return false, 0
	}
	sum, n := 0, 0
	for _, s := range supplies {
		read := func(name string) string { return line(sys, path.Join(dir, s.Name(), name)) }
		if read("type") != "Battery" || read("scope") == "Device" {
			continue
		}
		if c, err := strconv.Atoi(read("capacity")); err == nil && c >= 0 && c <= 100 {
			sum += c
			n++
		}
	}
	if n > 0 {
		percent = max(1, sum/n) // an empty one is known to be
	}
	return power(sys) == site.Battery, percent
}

// power tells what a device with this /sys runs on. A device without a battery runs on mains.
func power(sys fs.FS) site.Power {
	const dir = "class/power_supply"
	supplies, err := fs.ReadDir(sys, dir)
	if err != nil {
		return site.PowerUnknown
	}
	battery, draining, fed := false, false, false
	for _, s := range supplies {
		read := func(name string) string { return line(sys, path.Join(dir, s.Name(), name)) }
		if read("scope") == "Device" {
			continue // a mouse's
		}
		switch kind := read("type"); {
		case kind == "Battery" || kind == "UPS":
			battery = true
			switch read("status") {
			case "Discharging":
				draining = true
			case "Charging", "Full", "Not charging":
				fed = true // if no other one drains: of two, one may be full while the other is in use
			}
		case kind != "" && read("online") == "1": // Mains, USB, USB_C, Wireless
			return site.Mains
		}
	}
	switch {
	case draining:
		return site.Battery
	case battery && !fed:
		return site.PowerUnknown
	}
	return site.Mains
}

// linkOf tells what kind a network interface is. What is neither radio nor Ethernet on a real device (a tunnel, a bridge) is unknown.
func linkOf(sys fs.FS, name string) site.Link {
	dir := path.Join("class/net", name)
	there := func(what string) bool {
		_, err := fs.Stat(sys, path.Join(dir, what))
		return err == nil
	}
	switch {
	case !fs.ValidPath(dir) || strings.Contains(name, "/") || name == "":
		return site.LinkUnknown
	case there("wireless") || there("phy80211"):
		return site.Wireless
	case line(sys, path.Join(dir, "type")) == "1" && there("device"): // ARPHRD_ETHER
		return site.Wired
	}
	return site.LinkUnknown
}

func line(sys fs.FS, name string) string {
	b, err := fs.ReadFile(sys, name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// wayOut returns this device's address on its way to elsewhere, of which only the kernel is asked: connecting a UDP socket sends
// nothing. The address is of a range for documentation, so it is nobody's.
func wayOut() (netip.Addr, bool) {
	for _, to := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} {
		c, err := net.Dial("udp", to)
		if err != nil {
			continue
		}
		at, ok := c.LocalAddr().(*net.UDPAddr)
		_ = c.Close() // nothing was written
		if ok {
			return at.AddrPort().Addr().Unmap(), true
		}
	}
	return netip.Addr{}, false
}

// interfaceOf returns the name of the interface that has an address; "" if there is none.
func interfaceOf(at netip.Addr) string {
	ifaces, err := net.Interfaces()
	if err != nil {
		return ""
	}
	for _, i := range ifaces {
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok {
				if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap() == at {
					return i.Name
				}
			}
		}
	}
	return ""
}
