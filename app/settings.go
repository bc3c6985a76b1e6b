package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor/qemu"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/p2p"
	"tagalong.org/tagalong/p2p/request"
)

// SetVM implements api.Engine. What is set is in the VM's record, which only its owner writes; another device asks the owner for it.
func (e *Engine) SetVM(ctx context.Context, req api.SetVM) error {
	if err := checkSet(req); err != nil {
		return err
	}
	v, err := e.find(req.VM)
	if err != nil {
		return err
	}
	if !v.owner() {
		return v.askOwner(ctx, req)
	}
	return v.set(req)
}

// checkSet says what can't be meant, whatever the VM is like.
func checkSet(req api.SetVM) error {
	switch req.Sync {
	case "", api.SyncOne, api.SyncTwo:
	default:
		return &api.Error{Code: api.CodeUsage, Sentence: fmt.Sprintf("%q isn't a number of copies to wait for.", req.Sync), Next: "Use one or two."}
	}
	if req.MemoryMiB != 0 && (req.MemoryMiB < minMemoryMiB || req.MemoryMiB > maxMemoryMiB) {
		return errMemoryAmount()
	}
	if err := checkPause(req.Pause); err != nil {
		return err
	}
	if req.CPUs < 0 || req.CPUs > maxCPUs {
		return errCPUNumber()
	}
	return nil
}

// set carries out a change here, on the owner.
func (v *vm) set(req api.SetVM) error {
	if err := v.decided(); err != nil && (req.Name != "" || req.MemoryMiB != 0 || req.CPUs != 0) {
		return err
	}
	if req.Name != "" || req.MemoryMiB != 0 || req.CPUs != 0 {
		// Whoever takes the VM over must know the change, so none is made while it is on its way.
		if err := v.begin(opSet); err != nil {
			return err
		}
		defer v.end(opSet)
		if err := v.mine(); err != nil {
			return err
		}
	}
	was := v.name()
	if req.Name != "" && req.Name != was {
		if err := v.e.checkName(req.Name); err != nil {
			return err
		}
	}
	if req.MemoryMiB != 0 || req.CPUs != 0 {
		if err := v.standsForHardware(req); err != nil {
			return err
		}
	}
	if err := v.changeRecord(v.handsOff, func(r *directory.VM, spec map[string]any) {
		if req.Name != "" {
			r.Name = req.Name
		}
		if req.Sync != "" {
			spec["sync"] = req.Sync
		}
		if req.Pause != 0 {
			spec["pause_ns"] = int64(req.Pause)
		}
		if req.MemoryMiB != 0 {
			spec["memory_kib"] = qemu.EvenMemory(req.MemoryMiB << 10)
		}
		if req.CPUs != 0 {
			spec["cpus"] = req.CPUs
		}
	}); err != nil {
		return err
	}
	v.refreshSync()
	if req.Name != "" && req.Name != was {
		v.e.tell("vm.renamed", v, fmt.Sprintf("%s is called %s now.", was, req.Name))
	} else {
		v.e.hub.publish(api.Event{Kind: "vm.changed", VM: v.id})
	}
	return nil
}

// standsForHardware says whether what the guest is made of can be changed now, and to that.
func (v *vm) standsForHardware(req api.SetVM) error {
	name := v.name()
	if v.currentGuest() != nil {
		return errConflict("The memory and the processors of "+name+" can only be changed while it is stopped.",
			fmt.Sprintf("Shut it down first: tagalong vm stop %q", name))
	}
	if v.suspended() {
		return errConflict(name+" is suspended: its saved memory fits only the memory and the processors that it has.",
			fmt.Sprintf("Resume it and shut it down first: tagalong vm resume %q", name))
	}
	if total := totalMemory(); req.MemoryMiB != 0 && total != 0 && req.MemoryMiB<<20 > total {
		return errConflict(fmt.Sprintf("This device has only %d MiB of memory in all, so %s couldn't be started on it any more.", total>>20, name),
			"Choose less.")
	}
	return nil
}

// putSpec writes one field of the spec into the VM's record.
func (v *vm) putSpec(field string, value any) error {
	return v.changeRecord(nil, func(_ *directory.VM, spec map[string]any) { spec[field] = value })
}

// handsOff refuses a change that could come after the VM: its record has left with the offer, or is about to.
func (v *vm) handsOff() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.op == opSwitch && !rests(v.state) {
		return errBusy(v.nameLocked(), opSwitch)
	}
	return nil
}

// changeRecord writes the VM's record with what change does to it and to its spec. What a later version has put into the spec beside
// stays. unless, if it isn't nil, is asked before: its error is returned, and nothing changed.
func (v *vm) changeRecord(unless func() error, change func(r *directory.VM, spec map[string]any)) error {
	v.saving.Lock()
	defer v.saving.Unlock()
	if unless != nil {
		if err := unless(); err != nil {
			return err
		}
	}
	r, ok := v.record()
	if !ok {
		return errNoSuchVM(v.id, nil)
	}
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(r.Spec, &fields); err != nil {
		return fmt.Errorf("read the VM's spec: %w", err)
	}
	changed := map[string]any{}
	change(&r, changed)
	for field, value := range changed {
		raw, err := json.Marshal(value)
		if err != nil {
			return fmt.Errorf("describe a setting: %w", err)
		}
		fields[field] = raw
	}
	var err error
	if r.Spec, err = json.Marshal(fields); err != nil {
		return fmt.Errorf("describe the VM's spec: %w", err)
	}
	r.At = time.Now()
	if err := v.e.dir.PutVM(r); err != nil {
		return fmt.Errorf("write the VM's record: %w", err)
	}
	return nil
}

// askOwner has the VM's owner make the change.
func (v *vm) askOwner(ctx context.Context, req api.SetVM) error {
	owner := v.ownerID()
	if owner == "" || !v.e.linked(owner) {
		return v.rather(v.errNotHere())
	}
	req.VM = v.id
	change, err := json.Marshal(req)
	if err != nil {
		return fmt.Errorf("describe the change: %w", err)
	}
	s, err := v.e.host.Open(ctx, owner, request.Protocol)
	if err != nil {
		return &api.Error{Code: api.CodeUnreachable, Sentence: fmt.Sprintf("%s has %s and couldn't be asked to change it.", v.e.deviceName(owner), v.name()),
			Next: "Use the same version of Tagalong on both devices, and try again.", Cause: err.Error()}
	}
	why, err := request.Ask(ctx, s, request.Request{VM: v.id, Change: change})
	if err == nil {
		return nil
	}
	var said api.Error
	if errors.Is(err, request.ErrRefused) && json.Unmarshal(why, &said) == nil && said.Sentence != "" {
		return &said
	}
	return &api.Error{Code: api.CodeUnreachable, Sentence: fmt.Sprintf("%s didn't answer.", v.e.deviceName(owner)),
		Next: "Look whether the change was made (tagalong vm show), and try again.", Cause: err.Error()}
}

// handleRequest makes a change that another device of the fleet asks for, of a VM that this device owns.
func (e *Engine) handleRequest(ctx context.Context, s p2p.Stream) {
	err := request.Hear(ctx, s, func(ctx context.Context, r request.Request) (json.RawMessage, error) {
		var says json.RawMessage
		var err error
		if r.What == askGauge {
			says, err = e.tellGauged(ctx, s.Peer(), r.VM)
		} else {
			err = e.carryOutRequest(ctx, s.Peer(), r)
		}
		if err == nil {
			return says, nil
		}
		why, jsonErr := json.Marshal(api.AsError(err))
		return why, errors.Join(err, jsonErr)
	})
	if err != nil && ctx.Err() == nil {
		e.log.Info("A device's request wasn't carried out", "device", s.Peer(), "error", err)
	}
}

func (e *Engine) carryOutRequest(ctx context.Context, device string, r request.Request) error {
	if r.What != "" {
		v := e.vm(r.VM)
		if v == nil {
			return errNoSuchVM(r.VM, nil)
		}
		return v.hearRequest(ctx, device, r.What)
	}
	var req api.SetVM
	if err := json.Unmarshal(r.Change, &req); err != nil {
		return &api.Error{Code: api.CodeUsage, Sentence: e.name + " doesn't understand the change.",
			Next: "Use the same version of Tagalong on both devices.", Cause: err.Error()}
	}
	if err := checkSet(req); err != nil {
		return err
	}
	v := e.vm(r.VM)
	if v == nil {
		return errNoSuchVM(r.VM, nil)
	}
	if !v.owner() {
		return v.rather(v.errNotHere()) // it isn't passed on: who asks may ask there
	}
	return v.set(req)
}
