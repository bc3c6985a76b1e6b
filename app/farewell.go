package app

import (
	"context"

	"tagalong.org/tagalong/app/api"
)

// LeaveFleet implements api.Engine.
func (e *Engine) LeaveFleet(context.Context, api.LeaveFleet) error { return errNotBuilt }
