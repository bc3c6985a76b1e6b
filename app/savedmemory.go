package app

import (
	"context"
	"errors"
	"fmt"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/app/savedmemory"
	"tagalong.org/tagalong/app/volumes"
	"tagalong.org/tagalong/app/volumes/window"
	"tagalong.org/tagalong/vmdisk"
)

// What is suspended is a header in a volume of the VM's own store (package savedmemory). While there is one, nothing runs and nothing is written
// that isn't the memory: whatever lets a guest go on, or writes a disk, makes it durable before that there is none any more. So a hypervisor
// that an engine finds beside a header is one that was about to end, or hadn't begun.

// saved is what is known of the saved memory, without looking.
type saved struct {
	// looked says that somebody has; header is nil if there is none that could be resumed, and err says why.
	looked bool
	header *savedmemory.Header
	err    error
	// left says, of a VM that has its guest, that the header may be there of a memory that couldn't be saved: nobody could clear it.
	left bool
	// why is why the VM, which was to go on with it by itself, didn't; nil where that is the person's to do anyway.
	why *api.Error
}

// there says that memory is saved, whether or not it can be used.
func (s saved) there() bool { return s.header != nil || s.err != nil }

// memoryVolume is the part of the store that is for the memory; ok is false if it has none.
func (v *vm) memoryVolume() (w *window.Disk, ok bool, err error) {
	disk := v.currentDisk()
	if disk == nil {
		return nil, false, errVMClosed
	}
	table, err := v.table()
	if err != nil {
		return nil, false, err
	}
	list := table.Of(volumes.Memory)
	if len(list) == 0 {
		return nil, false, nil
	}
	return window.New(disk, list[0]), true, nil
}

// makeMemoryVolume is memoryVolume of one with room for that many bytes of memory.
func (v *vm) makeMemoryVolume(memory int64) (*window.Disk, error) {
	room := volumes.Round(savedmemory.Room(memory))
	table, err := v.table()
	if err != nil {
		return nil, err
	}
	list := table.Of(volumes.Memory)
	switch {
	case len(list) == 0:
		err = v.changeTable(func(t volumes.Table) (volumes.Table, error) {
			t, _, err := t.Add(volumes.Memory, "", room)
			return t, err
		})
	case list[0].Bytes() < room:
		err = v.changeTable(func(t volumes.Table) (volumes.Table, error) { return t.Grow(list[0].ID, room) })
	default:
		err = v.growTo(v.currentDisk(), table)
	}
	if err != nil {
		return nil, err
	}
	w, _, err := v.memoryVolume()
	return w, err
}

// lookSaved reads the header of the saved memory, which may have to be fetched from another device, and remembers what it says.
// Errors: the disk's; what is wrong with the memory is in saved.
func (v *vm) lookSaved() (saved, error) {
	w, ok, err := v.memoryVolume()
	if err != nil {
		return saved{}, err
	}
	s := saved{looked: true}
	if ok {
		h, err := savedmemory.Read(w)
		switch {
		case err == nil:
			s.header = &h
		case errors.Is(err, savedmemory.ErrDamaged), errors.Is(err, savedmemory.ErrVersion):
			s.err = err
		case !errors.Is(err, savedmemory.ErrNone):
			return saved{}, err
		}
	}
	v.setSaved(s)
	return s, nil
}

// staysSuspended keeps why a VM that was to go on by itself didn't: its problem, until it goes on, leaves, or its memory is given up.
func (v *vm) staysSuspended(why *api.Error) {
	v.mu.Lock()
	there := v.saved.there()
	if there {
		v.saved.why = why
	}
	v.mu.Unlock()
	if there {
		v.e.hub.publish(api.Event{Kind: "vm.problem", VM: v.id, Text: why.Error()})
	}
}

func (v *vm) setSaved(s saved) {
	v.mu.Lock()
	changed := v.saved.there() != s.there() || v.saved.looked != s.looked
	v.saved = s
	v.mu.Unlock()
	if changed {
		v.e.hub.publish(api.Event{Kind: "vm.changed", VM: v.id})
		v.e.saveRecordSoon()
	}
}

// memoryCame says that this device's copy of the disk, as it is, has a saved memory that fits it. It may be another device's VM.
func (v *vm) memoryCame() bool {
	w, ok, err := v.memoryVolume()
	if err != nil || !ok {
		return false
	}
	_, err = savedmemory.Read(w)
	return err == nil
}

// comesSuspended says, of another device's VM, that it is suspended to go on here. Where the memory hasn't come yet, that it is suspended must do.
func (v *vm) comesSuspended() bool {
	if w, ok, err := v.memoryVolume(); err == nil && ok {
		if h, err := savedmemory.Read(w); err == nil {
			return h.For == v.e.host.ID()
		}
	}
	r, ok := v.record()
	return ok && r.State == string(api.VMSuspended)
}

// lookSavedSoon does it beside: of a disk that isn't whole yet the header may have to come first.
func (v *vm) lookSavedSoon() {
	v.e.spawn(func() {
		if !v.owner() || v.currentGuest() != nil {
			return
		}
		s, err := v.lookSaved()
		switch {
		case err != nil:
			v.log.Info("Whether the VM is suspended isn't known yet", "error", err)
		case v.goesOnHere(s):
			v.goOnSoon()
		default:
			v.takeUpCarry(s)
		}
	})
}

// suspended says, of a VM that is this device's and has no guest, whether there is memory to go on with. Until somebody has looked, the owner
// before has the say.
func (v *vm) suspended() bool {
	v.mu.Lock()
	s := v.saved
	v.mu.Unlock()
	if s.looked {
		return s.there() || v.oldMemory()
	}
	r, ok := v.record()
	return ok && r.State == string(api.VMSuspended) || v.oldMemory()
}

// isSaved looks, if nobody has yet. Its error is one for the person.
func (v *vm) isSaved() (saved, error) {
	v.mu.Lock()
	s := v.saved
	v.mu.Unlock()
	if s.looked {
		return s, nil
	}
	s, err := v.lookSaved()
	if errors.Is(err, vmdisk.ErrStale) {
		err = &api.Error{Code: api.CodeUnreachable, Sentence: "Whether " + v.name() + " was suspended can't be read: that part of its disk isn't here yet, and no device that has it is connected.",
			Next: fmt.Sprintf("Connect one that has it, or go back to what this device has: tagalong vm rollback %q", v.name()), Cause: err.Error()}
	}
	return s, err
}

// endSuspended is asked when a guest is found that an earlier engine left. Beside the header of a saved memory it is one that was about to end, or
// hadn't begun to go on: it is ended, and the VM is suspended. The disk is active.
func (v *vm) endSuspended(ctx context.Context, guest hypervisor.Guest) bool {
	w, ok, err := v.memoryVolume()
	if err != nil || !ok || w.Stale(0, vmdisk.Block) {
		return false // what isn't here yet was written where the guest ran before it came here, without a header
	}
	s, err := v.lookSaved()
	if err == nil && s.header == nil {
		// An engine may have ended while it was writing a memory, or using one up. What can't be read is worth less than a guest that has it all.
		if s.err != nil {
			err = savedmemory.Clear(w)
		}
		v.setSaved(saved{looked: true})
		v.discard(w)
	}
	if err != nil || s.header == nil {
		return err != nil // beside what can't be ruled out it stands still
	}
	if err := guest.Kill(ctx); err != nil {
		v.log.Error("Ending a suspended guest failed", "error", err)
		return true // it stands still
	}
	v.dropGuest(guest)
	v.log.Info("The VM is suspended: its hypervisor was ended")
	return true
}

// dropMemory makes it durable that the VM isn't suspended any more, and gives the space back. What was open in it is lost.
func (v *vm) dropMemory() error {
	w, ok, err := v.memoryVolume()
	if err == nil && ok {
		err = savedmemory.Clear(w)
	}
	if err != nil {
		return fmt.Errorf("drop the saved memory: %w", err)
	}
	v.removeOldMemory()
	v.setSaved(saved{looked: true})
	if ok {
		v.discard(w)
	}
	return nil
}

// discard gives the space of a memory back that nothing needs any more. The caller holds the VM for an operation: nobody saves another one meanwhile.
func (v *vm) discard(w *window.Disk) {
	if err := savedmemory.Discard(w); err != nil {
		v.log.Warn("Giving back the space of a saved memory failed", "error", err)
	}
}
