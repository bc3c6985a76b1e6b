package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
)

// ReadOnly is a view of fsys that changes nothing: what would gets ErrReadOnly. Its lock is fsys's. Of the
// operating system's directories it needs no more than the right to read.
func ReadOnly(fsys FS) FS {
	if o, ok := fsys.(osFS); ok {
		fsys = readOnlyOS{o}
	}
	return readOnly{fsys}
}

type readOnly struct{ FS }

func (r readOnly) Open(name string) (File, error) {
	f, err := r.FS.Open(name)
	if err != nil {
		return nil, err
	}
	return readOnlyFile{f}, nil
}

func (readOnly) Create(string) (File, error) { return nil, ErrReadOnly }
func (readOnly) Rename(string, string) error { return ErrReadOnly }
func (readOnly) Remove(string) error         { return ErrReadOnly }
func (readOnly) SyncDir() error              { return ErrReadOnly }

type readOnlyFile struct{ File }

func (readOnlyFile) WriteAt([]byte, int64) (int, error) { return 0, ErrReadOnly }
func (readOnlyFile) Truncate(int64) error               { return ErrReadOnly }
func (readOnlyFile) Sync() error                        { return ErrReadOnly }
func (readOnlyFile) Punch(int64, int64) error           { return ErrReadOnly }
func (readOnlyFile) ZeroRange(int64, int64) error       { return ErrReadOnly }

// readOnlyOS opens without the right to write.
type readOnlyOS struct{ osFS }

func (o readOnlyOS) Open(name string) (File, error) {
	if err := o.plain(name); err != nil {
		return nil, err
	}
	return o.open(name, os.O_RDONLY)
}

// Lock takes the lock of an existing file. Where there is none, nobody holds it, and none is made.
func (o readOnlyOS) Lock(name string) (io.Closer, error) {
	l, err := o.lock(name, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return unlocker(func() {}), nil
	}
	return l, err
}
