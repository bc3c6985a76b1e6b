package app

import (
	"context"
	"slices"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/leave"
	"tagalong.org/tagalong/app/standing"
	"tagalong.org/tagalong/directory"
)

// After a switch onto a copy that wasn't whole, the devices that have the rest must be left on until the new owner says that it has it. It says so in the
// VM's record.

// standOf is what an owner tells the fleet of its own disk.
func standOf(h *api.Hydration) (d standing.Disk) {
	if h == nil {
		return d
	}
	d.Lacks = h.Remaining
	for _, f := range h.From {
		if f.Needed {
			d.Needs = append(d.Needs, f.Device)
		}
	}
	slices.Sort(d.Needs)
	return d
}

// lentState is how the VM, of which r is the record, stands to this device: whether its owner needs what is here.
func (v *vm) lentState(r directory.VM) (s leave.State, word standing.Disk) {
	self := v.e.host.ID()
	if r.Owner == self {
		return leave.Whole, word
	}
	if r.Written != r.Term {
		// The new owner has yet to write. This device knows what it gave it.
		t, ok := v.e.dir.Transfer(v.id, r.Term)
		v.mu.Lock()
		half := ok && t.From == self && t.To == r.Owner && t.Attempt != "" && t.Attempt == v.halfGiven
		v.mu.Unlock()
		if half {
			return leave.Needed, word
		}
		return leave.Unknown, word
	}
	word, told, err := standing.DecodeDisk(string(r.Stand))
	switch {
	case err != nil:
		v.log.Debug("How the owner's disk gets on can't be read", "error", err)
		return leave.Unknown, word
	case !told:
		return leave.Unknown, word
	case word.Lacks == 0:
		return leave.Whole, word
	case slices.Contains(word.Needs, self):
		return leave.Needed, word
	case len(word.Needs) == 0 && v.lendsTo(r.Owner):
		return leave.Unknown, word // it has yet to find out who has it
	}
	return leave.Spared, word
}

// lendsTo says that the device reads this one's copy at present.
func (v *vm) lendsTo(device string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.lent[device] > 0
}

// lending is how far the VM's owner needs this device's copy, or the memory that is still here; nil if it doesn't.
func (v *vm) lending(r directory.VM) *api.Lending {
	if device, serves := v.serves(); serves {
		return &api.Lending{To: device, ToName: v.e.deviceName(device), Needed: true, Memory: true}
	}
	state, word := v.lentState(r)
	reads := v.lendsTo(r.Owner)
	if state != leave.Needed && !reads {
		return nil
	}
	return &api.Lending{
		To: r.Owner, ToName: v.e.deviceName(r.Owner), Remaining: word.Lacks, Needed: state == leave.Needed, Silent: !reads && !v.e.linked(r.Owner),
	}
}

// tellWhoMayLeave tells the person of this device when a VM's new owner needs it, and when it may be switched off.
func (e *Engine) tellWhoMayLeave(ctx context.Context) error {
	var machine leave.Leave
	machine.Tick(time.Now(), e.leaveVMs()) // what is so from the beginning was told by the engine before
	tick := time.NewTicker(heraldEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case now := <-tick.C:
			for _, n := range machine.Tick(now, e.leaveVMs()) {
				e.publishSync(n)
			}
		}
	}
}

// leaveVMs is how all VMs stand to this device.
func (e *Engine) leaveVMs() (vms []leave.VM) {
	for _, r := range e.records() {
		v := e.vm(r.ID)
		if v == nil {
			continue
		}
		state, word := v.lentState(r)
		vms = append(vms, leave.VM{ID: r.ID, Name: r.Name, Owner: r.Owner, OwnerName: e.deviceName(r.Owner), State: state, Lacks: word.Lacks})
	}
	return vms
}
