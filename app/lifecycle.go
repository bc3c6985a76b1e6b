package app

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/app/standing"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
)

// StartVM implements api.Engine.
func (e *Engine) StartVM(ctx context.Context, name string) error {
	v, err := e.find(name)
	if err != nil {
		return err
	}
	if err := v.mine(); err != nil {
		return v.rather(err)
	}
	if err := v.begin(opStart); err != nil {
		return err
	}
	defer v.end(opStart)
	if err := v.mine(); err != nil {
		return err
	}
	if guest := v.currentGuest(); guest != nil {
		if ended, err := v.endSaved(ctx, guest); err != nil {
			return err
		} else if !ended {
			return v.wake(ctx, guest)
		}
	}
	if err := v.decided(); err != nil {
		return err
	}
	return v.startOrRestore(ctx)
}

// startOrRestore starts a VM that has no guest: with its memory if it is suspended.
func (v *vm) startOrRestore(ctx context.Context) error {
	s, err := v.isSaved()
	switch {
	case err != nil:
		return err
	case s.there():
		return v.waitFor(ctx, kindResume, v.restore)
	case v.oldMemory():
		return v.restoreOld(ctx)
	}
	return v.start(ctx)
}

// wake lets a guest go on that its hypervisor paused, for instance because the disk was full.
func (v *vm) wake(ctx context.Context, guest hypervisor.Guest) error {
	state, err := guest.State(ctx)
	if err != nil {
		return explainFailed(v.name()+" didn't go on.", err)
	}
	switch state {
	case hypervisor.StateRunning:
		return errConflict(v.name()+" is running already.", fmt.Sprintf("See its screen with: tagalong vm open %q", v.name()))
	case hypervisor.StatePaused, hypervisor.StateIOError:
		if err := v.clearLeft(); err != nil {
			return err
		}
		err := v.letRun(ctx, guest)
		v.noteGuest(guest)
		return err
	default:
		return errConflict(fmt.Sprintf("%s can't go on: it is %s.", v.name(), state), fmt.Sprintf("Turn it off (tagalong vm stop %q --force) and start it again.", v.name()))
	}
}

func (v *vm) start(ctx context.Context) error {
	if _, err := v.e.facts.get(ctx, v.e.opt.Hypervisor); err != nil {
		return explainHypervisor(err)
	}
	config, err := v.config()
	if err != nil {
		return err
	}
	if err := v.admit(config.MemoryKiB << 10); err != nil {
		return errConflict("There isn't enough free memory on this device for "+v.name()+".", "Close something, shut another VM down, or give it less (tagalong vm set --memory), and try again.")
	}
	defer v.admitted()
	if disk := v.currentDisk(); disk == nil || !disk.Info().Active {
		return errConflict("The disk of "+v.name()+" isn't ready on this device.", "The engine's log has the cause.")
	}
	if err := errors.Join(v.reachTable(), v.startExport()); err != nil {
		return err
	}
	v.setStarting(true)
	defer v.setStarting(false)
	config.Extra = v.extraDisks()
	choice, due := v.checksFileSystems()
	config.CheckFileSystems = due
	if err := v.uncertain(); err != nil {
		return err
	}
	v.second.Runs()
	guest, err := v.e.opt.Hypervisor.Start(ctx, config)
	if errors.Is(err, hypervisor.ErrRunsAlready) {
		// An earlier engine had only begun to start it when it was killed: it is what was asked for.
		v.log.Info("The VM's hypervisor was started before")
		guest, err = v.e.opt.Hypervisor.Find(ctx, config)
	}
	if err != nil {
		return explainHypervisor(err)
	}
	if err := v.adopt(ctx, guest); err != nil {
		return err
	}
	v.attached(config.Extra)
	if due {
		v.fileSystemsAsked(choice)
	}
	return nil
}

func (v *vm) setStarting(on bool) {
	v.mu.Lock()
	v.starting = on
	v.mu.Unlock()
	v.e.hub.publish(api.Event{Kind: "vm.changed", VM: v.id})
}

func (v *vm) config() (hypervisor.Config, error) {
	r, ok := v.record()
	if !ok {
		return hypervisor.Config{}, errNoSuchVM(v.id, nil)
	}
	return v.e.guestConfig(v.id, r)
}

// guestExited notes that a guest's process is gone: shut down by itself, or killed.
func (v *vm) guestExited(g hypervisor.Guest) {
	v.mu.Lock()
	ours := v.guest == g
	v.mu.Unlock()
	if !ours {
		return
	}
	fell := g.Fell()
	v.dropGuest(g)
	if fell && v.owner() {
		v.setProblem(errFell(v.name()))
	}
	v.post(v.e.ctx, hypervisorDied)
	v.e.hub.publish(api.Event{Kind: "vm.stopped", VM: v.id, Text: v.name() + " has stopped."})
	v.e.saveRecordSoon()
}

// errFell is the problem of a VM whose hypervisor has ended by itself.
func errFell(vm string) *api.Error {
	return &api.Error{Code: api.CodeInternal, Sentence: fmt.Sprintf("%s's hypervisor ended unexpectedly: what was open in it and not saved is lost, its disk is whole.", vm),
		Next: nextStart(vm), Remedy: api.RemedyStart, Topic: api.TopicFell}
}

// nextStart says how a VM is started again that had to end.
func nextStart(vm string) string { return fmt.Sprintf("Start it again: tagalong vm start %q", vm) }

// SuspendVM implements api.Engine.
func (e *Engine) SuspendVM(ctx context.Context, name string) error {
	v, err := e.find(name)
	if err != nil {
		return err
	}
	if err := v.decided(); err != nil {
		return err
	}
	if err := v.mine(); err != nil {
		return err
	}
	if err := v.begin(opSuspend); err != nil {
		return err
	}
	defer v.end(opSuspend)
	guest := v.currentGuest()
	if guest == nil {
		return v.errNotRunning()
	}
	if id, sees := v.seesPoint(); sees {
		return errSeesPoint(v.name(), id)
	}
	return v.waitFor(ctx, kindSuspend, func(ctx context.Context, j *job) error { return v.suspend(ctx, j, guest, "") })
}

// ResumeVM implements api.Engine.
func (e *Engine) ResumeVM(ctx context.Context, name string) error {
	v, err := e.find(name)
	if err != nil {
		return err
	}
	if err := v.mine(); err != nil {
		return v.rather(err)
	}
	if err := v.begin(opResume); err != nil {
		return err
	}
	defer v.end(opResume)
	if guest := v.currentGuest(); guest != nil {
		if ended, err := v.endSaved(ctx, guest); err != nil {
			return err
		} else if !ended {
			return v.wake(ctx, guest)
		}
	}
	if err := v.decided(); err != nil {
		return err
	}
	s, err := v.isSaved()
	if err != nil {
		return err
	}
	if !s.there() && !v.oldMemory() {
		return v.errNotSuspended()
	}
	return v.startOrRestore(ctx)
}

func (v *vm) errNotSuspended() error {
	return errConflict(v.name()+" isn't suspended.", fmt.Sprintf("Start it with: tagalong vm start %q", v.name()))
}

// RemoveVM implements api.Engine: the VM goes from every device of the fleet.
func (e *Engine) RemoveVM(ctx context.Context, name string) error {
	v, err := e.find(name)
	if err != nil {
		return err
	}
	if err := v.mine(); err != nil {
		return err
	}
	if err := v.begin(opRemove); err != nil {
		return err
	}
	defer v.end(opRemove)
	if err := v.decided(); err != nil {
		return err // the other version would go with it, unseen
	}
	if v.carried() != nil {
		return errBusy(v.name(), opSwitch)
	}
	if v.currentGuest() != nil {
		return errConflict(v.name()+" is running.", fmt.Sprintf("Stop it first: tagalong vm stop %q", v.name()))
	}
	text := v.name() + " was removed."
	if err := v.removeRecord(); err != nil {
		return err
	}
	if err := e.forget(v); err != nil {
		return err
	}
	e.tell("vm.removed", v, text)
	return nil
}

// removeRecord tells the fleet that the VM is no more. A record that is being written comes first: it would bring the VM back.
func (v *vm) removeRecord() error {
	v.saving.Lock()
	defer v.saving.Unlock()
	if err := v.e.dir.RemoveVM(v.id); err != nil {
		return fmt.Errorf("remove the VM's record: %w", err)
	}
	return nil
}

// forget lets go of a removed VM and deletes what this device has of it.
func (e *Engine) forget(v *vm) error {
	e.mu.Lock()
	if e.vms[v.id] != v {
		e.mu.Unlock()
		return nil
	}
	delete(e.vms, v.id)
	e.mu.Unlock()
	v.close()
	if err := os.RemoveAll(v.run); err != nil {
		e.log.Warn("Clearing a VM's run directory failed", "vm", v.id, "error", err)
	}
	// First what is noted of it: the files bring the next engine here again, if this one doesn't get any further.
	if err := e.dropNotes(v.id); err != nil {
		return err
	}
	if err := os.RemoveAll(v.dir); err != nil {
		return fmt.Errorf("delete the VM's files: %w", err)
	}
	return nil
}

// dropNotes deletes what this device keeps of a removed VM beside its files.
func (e *Engine) dropNotes(id string) error {
	notes := []directory.Entry{directory.BatonEntry(id, nil)}
	for _, key := range []func(string) string{scrubKey, damageKey, repairedKey, sourceKey, unwanted, askedKey, carryKey} {
		notes = append(notes, directory.LocalEntry(key(id), nil))
	}
	if err := e.dir.DropLocal(notes...); err != nil {
		return fmt.Errorf("delete what is noted of the VM: %w", err)
	}
	return nil
}

// followDirectory keeps VMs in step with the records of the fleet.
func (e *Engine) followDirectory(ctx context.Context) error {
	changed, stop := e.dir.Changed()
	defer stop()
	save := time.NewTicker(recordEvery)
	defer save.Stop()
	e.applyRecords()
	for {
		e.followMembers()
		e.carryOutRemoval()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
			e.applyRecords()
		case <-e.recordDue:
			e.saveRecords()
		case <-save.C:
			e.refreshDevice()
			e.saveRecords()
		}
	}
}

// applyRecords takes note of new VMs and forgets those whose owner has removed them.
func (e *Engine) applyRecords() {
	e.mu.Lock()
	var gone []*vm
	for _, v := range e.vms {
		// Only the owner's signed word deletes anything: a directory that was lost, or hasn't
		// heard of the VM yet, is no reason.
		if e.dir.Removed(v.id) && !v.owner() {
			gone = append(gone, v)
		}
	}
	for _, r := range e.dir.VMs() {
		if why := e.unopened[r.ID]; why != nil && why.Code == api.CodeSpace {
			continue // it has a state of its own, which is read when there is room
		}
		if e.vms[r.ID] == nil && r.Owner != e.host.ID() && validVMID(r.ID) {
			e.vms[r.ID] = e.newVM(r.ID, baton.NewReplica(baton.Config{}), nil, nil, nil)
		}
	}
	for _, v := range e.vms {
		v.refreshSync()
		v.lookSoon()
	}
	e.mu.Unlock()
	for _, v := range gone {
		if err := e.forget(v); err != nil {
			e.log.Error("Deleting a removed VM failed", "vm", v.id, "error", err)
		}
	}
	e.hub.publish(api.Event{Kind: "directory.changed", Text: "The fleet's records have changed."})
}

// recordEvery is how often an owner looks whether what its record says of the replicas still holds.
const recordEvery = 2 * time.Second

// saveRecordSoon has the VM's record written if something in it has changed.
func (e *Engine) saveRecordSoon() {
	for _, due := range []chan struct{}{e.recordDue, e.replicasDue} {
		select {
		case due <- struct{}{}:
		default:
		}
	}
}

func (e *Engine) saveRecords() {
	e.mu.Lock()
	vms := make([]*vm, 0, len(e.vms))
	for _, v := range e.vms {
		vms = append(vms, v)
	}
	e.mu.Unlock()
	for _, v := range vms {
		if !v.owner() {
			continue
		}
		if err := v.saveRecord(); err != nil && !errors.Is(err, directory.ErrNoSpace) { // of a full disk the directory tells once
			e.log.Warn("Writing a VM's record failed", "vm", v.id, "error", err)
		}
	}
}

// gist is what makes a record worth writing: the state, and where each replica stands. Positions
// move with every flush of the guest and are written along with it, not because of themselves; of what the owner's disk lacks each half. What
// the replicas lack has records of its own (tellReplicas).
func gist(s api.VM) string {
	text := fmt.Sprint(s.Term, s.State, s.Offline, s.OfflineSince.Unix())
	if word := standOf(s.Hydration); word.Lacks > 0 {
		text += fmt.Sprint(" lacks 2^", bits.Len64(uint64(word.Lacks)), word.Needs)
	}
	for _, r := range s.Replicas {
		text += fmt.Sprint(" ", r.Device, r.State)
	}
	return text
}

// saveRecord writes what the fleet is told of the VM, if the gist of it has changed.
func (v *vm) saveRecord() error {
	v.saving.Lock()
	defer v.saving.Unlock()
	r, ok := v.record()
	if !ok {
		return nil
	}
	status := v.status()
	now := fmt.Sprint(gist(status), v.e.dir.Heeds(v.id))
	v.mu.Lock()
	same := v.told == now
	v.mu.Unlock()
	if same {
		return nil
	}
	r.State = string(status.State)
	r.Offline, r.OfflineSince = status.Offline, status.OfflineSince
	r.Position = directory.Position(status.Position)
	r.Stand = directory.Carried(standing.EncodeDisk(standOf(status.Hydration)))
	r.Replicas = nil
	r.At = time.Now()
	switch err := v.e.dir.PutVM(r); {
	case errors.Is(err, directory.ErrNotOwner):
		return nil
	case err != nil:
		return err
	}
	v.mu.Lock()
	v.told = now
	v.mu.Unlock()
	return nil
}
