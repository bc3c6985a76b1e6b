package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// maxSocketPath is the longest path that every system takes for a Unix socket: macOS has room for
// 104 bytes with the final zero.
const maxSocketPath = 103

// roomForVMs is how much longer the paths of a VM's own sockets are, which lie in a directory
// beside this one: "0123456789ab/console.sock" in place of "api.sock".
const roomForVMs = len("0123456789ab/console.sock") - len("api.sock")

// DataDir is where the engine keeps everything: flag if it isn't empty, else $TAGALONG_DATA, else
// the place the system has for such things. The result is absolute; nothing is created.
func DataDir(flag string) (string, error) {
	dir := flag
	if dir == "" {
		dir = os.Getenv("TAGALONG_DATA")
	}
	if dir == "" {
		var err error
		if dir, err = systemDataDir(); err != nil {
			return "", &Error{Code: CodeUsage, Sentence: "There is no place to keep Tagalong's data in.",
				Next: "Name one with --data or TAGALONG_DATA.", Cause: err.Error()}
		}
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find data directory: %w", err)
	}
	return abs, nil
}

func systemDataDir() (string, error) {
	switch runtime.GOOS {
	case "windows":
		dir, err := os.UserCacheDir() // %LocalAppData%
		return filepath.Join(dir, "Tagalong"), err
	case "darwin", "ios":
		dir, err := os.UserConfigDir() // ~/Library/Application Support
		return filepath.Join(dir, "Tagalong"), err
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "tagalong"), nil
	}
	home, err := os.UserHomeDir()
	return filepath.Join(home, ".local", "share", "tagalong"), err
}

// SocketPath is where the engine of a data directory listens. It lies inside that directory,
// unless the path would be too long for a socket: then it is a short one, named by a hash, in the
// user's runtime directory or the directory for temporary files.
func SocketPath(dataDir string) string {
	if abs, err := filepath.Abs(dataDir); err == nil {
		dataDir = abs
	}
	path := filepath.Join(dataDir, "run", "api.sock")
	if len(path)+roomForVMs <= maxSocketPath {
		return path
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s", os.Getuid(), filepath.Clean(dataDir)))
	name := "tagalong-" + hex.EncodeToString(sum[:8])
	for _, parent := range shortDirs() {
		if path := filepath.Join(parent, name, "api.sock"); len(path)+roomForVMs <= maxSocketPath {
			return path
		}
	}
	return path
}

// Listen opens the socket, mode 0600, in a directory of mode 0700 that it creates if needed. What
// a dead engine left there is cleared away; a living one gives CodeEngineRunning. The caller must
// hold the data directory's lock, or two engines that start at once might both believe the other
// dead. Closing the listener removes the socket.
func Listen(path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, &Error{Code: CodeUsage, Sentence: "The path to the data directory is too long.",
			Next: "Name a shorter one with --data.", Cause: fmt.Sprintf("socket path of %d bytes", len(path))}
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the socket's directory: %w", err)
	}
	if info, err := os.Lstat(dir); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("look at the socket's directory: %w", errors.Join(err, fs.ErrInvalid))
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the socket's directory private: %w", err)
	}
	if err := checkPrivateDir(path); err != nil {
		return nil, err
	}
	if err := clearStale(path); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("open the local API's socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("make the socket private: %w", err)
	}
	return l, nil
}

// clearStale removes a socket that nobody listens on.
func clearStale(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err == nil {
		_ = conn.Close()
	}
	if err == nil || errors.Is(err, context.DeadlineExceeded) {
		return &Error{Code: CodeEngineRunning, Sentence: "An engine runs here already.",
			Next: "Stop it first with: tagalong engine stop", Cause: "the socket " + path + " is in use"}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("clear away an old socket: %w", err)
	}
	return nil
}
