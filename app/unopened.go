package app

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/directory"
)

// reopenEvery is how often it is tried to open the VMs for which there was no room.
const reopenEvery = 2 * time.Second

// openOrNote opens a VM that is on this device; if that fails, the person sees why in its place.
func (e *Engine) openOrNote(id string) {
	err := e.openVM(id)
	if lacksSpace(err) {
		// Little is needed to open a disk, and a guest may be waiting for this one.
		err = e.dir.WithSpare(func() error { return e.openVM(id) })
	}
	e.mu.Lock()
	was := e.unopened[id]
	delete(e.unopened, id)
	if err != nil {
		e.unopened[id] = api.AsError(err)
	}
	e.mu.Unlock()
	if err == nil || was != nil {
		return // said already
	}
	// One broken VM must not keep the others from their owner.
	e.log.Error("Opening a VM failed", "vm", id, "error", err)
	e.tell("vm.broken", nil, fmt.Sprintf("A VM (%s) couldn't be opened: %v", id, err))
}

func lacksSpace(err error) bool { return err != nil && api.AsError(err).Code == api.CodeSpace }

// reopenVMs opens the VMs for which there was no room when the engine started, as soon as there is.
func (e *Engine) reopenVMs(ctx context.Context) error {
	tick := time.NewTicker(reopenEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		e.mu.Lock()
		ids := slices.Sorted(maps.Keys(e.unopened))
		e.mu.Unlock()
		for _, id := range ids {
			if why := e.whyUnopened(id); why == nil || why.Code != api.CodeSpace {
				continue
			}
			e.openOrNote(id)
			if v := e.vm(id); v != nil {
				e.log.Info("A VM for which there was no room is open", "vm", id)
				v.syncFeeds()
				e.tell("vm.changed", v, "")
				e.saveRecordSoon()
			}
		}
	}
}

// whyUnopened is why a VM that is on this device couldn't be opened, or nil.
func (e *Engine) whyUnopened(id string) *api.Error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.unopened[id]
}

// unopenedStatus is what is told of a VM that couldn't be opened: what its record says, and why.
func (e *Engine) unopenedStatus(r directory.VM, why *api.Error) api.VM {
	spec, err := specOf(r)
	if err != nil {
		e.log.Error("Reading a VM's spec failed", "vm", r.ID, "error", err)
	}
	return api.VM{
		ID: r.ID, Name: r.Name, State: api.VMUnknown, Here: r.Owner == e.host.ID(), Owner: r.Owner, OwnerName: e.deviceName(r.Owner),
		Position: api.Position(r.Position), Spec: spec, Replicas: []api.Replica{}, Unopened: true,
		Problem: &api.Error{Code: why.Code, Sentence: "The disk of " + r.Name + " couldn't be opened. " + why.Sentence, Next: why.Next, Cause: why.Cause},
	}
}

// errFullDisk is the trouble of a device on which nothing can be noted any more.
func errFullDisk(cause error) *api.Error {
	return &api.Error{Code: api.CodeSpace, Sentence: "This device's disk is full: VMs here stand still when they write, and can't be moved or changed.",
		Next: "Free some space, a few hundred megabytes at least; everything goes on by itself then.", Remedy: api.RemedyWait, Cause: cause.Error()}
}
