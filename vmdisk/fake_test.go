package vmdisk

import (
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// fullFS has no room in base.raw while full is set.
type fullFS struct {
	*vfs.Mem
	mu   sync.Mutex
	full bool
}

func (f *fullFS) Open(name string) (vfs.File, error) {
	file, err := f.Mem.Open(name)
	if name == baseName && err == nil {
		file = fullFile{file, f}
	}
	return file, err
}

type fullFile struct {
	vfs.File
	fs *fullFS
}

func (f fullFile) WriteAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.fs.full {
		n, err := f.File.WriteAt(p[:len(p)/2], off)
		if err != nil {
			return n, err
		}
		return n, syscall.ENOSPC
	}
	return f.File.WriteAt(p, off)
}

// muteFS takes nothing more into its journal, whose file is full, while full is set.
type muteFS struct {
	*vfs.Mem
	full atomic.Bool
}

func (m *muteFS) Open(name string) (vfs.File, error) {
	file, err := m.Mem.Open(name)
	if name == journalName && err == nil {
		file = muteFile{file, m}
	}
	return file, err
}

type muteFile struct {
	vfs.File
	fs *muteFS
}

func (f muteFile) WriteAt(p []byte, off int64) (int, error) {
	if f.fs.full.Load() {
		return 0, syscall.ENOSPC
	}
	return f.File.WriteAt(p, off)
}

// holdFS lets a test hold the syncs of a file, base.raw unless told, and see them, from arm to release.
type holdFS struct {
	*vfs.Mem
	name    string
	armed   atomic.Bool
	started chan struct{}
	hold    chan error // nil lets a sync happen, an error makes it fail
	free    chan struct{}
}

func newHoldFS() *holdFS {
	return &holdFS{Mem: vfs.NewMem(), name: baseName, started: make(chan struct{}), hold: make(chan error), free: make(chan struct{})}
}

// arm begins to hold; a test that fails lets go.
func (h *holdFS) arm(t *testing.T) {
	h.armed.Store(true)
	t.Cleanup(h.release)
}

func (h *holdFS) release() {
	if h.armed.Swap(false) {
		close(h.free)
	}
}

func (h *holdFS) Open(name string) (vfs.File, error) {
	file, err := h.Mem.Open(name)
	if name == h.name && err == nil {
		file = heldFile{file, h}
	}
	return file, err
}

type heldFile struct {
	vfs.File
	fs *holdFS
}

func (f heldFile) Sync() error {
	if !f.fs.armed.Load() {
		return f.File.Sync()
	}
	select {
	case f.fs.started <- struct{}{}:
	case <-f.fs.free:
	}
	select {
	case err := <-f.fs.hold:
		if err != nil {
			return err
		}
	case <-f.fs.free:
	}
	return f.File.Sync()
}
