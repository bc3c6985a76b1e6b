package app

import (
	"context"
	"encoding/hex"
	"fmt"

	"github.com/zeebo/blake3"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
)

const opRollback = "it is being rolled back"

// Rollback implements api.Engine: what a person must know before the VM goes on with what this device had of it before a switch.
func (e *Engine) Rollback(_ context.Context, name string) (*api.Rollback, error) {
	v, err := e.find(name)
	if err != nil {
		return nil, err
	}
	return v.rollback()
}

func (v *vm) rollback() (*api.Rollback, error) {
	if err := v.mine(); err != nil {
		return nil, v.rather(err)
	}
	if err := v.decided(); err != nil {
		return nil, err
	}
	h, disk := v.hydration(), v.currentDisk()
	if h == nil || disk == nil {
		return nil, errConflict("All of "+v.name()+" is on this device: there is nothing to roll back.", "")
	}
	info := disk.Info()
	r := &api.Rollback{
		VM: v.id, VMName: v.name(), Position: api.Position(info.Position), To: api.Position(info.Before), Written: info.Written,
		Remaining: h.Remaining, Running: v.currentGuest() != nil, Suspended: v.suspended(), Holders: h.From,
	}
	sum := blake3.Sum256(fmt.Appendf(nil, "tagalong rollback v1 %s %d %v %v %v", v.id, info.Term, r.To, r.Running, r.Suspended))
	r.Token = hex.EncodeToString(sum[:16])
	return r, nil
}

// RollBack implements api.Engine. It returns when it is durable that this device goes on with what it had before.
func (e *Engine) RollBack(ctx context.Context, req api.RollBackVM) error {
	v, err := e.find(req.VM)
	if err != nil {
		return err
	}
	if err := v.begin(opRollback); err != nil {
		return err
	}
	defer v.end(opRollback)
	told, err := v.rollback()
	if err != nil {
		return err
	}
	if told.Token != req.Token {
		return errConflict("What you read about "+told.VMName+" isn't true any more.", "Read it again: tagalong vm rollback")
	}
	if guest := v.currentGuest(); guest != nil {
		// What it remembers belongs to the disk that goes.
		if err := guest.Kill(ctx); err != nil {
			return explainFailed(v.name()+" couldn't be stopped.", err)
		}
		v.dropGuest(guest)
	}
	return v.goBack(ctx, told)
}

// goBack takes the VM over from this device itself, at the position that its copy was at before; nothing runs.
func (v *vm) goBack(ctx context.Context, told *api.Rollback) error {
	pos := directory.Position(told.To)
	heads := v.e.dir.Heads(v.id)
	if len(heads) != 1 {
		return v.undecided()
	}
	v.stopHydrate()
	v.stopFeeds()
	if disk := v.currentDisk(); disk != nil {
		disk.EndWaiting()
	}
	v.stopExport()
	defer v.hydrateSoon() // if nothing came of it
	term, err := v.e.dir.NextForced(directory.KindTakeover, v.id, heads[0].Hash(), nil, pos)
	if err != nil {
		return fmt.Errorf("number the rollback: %w", err)
	}
	if err := v.do(ctx, baton.Event{Kind: baton.EvTakeOver, Peer: v.e.host.ID(), Term: term, Position: baton.Position(pos), Mine: true}); err != nil {
		return errConflict(told.VMName+" can't be rolled back at this moment.", "Try again in a moment.")
	}
	v.mu.Lock()
	done := v.ownerLocked() && v.term == term
	v.mu.Unlock()
	if disk := v.currentDisk(); !done || disk == nil || !disk.Info().Active || disk.Info().Hydrating {
		return &api.Error{Code: api.CodeInternal, Sentence: "The rollback couldn't be completed.", Next: "Check that this device's disk isn't full, restart Tagalong, and try again."}
	}
	// What this device had may be suspended itself.
	v.removeOldMemory()
	v.setSaved(saved{})
	v.lookSavedSoon()
	v.e.tell("vm.rolled-back", v, told.VMName+" was rolled back to what this device had before the switch.")
	v.syncFeeds()
	v.e.saveRecordSoon()
	return nil
}
