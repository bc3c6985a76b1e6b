package app

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/app/second"
	"tagalong.org/tagalong/vmdisk"
)

// SetVM implements api.Engine. What is set is in the VM's record, which only its owner writes, and counts at once, also while the VM runs.
func (e *Engine) SetVM(_ context.Context, req api.SetVM) error {
	switch req.Sync {
	case "", api.SyncOne, api.SyncTwo:
	default:
		return &api.Error{Code: api.CodeUsage, Sentence: fmt.Sprintf("%q isn't a number of copies to wait for.", req.Sync), Next: "Use one or two."}
	}
	v, err := e.find(req.VM)
	if err != nil {
		return err
	}
	if err := v.mine(); err != nil {
		return err
	}
	if req.Sync == "" {
		return nil
	}
	if err := v.putSpec("sync", req.Sync); err != nil {
		return err
	}
	v.refreshSync()
	e.hub.publish(api.Event{Kind: "vm.changed", VM: v.id})
	return nil
}

// putSpec writes one field of the spec into the VM's record. What a later version has put there beside stays.
func (v *vm) putSpec(field string, value any) error {
	v.saving.Lock()
	defer v.saving.Unlock()
	r, ok := v.record()
	if !ok {
		return errNoSuchVM(v.id, nil)
	}
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(r.Spec, &fields); err != nil {
		return fmt.Errorf("read the VM's spec: %w", err)
	}
	var err error
	if fields[field], err = json.Marshal(value); err != nil {
		return fmt.Errorf("describe a setting: %w", err)
	}
	if r.Spec, err = json.Marshal(fields); err != nil {
		return fmt.Errorf("describe the VM's spec: %w", err)
	}
	r.At = time.Now()
	if err := v.e.dir.PutVM(r); err != nil {
		return fmt.Errorf("write the VM's record: %w", err)
	}
	return nil
}

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
	self, others, whole := v.e.host.ID(), false, there.Newest != vmdisk.Position{}
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
	return g.Continue(ctx)
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
