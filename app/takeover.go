package app

import (
	"context"

	"tagalong.org/tagalong/app/api"
)

var errNotBuilt = &api.Error{Code: api.CodeInternal, Sentence: "This engine can't do that."}

// Takeover implements api.Engine.
func (e *Engine) Takeover(context.Context, string) (*api.Takeover, error) { return nil, errNotBuilt }

// TakeOver implements api.Engine.
func (e *Engine) TakeOver(context.Context, api.TakeOverVM) error { return errNotBuilt }

// Resolve implements api.Engine.
func (e *Engine) Resolve(context.Context, api.ResolveConflict) (*api.Job, error) {
	return nil, errNotBuilt
}

// DeleteRestorePoint implements api.Engine.
func (e *Engine) DeleteRestorePoint(context.Context, api.RestorePointRef) error { return errNotBuilt }

// OpenRestorePoint implements api.Engine.
func (e *Engine) OpenRestorePoint(context.Context, api.RestorePointRef) error { return errNotBuilt }

// CloseRestorePoint implements api.Engine.
func (e *Engine) CloseRestorePoint(context.Context, api.RestorePointRef) error { return errNotBuilt }
