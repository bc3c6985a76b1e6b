package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/gofrs/flock"
)

// LockedError is an ErrLocked that knows the holder.
type LockedError struct {
	// PID is the process that took the lock last; it may be this one.
	PID int
}

// Error names the process.
func (e *LockedError) Error() string { return fmt.Sprintf("%v: process %d", ErrLocked, e.PID) }

// Unwrap makes it an ErrLocked.
func (e *LockedError) Unwrap() error { return ErrLocked }

// The lock's file has the holder's process ID, in decimal, padded with blanks to pidWidth and ended by a newline. It begins at
// byte 1: Windows lets nobody else read byte 0 of a file that is locked.
const (
	pidAt    = 1
	pidWidth = 11
)

// Lock takes the lock, and leaves the process's ID for those who come later.
func (o osFS) Lock(name string) (io.Closer, error) {
	l, err := o.lock(name, os.O_CREATE|os.O_RDWR)
	if err != nil {
		return nil, err
	}
	// Only a courtesy: the lock holds without.
	if f, err := os.OpenFile(o.path(name), os.O_WRONLY, 0); err == nil {
		_, _ = f.WriteAt(fmt.Appendf(nil, "%-*d\n", pidWidth, os.Getpid()), pidAt)
		_ = f.Close()
	}
	return l, nil
}

func (o osFS) lock(name string, flag int) (io.Closer, error) {
	if err := o.plain(name); err != nil && (!errors.Is(err, fs.ErrNotExist) || flag&os.O_CREATE == 0) {
		return nil, err
	}
	l := flock.New(o.path(name), flock.SetPermissions(0o600), flock.SetFlag(flag))
	ok, err := l.TryLock()
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, o.holder(name)
	}
	return l, nil
}

// holder is the error that says who has the lock.
func (o osFS) holder(name string) error {
	f, err := os.Open(o.path(name))
	if err != nil {
		return ErrLocked
	}
	defer f.Close()
	b := make([]byte, pidWidth)
	n, _ := f.ReadAt(b, pidAt) // what there is counts
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil || pid <= 0 {
		return ErrLocked
	}
	return &LockedError{pid}
}
