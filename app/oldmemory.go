package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/zeebo/blake3"

	"tagalong.org/tagalong/app/durable"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/vmdisk"
)

// Before there were volumes, a suspended VM's memory was a file of this device, bound to one position of the disk. One that an earlier version
// has left can be resumed, here and as long as the disk is at that position; it doesn't come along.

// oldNote is what lies beside such a file; written last, so its presence says that the memory is whole.
type oldNote struct {
	Version int    `json:"version"`
	Term    uint64 `json:"term"`
	Barrier uint64 `json:"barrier"`
	Bytes   int64  `json:"bytes"`
	Hash    string `json:"blake3"`
	// NextTerm and NextBarrier are another name that the same content got; 0 if there is none.
	NextTerm    uint64 `json:"nextTerm,omitempty"`
	NextBarrier uint64 `json:"nextBarrier,omitempty"`
}

func (v *vm) oldMemoryFile() string { return filepath.Join(v.dir, "memory") }
func (v *vm) oldMemoryNote() string { return v.oldMemoryFile() + ".json" }

// oldMemory says whether an earlier version has left one.
func (v *vm) oldMemory() bool {
	_, err := os.Stat(v.oldMemoryNote())
	return err == nil
}

// restoreOld is restore with such a memory.
func (v *vm) restoreOld(ctx context.Context) error {
	text, err := os.ReadFile(v.oldMemoryNote())
	if err != nil {
		return fmt.Errorf("read the note of the saved memory: %w", err)
	}
	var note oldNote
	disk := v.currentDisk()
	if disk == nil {
		return errVMClosed
	}
	without := fmt.Sprintf("Start it without what was open in it: tagalong vm stop --force %q, then: tagalong vm start %q", v.name(), v.name())
	if err := json.Unmarshal(text, &note); err != nil || note.Version != 1 || note.Bytes <= 0 {
		return errConflict("The saved memory of "+v.name()+" can't be read by this version.", without)
	}
	info := disk.Info()
	fits := info.Position == vmdisk.Position{Term: note.Term, Barrier: note.Barrier} ||
		note.NextTerm != 0 && info.Position == vmdisk.Position{Term: note.NextTerm, Barrier: note.NextBarrier}
	if !fits || info.Unflushed {
		return errConflict("The saved memory of "+v.name()+" belongs to an earlier state of its disk.", without)
	}
	config, err := v.config()
	if err != nil {
		return err
	}
	guest, err := v.startWaiting(ctx, config)
	if err != nil {
		return err
	}
	if err := loadOld(ctx, v.oldMemoryFile(), guest, note); err != nil {
		kill, cancel := context.WithTimeout(context.WithoutCancel(ctx), actionTimeout)
		defer cancel()
		return errors.Join(explainHypervisor(err), guest.Kill(kill), guest.Close())
	}
	if err := v.adopt(ctx, guest); err != nil {
		return err
	}
	v.removeOldMemory()
	ctx = context.WithoutCancel(ctx)
	err = v.letRun(ctx, guest)
	if err != nil && v.owner() {
		err = errors.Join(err, guest.Kill(ctx))
		v.dropGuest(guest)
	}
	return err
}

func loadOld(ctx context.Context, file string, guest hypervisor.Guest, note oldNote) error {
	f, err := os.Open(file)
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

// removeOldMemory drops such a memory, the note first; harmless without one.
func (v *vm) removeOldMemory() {
	if !v.oldMemory() {
		return
	}
	for _, path := range []string{v.oldMemoryNote(), v.oldMemoryFile()} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			v.log.Warn("Removing saved memory failed", "file", path, "error", err)
		}
	}
	if err := durable.SyncDir(v.dir); err != nil {
		v.log.Warn("Removing saved memory failed", "error", err)
	}
}
