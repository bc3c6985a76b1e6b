package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tagalong.org/tagalong/app/api"
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
	switch a.Kind {
	case baton.ActSave:
		v.saveBaton(a.State)
	case baton.ActStartIncoming:
		v.startIncoming(ctx, a)
	case baton.ActStartOutgoing:
		v.startOutgoing(ctx, a)
	case baton.ActContinueOutgoing:
		v.outgoing.proceed()
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
		v.endIncoming(a.Reason)
	case baton.ActBecomeReplica:
		v.becomeReplica(ctx, a)
	case baton.ActReportStopped:
		v.reportStopped()
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

// persistGiven signs the transfer and writes it, together with the machine's state, in one commit;
// then the disk's own journal says the same. Only then may the transfer leave (DESIGN §7).
func (v *vm) persistGiven(a baton.Action) baton.Event {
	ev := baton.Event{Kind: baton.EvPersisted, Term: a.Term}
	kind := directory.KindSwitch
	if a.Returned {
		kind = directory.KindReturned
	}
	_, err := v.e.dir.Give(v.id, a.Term, a.Peer, a.Attempt, directory.Position(a.Position), kind, directory.BatonEntry(v.id, a.State))
	if err != nil {
		v.log.Error("Writing the transfer failed", "term", a.Term, "error", err)
		// Of a commit that failed half-way nobody knows whether it is on the disk: the machine tries
		// again until it does.
		return baton.Event{Kind: baton.EvPersistFailed, Term: a.Term, NotWritten: !errors.Is(err, directory.ErrUnsure)}
	}
	if err := v.giveDisk(a.Term - 1); err != nil {
		v.log.Error("Giving the disk's term away failed", "term", a.Term-1, "error", err)
		return baton.Event{Kind: baton.EvPersistFailed, Term: a.Term}
	}
	return ev
}

func (v *vm) giveDisk(term uint64) error {
	disk := v.currentDisk()
	if disk == nil {
		return nil
	}
	if disk.Info().Active {
		if err := disk.Fence(); err != nil {
			return err
		}
	}
	return disk.Give(term)
}

// persistOwned writes the received transfer together with the machine's state.
func (v *vm) persistOwned(a baton.Action) baton.Event {
	t, ok := v.e.dir.Transfer(v.id, a.Term)
	if !ok {
		v.log.Error("The received transfer isn't in the directory", "term", a.Term)
		return baton.Event{Kind: baton.EvPersistFailed, Term: a.Term, NotWritten: true}
	}
	if err := v.e.dir.AppendTransfer(t, directory.BatonEntry(v.id, a.State)); err != nil {
		v.log.Error("Writing the received transfer failed", "term", a.Term, "error", err)
		return baton.Event{Kind: baton.EvPersistFailed, Term: a.Term}
	}
	return baton.Event{Kind: baton.EvPersisted, Term: a.Term}
}

// activateDisk lets the disk be written under the term, and begins to replicate it.
func (v *vm) activateDisk(term uint64) {
	v.seal()
	defer v.unseal()
	disk := v.currentDisk()
	if disk == nil {
		v.setProblem(&api.Error{Code: api.CodeInternal, Sentence: "This device has no copy of the VM's disk.", Next: "Switch it back, or look into the engine's log."})
		return
	}
	giver := v.importDirty(disk)
	if err := disk.Activate(term); err != nil {
		v.log.Error("Activating the disk failed", "term", term, "error", err)
		v.setProblem(&api.Error{Code: api.CodeInternal, Sentence: "The VM's disk can't be written here.", Next: "The engine's log has the cause.", Cause: err.Error()})
		return
	}
	if giver != nil {
		if err := disk.SetClean(giver.from, giver.position); err != nil {
			v.log.Warn("The giver's replica will be checked whole", "device", giver.from, "error", err)
		}
	}
	v.e.saveRecordSoon()
}

// fenceDisk lets no write pass any more. Of a disk that isn't active, which a restart leaves, the
// terms before are given away once more: the machine knows that they were.
func (v *vm) fenceDisk(term uint64) {
	disk := v.currentDisk()
	if disk == nil || term == 0 {
		return
	}
	var err error
	if disk.Info().Active {
		err = disk.Fence()
	} else {
		err = disk.Give(term - 1)
	}
	if err != nil {
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
	if v.outgoing != nil {
		v.outgoing.end(ctx)
		v.outgoing = nil
	}
	if err := guest.Continue(ctx); err != nil {
		v.log.Error("The guest didn't go on", "error", err)
		return baton.Event{Kind: baton.EvGuestFailed, Reason: err.Error()}
	}
	v.switchRuns(time.Now())
	v.e.spawn(func() { v.noteGuest(guest) })
	v.log.Info("The guest goes on here")
	return baton.Event{Kind: baton.EvGuestRuns}
}

// resume ends an attempt to give the VM away: it goes on here, under its term. It is also how an
// owner begins after a restart.
func (v *vm) resume(ctx context.Context, a baton.Action) {
	stepCtx, cancel := context.WithTimeout(ctx, actionTimeout)
	defer cancel()
	if v.outgoing != nil {
		v.outgoing.end(stepCtx)
		v.outgoing = nil
	}
	disk, guest := v.currentDisk(), v.currentGuest()
	if disk == nil {
		return
	}
	if disk.Info().Active {
		if err := disk.Unfence(); err != nil {
			v.log.Error("Unfencing the disk failed", "error", err)
		}
	} else if err := disk.Activate(a.Term); err != nil {
		v.log.Error("Activating the disk failed", "term", a.Term, "error", err)
		v.setProblem(&api.Error{Code: api.CodeInternal, Sentence: "The VM's disk can't be written here.", Next: "The engine's log has the cause.", Cause: err.Error()})
		return
	}
	if err := v.startExport(); err != nil {
		v.log.Error("Serving the disk failed", "error", err)
	}
	if a.Reason == baton.ReasonRestarted && guest != nil {
		v.e.spawn(func() { v.followGuest(guest) })
	}
	if a.Guest && guest != nil {
		if err := goOn(stepCtx, guest); err != nil {
			v.log.Error("The guest didn't go on", "error", err)
			v.setProblem(&api.Error{Code: api.CodeInternal, Sentence: "The VM stands still and didn't go on.", Next: "Stop it (tagalong vm stop --force) and start it again.", Cause: err.Error()})
		}
	}
	v.syncFeeds()
	v.endSwitch(a.Reason)
}

// goOn lets a guest continue that may stand in the middle of a teleport begun by an earlier engine.
func goOn(ctx context.Context, guest hypervisor.Guest) error {
	state, err := guest.State(ctx)
	if err != nil {
		return err
	}
	if err := guest.Settle(ctx); err != nil {
		return err
	}
	if state == hypervisor.StateRunning {
		return nil
	}
	return guest.Continue(ctx)
}

func (v *vm) killHypervisor(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, actionTimeout)
	defer cancel()
	if v.incoming != nil {
		v.incoming.end()
		v.incoming = nil
	}
	if v.outgoing != nil {
		v.outgoing.abandon()
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
	v.stopFeeds()
	v.stopExport()
	v.switchDone(v.e.deviceName(a.Peer))
}

func (v *vm) reportStopped() {
	v.log.Warn("The memory of the VM is lost; its disk is whole")
	v.e.tell("vm.memory-lost", v, fmt.Sprintf("%s had to be stopped: what was open in it and not saved is lost, its disk is whole.", v.name()))
	v.setProblem(&api.Error{Code: api.CodeInternal, Sentence: "The memory was lost in a switch; the disk is whole.", Next: "Start it again: tagalong vm start"})
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
