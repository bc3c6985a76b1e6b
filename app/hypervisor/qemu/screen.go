package qemu

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"

	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/app/hypervisor/qmp"
)

// ticketTime is how long a ticket to the screen opens it: long enough for a slow PC to start its viewer. Who is in stays in.
const ticketTime = "+60"

// ticketLetters is how long a ticket is. VNC looks at eight letters only.
const ticketLetters = 8

// OpenScreen implements hypervisor.Guest. QEMU itself says how it shows the screen: the process may be an earlier version's.
func (g *guest) OpenScreen(ctx context.Context) (hypervisor.Ticket, error) {
	t := hypervisor.Ticket{Socket: g.Screen()}
	if t.Socket == "" {
		return t, hypervisor.ErrNoScreen
	}
	var spice struct {
		Enabled bool   `json:"enabled"`
		Auth    string `json:"auth"`
	}
	// A QEMU that was built without SPICE doesn't know the command.
	var unknown *qmp.CommandError
	if err := g.qmp.Do(ctx, "query-spice", nil, &spice); err != nil && !errors.As(err, &unknown) {
		return t, fmt.Errorf("qemu: open the screen: %w", err)
	}
	if spice.Enabled {
		t.Protocol = "spice"
		return t, g.issue(ctx, &t, spice.Auth != "none")
	}
	var vnc struct {
		Enabled bool   `json:"enabled"`
		Auth    string `json:"auth"`
	}
	if err := g.qmp.Do(ctx, "query-vnc", nil, &vnc); err != nil {
		return t, fmt.Errorf("qemu: open the screen: %w", err)
	}
	if !vnc.Enabled {
		return t, hypervisor.ErrNoScreen
	}
	t.Protocol = "vnc"
	return t, g.issue(ctx, &t, vnc.Auth != "none")
}

// issue sets a new password for a display that asks for one.
func (g *guest) issue(ctx context.Context, t *hypervisor.Ticket, asks bool) error {
	if !asks {
		return nil
	}
	password := rand.Text()[:ticketLetters]
	if err := g.qmp.Do(ctx, "set_password", map[string]any{"protocol": t.Protocol, "password": password, "connected": "keep"}, nil); err != nil {
		return fmt.Errorf("qemu: issue a ticket to the screen: %w", err)
	}
	if err := g.qmp.Do(ctx, "expire_password", map[string]any{"protocol": t.Protocol, "time": ticketTime}, nil); err != nil {
		return fmt.Errorf("qemu: issue a ticket to the screen: %w", err)
	}
	t.Password = password
	return nil
}

// Agent implements hypervisor.Guest. Whether there is a port is seen by its socket: the process may be an earlier version's.
func (g *guest) Agent() string {
	path := agentSocket(g.cfg.Dir)
	if _, err := os.Lstat(path); err != nil {
		return ""
	}
	return path
}
