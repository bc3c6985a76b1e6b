package app

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/zeebo/blake3"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/custody"
	"tagalong.org/tagalong/app/durable"
	"tagalong.org/tagalong/app/hypervisor"
)

// memoryNote keeps a saved memory's note in a file.
type memoryNote struct {
	path string
	mu   *sync.Mutex // held over a change
}

func (n memoryNote) Read() ([]byte, error) { return os.ReadFile(n.path) }

func (n memoryNote) Write(b []byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return durable.Write(n.path, b)
}

func (n memoryNote) Change(fn func(b []byte) []byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	b, err := n.Read()
	if err != nil {
		return err
	}
	if b = fn(b); b == nil {
		return nil
	}
	return durable.Write(n.path, b)
}

// noteOf is the note of a VM's saved memory.
func (e *Engine) noteOf(id string) memoryNote {
	return memoryNote{filepath.Join(e.vmDir(id), "memory.json"), &e.notes}
}

// memory is the VM's saved memory: in the file "memory" and, beside it, its note "memory.json".
func (v *vm) memory() custody.Memory {
	return custody.Memory{Note: v.e.noteOf(v.id), Disk: v.currentDisk(), Log: v.log}
}

func (v *vm) memoryNote() string { return v.memoryFile() + ".json" }

func (v *vm) suspended() bool {
	_, err := os.Stat(v.memoryNote())
	return err == nil
}

// suspend stops the guest, writes its memory durably and ends its hypervisor.
func (v *vm) suspend(ctx context.Context, guest hypervisor.Guest) (err error) {
	if err := v.halt(ctx, guest); err != nil {
		return explainHypervisor(err)
	}
	defer func() {
		if err == nil {
			return
		}
		back, cancel := context.WithTimeout(context.WithoutCancel(ctx), actionTimeout)
		defer cancel()
		removeMemory(v)
		if goErr := v.carryOn(back, guest); goErr != nil {
			err = errors.Join(err, goErr)
		}
	}()
	disk := v.currentDisk()
	if disk == nil {
		return errVMClosed
	}
	// Pausing flushed; the barrier of this flush is the position that the memory belongs to.
	if err := disk.Flush(); err != nil {
		return fmt.Errorf("flush the disk: %w", err)
	}
	note := custody.SavedMemory{At: time.Now()}
	position := disk.Info().Position
	if note.Bytes, note.Hash, err = v.writeMemory(ctx, guest); err != nil {
		return explainHypervisor(err)
	}
	if err := v.memory().Saved(position, note); err != nil {
		return err
	}
	if err := guest.Kill(context.WithoutCancel(ctx)); err != nil {
		return explainHypervisor(err)
	}
	v.dropGuest(guest)
	v.e.hub.publish(api.Event{Kind: "vm.suspended", VM: v.id, Text: v.name() + " is suspended."})
	v.e.saveRecordSoon()
	return nil
}

func (v *vm) writeMemory(ctx context.Context, guest hypervisor.Guest) (int64, string, error) {
	f, err := os.OpenFile(v.memoryFile(), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	sum := blake3.New()
	out := bufio.NewWriterSize(f, 1<<20)
	if err := guest.Save(ctx, io.MultiWriter(out, sum)); err != nil {
		return 0, "", err
	}
	if err := errors.Join(out.Flush(), f.Sync()); err != nil {
		return 0, "", err
	}
	size, err := f.Seek(0, io.SeekCurrent)
	return size, fmt.Sprintf("%x", sum.Sum(nil)), err
}

// restore starts the hypervisor with the saved memory and lets the guest go on.
func (v *vm) restore(ctx context.Context) error {
	note, err := v.checkMemory()
	if err != nil {
		return err
	}
	config, err := v.config()
	if err != nil {
		return err
	}
	if err := v.startExport(); err != nil {
		return err
	}
	v.setStarting(true)
	defer v.setStarting(false)
	if err := v.uncertain(); err != nil {
		return err
	}
	guest, err := v.e.opt.Hypervisor.StartIncoming(ctx, config)
	if err != nil {
		return explainHypervisor(err)
	}
	if err := v.loadMemory(ctx, guest, note); err != nil {
		kill, cancel := context.WithTimeout(context.WithoutCancel(ctx), actionTimeout)
		defer cancel()
		return errors.Join(explainHypervisor(err), guest.Kill(kill), guest.Close())
	}
	if err := v.adopt(ctx, guest); err != nil {
		return err
	}
	// The memory is used up before the guest goes on: it must never be loaded a second time on a
	// disk that has moved on.
	removeMemory(v)
	// From here on there is no way back, whoever has lost patience.
	ctx = context.WithoutCancel(ctx)
	err = v.letRun(ctx, guest)
	if err != nil && v.owner() {
		err = errors.Join(err, guest.Kill(ctx))
		v.dropGuest(guest)
	}
	return err
}

// checkMemory reads the note and makes sure that the memory belongs to the disk as it is.
func (v *vm) checkMemory() (custody.SavedMemory, error) {
	note, err := v.memory().Check()
	switch {
	case errors.Is(err, custody.ErrMemoryFormat):
		return note, errConflict("The saved memory of "+v.name()+" can't be read by this version.", "Start it without: tagalong vm stop --force, then vm start.")
	case errors.Is(err, custody.ErrNoDisk):
		return note, errVMClosed
	case errors.Is(err, custody.ErrMemoryElsewhere):
		at := "another one"
		if disk := v.currentDisk(); disk != nil {
			at = disk.Info().Position.String()
		}
		return note, errConflict(fmt.Sprintf("The saved memory of %s belongs to an earlier state of its disk (%d/%d, now %s).", v.name(), note.Term, note.Barrier, at),
			fmt.Sprintf("Drop it with: tagalong vm stop --force %q", v.name()))
	}
	return note, err
}

func (v *vm) loadMemory(ctx context.Context, guest hypervisor.Guest, note custody.SavedMemory) error {
	f, err := os.Open(v.memoryFile())
	if err != nil {
		return err
	}
	defer f.Close()
	sum := blake3.New()
	if err := guest.Restore(ctx, io.TeeReader(io.LimitReader(f, note.Bytes), sum)); err != nil {
		return err
	}
	if got := fmt.Sprintf("%x", sum.Sum(nil)); got != note.Hash {
		return fmt.Errorf("the saved memory is damaged: its hash is %s, not %s", got, note.Hash)
	}
	return nil
}

// removeMemory drops a saved memory, the note first.
func removeMemory(v *vm) {
	v.e.notes.Lock()
	defer v.e.notes.Unlock()
	for _, path := range []string{v.memoryNote(), v.memoryFile()} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			v.log.Warn("Removing saved memory failed", "file", path, "error", err)
		}
	}
	if err := durable.SyncDir(v.dir); err != nil {
		v.log.Warn("Removing saved memory failed", "error", err)
	}
}
