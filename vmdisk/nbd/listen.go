package nbd

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/gofrs/flock"
)

const (
	// maxSocketPath is what fits into a socket address on every system, macOS being the narrowest.
	maxSocketPath = 103
	// probeTimeout is how long a socket that may be stale has to take a connection.
	probeTimeout = 2 * time.Second
)

// Listen makes a Unix socket at path that only the user can open (mode 0600), in a directory that only
// the user can enter; the directory is made (mode 0700) if it is missing, and ErrUnsafeDir is returned if
// it is there and open to others. A socket left by a process that died is replaced; ErrInUse is returned
// if somebody listens on it, ErrNotSocket if it is another kind of file, ErrPathTooLong if the path has
// more than 103 bytes. Closing the listener removes the socket; a file path+".lock" stays.
// On Windows modes mean nothing: the directory must lie within the user's profile.
func Listen(path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("nbd: listen on %q: %w", path, ErrPathTooLong)
	}
	if err := privateDir(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("nbd: listen on %q: %w", path, err)
	}
	// The lock keeps two processes that start at once from each replacing the other's new socket.
	lock := flock.New(path + ".lock")
	if err := lock.Lock(); err != nil {
		return nil, fmt.Errorf("nbd: listen on %q: lock: %w", path, err)
	}
	defer func() { _ = lock.Close() }()
	if err := removeStale(path); err != nil {
		return nil, fmt.Errorf("nbd: listen on %q: %w", path, err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("nbd: listen: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("nbd: listen: %w", err), l.Close())
	}
	return l, nil
}

// privateDir makes dir, or makes sure that others than the user can't enter it.
func privateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("check directory: %w", err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%w: mode %v", ErrUnsafeDir, info.Mode().Perm())
	}
	return nil
}

// removeStale removes a socket that nobody listens on.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("check socket: %w", err)
	case runtime.GOOS != "windows" && info.Mode().Type() != fs.ModeSocket:
		return ErrNotSocket
	}
	nc, err := net.DialTimeout("unix", path, probeTimeout)
	if err == nil {
		return errors.Join(ErrInUse, nc.Close())
	}
	if !refused(err) {
		// A full backlog, say: somebody is there.
		return fmt.Errorf("%w: %w", ErrInUse, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove stale socket: %w", err)
	}
	return nil
}
