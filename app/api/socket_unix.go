//go:build unix

package api

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// shortDirs are the places for a socket whose data directory is too deep, best first. The runtime
// directory is looked for by its usual name too, so that a program started without the session's
// environment finds the engine that was started within it.
func shortDirs() []string {
	var dirs []string
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		dirs = append(dirs, dir)
	} else if dir := "/run/user/" + strconv.Itoa(os.Getuid()); isDir(dir) {
		dirs = append(dirs, dir)
	}
	return append(dirs, os.TempDir(), "/tmp")
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// checkPrivateDir refuses a socket in a directory that another user could have prepared.
func checkPrivateDir(socket string) error {
	dir := filepath.Dir(socket)
	info, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return noEngine(err)
	}
	if err != nil {
		return &Error{Code: CodeNoEngine, Sentence: "The engine's socket can't be reached.",
			Next: "Check that the data directory is yours.", Cause: err.Error()}
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || info.Mode().Perm()&0o077 != 0 || !ok || int(owner.Uid) != os.Getuid() {
		return &Error{Code: CodeUsage, Sentence: "The directory of the engine's socket isn't private.",
			Next:  "Make sure that " + dir + " is a directory that belongs to you and that nobody else may open.",
			Cause: fmt.Sprintf("mode %v", info.Mode())}
	}
	return nil
}
