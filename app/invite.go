package app

import (
	"errors"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/directory/baton"
)

// An owner that sends its VM away invites the other device to ask for it. Until that asks, the machine knows of nothing: what ends a
// switch in that time is here.

const (
	// inviteTimeout is how long a device that was invited may take to ask, or to say that it can't.
	inviteTimeout = 30 * time.Second
	// callOffTimeout is how long the answer to an invitation that was called off may still be on its way.
	callOffTimeout = 15 * time.Second
)

// calledOff is an invitation that the person called off before it was answered.
type calledOff struct {
	device string
	until  time.Time
}

// invited is the switch for which another device was invited and hasn't asked, or nil.
func (v *vm) invited() *switchRun {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.sw == nil || v.sw.s.Phase.Ended() || v.sw.s.From != v.e.host.ID() || v.state != baton.Owned || v.op == opSwitch ||
		v.sw.carry != nil && v.sw.invited.IsZero() {
		return nil
	}
	return v.sw
}

// endUnanswered ends an invitation that isn't answered in time, or can't be any more.
func (v *vm) endUnanswered(now time.Time) {
	r := v.invited()
	switch {
	case r == nil:
	case !v.e.linked(r.s.To):
		v.endSwitch(r, baton.ReasonLinkLost)
	case now.Sub(v.askedAt(r)) >= inviteTimeout:
		v.endSwitch(r, baton.ReasonTimeout)
	}
}

// askedAt is when the other device was invited.
func (v *vm) askedAt(r *switchRun) time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	if r.invited.IsZero() {
		return r.s.Started
	}
	return r.invited
}

// inviteReason is what an invited device that can't ask tells the owner.
func inviteReason(err error) string {
	switch {
	case errors.Is(err, &api.Error{Code: api.CodeBusy}):
		return baton.ReasonBusy
	case errors.Is(err, &api.Error{Code: api.CodeNoHypervisor}):
		return reasonNoHypervisor
	}
	return giveReason(err)
}

// inviteRefused ends the switch for which a device was invited that can't ask.
func (v *vm) inviteRefused(device, reason string) {
	if r := v.invited(); r != nil && r.s.To == device {
		v.endSwitch(r, reason)
	}
}

// callOff ends an invitation that may be answered yet.
func (v *vm) callOff(r *switchRun) {
	v.mu.Lock()
	v.calledOff = calledOff{device: r.s.To, until: time.Now().Add(callOffTimeout)}
	v.mu.Unlock()
	v.endSwitch(r, baton.ReasonCancelled)
}

// wasCalledOff says that what the device asks for is most likely the answer to an invitation that was called off. It says so once.
func (v *vm) wasCalledOff(device string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	off := v.calledOff.device == device && time.Now().Before(v.calledOff.until)
	v.calledOff = calledOff{}
	return off
}

func (v *vm) forgetCalledOff() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.calledOff = calledOff{}
}
