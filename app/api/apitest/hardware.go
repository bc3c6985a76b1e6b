package apitest

import (
	"context"

	"tagalong.org/tagalong/app/api"
)

// CheckSwitch implements api.Engine: nothing stands in the way, but what a test has put there with SetPreflight.
func (e *Engine) CheckSwitch(ctx context.Context, req api.SwitchVM) (*api.Preflight, error) {
	done, err := e.enter(ctx, "CheckSwitch", req)
	defer done()
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	v, err := e.findLocked(req.VM)
	if err != nil {
		return nil, err
	}
	p := e.preflight
	p.VM, p.VMName, p.From, p.FromName, p.To = v.ID, v.Name, v.Owner, v.OwnerName, req.To
	for _, d := range append(e.status.Devices, e.status.Device) {
		if d.ID == req.To {
			p.ToName = d.Name
		}
	}
	if p.Way == "" {
		p.Way = api.WayTeleport
	}
	return &p, nil
}

// SetPreflight is what CheckSwitch finds from now on.
func (e *Engine) SetPreflight(p api.Preflight) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.preflight = p
}

// SetBridge implements api.Engine.
func (e *Engine) SetBridge(ctx context.Context, req api.SetBridge) error {
	done, err := e.enter(ctx, "SetBridge", req)
	defer done()
	if err != nil {
		return err
	}
	e.Update("device.changed", "A device has changed.", func(s *api.Status) { s.Hypervisor.Bridge = req.Bridge })
	return nil
}
