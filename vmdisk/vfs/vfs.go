// Package vfs is the small door through which package vmdisk reaches its files.
//
// An FS is one flat directory. Two implementations exist: OS, the operating system's files, and
// Mem, an in-memory twin that can lose what was not synced (all of it, or any subset of its
// sectors), and can fail the n-th call, so that crashes and failing disks are tested by the thousand.
//
// It guarantees what File.Sync and FS.SyncDir say and nothing more: everything else may be lost at a
// power cut, in any order. It doesn't check bounds, claims or formats: that is its user's business.
//
// Tests: go test ./vmdisk/vfs.
package vfs

import (
	"errors"
	"io"
)

// Errors of this package. Others are those of the operating system, wrapped.
var (
	// ErrLocked says that another process (or another open disk of this one) holds the lock.
	ErrLocked = errors.New("vfs: locked by another")
	// ErrNotFile says that there is something else than a plain file under the name: a directory, a symbolic link, a pipe.
	ErrNotFile = errors.New("vfs: not a plain file")
	// ErrNotDir says that there is something else than a directory.
	ErrNotDir = errors.New("vfs: not a directory")
	// ErrReadOnly says that a file system made by ReadOnly was to be changed.
	ErrReadOnly = errors.New("vfs: opened for reading only")
	// ErrGone says that the in-memory file system has crashed under its user.
	ErrGone = errors.New("vfs: the file system crashed")
)

// FS is one directory of files. Names have no separators. Safe for concurrent use.
type FS interface {
	// Open opens an existing file for reading and writing; an error that is fs.ErrNotExist says there is none. ErrNotFile.
	Open(name string) (File, error)
	// Create makes a file, which must not exist yet (fs.ErrExist), for reading and writing.
	Create(name string) (File, error)
	// Rename replaces new by old. Durable after SyncDir.
	Rename(old, new string) error
	// Remove deletes a file. Durable after SyncDir.
	Remove(name string) error
	// List names all files, in order: whatever isn't a directory. ErrNotDir.
	List() ([]string, error)
	// SyncDir makes creations, renames and removals durable.
	SyncDir() error
	// Lock takes the exclusive lock called name until the returned closer is closed; ErrLocked, in a LockedError if
	// the holder is known, if it is taken.
	Lock(name string) (io.Closer, error)
	// Free is the number of bytes that can still be stored.
	Free() (int64, error)
}

// File is one open file. Safe for concurrent use; the buffers belong to the caller again when a call returns.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Size in bytes.
	Size() (int64, error)
	// Truncate sets the size in bytes; what is added reads as zeros and takes no space where that is possible.
	Truncate(size int64) error
	// Sync makes the content and the size durable. After an error nothing may be assumed of
	// what was written since the last success: a second try may succeed without having stored it.
	Sync() error
	// Punch makes n bytes at off read as zeros and gives their space back where that is possible.
	Punch(off, n int64) error
	// ZeroRange makes n bytes at off read as zeros and keeps, or takes, their space where that is possible.
	ZeroRange(off, n int64) error
	// NextData is the first offset from off on that may hold something else than a hole, or the size.
	NextData(off int64) (int64, error)
	// NextHole is the first offset from off on that is in a hole, or the size.
	NextHole(off int64) (int64, error)
	// Allocated is the number of bytes that the file takes on its disk.
	Allocated() (int64, error)
}

var zeros [1 << 18]byte

// writeZeros is what Punch and ZeroRange do where nothing better exists.
func writeZeros(w io.WriterAt, off, n int64) error {
	for n > 0 {
		c := min(n, int64(len(zeros)))
		if _, err := w.WriteAt(zeros[:c], off); err != nil {
			return err
		}
		off, n = off+c, n-c
	}
	return nil
}
