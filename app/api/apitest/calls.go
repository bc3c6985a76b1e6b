package apitest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"tagalong.org/tagalong/app/api"
)

// findLocked is the VM of this ID or name.
func (e *Engine) findLocked(name string) (*api.VM, error) {
	for i := range e.status.VMs {
		if vm := &e.status.VMs[i]; vm.ID == name || vm.Name == name {
			return vm, nil
		}
	}
	return nil, &api.Error{Code: api.CodeNotFound, Sentence: fmt.Sprintf("There is no VM called %q.", name), Next: "See them all with: tagalong vm list"}
}

// setState is what the calls that only change a VM's state do.
func (e *Engine) setState(vm string, state api.VMState) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	v, err := e.findLocked(vm)
	if err != nil {
		return err
	}
	v.State = state
	e.emitLocked(api.Event{Kind: "vm." + string(state), VM: v.ID, Text: fmt.Sprintf("%s is %s.", v.Name, state)})
	return nil
}

// CreateVM implements api.Engine: the VM is there at once, its job stays as it begins.
func (e *Engine) CreateVM(ctx context.Context, req api.CreateVM) (*api.Job, error) {
	done, err := e.enter(ctx, "CreateVM", req)
	defer done()
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	n := len(e.status.VMs) + 1
	vm := api.VM{ID: fmt.Sprintf("vm%d", n), Name: req.Name, State: api.VMStopped, Here: true,
		Owner: e.status.Device.ID, OwnerName: e.status.Device.Name, Term: 1,
		Spec: api.Spec{CPUs: req.CPUs, MemoryKiB: req.MemoryMiB << 10, DiskBytes: req.DiskBytes}}
	job := api.Job{ID: fmt.Sprintf("job%d", n), Kind: "import", VM: vm.ID, VMName: vm.Name, Phase: "copying",
		Started: time.Now(), Total: req.DiskBytes}
	e.status.VMs = append(e.status.VMs, vm)
	e.status.Jobs = append(e.status.Jobs, job)
	e.emitLocked(api.Event{Kind: "vm.created", VM: vm.ID, Text: vm.Name + " was created."})
	return &job, nil
}

// CancelJob implements api.Engine: the job ends as cancelled.
func (e *Engine) CancelJob(ctx context.Context, id string) error {
	done, err := e.enter(ctx, "CancelJob", id)
	defer done()
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range e.status.Jobs {
		if job := &e.status.Jobs[i]; job.ID == id {
			job.Done, job.Error = true, &api.Error{Code: api.CodeCancelled, Sentence: "Cancelled."}
		}
	}
	e.emitLocked(api.Event{Kind: "job.cancelled", Text: "Cancelled."})
	return nil
}

// DiskInfo implements api.Engine: every VM's disk is in a directory called like its ID.
func (e *Engine) DiskInfo(ctx context.Context, disk string) (*api.DiskInfo, error) {
	done, err := e.enter(ctx, "DiskInfo", disk)
	defer done()
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	v, err := e.findLocked(strings.TrimPrefix(disk, "/vms/"))
	if err != nil {
		return nil, err
	}
	role := api.DiskReplica
	if v.Here {
		role = api.DiskOwner
	}
	return &api.DiskInfo{Dir: "/vms/" + v.ID, ID: "d-" + v.ID, VM: v.ID, VMName: v.Name, Size: v.Spec.DiskBytes, Role: role, Active: v.Here,
		Term: v.Term, Position: v.Position, Peers: []api.DiskPeer{}, Formats: map[string]int{"journal": 1}}, nil
}

// diskJob accepts work on a disk; Update moves it on.
func (e *Engine) diskJob(kind, disk string) (*api.Job, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	v, err := e.findLocked(strings.TrimPrefix(disk, "/vms/"))
	if err != nil {
		return nil, err
	}
	job := api.Job{ID: fmt.Sprintf("job%d", len(e.status.Jobs)+1), Kind: kind, VM: v.ID, VMName: v.Name, Phase: kind, Started: time.Now(), Total: v.Spec.DiskBytes}
	e.status.Jobs = append(e.status.Jobs, job)
	e.emitLocked(api.Event{Kind: "job.began", VM: v.ID, Text: kind})
	return &job, nil
}

// ExportDisk implements api.Engine: the job stays as it begins.
func (e *Engine) ExportDisk(ctx context.Context, req api.ExportDisk) (*api.Job, error) {
	done, err := e.enter(ctx, "ExportDisk", req)
	defer done()
	if err != nil {
		return nil, err
	}
	return e.diskJob("export", req.Disk)
}

// CheckDisk implements api.Engine: the job stays as it begins.
func (e *Engine) CheckDisk(ctx context.Context, req api.CheckDisk) (*api.Job, error) {
	done, err := e.enter(ctx, "CheckDisk", req)
	defer done()
	if err != nil {
		return nil, err
	}
	return e.diskJob("check", req.Disk)
}

// SetVM implements api.Engine.
func (e *Engine) SetVM(ctx context.Context, req api.SetVM) error {
	done, err := e.enter(ctx, "SetVM", req)
	defer done()
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	v, err := e.findLocked(req.VM)
	if err != nil {
		return err
	}
	if req.Sync != "" {
		v.Spec.Sync = req.Sync
	}
	if req.Name != "" {
		v.Name = req.Name
	}
	if req.CPUs != 0 {
		v.Spec.CPUs = req.CPUs
	}
	if req.MemoryMiB != 0 {
		v.Spec.MemoryKiB = req.MemoryMiB << 10
	}
	return nil
}

// AddDisk implements api.Engine: the job stays as it begins.
func (e *Engine) AddDisk(ctx context.Context, req api.AddDisk) (*api.Job, error) {
	done, err := e.enter(ctx, "AddDisk", req)
	defer done()
	if err != nil {
		return nil, err
	}
	return e.diskJob("add disk", req.VM)
}

// GrowDisk implements api.Engine.
func (e *Engine) GrowDisk(ctx context.Context, req api.GrowDisk) error {
	done, err := e.enter(ctx, "GrowDisk", req)
	defer done()
	return err
}

// RemoveDisk implements api.Engine.
func (e *Engine) RemoveDisk(ctx context.Context, req api.RemoveDisk) error {
	done, err := e.enter(ctx, "RemoveDisk", req)
	defer done()
	return err
}

// SeedVM implements api.Engine: the job stays as it begins.
func (e *Engine) SeedVM(ctx context.Context, req api.SeedVM) (*api.Job, error) {
	done, err := e.enter(ctx, "SeedVM", req)
	defer done()
	if err != nil {
		return nil, err
	}
	return e.diskJob("seed", req.VM)
}

// VerifyVM implements api.Engine: the job stays as it begins.
func (e *Engine) VerifyVM(ctx context.Context, req api.VerifyVM) (*api.Job, error) {
	done, err := e.enter(ctx, "VerifyVM", req)
	defer done()
	if err != nil {
		return nil, err
	}
	return e.diskJob("verify", req.VM)
}

// StartVM implements api.Engine.
func (e *Engine) StartVM(ctx context.Context, vm string) error {
	done, err := e.enter(ctx, "StartVM", vm)
	defer done()
	if err != nil {
		return err
	}
	return e.setState(vm, api.VMRunning)
}

// StopVM implements api.Engine.
func (e *Engine) StopVM(ctx context.Context, vm string, force bool) error {
	done, err := e.enter(ctx, "StopVM", vm, force)
	defer done()
	if err != nil {
		return err
	}
	return e.setState(vm, api.VMStopped)
}

// ResetVM implements api.Engine.
func (e *Engine) ResetVM(ctx context.Context, vm string) error {
	done, err := e.enter(ctx, "ResetVM", vm)
	defer done()
	if err != nil {
		return err
	}
	return e.setState(vm, api.VMRunning)
}

// OpenScreen implements api.Engine: the screen leads nowhere.
func (e *Engine) OpenScreen(ctx context.Context, vm string) (*api.Screen, error) {
	done, err := e.enter(ctx, "OpenScreen", vm)
	defer done()
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, err := e.findLocked(vm); err != nil {
		return nil, err
	}
	return &api.Screen{Protocol: api.ScreenVNC, Socket: "/nowhere/screen.sock"}, nil
}

// SuspendVM implements api.Engine.
func (e *Engine) SuspendVM(ctx context.Context, vm string) error {
	done, err := e.enter(ctx, "SuspendVM", vm)
	defer done()
	if err != nil {
		return err
	}
	return e.setState(vm, api.VMSuspended)
}

// ResumeVM implements api.Engine.
func (e *Engine) ResumeVM(ctx context.Context, vm string) error {
	done, err := e.enter(ctx, "ResumeVM", vm)
	defer done()
	if err != nil {
		return err
	}
	return e.setState(vm, api.VMRunning)
}

// RemoveVM implements api.Engine.
func (e *Engine) RemoveVM(ctx context.Context, vm string) error {
	done, err := e.enter(ctx, "RemoveVM", vm)
	defer done()
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	v, err := e.findLocked(vm)
	if err != nil {
		return err
	}
	id := v.ID
	e.status.VMs = slices.DeleteFunc(e.status.VMs, func(v api.VM) bool { return v.ID == id })
	e.emitLocked(api.Event{Kind: "vm.removed", VM: id, Text: "A VM was removed."})
	return nil
}

// Switch implements api.Engine: the switch begins and stays in its first phase until Update moves
// it on.
func (e *Engine) Switch(ctx context.Context, req api.SwitchVM) (*api.Switch, error) {
	done, err := e.enter(ctx, "Switch", req)
	defer done()
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	v, err := e.findLocked(req.VM)
	if err != nil {
		return nil, err
	}
	to, toName := e.status.Device.ID, e.status.Device.Name
	for _, d := range e.status.Devices {
		if req.To != "" && (d.ID == req.To || d.Name == req.To) {
			to, toName = d.ID, d.Name
		}
	}
	sw := api.Switch{ID: fmt.Sprintf("switch%d", e.status.Seq+1), VM: v.ID, VMName: v.Name, From: v.Owner, FromName: v.OwnerName,
		To: to, ToName: toName, Kind: "teleport", Phase: api.PhasePreflight, Started: time.Now(), CanEnd: true}
	kept, told := sw, sw
	v.Switch, v.State = &kept, api.VMSwitching
	e.emitLocked(api.Event{Kind: "switch.began", VM: v.ID, Text: "Switching " + v.Name + ".", Switch: &told})
	return &sw, nil
}

// CancelSwitch implements api.Engine: the switch ends as cancelled.
func (e *Engine) CancelSwitch(ctx context.Context, id string) error {
	done, err := e.enter(ctx, "CancelSwitch", id)
	defer done()
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range e.status.VMs {
		if v := &e.status.VMs[i]; v.Switch != nil && v.Switch.ID == id {
			v.Switch.Phase, v.State = api.PhaseCancelled, api.VMRunning
		}
	}
	e.emitLocked(api.Event{Kind: "switch.cancelled", Text: "The switch was cancelled."})
	return nil
}

// PairStart implements api.Engine: the window stays open until Update ends it.
func (e *Engine) PairStart(ctx context.Context, req api.PairStart) (*api.Pairing, error) {
	done, err := e.enter(ctx, "PairStart", req)
	defer done()
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	p := api.Pairing{Code: "4821-0937", Expires: time.Now().Add(time.Duration(req.Seconds) * time.Second), Addrs: []string{"192.168.1.7:40123", "[fd00::7]:40123"}}
	kept := p
	e.status.Pairing = &kept
	e.emitLocked(api.Event{Kind: "pairing.open", Text: "A pairing window is open."})
	return &p, nil
}

// PairJoin implements api.Engine: it succeeds with the first device that isn't this one.
func (e *Engine) PairJoin(ctx context.Context, req api.PairJoin) (*api.Pairing, error) {
	done, err := e.enter(ctx, "PairJoin", req)
	defer done()
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	p := api.Pairing{Words: []string{"apple", "river", "stone", "cloud"}, Done: true}
	for _, d := range e.status.Devices {
		if !d.Self && p.Peer == nil {
			p.Peer = &d
		}
	}
	e.emitLocked(api.Event{Kind: "pairing.done", Text: "Paired."})
	return &p, nil
}

// PairCancel implements api.Engine.
func (e *Engine) PairCancel(ctx context.Context) error {
	done, err := e.enter(ctx, "PairCancel")
	defer done()
	if err != nil {
		return err
	}
	e.Update("pairing.closed", "The pairing window is closed.", func(s *api.Status) { s.Pairing = nil })
	return nil
}

// RemoveDevice implements api.Engine: a device that isn't connected stays until it can be told.
func (e *Engine) RemoveDevice(ctx context.Context, req api.RemoveDevice) error {
	done, err := e.enter(ctx, "RemoveDevice", req)
	defer done()
	if err != nil {
		return err
	}
	e.Update("device.removed", "A device was removed.", func(s *api.Status) {
		s.Devices = slices.DeleteFunc(s.Devices, func(d api.Device) bool { return d.Connected && (d.ID == req.Device || d.Name == req.Device) })
		for i := range s.Devices {
			if d := &s.Devices[i]; d.ID == req.Device || d.Name == req.Device {
				d.Removed, d.Wipe = true, req.Wipe
			}
		}
	})
	return nil
}

// PinDevice implements api.Engine: those of one name are together.
func (e *Engine) PinDevice(ctx context.Context, req api.PinDevice) error {
	done, err := e.enter(ctx, "PinDevice", req)
	defer done()
	if err != nil {
		return err
	}
	e.Update("device.site", "A device was put into a site.", func(s *api.Status) {
		for i := range s.Devices {
			if d := &s.Devices[i]; d.ID == req.Device || d.Name == req.Device {
				d.Site = nil
				if req.Site != "auto" {
					d.Site = &api.DeviceSite{ID: d.ID, Name: req.Site, Pinned: true, Devices: []string{d.ID}, Postmaster: d.ID}
				}
			}
		}
	})
	return nil
}

// History implements api.Engine.
func (e *Engine) History(ctx context.Context, vm string) ([]api.HistoryEntry, error) {
	done, err := e.enter(ctx, "History", vm)
	defer done()
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	v, err := e.findLocked(vm)
	if err != nil {
		return nil, err
	}
	return slices.Clone(e.history[v.ID]), nil
}

// Shutdown implements api.Engine.
func (e *Engine) Shutdown(ctx context.Context) error {
	done, err := e.enter(ctx, "Shutdown")
	defer done()
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	select {
	case <-e.shutdown:
	default:
		close(e.shutdown)
	}
	return nil
}
