package app

import (
	"context"

	"tagalong.org/tagalong/app/api"
)

// GoOffline implements api.Engine.
func (e *Engine) GoOffline(context.Context, api.GoOffline) (*api.Job, error) { return nil, errNotBuilt }

// GoOnline implements api.Engine.
func (e *Engine) GoOnline(context.Context) error { return errNotBuilt }

// LeaveFleet implements api.Engine.
func (e *Engine) LeaveFleet(context.Context, api.LeaveFleet) error { return errNotBuilt }
