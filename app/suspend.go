package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"syscall"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/holdpoint"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/app/savedmemory"
	"tagalong.org/tagalong/app/second"
	"tagalong.org/tagalong/app/volumes/window"
	"tagalong.org/tagalong/vmdisk"
)

// phaseSecondCopy is a suspension's last one: all is written, and made durable, if that is asked for on a second device.
const phaseSecondCopy = "making it durable"

// waitFor does work as a job that the person can follow and cancel, and waits for it. Who stops waiting cancels it.
func (v *vm) waitFor(ctx context.Context, kind string, do func(ctx context.Context, j *job) error) error {
	about, err := v.e.startJob(api.Job{Kind: kind, VM: v.id, VMName: v.name()}, do)
	if err != nil {
		return err
	}
	j := v.e.job(about.ID)
	if j == nil {
		return errVMClosed
	}
	select {
	case <-j.ended:
	case <-ctx.Done():
		j.cancel()
		<-j.ended
	}
	if failed := j.snapshot().Error; failed != nil {
		return failed
	}
	return nil
}

// suspend stops the guest, makes its memory durable and ends its hypervisor. Until the memory is durable the guest goes on if anything fails, or the
// person cancels. The memory is for that device, if it isn't "".
func (v *vm) suspend(ctx context.Context, j *job, guest hypervisor.Guest, device string) error {
	if err := v.memoryFirst(); err != nil {
		return err
	}
	config, err := v.config()
	if err != nil {
		return err
	}
	sees, err := config.Seen()
	if err != nil {
		return err
	}
	facts, err := v.e.facts.get(ctx, v.e.opt.Hypervisor)
	if err != nil {
		return explainProbe(err)
	}
	disk := v.currentDisk()
	if disk == nil {
		return errVMClosed
	}
	// The volume is made while the guest still runs: it takes the disk some time.
	w, err := v.makeMemoryVolume(config.MemoryKiB << 10)
	if err != nil {
		return v.explainSuspend(err)
	}
	if err := v.halt(ctx, guest); err != nil {
		// It may stand still all the same, or soon: it answers when its disk has drained, and does one after the other what it is told.
		back, cancel := context.WithTimeout(context.WithoutCancel(ctx), actionTimeout)
		defer cancel()
		if stands := v.letRun(back, guest); stands != nil {
			return v.errStands(stands, err)
		}
		return v.explainSuspend(err)
	}
	v.switchStopped(time.Now())
	holdpoint.At(ctx, holdpoint.Saving)
	h := savedmemory.Header{For: device, Config: sees, Accel: facts.Accel, Version: facts.Version, At: time.Now().UTC()}
	if h, err = v.saveMemory(ctx, j, guest, disk, w, h); err != nil {
		back, cancel := context.WithTimeout(context.WithoutCancel(ctx), actionTimeout)
		defer cancel()
		if stands := v.goOnAfterAll(back, guest, w); stands != nil {
			return v.errStands(stands, err)
		}
		return v.explainSuspend(err)
	}
	v.setSaved(saved{looked: true, header: &h})
	// The guest is in the header now; a hypervisor that doesn't end is ended by who finds it beside that.
	if _, err := v.endSaved(context.WithoutCancel(ctx), guest); err != nil {
		return err
	}
	j.say(v.name() + " is suspended.")
	v.e.hub.publish(api.Event{Kind: "vm.suspended", VM: v.id, Text: v.name() + " is suspended."})
	v.e.saveRecordSoon()
	return nil
}

// errStands is what the person reads of a VM that wasn't suspended because of err and doesn't go on because of stands.
func (v *vm) errStands(stands, err error) error {
	return &api.Error{Code: api.CodeInternal, Sentence: v.name() + " couldn't be suspended, and stands still.",
		Next: fmt.Sprintf("Let it go on: tagalong vm resume %q", v.name()), Remedy: api.RemedyResume, Cause: fmt.Sprintf("%v (it wasn't suspended: %v)", stands, err)}
}

// saveMemory writes the paused guest's memory, with progress.
func (v *vm) saveMemory(ctx context.Context, j *job, guest hypervisor.Guest, disk *vmdisk.Store, w *window.Disk, h savedmemory.Header) (savedmemory.Header, error) {
	var raw atomic.Int64
	watch, stop := context.WithCancel(ctx)
	defer stop()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		v.watchSaving(watch, j, guest, &raw)
	}()
	defer func() {
		stop()
		<-watched
	}()
	bound := v.second.On(disk, ctx.Done())
	return savedmemory.Save(ctx, savedmemory.Saving{
		Volume: w, Header: h, Dense: h.For != "" && v.e.fromAfar(h.For), Write: guest.Save,
		Flush: func() error {
			stop()
			<-watched
			j.enter(phaseSecondCopy)
			return bound.Flushed(w.Flush)
		},
		Progress: func(n, _ int64) { raw.Store(n) },
	})
}

// savingPoll is how often the hypervisor is asked how much of a memory is left to write.
const savingPoll = 250 * time.Millisecond

// watchSaving keeps the job's progress true until ctx ends: what was written, of that and what is left.
func (v *vm) watchSaving(ctx context.Context, j *job, guest hypervisor.Guest, raw *atomic.Int64) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(savingPoll):
		}
		if left, err := guest.Unsaved(ctx); err == nil {
			done := raw.Load()
			j.progressOf(done, done+left)
		}
	}
}

// goOnAfterAll lets a guest go on whose memory couldn't be saved. Nothing of that may be left that could be taken for it.
func (v *vm) goOnAfterAll(ctx context.Context, guest hypervisor.Guest, w *window.Disk) error {
	if err := savedmemory.Clear(w); err != nil {
		// It stands still, whole: better than one that goes on beside a header that it has outrun.
		v.setSaved(saved{left: true})
		return v.errCantClear(err)
	}
	v.setSaved(saved{looked: true})
	v.discard(w)
	return v.letRun(ctx, guest)
}

// clearLeft makes durable what goOnAfterAll couldn't, before the guest goes on after all.
func (v *vm) clearLeft() error {
	v.mu.Lock()
	left := v.saved.left
	v.mu.Unlock()
	if !left {
		return nil
	}
	w, ok, err := v.memoryVolume()
	if err == nil && ok {
		err = savedmemory.Clear(w)
	}
	if err != nil {
		return v.errCantClear(err)
	}
	v.setSaved(saved{looked: true})
	return nil
}

// errCantClear says why a guest stands still whose memory couldn't be saved.
func (v *vm) errCantClear(err error) error {
	return &api.Error{Code: api.CodeSpace, Sentence: v.name() + " stands still, with all that is open in it: its memory couldn't be saved, and its disk can't be written.",
		Next: fmt.Sprintf("See whether this device's disk is full or failing, then let it go on: tagalong vm resume %q", v.name()), Remedy: api.RemedyResume, Cause: err.Error()}
}

// explainSuspend makes a sentence of why a VM wasn't suspended.
func (v *vm) explainSuspend(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, second.ErrNoSecond):
		return &api.Error{Code: api.CodeUnreachable, Sentence: v.name() + " wasn't suspended: its memory has to be on a second device, and none has it.",
			Next: fmt.Sprintf("Connect one, or say that one copy is enough: tagalong vm set %q --sync one", v.name()), Cause: err.Error()}
	case errors.Is(err, syscall.ENOSPC):
		return &api.Error{Code: api.CodeSpace, Sentence: "There isn't enough space on this device for the memory of " + v.name() + ". It wasn't suspended and goes on.",
			Next: fmt.Sprintf("Free some space and try again, or shut it down instead: tagalong vm stop %q", v.name()), Cause: err.Error()}
	}
	return explainFailed(v.name()+" couldn't be suspended.", err)
}

// endSaved ends a guest whose memory is saved, and says whether it was one. It must not go on: its memory would be loaded a second time, beside disks
// that have moved on. The caller holds the VM for an operation.
func (v *vm) endSaved(ctx context.Context, guest hypervisor.Guest) (ended bool, err error) {
	v.mu.Lock()
	saved := v.saved.header != nil
	v.mu.Unlock()
	if !saved {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, actionTimeout)
	defer cancel()
	if err := guest.Kill(ctx); err != nil {
		return false, &api.Error{Code: api.CodeInternal, Sentence: fmt.Sprintf("%s is suspended, and its hypervisor, which isn't needed any more, doesn't end.", v.name()),
			Next: "Try again in a moment. If it never ends, restart this device: the VM stays suspended.", Cause: err.Error()}
	}
	v.dropGuest(guest)
	return true, nil
}

// restore starts the hypervisor with the saved memory and lets the guest go on.
func (v *vm) restore(ctx context.Context, j *job) error {
	s, err := v.isSaved()
	if err != nil {
		return err
	}
	switch {
	case s.err != nil:
		return v.errMemoryUnusable(s.err)
	case s.header == nil:
		return v.errNotSuspended() // it was dropped meanwhile
	}
	w, _, err := v.memoryVolume()
	if err != nil {
		return err
	}
	if err := v.awaitActive(ctx); err != nil {
		return err
	}
	config, err := v.config()
	if err != nil {
		return err
	}
	if err := v.fitsHere(ctx, *s.header, config); err != nil {
		return err
	}
	guest, err := v.startWaiting(ctx, config)
	if err != nil {
		return err
	}
	kill := func(err error) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), actionTimeout)
		defer cancel()
		return errors.Join(err, guest.Kill(ctx), guest.Close())
	}
	stored := s.header.Stored
	err = savedmemory.Load(ctx, savedmemory.Loading{Volume: w, Header: *s.header, Read: func(ctx context.Context, r io.Reader) error { return guest.Restore(ctx, r) },
		Progress: func(n int64) { j.progressOf(n, stored) }})
	switch {
	case errors.Is(err, savedmemory.ErrDamaged):
		return kill(v.errMemoryUnusable(err))
	case errors.Is(err, vmdisk.ErrStale):
		return kill(&api.Error{Code: api.CodeUnreachable, Sentence: "Not all of the saved memory of " + v.name() + " is here yet, and no device that has the rest is connected. It stays suspended.",
			Next: "Connect one and try again.", Cause: err.Error()})
	case err != nil:
		return kill(explainFailed("The saved memory of "+v.name()+" couldn't be loaded. It stays suspended.", err))
	}
	holdpoint.At(ctx, holdpoint.Restoring)
	if _, err := guest.State(ctx); err != nil { // it has ended, and nothing of its memory is used up yet
		return kill(explainFailed(v.name()+" didn't go on with its saved memory. It stays suspended.", err))
	}
	if err := v.adopt(ctx, guest); err != nil {
		return err
	}
	// From here on there is no way back, whoever has lost patience: the memory is used up before the guest goes on. It must never be loaded a
	// second time, beside disks that have moved on.
	ctx = context.WithoutCancel(ctx)
	used := false
	if err = savedmemory.Clear(w); err == nil {
		used = true
		v.setSaved(saved{looked: true})
		err = v.letRun(ctx, guest)
	}
	switch {
	case err == nil:
		v.discard(w)
		j.say(v.name() + " goes on.")
		return nil
	case !v.owner():
		return err
	}
	end, cancel := context.WithTimeout(ctx, actionTimeout)
	defer cancel()
	err = errors.Join(err, guest.Kill(end))
	v.dropGuest(guest)
	if !used {
		v.setSaved(saved{})
		return err
	}
	lost := errUsedUp(v.name(), err)
	v.setProblem(lost)
	return lost
}

// errUsedUp is the problem of a VM that was to be resumed and whose hypervisor didn't let it go on when it had all of the memory.
func errUsedUp(vm string, err error) *api.Error {
	return &api.Error{Code: api.CodeInternal, Sentence: fmt.Sprintf("%s didn't go on when its saved memory had been loaded: what was open in it and not saved is lost, its disks are whole.", vm),
		Next: fmt.Sprintf("Start it again: tagalong vm start %q", vm), Remedy: api.RemedyStart, Topic: api.TopicFell, Cause: err.Error()}
}

// awaitActive waits until the disk can be written: an engine that has just started, or taken the VM, makes it so first.
func (v *vm) awaitActive(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, actionTimeout)
	defer cancel()
	for {
		if disk := v.currentDisk(); disk != nil && disk.Info().Active {
			return nil
		}
		if err := (wallClock{}).Wait(ctx, 20*time.Millisecond); errors.Is(err, context.DeadlineExceeded) {
			return &api.Error{Code: api.CodeConflict, Sentence: "The disk of " + v.name() + " isn't ready on this device.",
				Next: "Try again; the engine's log has the cause.", Remedy: api.RemedyResume}
		} else if err != nil {
			return err
		}
	}
}

// startWaiting starts a hypervisor that waits for memory.
func (v *vm) startWaiting(ctx context.Context, config hypervisor.Config) (hypervisor.Guest, error) {
	if err := v.admit(config.MemoryKiB << 10); err != nil {
		return nil, &api.Error{Code: api.CodeConflict, Sentence: "There isn't enough free memory on this device for " + v.name() + ".",
			Next: "Close something and try again.", Remedy: api.RemedyResume}
	}
	defer v.admitted()
	if err := errors.Join(v.reachTable(), v.startExport()); err != nil {
		return nil, err
	}
	v.setStarting(true)
	defer v.setStarting(false)
	if err := v.uncertain(); err != nil {
		return nil, err
	}
	guest, err := v.e.opt.Hypervisor.StartIncoming(ctx, config)
	if err != nil {
		return nil, explainHypervisor(err)
	}
	return guest, nil
}

// fitsHere says why a memory can't go on here as the VM, and this device, are.
func (v *vm) fitsHere(ctx context.Context, h savedmemory.Header, config hypervisor.Config) error {
	sees, err := config.Seen()
	if err != nil {
		return err
	}
	if h.Config != sees {
		return errConflict("The hardware of "+v.name()+" was changed since it was suspended: its memory can't go on in it.",
			fmt.Sprintf("Change it back, or start it without (what was open in it is lost, its disks are whole): tagalong vm stop --force %q", v.name()))
	}
	facts, err := v.e.facts.get(ctx, v.e.opt.Hypervisor)
	if err != nil {
		return explainProbe(err)
	}
	if h.Accel != facts.Accel {
		return errConflict(fmt.Sprintf("%s was suspended under %s, and this device has %s: its memory can't go on here.", v.name(), h.Accel, facts.Accel),
			"Resume it on a device like the one on which it was suspended.")
	}
	return nil
}

// errMemoryUnusable leaves the choice to the person: nothing starts without the memory unasked.
func (v *vm) errMemoryUnusable(err error) error {
	sentence := "The saved memory of " + v.name() + " is damaged: it can't go on where it was."
	next := fmt.Sprintf("Its disks are whole. Start it without what was open in it: tagalong vm stop --force %q, then: tagalong vm start %q", v.name(), v.name())
	if errors.Is(err, savedmemory.ErrVersion) {
		sentence = "A later version of Tagalong has suspended " + v.name() + "."
		next = "Update Tagalong on this device, or start it without what was open in it: tagalong vm stop --force, then vm start."
	}
	return &api.Error{Code: api.CodeConflict, Sentence: sentence, Next: next, Cause: err.Error()}
}
