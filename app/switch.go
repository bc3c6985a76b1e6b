package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/p2p/handoff"
)

// Switch implements api.Engine: **Switch to this machine**, or to another by its name.
func (e *Engine) Switch(ctx context.Context, req api.SwitchVM) (*api.Switch, error) {
	v, err := e.find(req.VM)
	if err != nil {
		return nil, err
	}
	to := e.host.ID()
	if req.To != "" {
		if to, err = e.findDevice(req.To); err != nil {
			return nil, err
		}
	}
	if err := v.decided(); err != nil {
		return nil, err
	}
	if err := errors.Join(checkPause(req.Pause), checkWay(req.Way)); err != nil {
		return nil, err
	}
	owner := v.ownerID()
	if owner == to {
		return nil, v.errThere(to)
	}
	chosen := false
	if req.Way == api.WayChosen && req.Pause == 0 {
		req.Way = v.chosenWay(owner, to)
		chosen = req.Way != api.WayChosen
	}
	if to == e.host.ID() {
		if req.Way == api.WaySuspend {
			return v.suspendedWay(chosen, func() (*api.Switch, error) { return v.bring(ctx) })
		}
		return v.take(ctx, wish{pause: req.Pause, way: req.Way})
	}
	if owner != e.host.ID() {
		return nil, &api.Error{Code: api.CodeElsewhere, Sentence: fmt.Sprintf("%s is on %s.", v.name(), e.deviceName(owner)),
			Next: fmt.Sprintf("Ask for it on %s itself, or send it from %s.", e.deviceName(to), e.deviceName(owner))}
	}
	if req.Way == api.WaySuspend {
		return v.suspendedWay(chosen, func() (*api.Switch, error) { return v.carryTo(ctx, to) })
	}
	return v.sendTo(ctx, to, wish{pause: req.Pause, way: req.Way})
}

func (v *vm) errThere(device string) error {
	return errConflict(fmt.Sprintf("%s is on %s already.", v.name(), v.e.deviceName(device)), fmt.Sprintf("Send it to another device by naming that: tagalong switch %q --to DEVICE", v.name()))
}

// take asks the owner for the VM. w is how it is to come, this once.
func (v *vm) take(ctx context.Context, w wish) (*api.Switch, error) {
	if err := v.decided(); err != nil {
		return nil, err
	}
	owner := v.ownerID()
	if owner == v.e.host.ID() || owner == "" {
		return nil, v.errThere(v.e.host.ID())
	}
	if !v.e.awaitLink(ctx, owner) {
		return nil, v.errAway()
	}
	if r, ok := v.record(); ok && r.State != string(api.VMStopped) {
		// A stopped VM is only handed over; a running one needs something to run it here.
		if _, err := v.e.facts.get(ctx, v.e.opt.Hypervisor); err != nil {
			return nil, explainProbe(err)
		}
		v.e.lookAgain(ctx) // the owner judges by what this device says of itself
	}
	if err := v.e.dir.Room(); err != nil {
		return nil, errFullDisk(err) // what says that the VM is here couldn't be written
	}
	if err := v.begin(opSwitch); err != nil {
		return nil, err
	}
	v.wishFor(v.e.host.ID(), w)
	s := v.beginTaking(owner)
	v.post(v.e.ctx, baton.Event{Kind: baton.EvWant, Peer: owner, Ask: newID()})
	if s.Kind != kindCarried { // what becomes of that, its owner knows
		v.noteAsked(s)
	}
	return &s, nil
}

// beginTaking makes it known that the owner was asked: of a VM that is carried here it is known.
func (v *vm) beginTaking(owner string) api.Switch {
	if r := v.broughtRun(); r != nil && r.s.From == owner {
		return v.runNow(r)
	}
	_, s := v.beginSwitch(owner, v.e.host.ID(), false)
	return s
}

// mayLeave says why the VM can't be sent to the device now.
func (v *vm) mayLeave(ctx context.Context, device string) error {
	if v.switching() || v.invited() != nil || v.carried() != nil {
		return errBusy(v.name(), opSwitch)
	}
	if p := v.e.preparation(); p != nil && p.wants(v.id) {
		return &api.Error{Code: api.CodeBusy, Sentence: "This device is getting ready to take " + v.name() + " along.", Next: "Cancel that first: tagalong offline off"}
	}
	if err := v.wholeFirst(); err != nil {
		return err
	}
	if v.oldMemory() {
		return errConflict(v.name()+" was suspended by an earlier version of Tagalong, and such a memory can't come along.", "Resume it first.")
	}
	if id, sees := v.seesPoint(); sees {
		return errSeesPoint(v.name(), id)
	}
	if !v.e.awaitLink(ctx, device) {
		return errUnreachable(v.e.deviceName(device))
	}
	return nil
}

// sendTo asks another device to take the VM from here.
func (v *vm) sendTo(ctx context.Context, device string, w wish) (*api.Switch, error) {
	if err := v.mayLeave(ctx, device); err != nil {
		return nil, err
	}
	v.forgetCalledOff()
	v.wishFor(device, w)
	r, s := v.beginSwitch(v.e.host.ID(), device, v.currentGuest() != nil)
	if !v.e.tellDevice(device, handoff.Msg{VM: v.id, Body: handoff.Invite{}}) {
		v.endSwitch(r, baton.ReasonLinkLost)
		return nil, errUnreachable(v.e.deviceName(device))
	}
	v.noteAsked(s)
	return &s, nil
}

// CancelSwitch implements api.Engine. It works until the baton is given; later it says that it is too late.
func (e *Engine) CancelSwitch(ctx context.Context, id string) error {
	e.mu.Lock()
	var found *vm
	var late *api.Error
	for _, v := range e.vms {
		v.mu.Lock()
		if v.sw != nil && v.sw.s.ID == id && !v.sw.s.Phase.Ended() {
			found = v
			if s := v.sw.s; !s.CanEnd {
				late = errTooLate(s)
			}
		}
		v.mu.Unlock()
	}
	e.mu.Unlock()
	if found == nil {
		return &api.Error{Code: api.CodeNotFound, Sentence: "There is no such switch under way.", Next: "See what is with: tagalong status"}
	}
	if c := found.carried(); c != nil {
		c.callOff()
		return nil
	}
	if r := found.broughtRun(); r != nil {
		return found.callOffBrought(ctx, r)
	}
	if r := found.invited(); r != nil && r.s.ID == id {
		found.callOff(r)
		return nil
	}
	if late != nil {
		return late
	}
	found.post(ctx, baton.Event{Kind: baton.EvCancel})
	return nil
}

// errTooLate says that a switch can't be called off any more.
func errTooLate(s api.Switch) *api.Error {
	return &api.Error{Code: api.CodeConflict, Sentence: fmt.Sprintf("It is too late to call that off: %s was given to %s already.", s.VMName, s.ToName),
		Next: "When it is there, it can be switched back."}
}

// linkTimeout is how long a device that is connected may take to have its control stream.
const linkTimeout = 5 * time.Second

// awaitLink waits for the control stream of a device that has just (re)appeared; it doesn't wait
// for one that isn't connected.
func (e *Engine) awaitLink(ctx context.Context, device string) bool {
	ctx, cancel := context.WithTimeout(ctx, linkTimeout)
	defer cancel()
	for {
		if e.linked(device) {
			return true
		}
		connected := false
		for _, p := range e.host.Peers() {
			connected = connected || p.ID == device && p.Connected
		}
		if !connected {
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// linked says whether the device has a control stream.
func (e *Engine) linked(device string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.links[device] != nil
}
