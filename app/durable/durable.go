// Package durable changes small files and directories such that a crash or a power cut leaves the old state or the new one, and
// what returned without an error stays. It is no place for data: a disk has its own journal.
package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Write replaces the file at path, which then holds b. The new content is b's owner's only while Write runs.
func Write(path string, b []byte) error {
	part := path + ".part"
	f, err := os.OpenFile(part, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return Rename(part, path)
}

// Rename moves a file or a directory; both names' directories are durable when it returns.
func Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	err := SyncDir(filepath.Dir(to))
	if old := filepath.Dir(from); old != filepath.Dir(to) {
		err = errors.Join(err, SyncDir(old))
	}
	return err
}

// Mkdir makes a directory, and those above it, and makes their names durable. One that is there already is no error.
func Mkdir(path string) error {
	parent := filepath.Dir(path)
	if _, err := os.Stat(parent); errors.Is(err, fs.ErrNotExist) {
		if err := Mkdir(parent); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	return SyncDir(parent)
}

// SyncDir makes durable which names the directory has, where the system knows how to.
func SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, os.ErrPermission) {
		return err
	}
	return nil
}
