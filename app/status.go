package app

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
)

// probeForStatus bounds the hypervisor's probe when only a snapshot is wanted.
const probeForStatus = 10 * time.Second

// Status implements api.Engine. Everything in it is derived from facts, nothing is kept twice.
func (e *Engine) Status(ctx context.Context) (*api.Status, error) {
	s := &api.Status{
		API: api.Version, Version: e.opt.Version, Seq: e.hub.last(), DataDir: e.opt.DataDir,
		Device:  api.Device{ID: e.host.ID(), Name: e.name, Self: true, Connected: true, Addrs: e.host.Addrs(), LastSeen: time.Now()},
		Devices: e.devices(), VMs: []api.VM{}, Jobs: []api.Job{},
	}
	probe, cancel := context.WithTimeout(ctx, probeForStatus)
	defer cancel()
	facts, err := e.facts.get(probe, e.opt.Hypervisor)
	s.Hypervisor = api.Hypervisor{Found: err == nil, Path: facts.Path, Version: facts.Version, Accel: facts.Accel, Note: facts.Note}
	here := e.knownDevice()
	s.Hypervisor.Bridge, s.Hypervisor.NoBridge = here.Bridge, here.NoBridge
	if err != nil {
		s.Hypervisor.Note = explainProbe(err).Error()
	}
	e.mu.Lock()
	for _, j := range e.jobs {
		s.Jobs = append(s.Jobs, j.snapshot())
	}
	pairing := e.pairing
	s.Leaving = e.leaving
	e.mu.Unlock()
	if err := e.dir.Room(); err != nil {
		s.Problem = errFullDisk(err)
	}
	s.Offline = e.offlineStatus()
	s.Sync = e.syncStatus()
	s.Device.Offline = s.Offline.On
	s.Device.Site = e.sites.siteOf(s.Device.ID, true)
	if pairing != nil {
		p := pairing.snapshot()
		s.Pairing = &p
	}
	for _, r := range e.records() {
		if v := e.vm(r.ID); v != nil {
			s.VMs = append(s.VMs, v.status())
		} else if why := e.whyUnopened(r.ID); why != nil {
			s.VMs = append(s.VMs, e.unopenedStatus(r, why))
		}
	}
	sort.Slice(s.VMs, func(i, j int) bool { return s.VMs[i].Name < s.VMs[j].Name })
	return s, nil
}

// records are the fleet's VMs that aren't removed.
func (e *Engine) records() []directory.VM {
	return e.dir.VMs()
}

// devices are the other devices of the fleet.
func (e *Engine) devices() []api.Device {
	out := []api.Device{}
	away := map[string]bool{}
	for _, d := range e.dir.Devices() {
		away[d.ID] = d.Offline
	}
	for _, p := range e.host.Peers() {
		d := api.Device{ID: p.ID, Name: e.deviceName(p.ID), Connected: p.Connected, RTTMicros: p.RTT.Microseconds(), LastSeen: p.LastSeen}
		d.Offline = away[p.ID]
		d.Site = e.sites.siteOf(p.ID, p.Connected)
		if p.Addr != "" {
			d.Addrs = []string{p.Addr}
		}
		out = append(out, d)
	}
	out = append(out, e.removedDevices()...)
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// deviceName is what the person calls a device.
func (e *Engine) deviceName(id string) string {
	if id == e.host.ID() {
		return e.name
	}
	for _, d := range e.dir.Devices() {
		if d.ID == id && d.Name != "" {
			return d.Name
		}
	}
	for _, m := range slices.Concat(e.dir.Members(), e.dir.RemovedMembers(), e.dir.Former()) {
		if m.ID == id && m.Name != "" {
			return m.Name
		}
	}
	if len(id) > 8 {
		return "device …" + id[len(id)-6:]
	}
	return "another device"
}

// findDevice finds a device of the fleet by name or ID.
func (e *Engine) findDevice(name string) (string, error) {
	known, ids := []string{e.name}, []string{e.host.ID()}
	for _, m := range e.dir.Members() {
		known, ids = append(known, e.deviceName(m.ID)), append(ids, m.ID)
	}
	if slices.Contains(ids, name) {
		return name, nil
	}
	found := ""
	for i, n := range known {
		switch {
		case n != name:
		case found != "":
			return "", errConflict(fmt.Sprintf("Several devices are called %q.", name), "Use the device's ID (tagalong devices --json).")
		default:
			found = ids[i]
		}
	}
	if found == "" {
		return "", errNoSuchDevice(name, known)
	}
	return found, nil
}

// status derives what is told of the VM.
func (v *vm) status() api.VM {
	r, _ := v.record()
	spec, err := specOf(r)
	if err != nil {
		v.log.Error("Reading a VM's spec failed", "error", err)
	}
	owner := v.ownerID()
	v.mu.Lock()
	s := api.VM{
		ID: v.id, Name: r.Name, Here: v.ownerLocked(), Owner: owner, Term: v.term, Spec: spec, Problem: v.problem, Replicas: []api.Replica{},
	}
	s.Agent = v.agent
	guest, state, starting, op, why := v.guest, v.guestWas, v.starting, v.op, v.saved.why
	disk, lacks := v.disk, v.trailing != nil
	if v.sw != nil {
		sw := v.sw.s
		s.Switch = &sw
	}
	v.mu.Unlock()

	if disk != nil {
		info := disk.Info()
		s.Recorded = info.Recorded
		if why := info.NeedsCheck; why != "" && s.Problem == nil {
			s.Problem = errNeedsCheck(s.Name, v.diskDir(), why)
		}
	}
	if there, twice := v.signedTwice(); twice && s.Problem == nil {
		s.Problem = errSignedTwice(s.Name, v.e.deviceName(owner), there)
	}
	if s.Problem == nil {
		s.Problem = v.standsStill(time.Now())
	}
	s.OwnerName = v.e.deviceName(owner)
	if s.Here {
		s.OfflineSince, s.Offline = v.e.offlineSince()
	} else {
		s.OfflineSince, s.Offline = v.tookAlong()
	}
	s.Position = api.Position(r.Position)
	if disk != nil && s.Here {
		s.Position = api.Position(disk.Info().Position)
		s.Second = v.secondCopy(disk)
	}
	switch {
	case op == opSwitch:
		s.State = api.VMSwitching
	case !s.Here:
		s.State = v.remoteState(r)
	case starting:
		s.State = api.VMStarting
	case op == opStop && guest != nil:
		s.State = api.VMStopping
		s.Screen, s.Console = guest.Screen(), guest.Console()
	case guest != nil:
		if s.State = guestState(state); state == "" && lacks {
			s.State = api.VMRunning // or it waits for memory, and its hypervisor with it
		}
		s.Screen, s.Console = guest.Screen(), guest.Console()
	case v.suspended():
		s.State = api.VMSuspended
		if s.Problem == nil {
			s.Problem = why
		}
	default:
		s.State = api.VMStopped
	}
	s.Conflict, s.Orphan, s.RestorePoints = v.conflict(), v.e.dir.Orphan(v.id), v.restorePoints()
	s.Hydration, s.Lending, s.Trailing = v.hydration(), v.lending(r), v.memoryComes()
	s.Unfit = v.unfit()
	s.Replicas = v.replicas(r)
	if s.Here {
		if disk != nil {
			s.Verifying, s.Damage = v.verifying(disk, time.Now())
		}
		verified := v.lastVerified()
		for i := range s.Replicas {
			s.Replicas[i].Verified = verified[s.Replicas[i].Device]
		}
	}
	return s
}

func guestState(s hypervisor.State) api.VMState {
	switch s {
	case hypervisor.StateRunning:
		return api.VMRunning
	case "":
		return api.VMStarting
	default:
		return api.VMPaused
	}
}

// remoteState is the owner's word, as long as the owner can be heard.
func (v *vm) remoteState(r directory.VM) api.VMState {
	if !v.e.linked(v.ownerID()) {
		return api.VMUnknown
	}
	return api.VMState(r.State)
}

// ownedState says whether a machine's state is an owner's.
func ownedState(s baton.State) bool {
	switch s {
	case baton.Owned, baton.Starting, baton.Offering, baton.Sending:
		return true
	}
	return false
}
