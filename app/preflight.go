package app

import (
	"context"
	"fmt"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/app/preflight"
	"tagalong.org/tagalong/p2p/handoff"
)

// CheckSwitch implements api.Engine. What the other device has now, and not for good, isn't known: it looks again when it is asked.
func (e *Engine) CheckSwitch(ctx context.Context, req api.SwitchVM) (*api.Preflight, error) {
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
	from := v.ownerID()
	if from == to {
		return nil, v.errThere(to)
	}
	found, err := v.checkSwitch(from, to, func(id string) preflight.Device {
		if id != e.host.ID() {
			return e.otherDevice(id)
		}
		d := e.thisDevice(ctx)
		if left, known := e.memoryLeft(v); known {
			d.FreeMemory = max(1, left) // 0 is "unknown"
		}
		return d
	})
	if err != nil {
		return nil, err
	}
	p := &api.Preflight{VM: v.id, VMName: v.name(), From: from, FromName: e.deviceName(from), To: to, ToName: e.deviceName(to),
		Way: api.Way(found.Way), Findings: []api.Finding{}}
	for _, f := range found.Findings {
		p.Findings = append(p.Findings, api.Finding{Code: string(f.Code), Sentence: f.Sentence, Next: f.Next, Stops: f.Stops, Left: api.Way(f.Left)})
	}
	if m, err := v.toMove(); err == nil && m.Running {
		other := from
		if other == e.host.ID() {
			other = to
		}
		v.gauge(ctx, other)
		c, by := v.ways(from, to, found)
		p.Ways, p.Best, p.Why, p.Basis = compared(c), api.Way(c.Way), whyWay(c, p.VMName), by
	}
	return p, nil
}

// checkSwitch says what stands in the way of the VM from one device to another.
func (v *vm) checkSwitch(from, to string, device func(id string) preflight.Device) (preflight.Report, error) {
	m, err := v.toMove()
	if err != nil {
		return preflight.Report{}, err
	}
	if r, ok := v.record(); ok {
		m.Lacking = int64(min(r.Replicas[to].StaleBlocks, uint64(r.DiskBytes)/blockSize) * blockSize)
	}
	return preflight.Check(m, device(from), device(to)), nil
}

// toMove is what a preflight has to know of the VM.
func (v *vm) toMove() (m preflight.VM, err error) {
	r, ok := v.record()
	if !ok {
		return m, errNoSuchVM(v.id, nil)
	}
	s, err := specOf(r)
	if err != nil {
		return m, err
	}
	m = preflight.VM{
		Name: r.Name, Running: r.State != string(api.VMStopped) && r.State != string(api.VMSuspended), CPU: s.CPU, Machine: s.Machine,
		Firmware: s.Firmware, Hardware: s.Hardware, Bridged: s.Bridged, Memory: s.MemoryKiB << 10,
	}
	if v.owner() {
		m.Running = v.currentGuest() != nil
		if id, sees := v.seesPoint(); sees {
			m.Attached = []string{id}
		}
	}
	return m, nil
}

// refusal is what a giver has said when it refused, beside the reason.
type refusal struct{ reason, sentence, next string }

// preflight says what stands in the way of a teleport to the taker: a refusal, or nil.
func (v *vm) preflight(ctx context.Context, peer string, said handoff.Facts, way api.Way) *handoff.Refuse {
	taker, _, err := preflight.Decode(said.Device)
	if err != nil {
		v.log.Warn("What a taker says of itself can't be read", "device", peer, "error", err)
	}
	// All programs say this much, as it is at this moment.
	taker.Probed, taker.Hypervisor, taker.Accel, taker.FreeMemory = true, said.Hypervisor, said.Accel, max(said.FreeMemory, 0)
	taker.Name = v.e.deviceName(peer)
	found, err := v.checkSwitch(v.e.host.ID(), peer, func(id string) preflight.Device {
		if id == peer {
			return taker
		}
		return v.e.thisDevice(ctx)
	})
	if err != nil {
		return &handoff.Refuse{Reason: reasonNotReady}
	}
	f := found.Stops()
	if f == nil && way == api.WayPostCopy && !taker.PostCopy {
		return &handoff.Refuse{Reason: reasonNoPostCopy, Sentence: noPostCopy(taker.Name), Next: nextNoPostCopy}
	}
	if f == nil {
		return nil
	}
	return &handoff.Refuse{Reason: reasonOf(f.Code), Sentence: f.Sentence, Next: f.Next}
}

// reasonOf is the reason under which a finding travels: those that older programs know have their own.
func reasonOf(c preflight.Code) string {
	switch c {
	case preflight.NoHypervisor:
		return reasonNoHypervisor
	case preflight.OtherAccel:
		return reasonAccel
	case preflight.LittleMemory:
		return reasonMemory
	case preflight.Attached:
		return reasonSeesPoint
	default:
		return reasonPreflight + string(c)
	}
}

// reasonPreflight is the beginning of the reasons that are a finding's code.
const reasonPreflight = "preflight: "

// hearRefusal keeps what the giver said, for the end of the switch that it refuses.
func (v *vm) hearRefusal(b handoff.Refuse) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.refused = refusal{b.Reason, b.Sentence, b.Next}
}

// lastRefusal is what the last giver said when it refused.
func (v *vm) lastRefusal() refusal {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.refused
}

// explain is the giver's own explanation of a reason, if it gave one; else nil.
func (r refusal) explain(s api.Switch, reason string) *api.Error {
	if r.sentence == "" || r.reason != reason {
		return nil
	}
	code := api.CodeConflict
	if reason == reasonNoHypervisor {
		code = api.CodeNoHypervisor
	}
	return &api.Error{Code: code, Sentence: fmt.Sprintf("%s %s stays on %s.", r.sentence, s.VMName, s.FromName), Next: r.next}
}

// noPostCopy says why a device can't take a guest that goes ahead of its memory, and what helps.
func noPostCopy(device string) string {
	return fmt.Sprintf("%s can't let a VM run before all of its memory is there: its system doesn't let QEMU wait for memory (userfaultfd), or its Tagalong is too old.", device)
}

const nextNoPostCopy = "Allow it there (sysctl vm.unprivileged_userfaultfd=1, then restart Tagalong), or switch in another way."

// hearHardware keeps what the giver says of the VM's hardware, "" is nothing, and whether the guest goes ahead of its memory.
func (v *vm) hearHardware(hash string, apart bool) {
	v.mu.Lock()
	v.offeredHardware, v.offeredApart = hash, apart
	v.mu.Unlock()
}

// errUnfit explains a preflight's reason without the words of whoever found it.
func errUnfit(s api.Switch, stays, reason string) *api.Error {
	return &api.Error{Code: api.CodeConflict, Sentence: fmt.Sprintf("%s can't run %s as it is. %s", s.ToName, s.VMName, stays),
		Next: fmt.Sprintf("Use the same version of Tagalong on both, and see what stands in the way: tagalong switch %q --check", s.VMName), Cause: reason}
}

// sameHardware says whether this device would build the VM that the giver has offered.
func (v *vm) sameHardware(c hypervisor.Config) error {
	seen, err := c.Seen()
	if err != nil {
		return err
	}
	v.mu.Lock()
	offered := v.offeredHardware
	v.mu.Unlock()
	if offered != "" && offered != seen {
		return fmt.Errorf("%s: the two devices would build different hardware for the VM: %w", reasonPreflight+string(preflight.OtherConfig), hypervisor.ErrHardware)
	}
	return nil
}

// hardwareHash is what the offer says of the VM's hardware; "" if that can't be told.
func (v *vm) hardwareHash() string {
	c, err := v.config()
	if err != nil {
		return ""
	}
	seen, err := c.Seen()
	if err != nil {
		return ""
	}
	return seen
}

// unfit are the devices that the VM couldn't move to while it runs, as far as they say what they can do.
func (v *vm) unfit() []api.Unfit {
	e := v.e
	owner := v.ownerID()
	m, err := v.toMove()
	if err != nil {
		return nil
	}
	m.Running, m.Attached = true, nil // what it sees now passes
	var list []api.Unfit
	for _, other := range e.dir.Members() {
		if other.ID == owner {
			continue
		}
		if f := preflight.Check(m, e.otherDevice(owner), e.otherDevice(other.ID)).Stops(); f != nil {
			list = append(list, api.Unfit{Device: other.ID, DeviceName: e.deviceName(other.ID), Code: string(f.Code), Sentence: f.Sentence})
		}
	}
	return list
}

// tellUnfit tells the person of devices that have newly turned out not to be able to run a VM.
func (e *Engine) tellUnfit(known map[string]bool, quietly bool) {
	for _, v := range e.allVMs() {
		for _, u := range v.unfit() {
			key := v.id + u.Device + u.Code
			if known[key] {
				continue
			}
			known[key] = true
			if !quietly {
				e.hub.publish(api.Event{Kind: "device.unfit", VM: v.id, Device: u.Device,
					Text: fmt.Sprintf("%s %s can't be brought to %s while it runs.", u.Sentence, v.name(), u.DeviceName)})
			}
		}
	}
}
