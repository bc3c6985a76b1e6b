//go:build linux

package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
)

// Name is the name given to New.
func (h *Host) Name() string { return h.name }

// Site is the name of the site that the host is at.
func (h *Host) Site() string { return h.site.name }

// Addr is the host's IPv4 address.
func (h *Host) Addr() netip.Addr { return h.addr }

// Namespace is the name that ip netns knows the host by.
func (h *Host) Namespace() string { return h.netns }

// Command is exec.CommandContext on the host. The program sees the host's
// network only, also under /sys; everything else is as outside. What it leaves
// running, Close kills.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", h.netns, name}, args...)...)
}

// Do calls f on the host and returns what it returns. Sockets that f makes
// itself are the host's for good; goroutines that f starts are not on the host,
// so f dials literal addresses only.
func (h *Host) Do(f func() error) error {
	var said error
	if err := inNamespace(h.netns, func() error { said = f(); return nil }); err != nil {
		return fmt.Errorf("enter host %s: %w", h.name, err)
	}
	return said
}

// BridgeName is the bridge that Bridge makes.
const BridgeName = "br0"

// Bridge puts the host's network card on a bridge of its own, which takes the card's address over: virtual machines
// on the host can then be on the lab's Ethernet themselves. Connections that the host has survive it.
func (h *Host) Bridge(ctx context.Context) error {
	steps := [][]string{
		{"link", "add", BridgeName, "type", "bridge", "mcast_snooping", "0", "forward_delay", "0"},
		{"addr", "flush", "dev", device},
		{"link", "set", device, "master", BridgeName},
		{"addr", "add", h.addr.String() + "/24", "brd", "+", "dev", BridgeName},
		{"link", "set", BridgeName, "up"},
		{"route", "replace", "224.0.0.0/4", "dev", BridgeName},
	}
	for _, s := range steps {
		if err := ip(ctx, append([]string{"-n", h.netns}, s...)...); err != nil {
			return fmt.Errorf("bridge host %s: %w", h.name, err)
		}
	}
	return nil
}

// Cut pulls the host's cable: it sees its link go down.
func (h *Host) Cut(ctx context.Context) error {
	if err := ip(ctx, "-n", h.site.hub, "link", "set", h.port, "down"); err != nil {
		return fmt.Errorf("cut host %s: %w", h.name, err)
	}
	return nil
}

// Mute takes the host out of the network silently: its link stays up, and
// nothing passes.
func (h *Host) Mute(ctx context.Context) error {
	if err := ip(ctx, "-n", h.site.hub, "link", "set", h.port, "nomaster"); err != nil {
		return fmt.Errorf("mute host %s: %w", h.name, err)
	}
	return nil
}

// Heal undoes Cut and Mute.
func (h *Host) Heal(ctx context.Context) error {
	if err := ip(ctx, "-n", h.site.hub, "link", "set", h.port, "master", bridge, "up"); err != nil {
		return fmt.Errorf("heal host %s: %w", h.name, err)
	}
	return nil
}
