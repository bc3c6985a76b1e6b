package vfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
)

// OS is the directory dir of the operating system, which must exist.
func OS(dir string) FS { return osFS{dir} }

type osFS struct{ dir string }

func (o osFS) path(name string) string { return filepath.Join(o.dir, name) }

func (o osFS) open(name string, flag int) (File, error) {
	f, err := os.OpenFile(o.path(name), flag, 0o600)
	if err != nil {
		return nil, err
	}
	prepare(f, flag&os.O_CREATE != 0)
	return newFile(f)
}

func (o osFS) Open(name string) (File, error) {
	if err := o.plain(name); err != nil {
		return nil, err
	}
	return o.open(name, os.O_RDWR)
}

// plain makes sure that there is a plain file: opening a pipe may block, and a link leads out of the directory.
func (o osFS) plain(name string) error {
	st, err := os.Lstat(o.path(name))
	if err != nil {
		return err
	}
	if what := kind(st.Mode()); what != "" {
		return fmt.Errorf("open %s: it is %s: %w", o.path(name), what, ErrNotFile)
	}
	return nil
}

// kind is what isn't a plain file.
func kind(m fs.FileMode) string {
	switch {
	case m.IsRegular():
		return ""
	case m.IsDir():
		return "a directory"
	case m&fs.ModeSymlink != 0:
		return "a symbolic link"
	case m&fs.ModeNamedPipe != 0:
		return "a pipe"
	case m&fs.ModeSocket != 0:
		return "a socket"
	default:
		return "a device"
	}
}

func (o osFS) Create(name string) (File, error) {
	return o.open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}
func (o osFS) Rename(old, new string) error { return os.Rename(o.path(old), o.path(new)) }
func (o osFS) Remove(name string) error     { return os.Remove(o.path(name)) }

func (o osFS) List() ([]string, error) {
	es, err := os.ReadDir(o.dir)
	if err != nil {
		if st, serr := os.Stat(o.dir); serr == nil && !st.IsDir() {
			err = fmt.Errorf("%s: %w", o.dir, ErrNotDir)
		}
		return nil, err
	}
	var names []string
	for _, e := range es {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

func (o osFS) SyncDir() error {
	if runtime.GOOS == "windows" {
		return nil // directories can't be synced there; NTFS journals its own metadata
	}
	f, err := os.Open(o.dir)
	if err != nil {
		return err
	}
	err = f.Sync()
	return errors.Join(err, f.Close())
}

func (o osFS) Free() (int64, error) { return free(o.dir) }

type osFile struct {
	f    *os.File
	conn syscall.RawConn
}

func newFile(f *os.File) (*osFile, error) {
	conn, err := f.SyscallConn()
	return &osFile{f, conn}, err
}

func (o *osFile) ReadAt(p []byte, off int64) (int, error) { return o.f.ReadAt(p, off) }
func (o *osFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := o.f.WriteAt(p, off)
	return n, full(err)
}
func (o *osFile) Close() error              { return o.f.Close() }
func (o *osFile) Truncate(size int64) error { return full(o.f.Truncate(size)) }

func (o *osFile) Size() (int64, error) {
	st, err := o.f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// control runs fn on the file's descriptor, which stays open meanwhile.
func (o *osFile) control(fn func(fd uintptr) error) error {
	var ferr error
	if err := o.conn.Control(func(fd uintptr) { ferr = fn(fd) }); err != nil {
		return err
	}
	return ferr
}

// DataAt is the first offset from off on that may hold something else than a hole of f, a file that isn't part of an FS;
// off itself if that can't be told.
func DataAt(f *os.File, off int64) int64 {
	o, err := newFile(f)
	if err != nil {
		return off
	}
	data, err := o.NextData(off)
	if err != nil {
		return off
	}
	return data
}
