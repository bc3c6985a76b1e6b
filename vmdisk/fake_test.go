package vmdisk

import (
	"sync"
	"syscall"

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

// holdFS lets a test hold the syncs of base.raw, and see them.
type holdFS struct {
	*vfs.Mem
	started chan struct{}
	hold    chan error // nil lets a sync happen, an error makes it fail
}

func (h *holdFS) Open(name string) (vfs.File, error) {
	file, err := h.Mem.Open(name)
	if name == baseName && err == nil {
		file = heldFile{file, h}
	}
	return file, err
}

type heldFile struct {
	vfs.File
	fs *holdFS
}

func (f heldFile) Sync() error {
	if f.fs.started == nil {
		return f.File.Sync()
	}
	f.fs.started <- struct{}{}
	if err := <-f.fs.hold; err != nil {
		return err
	}
	return f.File.Sync()
}
