package app

import (
	"context"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/app/second"
	"tagalong.org/tagalong/vmdisk"
)

// refreshSync has the record's word count.
func (v *vm) refreshSync() {
	r, ok := v.record()
	if !ok {
		return
	}
	spec, err := specOf(r)
	if err != nil {
		v.log.Error("Reading a VM's spec failed", "error", err)
		return
	}
	v.second.Set(spec.Two())
}

// whyNoSecond says why a flush needn't wait for a second copy, of a whole disk. It takes no lock of the VM's.
func (v *vm) whyNoSecond(there vmdisk.Elsewhere) second.Why {
	if _, away := v.e.offlineSince(); away {
		return second.Offline
	}
	self, others, whole := v.e.host.ID(), false, there.Whole
	for _, m := range v.e.dir.Members() {
		others = others || m.ID != self
	}
	if !others {
		return second.Alone
	}
	if !whole {
		// After a takeover the disk knows less than the last owner did.
		for device, r := range v.e.dir.Replicas(v.id) {
			whole = whole || device != self && r.Complete
		}
	}
	if !whole {
		return second.Uncopied
	}
	return second.Held
}

// tellWaits tells that a flush waits for a second copy, and that the VM will stand still.
func (v *vm) tellWaits() {
	v.e.hub.publish(api.Event{Kind: "second.waits", VM: v.id, Text: v.name() + " waits for a second copy of its last writes: no other device answers."})
}

// secondCopy is what is told of it; nil if it isn't asked for.
func (v *vm) secondCopy(disk *vmdisk.Store) *api.SecondCopy {
	s := v.second.State(disk)
	state := map[second.Why]api.SecondState{
		second.Alone: api.SecondAlone, second.Offline: api.SecondOffline, second.Filling: api.SecondFilling, second.Uncopied: api.SecondUncopied,
	}[s.Why]
	v.mu.Lock()
	stands := v.guestWas == hypervisor.StateIOError
	v.mu.Unlock()
	switch {
	case s.Why == second.Off:
		return nil
	case s.Why != second.Held:
		return &api.SecondCopy{State: state}
	case s.Refused && stands:
		return &api.SecondCopy{State: api.SecondPaused}
	case !s.Since.IsZero():
		return &api.SecondCopy{State: api.SecondWaiting, Since: s.Since}
	}
	return &api.SecondCopy{State: api.SecondKept}
}

// halt stops the guest's processors and returns when its disk has drained. A flush that waits for a second copy holds it up for
// second.StopGrace at most.
func (v *vm) halt(ctx context.Context, g hypervisor.Guest) error {
	return v.second.Stop(func() error { return g.Pause(ctx) })
}

// carryOn lets the guest's processors run again. All that makes them run goes through it.
func (v *vm) carryOn(ctx context.Context, g hypervisor.Guest) error {
	v.second.Runs()
	defer v.unslowed(g)()
	v.noting.Lock()
	defer v.noting.Unlock()
	if err := g.Continue(ctx); err != nil {
		return err
	}
	v.noteState(g, hypervisor.StateRunning)
	return nil
}

// unslowed ends what a switch did to a guest that was slowed down in it: from now on it is news again when it stands still. What it returns has the
// guest's clock set, which stood still as often, and is called when it runs.
func (v *vm) unslowed(g hypervisor.Guest) func() {
	v.mu.Lock()
	was := v.slowed
	v.slowed = false
	v.mu.Unlock()
	return func() {
		if was {
			v.guestGoesOn(g)
		}
	}
}

// securedPoll is how often is looked whether a guest that stands still for want of a second copy can go on.
const securedPoll = 250 * time.Millisecond

// carryOnSecured lets a guest go on that stands still because no other device had its last writes, if one has now, or needn't any more. If it
// has to be looked again, what it returns says when.
func (v *vm) carryOnSecured(g hypervisor.Guest) <-chan time.Time {
	v.mu.Lock()
	stands, disk := v.guest == g && v.guestWas == hypervisor.StateIOError, v.disk
	v.mu.Unlock()
	switch {
	case !stands || disk == nil || !v.second.Refused():
		return nil
	case !v.second.Satisfied(disk) || v.begin(opResume) != nil:
		return time.After(securedPoll)
	}
	defer v.end(opResume)
	ctx, cancel := context.WithTimeout(v.e.ctx, actionTimeout)
	defer cancel()
	if err := v.letRun(ctx, g); err != nil {
		v.log.Warn("A VM that has its second copy didn't go on", "error", err)
		return time.After(securedPoll)
	}
	v.log.Info("A VM goes on: another device has its last writes, or needn't")
	v.noteGuest(g)
	return nil
}
