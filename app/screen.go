package app

import (
	"context"
	"errors"
	"fmt"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor"
)

// OpenScreen implements api.Engine.
func (e *Engine) OpenScreen(ctx context.Context, name string) (*api.Screen, error) {
	v, err := e.find(name)
	if err != nil {
		return nil, err
	}
	if err := v.mine(); err != nil {
		return nil, err
	}
	guest := v.currentGuest()
	if guest == nil {
		return nil, errConflict(v.name()+" isn't running.", fmt.Sprintf("Start it with: tagalong vm start %q", v.name()))
	}
	t, err := guest.OpenScreen(ctx)
	switch {
	case errors.Is(err, hypervisor.ErrNoScreen):
		return nil, errConflict(v.name()+" has no screen.", "It was made without one; its serial line is what tagalong vm show calls its console.")
	case err != nil:
		return nil, &api.Error{Code: api.CodeInternal, Sentence: "The screen of " + v.name() + " can't be opened.", Next: "Try again in a moment.", Cause: err.Error()}
	}
	return &api.Screen{Protocol: t.Protocol, Socket: t.Socket, Password: t.Password}, nil
}
