package qemu

import (
	"context"
	"time"
)

// announceTimeout bounds the asking for an announcement; the announcing itself goes on in QEMU.
const announceTimeout = 5 * time.Second

// announce has QEMU tell the network where the guest's address is now, five times within a second: switches send what is for the
// guest to where they last saw it. QEMU does so by itself when memory has come in, but then the guest may stand still for long,
// and a giver that goes on after all would never do it. A network that isn't told finds out with the guest's next packet, so a
// failure is no reason to fail.
func (g *guest) announce(ctx context.Context) {
	if !g.cfg.Network || g.cfg.Bridge == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, announceTimeout)
	defer cancel()
	_ = g.qmp.Do(ctx, "announce-self", map[string]any{"initial": 20, "max": 400, "rounds": 6, "step": 100}, nil)
}
