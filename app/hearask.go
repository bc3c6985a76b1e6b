package app

import (
	"context"
	"fmt"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/p2p/handoff"
)

// What an owner says to a device that asks for its VM.

// hearAsk is the owner's preflight: it takes the VM for the hand-off, or refuses with the reason.
func (v *vm) hearAsk(ctx context.Context, ev baton.Event, b handoff.Ask) error {
	refuseWith := func(why handoff.Refuse) error {
		v.e.tellDevice(ev.Peer, handoff.Msg{VM: v.id, Ask: ev.Ask, Body: why})
		return nil
	}
	refuse := func(reason string) error { return refuseWith(handoff.Refuse{Reason: reason}) }
	if v.wasCalledOff(ev.Peer) {
		return refuse(baton.ReasonCancelled)
	}
	if p := v.e.preparation(); p != nil && p.wants(v.id) {
		return refuse(reasonLeaving)
	}
	if c := v.carried(); c != nil && c.to != ev.Peer {
		return refuseWith(handoff.Refuse{Reason: baton.ReasonBusy, Sentence: fmt.Sprintf("%s is suspended on %s, and on its way to %s.", v.name(), v.e.name, v.e.deviceName(c.to)),
			Next: "Cancel that switch first."})
	}
	if reason := v.notGiving(); reason != "" {
		// The machine would refuse too, if it came to that before an earlier event makes this device the owner: of a guest that this
		// ask says nothing of.
		return refuse(reason)
	}
	if v.decided() != nil {
		return refuse(reasonConflict)
	}
	if v.wholeFirst() != nil {
		return refuse(reasonNotWhole)
	}
	guest := v.currentGuest()
	if guest != nil && api.Way(b.Way) == api.WaySuspend {
		return refuse(baton.ReasonCancelled) // it was let go on since
	}
	if guest != nil {
		if _, sees := v.seesPoint(); sees {
			return refuse(reasonSeesPoint)
		}
		state, err := guest.State(ctx)
		if err != nil || state != hypervisor.StateRunning && !v.switching() {
			return refuse(reasonNotReady)
		}
		ev.Live = true
	} else if v.oldMemory() {
		return refuse(reasonSuspended)
	}
	own := v.invited() != nil && askedWish(b) == (wish{}) // the wish is this device's own
	if ev.Live {
		way := askedWish(b).way
		if own {
			way = v.wished(ev.Peer).way
		}
		if why := v.preflight(ctx, ev.Peer, b.Taker, way); why != nil {
			return refuseWith(*why)
		}
	}
	if ctx.Err() != nil {
		return ctx.Err() // nobody waits for the answer any more
	}
	if err := v.begin(opSwitch); err != nil && !v.switching() {
		return refuse(baton.ReasonBusy)
	}
	v.mu.Lock()
	v.takes = min(b.Taker.Memory, handoff.MemoryVersion)
	v.mu.Unlock()
	if !own {
		v.wishFor(ev.Peer, askedWish(b))
	}
	ev.Kind, ev.Attempt = baton.EvPeerAsk, newID()
	if !v.post(ctx, ev) {
		v.notHeld()
	}
	return nil
}

// notHeld ends the hold on the VM of an ask that the loop never got.
func (v *vm) notHeld() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.op == opSwitch && rests(v.state) {
		v.op = ""
	}
}

// notGiving is why this device can't give the VM away now, or "".
func (v *vm) notGiving() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.ownerLocked():
		return ""
	case v.state == baton.Taking || v.state == baton.Giving:
		return baton.ReasonBusy
	}
	return baton.ReasonNotOwner
}
