//go:build unix

package p2p

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// exposed reports whether others than the owner can read or write the file.
func exposed(info fs.FileInfo) bool { return info.Mode().Perm()&0o077 != 0 }

// syncDir makes a new name in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) {
		// Some file systems can't sync a directory.
		err = nil
	}
	return errors.Join(err, d.Close())
}
