package app

import (
	"context"
	"fmt"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor"
)

// powerDownTimeout is how long a guest may take to shut itself down.
const powerDownTimeout = 90 * time.Second

// StopVM implements api.Engine.
func (e *Engine) StopVM(ctx context.Context, name string, force bool) error {
	v, err := e.find(name)
	if err != nil {
		return err
	}
	if err := v.mine(); err != nil {
		return err
	}
	if force && v.stopping() {
		// Who waits for the guest to shut itself down hears that it is gone.
		if guest := v.currentGuest(); guest != nil {
			return explainFailed(v.name()+" couldn't be stopped.", guest.Kill(ctx))
		}
		return nil
	}
	if err := v.begin(opStop); err != nil {
		return err
	}
	defer v.end(opStop)
	guest := v.currentGuest()
	if guest == nil && force {
		// Of a memory that isn't here and can't be had nothing needs to be known to drop it.
		if s, err := v.isSaved(); err != nil || s.there() || v.oldMemory() {
			return v.dropMemory()
		}
	}
	if guest == nil {
		return v.errNotRunning()
	}
	if !force {
		return v.shutDown(ctx, guest)
	}
	if err := guest.Kill(ctx); err != nil {
		return explainFailed(v.name()+" couldn't be stopped.", err)
	}
	v.dropGuest(guest)
	return nil
}

func (v *vm) errNotRunning() error {
	return errConflict(v.name()+" isn't running.", fmt.Sprintf("See how it is with: tagalong vm show %q", v.name()))
}

// stopping says that the guest was asked to shut itself down.
func (v *vm) stopping() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.op == opStop && v.guest != nil
}

// shutDown presses the guest's power button and waits until it has shut itself down, for as long as it may take. The guest goes on if it
// doesn't: only the person can say that what it hasn't written may be lost.
func (v *vm) shutDown(ctx context.Context, guest hypervisor.Guest) error {
	asked, cancel := context.WithTimeout(ctx, v.e.powerDown)
	defer cancel()
	if state, err := guest.State(asked); err != nil || state != hypervisor.StateRunning {
		return errConflict(v.name()+" stands still, so it can't shut itself down.", fmt.Sprintf("Let it go on first (tagalong vm resume %q), or turn it off at once: tagalong vm stop %q --force", v.name(), v.name()))
	}
	if err := guest.PowerDown(asked); err != nil {
		return explainFailed(v.name()+" couldn't be asked to shut down.", err)
	}
	v.e.hub.publish(api.Event{Kind: "vm.stopping", VM: v.id, Text: v.name() + " was asked to shut down."})
	select {
	case <-guest.Exited():
		v.dropGuest(guest)
		return nil
	case <-asked.Done():
	case <-v.e.ctx.Done():
	}
	if ctx.Err() != nil || v.e.ctx.Err() != nil {
		return &api.Error{Code: api.CodeCancelled, Sentence: "Not waited for any longer. " + v.name() + " may still be shutting down.", Next: "See how it is with: tagalong vm list"}
	}
	return &api.Error{Code: api.CodeUnanswered, Sentence: fmt.Sprintf("%s was asked to shut down %d seconds ago and still runs.", v.name(), int(v.e.powerDown.Seconds())),
		Next: fmt.Sprintf("Shut it down from inside, or turn it off at once, which loses what it hasn't written to its disk: tagalong vm stop %q --force", v.name())}
}

// ResetVM implements api.Engine.
func (e *Engine) ResetVM(ctx context.Context, name string) error {
	v, err := e.find(name)
	if err != nil {
		return err
	}
	if err := v.mine(); err != nil {
		return err
	}
	if err := v.begin(opReset); err != nil {
		return err
	}
	defer v.end(opReset)
	guest := v.currentGuest()
	if guest == nil {
		return v.errNotRunning()
	}
	state, err := guest.State(ctx)
	if err != nil {
		return explainFailed(v.name()+" couldn't be restarted.", err)
	}
	switch state {
	case hypervisor.StateRunning, hypervisor.StateFailed, hypervisor.StateShutdown:
	default:
		return errConflict(v.name()+" stands still.", fmt.Sprintf("Let it go on first: tagalong vm resume %q", v.name()))
	}
	if err := guest.Reset(ctx); err != nil {
		return explainFailed(v.name()+" couldn't be restarted.", err)
	}
	if !v.owner() {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), actionTimeout)
		defer cancel()
		_ = v.standStill(stop, guest)
		return v.rather(v.errNotHere())
	}
	v.noteGuest(guest)
	v.e.hub.publish(api.Event{Kind: "vm.reset", VM: v.id, Text: v.name() + " was restarted."})
	return nil
}
