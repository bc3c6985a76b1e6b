package surroundings

import (
	"net/netip"
	"strings"
	"testing"
	"testing/fstest"

	"tagalong.org/tagalong/p2p/site"
)

// files makes a /sys of "name=content" words.
func files(words string) fstest.MapFS {
	sys := fstest.MapFS{"class": {Mode: 0o555 | 1<<31}}
	for _, w := range strings.Fields(words) {
		name, content, _ := strings.Cut(w, "=")
		sys["class/"+name] = &fstest.MapFile{Data: []byte(strings.ReplaceAll(content, "_", " ") + "\n")}
	}
	return sys
}

func TestPower(t *testing.T) {
	const mouse = " power_supply/mouse/type=Battery power_supply/mouse/scope=Device power_supply/mouse/status=Discharging"
	for _, c := range []struct {
		what, sys string
		want      site.Power
	}{
		{"a desktop", "power_supply/.keep=", site.Mains},
		{"a desktop with a mouse", mouse, site.Mains},
		{"no sysfs", "", site.PowerUnknown},
		{"a laptop on mains", "power_supply/AC/type=Mains power_supply/AC/online=1 power_supply/BAT0/type=Battery power_supply/BAT0/status=Unknown", site.Mains},
		{"a laptop off mains", "power_supply/AC/type=Mains power_supply/AC/online=0 power_supply/BAT0/type=Battery power_supply/BAT0/status=Discharging" + mouse, site.Battery},
		{"over USB-C", "power_supply/BAT0/type=Battery power_supply/BAT0/status=Discharging power_supply/ucsi/type=USB power_supply/ucsi/online=1", site.Mains},
		{"charging, by whatever", "power_supply/BAT0/type=Battery power_supply/BAT0/status=Not_charging", site.Mains},
		{"one of two batteries in use", "power_supply/BAT0/type=Battery power_supply/BAT0/status=Full power_supply/BAT1/type=Battery power_supply/BAT1/status=Discharging", site.Battery},
		{"two batteries, full", "power_supply/BAT0/type=Battery power_supply/BAT0/status=Full power_supply/BAT1/type=Battery power_supply/BAT1/status=Full", site.Mains},
		{"a battery that says nothing", "power_supply/BAT0/type=Battery", site.PowerUnknown},
		{"a UPS that is needed", "power_supply/ups/type=UPS power_supply/ups/status=Discharging", site.Battery},
	} {
		if got := power(files(c.sys)); got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}

func TestBattery(t *testing.T) {
	const mouse = " power_supply/mouse/type=Battery power_supply/mouse/scope=Device power_supply/mouse/status=Discharging power_supply/mouse/capacity=3"
	for _, c := range []struct {
		what, sys string
		draining  bool
		percent   int
	}{
		{"a desktop with a mouse", mouse, false, 0},
		{"no sysfs", "", false, 0},
		{"off mains", "power_supply/AC/type=Mains power_supply/AC/online=0 power_supply/BAT0/type=Battery power_supply/BAT0/status=Discharging power_supply/BAT0/capacity=42" + mouse, true, 42},
		{"on mains", "power_supply/AC/type=Mains power_supply/AC/online=1 power_supply/BAT0/type=Battery power_supply/BAT0/status=Charging power_supply/BAT0/capacity=42", false, 42},
		{"two batteries", "power_supply/BAT0/type=Battery power_supply/BAT0/status=Discharging power_supply/BAT0/capacity=5 " +
			"power_supply/BAT1/type=Battery power_supply/BAT1/status=Unknown power_supply/BAT1/capacity=100", true, 52},
		{"an empty one", "power_supply/BAT0/type=Battery power_supply/BAT0/status=Discharging power_supply/BAT0/capacity=0", true, 1},
		{"one that says nothing", "power_supply/BAT0/type=Battery power_supply/BAT0/status=Discharging", true, 0},
		{"nonsense", "power_supply/BAT0/type=Battery power_supply/BAT0/status=Discharging power_supply/BAT0/capacity=-7 power_supply/BAT1/type=Battery power_supply/BAT1/capacity=1000", true, 0},
	} {
		if draining, percent := battery(files(c.sys)); draining != c.draining || percent != c.percent {
			t.Errorf("%s: %v at %d %%, want %v at %d %%", c.what, draining, percent, c.draining, c.percent)
		}
	}
	Battery() // whatever this computer is
}

func TestLink(t *testing.T) {
	sys := files("net/eth0/type=1 net/eth0/device/vendor=x net/wlan0/type=1 net/wlan0/phy80211/name=phy0 net/wlan0/device/vendor=x net/old/wireless/x= " +
		"net/tun0/type=65534 net/br0/type=1 net/ib0/type=32 net/ib0/device/vendor=x")
	for name, want := range map[string]site.Link{
		"eth0": site.Wired, "wlan0": site.Wireless, "old": site.Wireless, "tun0": site.LinkUnknown, "br0": site.LinkUnknown, "ib0": site.LinkUnknown,
		"": site.LinkUnknown, "none": site.LinkUnknown, "../net/eth0": site.LinkUnknown,
	} {
		if got := linkOf(sys, name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

func TestInterfaceOfAnAddress(t *testing.T) {
	if got := interfaceOf(netip.MustParseAddr("127.0.0.1")); got != "lo" {
		t.Errorf("127.0.0.1 is on %q", got)
	}
	if got := interfaceOf(netip.MustParseAddr("192.0.2.77")); got != "" {
		t.Errorf("nobody's address is on %q", got)
	}
	Look([]netip.Addr{netip.MustParseAddr("127.0.0.1")}) // whatever this computer is
}
