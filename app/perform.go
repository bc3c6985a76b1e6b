package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/custody"
	"tagalong.org/tagalong/app/holdpoint"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/vmdisk"
)

// actionTimeout bounds the steps of a hand-off that have no progress of their own.
const actionTimeout = 20 * time.Second

// perform carries out one action of the machine, and returns the event that tells how it went, if
// the machine wants one. Steps that take long run beside the loop and post their event.
func (v *vm) perform(ctx context.Context, a baton.Action) (follow baton.Event, ok bool) {
	holdpoint.At(ctx, string(a.Kind))
	switch a.Kind {
	case baton.ActSave:
		v.saveBaton(a.State)
	case baton.ActStartIncoming:
		v.startIncoming(ctx, a)
	case baton.ActStartOutgoing:
		v.startOutgoing(ctx, a)
	case baton.ActContinueOutgoing:
		v.outgoing.Proceed()
	case baton.ActPersistGiven:
		return v.persistGiven(a), true
	case baton.ActPersistOwned:
		return v.persistOwned(a), true
	case baton.ActActivateDisk:
		v.activateDisk(a.Term)
	case baton.ActFenceDisk:
		v.fenceDisk(a.Term)
	case baton.ActRunGuest:
		return v.runGuest(ctx), true
	case baton.ActResume:
		v.resume(ctx, a)
	case baton.ActKillHypervisor:
		v.killHypervisor(ctx)
	case baton.ActRecordAbort:
		v.saveBaton(a.State)
		if a.Reason == baton.ReasonRestarted {
			v.recallSwitch(a.Peer)
		}
		v.endIncoming(a.Reason)
	case baton.ActBecomeReplica:
		v.becomeReplica(ctx, a)
	case baton.ActReportStopped:
		v.reportStopped()
	case baton.ActPersistTakeover:
		return v.persisted("Writing the takeover failed", a.Term, v.custody().TookOver(a.Term, a.Position, a.State)), true
	case baton.ActPersistKept:
		return v.persistKept(a), true
	case baton.ActPauseGuest:
		v.pauseGuest(ctx)
	case baton.ActJudge:
		return v.judge(a.Term)
	case baton.ActSetAside:
		v.startSetAside(ctx, a.Term)
	case baton.ActYieldDisk:
		v.stopHydrate()
		if err := v.custody().Yield(a.Term); err != nil {
			v.log.Error("Giving the disk's terms away failed", "term", a.Term, "error", err)
		}
	case baton.ActRenewTerm:
		if err := v.custody().Renew(a.Term); err != nil {
			v.notActive(a.Term, err)
		}
		v.e.saveRecordSoon()
	case baton.ActSendTransfer:
		v.serveRest(ctx, a)
		v.send(a)
	default:
		v.send(a)
	}
	return baton.Event{}, false
}

// saveBaton writes the machine's durable state. A failure is loud but not fatal: what is written is
// an earlier state of the same hand-off, and a restart from it is one the machine is made for.
func (v *vm) saveBaton(state []byte) {
	if err := v.e.dir.SaveBaton(v.id, state); err != nil {
		v.log.Error("Writing the hand-off's state failed", "error", err)
	}
}

// custody is what this device holds of the VM, for the durable steps.
func (v *vm) custody() custody.Custody {
	return v.custodyOfDisk(v.currentDisk())
}

func (v *vm) custodyOfDisk(disk *vmdisk.Store) custody.Custody {
	return custody.Custody{VM: v.id, Self: v.e.host.ID(), Dir: v.e.dir, Disk: disk, Log: v.log, Lacking: v.lacking()}
}

func (v *vm) persistGiven(a baton.Action) baton.Event {
	kind := directory.KindSwitch
	if a.Returned {
		kind = directory.KindReturned
	}
	return v.persisted("Giving the VM away failed", a.Term, v.custody().Given(custody.Giving{
		Term: a.Term, To: a.Peer, Attempt: a.Attempt, Position: directory.Position(a.Position), Kind: kind, State: a.State,
	}))
}

func (v *vm) persistOwned(a baton.Action) baton.Event {
	return v.persisted("Writing the received transfer failed", a.Term, v.custody().Owned(a.Term, a.State))
}

// persisted is the event that tells how a durable step went.
func (v *vm) persisted(failed string, term uint64, err error) baton.Event {
	if err == nil {
		return baton.Event{Kind: baton.EvPersisted, Term: term}
	}
	v.log.Error(failed, "term", term, "error", err)
	return baton.Event{Kind: baton.EvPersistFailed, Term: term, NotWritten: errors.Is(err, custody.ErrNotWritten)}
}

// activateDisk lets the disk be written under the term, and begins to replicate it.
func (v *vm) activateDisk(term uint64) {
	v.seal()
	defer v.unseal()
	err := v.custody().Activate(term, v.takeWord())
	switch {
	case errors.Is(err, custody.ErrNoDisk):
		v.setProblem(&api.Error{Code: api.CodeInternal, Sentence: "This device has no copy of the VM's disk.", Next: "Switch it back, or look into the engine's log."})
	case err != nil:
		v.notActive(term, err)
	default:
		v.fitStore()
		v.setSaved(saved{})
		v.lookSavedSoon()
		v.e.saveRecordSoon()
		v.hydrateSoon()
		v.e.spawn(v.syncFeeds)
	}
}

func (v *vm) notActive(term uint64, err error) {
	v.log.Error("Activating the disk failed", "term", term, "error", err)
	v.setProblem(&api.Error{Code: api.CodeInternal, Sentence: "The VM's disk can't be written here.", Next: "The engine's log has the cause.", Cause: err.Error()})
}

func (v *vm) fenceDisk(term uint64) {
	if err := v.custody().Fence(term); err != nil {
		v.log.Error("Fencing the disk failed", "term", term, "error", err)
	}
}

// runGuest lets the loaded guest go on. Everything durable was done before.
func (v *vm) runGuest(ctx context.Context) baton.Event {
	guest, disk := v.currentGuest(), v.currentDisk()
	switch {
	case guest == nil:
		return baton.Event{Kind: baton.EvGuestFailed, NeverRan: true, Reason: "its hypervisor is gone"}
	case disk == nil || !disk.Info().Active:
		return baton.Event{Kind: baton.EvGuestFailed, NeverRan: true, Reason: "its disk isn't active"}
	}
	ctx, cancel := context.WithTimeout(ctx, actionTimeout)
	defer cancel()
	v.endServing()
	if v.outgoing != nil {
		v.outgoing.End(ctx)
		v.outgoing = nil
	} else if v.incoming == nil {
		// It is given back, and an earlier engine gave it away.
		if err := endTeleport(ctx, guest); err != nil {
			return baton.Event{Kind: baton.EvGuestFailed, Reason: err.Error()}
		}
	}
	if err := v.startExport(); err != nil {
		return baton.Event{Kind: baton.EvGuestFailed, NeverRan: true, Reason: err.Error()}
	}
	// Once it is told to go on, a hypervisor that dies may have run it: then its memory is lost. One that is dead already, or doesn't answer, hasn't.
	if _, err := guest.State(ctx); err != nil {
		return baton.Event{Kind: baton.EvGuestFailed, NeverRan: true, Reason: err.Error()}
	}
	if err := v.carryOn(ctx, guest); err != nil {
		v.log.Error("The guest didn't go on", "error", err)
		return baton.Event{Kind: baton.EvGuestFailed, Reason: err.Error()}
	}
	v.switchRuns(time.Now())
	v.e.spawn(func() { v.showPoints(guest) })
	v.log.Info("The guest goes on here")
	return baton.Event{Kind: baton.EvGuestRuns}
}

// resume ends an attempt to give the VM away: it goes on here, under its term. It is also how an
// owner begins after a restart.
func (v *vm) resume(ctx context.Context, a baton.Action) {
	stepCtx, cancel := context.WithTimeout(ctx, actionTimeout)
	defer cancel()
	if v.outgoing != nil {
		v.outgoing.End(stepCtx)
		v.outgoing = nil
	}
	guest := v.currentGuest()
	switch err := v.custody().Resume(a.Term); {
	case errors.Is(err, custody.ErrNoDisk):
		return
	case err != nil:
		v.notActive(a.Term, err)
		v.resumeLater(a, err)
		return
	}
	v.holdBack("")
	v.fitStore()
	v.hydrateSoon()
	if err := v.startExport(); err != nil {
		v.log.Error("Serving the disk failed", "error", err)
	}
	if a.Guest {
		if a.Reason == baton.ReasonRestarted && guest != nil && v.followRest(ctx, guest, a.Term) {
			v.e.spawn(func() { v.awaitAnswer(ctx, guest) })
		} else {
			v.resumeGuest(stepCtx, guest)
		}
	} else if guest == nil {
		v.lookSavedSoon() // the engine before may have ended before it could say so in the record
	}
	v.syncFeeds()
	v.endUnder(a.Reason)
}

// resumeGuest lets the guest go on that was to be given away. It may be nil: its end was noticed, and the machine hasn't heard yet.
func (v *vm) resumeGuest(ctx context.Context, guest hypervisor.Guest) {
	if guest == nil {
		v.reportStopped()
		return
	}
	if v.endSuspended(ctx, guest) {
		v.lookSavedSoon()
		return
	}
	switch err := v.goOn(ctx, guest); {
	case errors.Is(err, hypervisor.ErrNotRunning):
		v.log.Warn("The guest didn't go on: its hypervisor has ended", "error", err)
		v.reportStopped()
	case errors.Is(err, hypervisor.ErrApart):
		// An earlier engine died between letting the guest go ahead and giving it away: the taker never ran it, and this hypervisor, which had sent all
		// and waits for the taker's word, comes to no end.
		v.log.Error("The guest can't go on: its hypervisor waits for a taker", "error", err)
		if err := guest.Kill(ctx); err != nil {
			v.log.Error("The hypervisor doesn't end", "error", err)
		}
		v.reportStopped()
	case err != nil:
		v.log.Error("The guest didn't go on", "error", err)
		v.setProblem(&api.Error{Code: api.CodeInternal, Sentence: v.name() + " stands still and didn't go on.",
			Next: fmt.Sprintf("Stop it (tagalong vm stop %q --force) and start it again.", v.name()), Topic: api.TopicStandsStill, Cause: err.Error()})
	}
}

// goOn lets a guest continue that may stand in the middle of a teleport begun by an earlier engine.
func (v *vm) goOn(ctx context.Context, guest hypervisor.Guest) error {
	state, err := guest.State(ctx)
	if err != nil {
		return err
	}
	if err := endTeleport(ctx, guest); err != nil {
		return err
	}
	if state == hypervisor.StateRunning {
		v.unslowed(guest)()
		return nil
	}
	return v.carryOn(ctx, guest)
}

func (v *vm) killHypervisor(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, actionTimeout)
	defer cancel()
	if v.incoming != nil {
		v.incoming.end()
		v.incoming = nil
	}
	v.endServing()
	if v.outgoing != nil {
		v.outgoing.Abandon()
		v.outgoing = nil
	}
	guest := v.currentGuest()
	if guest == nil {
		return
	}
	for {
		err := guest.Kill(ctx)
		if err == nil {
			break
		}
		// The machine goes on only when it is dead: two running guests are the worst thing.
		v.log.Error("The hypervisor doesn't end", "error", err)
		var again context.CancelFunc
		ctx, again = context.WithTimeout(v.e.ctx, actionTimeout)
		defer again()
		if v.e.ctx.Err() != nil {
			return
		}
	}
	v.dropGuest(guest)
}

// becomeReplica ends what an owner does: the taker has proved that it runs.
func (v *vm) becomeReplica(ctx context.Context, a baton.Action) {
	v.saveBaton(a.State)
	v.stopHydrate()
	v.stopFeeds()
	v.holdBack("")
	v.stopExport()
	v.setProblemQuietly(nil) // whatever it was, the VM isn't here any more
	v.setSaved(saved{})
	v.doneUnder(a.Peer)
}

func (v *vm) reportStopped() {
	v.log.Warn("The memory of the VM is lost; its disk is whole")
	v.e.tell("vm.memory-lost", v, fmt.Sprintf("%s had to be stopped: what was open in it and not saved is lost, its disk is whole.", v.name()))
	v.setProblem(&api.Error{Code: api.CodeInternal, Sentence: fmt.Sprintf("The memory of %s was lost in a switch; its disk is whole.", v.name()), Next: nextStart(v.name()),
		Remedy: api.RemedyStart, Topic: api.TopicMemoryLost})
}

func (v *vm) setProblem(p *api.Error) {
	v.mu.Lock()
	v.problem = p
	v.mu.Unlock()
	v.e.hub.publish(api.Event{Kind: "vm.problem", VM: v.id, Text: p.Error()})
}

func (v *vm) currentDisk() *vmdisk.Store {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.disk
}
