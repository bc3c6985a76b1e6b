//go:build !unix

package api

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// shortDirs are the places for a socket whose data directory is too deep, best first.
func shortDirs() []string { return []string{os.TempDir()} }

// checkPrivateDir only looks whether the directory is there: both the user's data and temporary
// directories are closed to others by the access list they inherit.
func checkPrivateDir(socket string) error {
	if _, err := os.Stat(filepath.Dir(socket)); errors.Is(err, fs.ErrNotExist) {
		return noEngine(err)
	}
	return nil
}
