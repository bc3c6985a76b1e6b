//go:build linux

package story

import (
	"context"
	"fmt"
	"time"

	"tagalong.org/tagalong/app/api"
)

// AwaitPhase waits until the VM's switch, as a PC sees it, has come to a phase.
func (s *Story) AwaitPhase(ctx context.Context, p *PC, phase api.SwitchPhase) (api.Switch, error) {
	var seen api.Switch
	err := until(ctx, "the switch to come to "+string(phase), 2*time.Minute, func(ctx context.Context) (bool, error) {
		v, err := p.VM(ctx, VMName)
		if err != nil || v.Switch == nil {
			return false, err
		}
		seen = *v.Switch
		if seen.Phase.Ended() && seen.Phase != phase {
			return false, fmt.Errorf("it ended as %s: %w", seen.Phase, seen.Error)
		}
		return seen.Phase == phase, nil
	})
	return seen, err
}

// AwaitEnd waits until the VM's switch, as a PC sees it, has ended in one way or another.
func (s *Story) AwaitEnd(ctx context.Context, p *PC) (api.Switch, error) {
	var seen api.Switch
	err := until(ctx, "the switch to end", 3*time.Minute, func(ctx context.Context) (bool, error) {
		v, err := p.VM(ctx, VMName)
		if err != nil || v.Switch == nil {
			return false, err
		}
		seen = *v.Switch
		return seen.Phase.Ended(), nil
	})
	if err == nil {
		s.say("on %s the switch ended as %s", p.Name, seen.Phase)
	}
	return seen, err
}

// StillRuns checks that the guest goes on at a PC: its owner says so, it writes, and it finds itself whole.
func (s *Story) StillRuns(ctx context.Context, p *PC) error {
	err := until(ctx, "the VM to run on "+p.Name, 3*time.Minute, func(ctx context.Context) (bool, error) {
		v, err := p.VM(ctx, VMName)
		return err == nil && v.Here && v.State == api.VMRunning, err
	})
	if err != nil {
		return err
	}
	return s.settle(ctx, p)
}

// AwaitLive waits until the other PC's copy is live again.
func (s *Story) AwaitLive(ctx context.Context, owner *PC) error {
	return until(ctx, "a live mirror", 3*time.Minute, func(ctx context.Context) (bool, error) {
		r, err := s.replica(ctx, owner)
		return err == nil && r.State == api.ReplicaLive, err
	})
}

// Listen connects to the guest's serial line anew, after its hypervisor was started again.
func (s *Story) Listen(ctx context.Context, p *PC) error {
	_, err := s.listen(ctx, p)
	return err
}
