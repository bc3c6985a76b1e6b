//go:build !linux

package surroundings

import (
	"net/netip"

	"tagalong.org/tagalong/p2p/site"
)

// Look knows nothing on this system.
func Look([]netip.Addr) (site.Power, site.Link) { return site.PowerUnknown, site.LinkUnknown }

// Battery knows nothing on this system.
func Battery() (draining bool, percent int) { return false, 0 }
