package app

import (
	"context"
	"errors"
	"syscall"

	"tagalong.org/tagalong/directory/baton"
)

// An owner whose hand-off came to nothing goes on where it stands, and so does one whose engine starts again. Where not even the few bytes can be stored that
// this takes, the VM stands still, says so, and goes on by itself as soon as there is some space: nothing of it is lost meanwhile, and no engine has to be
// started anew. Only the loop calls these.

// resumeLater takes note that a failed for err. The switch is over all the same.
func (v *vm) resumeLater(a baton.Action, err error) {
	if !errors.Is(err, syscall.ENOSPC) {
		return
	}
	v.setProblem(errFullDisk(err))
	v.stays = &a
	v.endUnder(a.Reason)
}

// resumeAgain tries it again, if there is room, and the VM is still this device's under the same term.
func (v *vm) resumeAgain(ctx context.Context) {
	a := v.stays
	if a == nil || v.e.dir.Room() != nil {
		return
	}
	v.stays = nil
	if v.machine.State() != baton.Owned || v.machine.Term() != a.Term {
		return
	}
	v.log.Info("There is room again: the VM is to go on here", "term", a.Term)
	v.under, v.holds = nil, false
	v.setProblemQuietly(nil)
	v.resume(ctx, *a)
	v.e.saveRecordSoon()
}
