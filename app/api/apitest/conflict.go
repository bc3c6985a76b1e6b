package apitest

import (
	"context"
	"slices"
	"time"

	"tagalong.org/tagalong/app/api"
)

// LeaveFleet implements api.Engine.
func (e *Engine) LeaveFleet(ctx context.Context, req api.LeaveFleet) error {
	done, err := e.enter(ctx, "LeaveFleet", req)
	defer done()
	if err != nil {
		return err
	}
	e.Update("fleet.left", "This device is a fleet of one.", func(s *api.Status) { s.Devices = nil })
	return nil
}

// Takeover implements api.Engine: it knows nothing but the owner.
func (e *Engine) Takeover(ctx context.Context, vm string) (*api.Takeover, error) {
	done, err := e.enter(ctx, "Takeover", vm)
	defer done()
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.takeover != nil {
		t := *e.takeover
		return &t, nil
	}
	v, err := e.findLocked(vm)
	if err != nil {
		return nil, err
	}
	return &api.Takeover{VM: v.ID, VMName: v.Name, Owner: v.Owner, OwnerName: v.OwnerName, State: v.State, Position: v.Position,
		Warnings: []api.Warning{}, Token: "token"}, nil
}

// SetTakeover sets what Takeover answers.
func (e *Engine) SetTakeover(t *api.Takeover) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.takeover = t
}

// TakeOver implements api.Engine.
func (e *Engine) TakeOver(ctx context.Context, req api.TakeOverVM) error {
	done, err := e.enter(ctx, "TakeOver", req)
	defer done()
	if err != nil {
		return err
	}
	return e.change(req.VM, func(s *api.Status, v *api.VM) {
		v.Here, v.Owner, v.OwnerName, v.State = true, s.Device.ID, s.Device.Name, api.VMStopped
	})
}

// Resolve implements api.Engine: the conflict is over at once, and so is the job, unless the state has one under way.
func (e *Engine) Resolve(ctx context.Context, req api.ResolveConflict) (*api.Job, error) {
	done, err := e.enter(ctx, "Resolve", req)
	defer done()
	if err != nil {
		return nil, err
	}
	if err := e.change(req.VM, func(_ *api.Status, v *api.VM) { v.Conflict = nil }); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, j := range e.status.Jobs {
		if j.Kind == "resolve" && j.VM == req.VM && !j.Done {
			return &j, nil
		}
	}
	return &api.Job{ID: "resolve-1", Kind: "resolve", VM: req.VM, Done: true}, nil
}

// DeleteRestorePoint implements api.Engine.
func (e *Engine) DeleteRestorePoint(ctx context.Context, req api.RestorePointRef) error {
	done, err := e.enter(ctx, "DeleteRestorePoint", req)
	defer done()
	if err != nil {
		return err
	}
	return e.change(req.VM, func(_ *api.Status, v *api.VM) {
		var left []api.RestorePoint
		for _, p := range v.RestorePoints {
			if p.ID != req.ID {
				left = append(left, p)
			}
		}
		v.RestorePoints = left
	})
}

// OpenRestorePoint implements api.Engine.
func (e *Engine) OpenRestorePoint(ctx context.Context, req api.RestorePointRef) error {
	return e.setOpen(ctx, "OpenRestorePoint", req, true)
}

// CloseRestorePoint implements api.Engine.
func (e *Engine) CloseRestorePoint(ctx context.Context, req api.RestorePointRef) error {
	return e.setOpen(ctx, "CloseRestorePoint", req, false)
}

func (e *Engine) setOpen(ctx context.Context, method string, req api.RestorePointRef, open bool) error {
	done, err := e.enter(ctx, method, req)
	defer done()
	if err != nil {
		return err
	}
	return e.change(req.VM, func(_ *api.Status, v *api.VM) {
		for i := range v.RestorePoints {
			if v.RestorePoints[i].ID == req.ID {
				v.RestorePoints[i].Open = open
			}
		}
	})
}

// GoOffline implements api.Engine: the preparation stays as it begins until Update or a GoOffline with Now ends it. Nothing moves
// meanwhile: along is what was here before.
func (e *Engine) GoOffline(ctx context.Context, req api.GoOffline) (*api.Job, error) {
	done, err := e.enter(ctx, "GoOffline", req)
	defer done()
	if err != nil {
		return nil, err
	}
	job := api.Job{ID: "offline-1", Kind: "offline", Phase: "copying", Started: time.Now(), Total: 4 << 30}
	e.Update("offline.preparing", "This device gets ready to work offline.", func(s *api.Status) {
		i := slices.IndexFunc(s.Jobs, func(j api.Job) bool { return j.ID == job.ID })
		if i < 0 {
			s.Jobs = append(s.Jobs, job)
			i = len(s.Jobs) - 1
		}
		s.Offline.Job, s.Offline.VMs = job.ID, nil
		for _, v := range s.VMs {
			missing := int64(0)
			for _, r := range v.Replicas {
				if r.Device == s.Device.ID {
					missing = r.Remaining
				}
			}
			s.Offline.VMs = append(s.Offline.VMs, api.OfflineVM{VM: v.ID, VMName: v.Name, Taken: v.Here, OwnerName: v.OwnerName, Missing: &missing, Position: v.Position})
		}
		if req.Now {
			s.Offline.On, s.Offline.Since, s.Offline.Job, s.Jobs[i].Done = true, time.Now(), "", true
		}
		job = s.Jobs[i]
	})
	return &job, nil
}

// GoOnline implements api.Engine.
func (e *Engine) GoOnline(ctx context.Context) error {
	done, err := e.enter(ctx, "GoOnline")
	defer done()
	if err != nil {
		return err
	}
	e.Update("offline.off", "This device is online.", func(s *api.Status) {
		for i := range s.Jobs {
			if j := &s.Jobs[i]; j.ID == s.Offline.Job && !j.Done {
				j.Done, j.Error = true, &api.Error{Code: api.CodeCancelled, Sentence: "Cancelled."}
			}
		}
		s.Offline = api.Offline{}
	})
	return nil
}

func (e *Engine) change(vm string, change func(*api.Status, *api.VM)) error {
	e.mu.Lock()
	_, err := e.findLocked(vm)
	e.mu.Unlock()
	if err != nil {
		return err
	}
	e.Update("vm.changed", "The VM has changed.", func(s *api.Status) {
		for i := range s.VMs {
			if s.VMs[i].ID == vm || s.VMs[i].Name == vm {
				change(s, &s.VMs[i])
			}
		}
	})
	return nil
}

// Rollback implements api.Engine: it knows what the VM's Hydration says.
func (e *Engine) Rollback(ctx context.Context, vm string) (*api.Rollback, error) {
	done, err := e.enter(ctx, "Rollback", vm)
	defer done()
	if err != nil {
		return nil, err
	}
	var r *api.Rollback
	err = e.change(vm, func(_ *api.Status, v *api.VM) {
		if v.Hydration != nil {
			r = &api.Rollback{VM: v.ID, VMName: v.Name, Position: v.Position, To: v.Hydration.Since, Remaining: v.Hydration.Remaining,
				Running: v.State == api.VMRunning, Holders: v.Hydration.From, Token: "token"}
		}
	})
	if err == nil && r == nil {
		err = &api.Error{Code: api.CodeConflict, Sentence: "All of it is on this device."}
	}
	return r, err
}

// RollBack implements api.Engine: the VM is stopped, and whole.
func (e *Engine) RollBack(ctx context.Context, req api.RollBackVM) error {
	done, err := e.enter(ctx, "RollBack", req)
	defer done()
	if err != nil {
		return err
	}
	return e.change(req.VM, func(_ *api.Status, v *api.VM) { v.Hydration, v.State = nil, api.VMStopped })
}
