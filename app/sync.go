package app

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"tagalong.org/tagalong/app/allowance"
	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/limits"
	"tagalong.org/tagalong/app/surroundings"
)

// The engine's side of package limits: what a person sets about pushes to other sites, and sees of it.

// maxPause is the longest pause that ends by itself.
const maxPause = 366 * 24 * time.Hour

// openLimits reads what was set.
func (e *Engine) openLimits() {
	around := limits.Around{Battery: surroundings.Battery, Metered: surroundings.FollowMetered}
	if e.opt.Around != nil {
		around = *e.opt.Around
	}
	e.limits = limits.Open(limits.Options{File: filepath.Join(e.opt.DataDir, "sync.json"), Log: e.log.With("part", "limits"), Around: around})
}

// followLimits tells the faces when something else applies.
func (e *Engine) followLimits(ctx context.Context) error {
	changed, stop := e.limits.Changed()
	defer stop()
	was := *e.syncStatus()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
		is := *e.syncStatus()
		if is.May == was.May && is.Why == was.Why && is.Up == was.Up && is.Down == was.Down && is.Asked == was.Asked && is.PausedUntil.Equal(was.PausedUntil) {
			continue
		}
		text := is.Text
		if text == "" {
			text = "Nothing holds back what goes to other sites."
		}
		e.hub.publish(api.Event{Kind: "sync.changed", Text: text})
		was = is
	}
}

// syncStatus is what is told of it.
func (e *Engine) syncStatus() *api.Sync {
	now := time.Now()
	s := e.limits.Snapshot()
	a := s.Allowance
	out := &api.Sync{
		May: a.May, Why: string(a.Why), Text: a.Sentence(now), Until: a.Until, Up: a.Up, Down: a.Down, Asked: s.Asked, Pushes: s.Rounds,
		Paused: s.Paused, PausedUntil: s.PausedUntil, Metered: s.Around.Metered, OnBattery: s.Around.OnBattery, Percent: s.Around.Percent,
	}
	if s.Unreadable != nil {
		out.Problem = errUnreadableSync(s.Unreadable)
		return out
	}
	set := s.Settings
	out.Settings = api.SyncSettings{
		Up: set.Up, Down: set.Down, Schedule: []api.SyncTimes{}, Metered: string(set.Metered),
		Battery: api.SyncBattery{Ignore: set.Battery.Ignore, Below: set.Battery.Below, Rate: set.Battery.Rate},
	}
	for _, w := range set.Schedule {
		out.Settings.Schedule = append(out.Settings.Schedule, api.SyncTimes{When: w.Times.String(), Do: string(w.Do), Up: w.Up, Down: w.Down})
	}
	return out
}

// SetSync implements api.Engine.
func (e *Engine) SetSync(_ context.Context, req api.SetSync) error {
	if req.Reset {
		put, err := e.limits.Reset()
		if err != nil {
			return syncError(err)
		}
		if put != "" {
			e.log.Info("Settings of sync that couldn't be read were put aside", "file", put)
		}
	}
	if req.Up == nil && req.Down == nil && req.Schedule == nil && req.Metered == nil && req.Battery == nil {
		return nil
	}
	return syncError(e.limits.Set(func(s *allowance.Settings) error { return setSync(s, req) }))
}

// setSync makes the changes; whether they make sense is seen to elsewhere.
func setSync(s *allowance.Settings, req api.SetSync) error {
	if req.Up != nil {
		s.Up = *req.Up
	}
	if req.Down != nil {
		s.Down = *req.Down
	}
	if req.Metered != nil {
		s.Metered = allowance.Metered(*req.Metered)
	}
	if b := req.Battery; b != nil {
		s.Battery = allowance.Battery{Ignore: b.Ignore, Below: b.Below, Rate: b.Rate}
	}
	if req.Schedule == nil {
		return nil
	}
	s.Schedule = nil
	for _, x := range *req.Schedule {
		times, err := allowance.ParseTimes(x.When)
		if err != nil {
			return err
		}
		s.Schedule = append(s.Schedule, allowance.Window{Times: times, Do: allowance.Action(x.Do), Up: x.Up, Down: x.Down})
	}
	return nil
}

// SyncNow implements api.Engine.
func (e *Engine) SyncNow(_ context.Context, req api.SyncNow) error {
	if err := e.limits.Snapshot().Unreadable; err != nil {
		return errUnreadableSync(err)
	}
	id := ""
	if req.VM != "" {
		v, err := e.find(req.VM)
		if err != nil {
			return err
		}
		id = v.id
	}
	e.limits.Ask(id)
	return nil
}

// PauseSync implements api.Engine.
func (e *Engine) PauseSync(_ context.Context, req api.PauseSync) error {
	var until time.Time
	switch length := time.Duration(req.Seconds) * time.Second; {
	case req.Seconds < 0 || req.Seconds > int64(maxPause/time.Second):
		return &api.Error{Code: api.CodeUsage, Sentence: "A pause that ends by itself is of up to a year.", Next: "Leave the time out for one that ends with: tagalong sync resume"}
	case length > 0:
		until = time.Now().Add(length).Round(0)
	}
	return syncError(e.limits.Pause(until))
}

// ResumeSync implements api.Engine.
func (e *Engine) ResumeSync(context.Context) error { return syncError(e.limits.Resume()) }

// syncError explains what went wrong with the settings.
func syncError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, limits.ErrUnreadable):
		return errUnreadableSync(err)
	case errors.Is(err, allowance.ErrTimes):
		return &api.Error{Code: api.CodeUsage, Sentence: "These aren't times of the week.",
			Next: `Write them as "mon-fri 8:00-18:00", "sat,sun 22:00-6:00", or "22:00-6:00" for every day.`, Cause: err.Error()}
	case errors.Is(err, allowance.ErrSettings):
		return &api.Error{Code: api.CodeUsage, Sentence: "This can't be set.", Next: "See what can: tagalong sync --help", Cause: err.Error()}
	}
	return &api.Error{Code: api.CodeInternal, Sentence: "What you set about syncing couldn't be kept, so it isn't set.",
		Next: "Check that the disk isn't full, and try again.", Cause: fmt.Errorf("set sync: %w", err).Error()}
}

func errUnreadableSync(err error) *api.Error {
	next := "Repair the file, and restart the engine; or begin anew, which puts it aside, with: tagalong sync reset"
	if errors.Is(err, limits.ErrVersion) {
		next = "Update Tagalong on this device; or begin anew, which puts them aside, with: tagalong sync reset"
	}
	return &api.Error{Code: api.CodeConflict, Sentence: "What you set about syncing can't be read, so nothing is sent to other sites.", Next: next, Cause: err.Error()}
}
