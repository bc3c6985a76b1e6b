package custody_test

import (
	"errors"
	"io/fs"
	"log/slog"
	"testing"

	"tagalong.org/tagalong/app/custody"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// note is a custody.Note in memory.
type note struct{ b []byte }

func (n *note) Read() ([]byte, error) {
	if n.b == nil {
		return nil, fs.ErrNotExist
	}
	return n.b, nil
}
func (n *note) Write(b []byte) error { n.b = b; return nil }
func (n *note) Change(fn func([]byte) []byte) error {
	if n.b == nil {
		return fs.ErrNotExist
	}
	if b := fn(n.b); b != nil {
		n.b = b
	}
	return nil
}

// TestSavedMemoryStaysBound suspends a VM, and lets its engine and its host die, its disk get another name for the same content, and a new term
// begin: the memory still belongs to the disk. After a write it doesn't, flushed or not.
func TestSavedMemoryStaysBound(t *testing.T) {
	for _, loss := range []vfs.Loss{vfs.LoseNothing, vfs.LoseUnsynced} {
		mem, n := vfs.NewMem(), &note{}
		options := func() vmdisk.Options {
			return vmdisk.Options{FS: mem, BarrierEvery: -1, SaveEvery: -1, Renamed: func(from, to vmdisk.Position) error { return custody.Renamed(n, from, to) }}
		}
		disk, err := vmdisk.Create("", vmdisk.NewID(), blocks*vmdisk.Block, options())
		must(t, err)
		must(t, disk.Activate(1))
		write := func() { must(t, disk.WriteAt(make([]byte, vmdisk.Block), 0, false)) }
		write()
		write()
		must(t, disk.Flush())
		memory := func() custody.Memory { return custody.Memory{Note: n, Disk: disk, Log: slog.New(slog.DiscardHandler)} }
		if _, err := memory().Check(); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("without a memory: %v", err)
		}
		must(t, memory().Saved(disk.Position(), custody.SavedMemory{Bytes: 5}))
		restart := func(term uint64) {
			mem = mem.Crash(loss, 1)
			_ = disk.Close() // its files are gone with the process
			disk, err = vmdisk.Open("", options())
			must(t, err)
			must(t, memory().Carry(term, func() error { return disk.Activate(term) }))
		}
		bound := func(when string) {
			t.Helper()
			if s, err := memory().Check(); err != nil || s.Bytes != 5 {
				t.Fatalf("%s: %+v, %v; the disk is at %s", when, s, err, disk.Position())
			}
		}
		restart(1)
		bound("after a crash")
		was := disk.Position()
		must(t, memory().Carry(7, func() error { return disk.Renew(7) }))
		bound("under a new term")
		if disk.Position() == was {
			t.Fatal("the new term has no position of its own")
		}
		restart(7)
		bound("after another crash")
		write()
		if _, err := memory().Check(); !errors.Is(err, custody.ErrMemoryElsewhere) {
			t.Fatalf("the disk was written: %v", err)
		}
		must(t, disk.Flush())
		if _, err := memory().Check(); !errors.Is(err, custody.ErrMemoryElsewhere) {
			t.Fatalf("the disk was written and flushed: %v", err)
		}
		must(t, disk.Close())
	}
}
