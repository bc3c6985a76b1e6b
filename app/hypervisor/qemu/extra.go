package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/app/hypervisor/qmp"
)

// blockdev is a disk behind a Unix socket. Its requests wait while nobody serves it.
func blockdev(node, socket string) map[string]any {
	return map[string]any{
		"driver":          "nbd",
		"node-name":       node,
		"server":          map[string]any{"type": "unix", "path": socket},
		"export":          "",
		"reconnect-delay": reconnectSeconds,
		"open-timeout":    30,
	}
}

// extraNames are the block node and the device of a further disk.
func extraNames(id string) (node, device string, err error) {
	if id == "" || len(id) > 20 {
		return "", "", fmt.Errorf("qemu: a disk's ID of %d letters", len(id))
	}
	for _, c := range id {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return "", "", fmt.Errorf("qemu: %q can't be a disk's ID", id)
		}
	}
	return "node-" + id, "disk-" + id, nil
}

// extra describes a further disk: its block node and its device, on the given bus or, if that is "", wherever there is room.
func extra(d hypervisor.ExtraDisk, bus string) (node, device map[string]any, err error) {
	nodeName, deviceName, err := extraNames(d.ID)
	if err != nil {
		return nil, nil, err
	}
	node = blockdev(nodeName, d.Socket)
	node["read-only"] = true
	device = map[string]any{"driver": "virtio-blk-pci", "drive": nodeName, "id": deviceName, "serial": d.ID}
	if bus != "" {
		device["bus"] = bus
	}
	return node, device, nil
}

func extraArgs(d hypervisor.ExtraDisk, bus string) ([]string, error) {
	node, device, err := extra(d, bus)
	if err != nil {
		return nil, err
	}
	n, err := json.Marshal(node)
	if err != nil {
		return nil, fmt.Errorf("qemu: describe a disk: %w", err)
	}
	v, err := json.Marshal(device)
	if err != nil {
		return nil, fmt.Errorf("qemu: describe a disk: %w", err)
	}
	return []string{"-blockdev", string(n), "-device", string(v)}, nil
}

// Attach implements hypervisor.Guest: PCI hot-plug, which the guest's system notices by itself.
func (g *guest) Attach(ctx context.Context, d hypervisor.ExtraDisk) error {
	node, device, err := extra(d, "")
	if err != nil {
		return err
	}
	if err := g.qmp.Do(ctx, "blockdev-add", node, nil); err != nil {
		return fmt.Errorf("qemu: attach: %w", err)
	}
	if err := g.plug(ctx, device); err != nil {
		back, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = g.qmp.Do(back, "blockdev-del", map[string]any{"node-name": node["node-name"]}, nil)
		return fmt.Errorf("qemu: attach: %w", err)
	}
	return nil
}

// plug adds a device, on the first of the machine's ports for such that is free.
func (g *guest) plug(ctx context.Context, device map[string]any) error {
	ports := hotplugPorts(g.cfg)
	if len(ports) == 0 {
		return g.qmp.Do(ctx, "device_add", device, nil)
	}
	var err error
	for _, port := range ports {
		device["bus"] = port
		err = g.qmp.Do(ctx, "device_add", device, nil)
		var refused *qmp.CommandError
		if !errors.As(err, &refused) || !strings.Contains(refused.Desc, "PCI: slot 0 function 0") {
			return err
		}
	}
	return err
}

// Detach implements hypervisor.Guest. The guest's system has to let go of the device; a guest that has none yet never does.
func (g *guest) Detach(ctx context.Context, id string) error {
	node, device, err := extraNames(id)
	if err != nil {
		return err
	}
	events := g.qmp.Subscribe()
	defer events.Close()
	err = g.qmp.Do(ctx, "device_del", map[string]any{"id": device}, nil)
	var refused *qmp.CommandError
	if errors.As(err, &refused) && refused.Class == "DeviceNotFound" {
		// It was never there, or went without our hearing.
		_ = g.qmp.Do(ctx, "blockdev-del", map[string]any{"node-name": node}, nil)
		return nil
	}
	if ctx.Err() != nil && err != nil {
		return fmt.Errorf("qemu: detach: %w: %w", hypervisor.ErrNotDetached, err) // the guest wasn't even asked, perhaps
	}
	if err != nil {
		return fmt.Errorf("qemu: detach: %w", err)
	}
	for {
		ev, err := events.Next(ctx)
		if err != nil {
			return fmt.Errorf("qemu: detach: %w: %w", hypervisor.ErrNotDetached, err)
		}
		var about struct {
			Device string `json:"device"`
		}
		if ev.Name != "DEVICE_DELETED" && ev.Name != "DEVICE_UNPLUG_GUEST_ERROR" || json.Unmarshal(ev.Data, &about) != nil || about.Device != device {
			continue
		}
		if ev.Name != "DEVICE_DELETED" {
			return fmt.Errorf("qemu: detach: %w", hypervisor.ErrNotDetached)
		}
		if err := g.qmp.Do(ctx, "blockdev-del", map[string]any{"node-name": node}, nil); err != nil {
			return fmt.Errorf("qemu: detach: %w", err)
		}
		return nil
	}
}
