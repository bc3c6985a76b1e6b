package app

import (
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/standstill"
	"tagalong.org/tagalong/directory/baton"
)

// standsStill is why the VM runs nowhere in the middle of a hand-off, or nil.
func (v *vm) standsStill(now time.Time) *api.Error {
	v.mu.Lock()
	state, since, peer := v.state, v.entered, v.with
	v.mu.Unlock()
	if rests(state) || state == baton.Offering || state == baton.Accepting {
		return nil
	}
	_, serves := v.serves()
	return standstill.Why(standstill.Facts{
		VM: v.name(), Other: v.e.deviceName(peer), State: state, For: now.Sub(since),
		Linked: v.e.linked(peer), Room: v.e.dir.Room() == nil, Serves: serves,
	})
}

// tellStandstill makes it known when a VM begins, or ceases, to stand still in the middle of a hand-off. Only the loop calls it.
func (v *vm) tellStandstill(now time.Time) {
	text := ""
	if why := v.standsStill(now); why != nil {
		text = why.Error()
	}
	if text == v.stood {
		return
	}
	v.stood = text
	kind := "vm.problem"
	if text == "" {
		kind = "vm.changed"
	}
	v.e.hub.publish(api.Event{Kind: kind, VM: v.id, Text: text})
}

// recallSwitch makes the switch to this device known again that an earlier engine was in, for who pressed the button to read what became of it.
// Only the loop calls it, in a step.
func (v *vm) recallSwitch(from string) {
	a, asked := v.readAsked()
	asked = asked && a.From == from && a.To == v.e.host.ID()
	if !asked && v.comesSuspended() {
		v.under = v.brought(from) // it still comes, or its owner says why it doesn't
		return
	}
	r := &switchRun{s: api.Switch{
		ID: newID(), VM: v.id, VMName: v.name(), From: from, FromName: v.e.deviceName(from), To: v.e.host.ID(), ToName: v.e.name,
		Kind: "teleport", Phase: api.PhasePreflight, Started: time.Now(),
	}}
	if asked {
		r.s.ID, r.s.Started = a.ID, a.At // who waits for it knows it by that
	}
	v.mu.Lock()
	v.sw = r
	v.mu.Unlock()
	v.under = r
}
