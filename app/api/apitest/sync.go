package apitest

import (
	"context"
	"time"

	"tagalong.org/tagalong/app/api"
)

// syncLocked is Status.Sync, which begins as that of a device on which nothing was set.
func (e *Engine) syncLocked() *api.Sync {
	if e.status.Sync == nil {
		e.status.Sync = &api.Sync{May: true}
		e.status.Sync.Settings = api.SyncSettings{Metered: "avoid", Battery: api.SyncBattery{Below: 30, Rate: 1 << 20}}
	}
	return e.status.Sync
}

// SetSync implements api.Engine: what is given is set.
func (e *Engine) SetSync(ctx context.Context, req api.SetSync) error {
	done, err := e.enter(ctx, "SetSync", req)
	defer done()
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if req.Reset {
		e.status.Sync = nil
	}
	s := e.syncLocked()
	if req.Up != nil {
		s.Settings.Up, s.Up = *req.Up, *req.Up
	}
	if req.Down != nil {
		s.Settings.Down, s.Down = *req.Down, *req.Down
	}
	if req.Schedule != nil {
		s.Settings.Schedule = *req.Schedule
	}
	if req.Metered != nil {
		s.Settings.Metered = *req.Metered
	}
	if req.Battery != nil {
		s.Settings.Battery = *req.Battery
	}
	e.emitLocked(api.Event{Kind: "sync.changed", Text: "Something else is set about sync."})
	return nil
}

// SyncNow implements api.Engine: the wish is noted.
func (e *Engine) SyncNow(ctx context.Context, req api.SyncNow) error {
	done, err := e.enter(ctx, "SyncNow", req)
	defer done()
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.syncLocked().Asked = true
	e.emitLocked(api.Event{Kind: "sync.changed", Text: "Sync was asked for."})
	return nil
}

// PauseSync implements api.Engine.
func (e *Engine) PauseSync(ctx context.Context, req api.PauseSync) error {
	done, err := e.enter(ctx, "PauseSync", req)
	defer done()
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.syncLocked()
	s.May, s.Why, s.Text, s.Paused, s.PausedUntil = false, "paused", "Sync is paused.", true, time.Time{}
	if req.Seconds > 0 {
		s.PausedUntil = time.Now().Add(time.Duration(req.Seconds) * time.Second)
	}
	s.Until = s.PausedUntil
	e.emitLocked(api.Event{Kind: "sync.changed", Text: s.Text})
	return nil
}

// ResumeSync implements api.Engine.
func (e *Engine) ResumeSync(ctx context.Context) error {
	done, err := e.enter(ctx, "ResumeSync")
	defer done()
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.syncLocked()
	s.May, s.Why, s.Text, s.Paused, s.PausedUntil, s.Until = true, "", "", false, time.Time{}, time.Time{}
	e.emitLocked(api.Event{Kind: "sync.changed", Text: "Sync goes on."})
	return nil
}
