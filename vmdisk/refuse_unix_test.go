//go:build unix

package vmdisk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// files is what is in a directory, links and pipes not followed.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	es, err := os.ReadDir(dir)
	if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	must(t, err)
	out := map[string]string{}
	for _, e := range es {
		out[e.Name()] = e.Type().String()
		if e.Type().IsRegular() && e.Name() != lockName {
			b, err := os.ReadFile(filepath.Join(dir, e.Name()))
			must(t, err)
			out[e.Name()] = string(b)
		}
	}
	return out
}

// Whatever isn't a disk that this program can open is refused with an error that says what it is, and is left as it is.
func TestRefusals(t *testing.T) {
	const size = 256 << 10
	newer := func(name string, f format) func(dir string) error {
		return func(dir string) error {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if errors.Is(err, fs.ErrNotExist) {
				b, err = f.begin(nil), nil
			}
			if err == nil {
				b[8] = byte(f.newest()) + 1
				err = os.WriteFile(filepath.Join(dir, name), b, 0o600)
			}
			return err
		}
	}
	instead := func(name string, make func(path string) error) func(dir string) error {
		return func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, name)), make(filepath.Join(dir, name)))
		}
	}
	cut := func(name string, by int64) func(dir string) error {
		return func(dir string) error {
			st, err := os.Stat(filepath.Join(dir, name))
			if err != nil {
				return err
			}
			return os.Truncate(filepath.Join(dir, name), st.Size()+by)
		}
	}
	gone := func(string) error { return nil }
	mkdir := func(path string) error { return os.Mkdir(path, 0o700) }
	fifo := func(path string) error { return syscall.Mkfifo(path, 0o600) }
	link := func(path string) error {
		other := filepath.Join(filepath.Dir(filepath.Dir(path)), "other")
		return errors.Join(os.WriteFile(other, make([]byte, size), 0o600), os.Symlink(other, path))
	}
	for name, c := range map[string]struct {
		do   func(dir string) error
		want []error
		says string
	}{
		"nothing": {func(dir string) error { return os.RemoveAll(dir) }, []error{ErrNoDisk}, ""},
		"a file":  {func(dir string) error { return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)) }, []error{ErrNotDir}, ""},
		"other files": {func(dir string) error {
			return errors.Join(os.RemoveAll(dir), mkdir(dir), os.WriteFile(dir+"/a", nil, 0o600))
		}, []error{ErrNoDisk}, ""},
		"no journal":    {instead(journalName, gone), []error{ErrNoJournal, ErrNoDisk}, ""},
		"journal empty": {func(dir string) error { return os.Truncate(filepath.Join(dir, journalName), 0) }, []error{ErrForeign, ErrCorrupt}, journalName},
		"journal short": {func(dir string) error { return os.Truncate(filepath.Join(dir, journalName), journalHeader+30) }, []error{ErrCorrupt}, journalName},
		"journal foreign": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, journalName), make([]byte, 4096), 0o600)
		}, []error{ErrForeign, ErrCorrupt}, journalName},
		"journal newer":      {newer(journalName, journalFormat), []error{ErrVersion}, fmt.Sprintf("journal: version %d, this program knows up to %d", journalFormat.newest()+1, journalFormat.newest())},
		"journal a dir":      {instead(journalName, mkdir), []error{ErrNotFile}, journalName},
		"journal a link":     {instead(journalName, link), []error{ErrNotFile}, journalName},
		"base missing":       {instead(baseName, gone), []error{ErrNoBase}, baseName},
		"base truncated":     {cut(baseName, -Block), []error{ErrBaseSize, ErrCorrupt}, "4096 of 262144 bytes are missing"},
		"base longer":        {cut(baseName, 1), []error{ErrBaseSize, ErrCorrupt}, "1 bytes more than"},
		"base a directory":   {instead(baseName, mkdir), []error{ErrNotFile}, "a directory"},
		"base a link":        {instead(baseName, link), []error{ErrNotFile}, "a symbolic link"},
		"base a pipe":        {instead(baseName, fifo), []error{ErrNotFile}, "a pipe"},
		"epochs foreign":     {func(dir string) error { return os.WriteFile(filepath.Join(dir, epochsName), make([]byte, 4096), 0o600) }, []error{ErrForeign, ErrCorrupt}, epochsName},
		"epochs newer":       {newer(epochsName, epochsFormat), []error{ErrVersion}, epochsName},
		"epochs a pipe":      {instead(epochsName, fifo), []error{ErrNotFile}, epochsName},
		"dirty set newer":    {newer(dirtyName("p"), dirtyFormat), []error{ErrVersion}, dirtyName("p")},
		"new dirty newer":    {newer(dirtyName("q"), dirtyFormat), []error{ErrVersion}, dirtyName("q")},
		"hashes newer":       {newer(hashesName, hashesFormat), []error{ErrVersion}, hashesName},
		"lock a directory":   {instead(lockName, mkdir), []error{ErrNotFile}, lockName},
		"dirty set a socket": {instead(dirtyName("p"), fifo), []error{ErrNotFile}, dirtyName("p")},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "disk")
			o := Options{BarrierEvery: -1, SaveEvery: -1}
			d, err := Create(dir, ID{1}, size, o)
			must(t, err)
			must(t, d.Activate(1))
			_, err = d.Attach("p", ReplicaState{Disk: ID{1}})
			must(t, err)
			must(t, d.WriteAt([]byte("something"), 0, true))
			must(t, d.Close())
			must(t, c.do(dir))
			before := files(t, dir)
			_, err = Open(dir, o)
			for _, want := range c.want {
				if !errors.Is(err, want) {
					t.Errorf("%v isn't %q", err, want)
				}
			}
			if err != nil && (!strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), dir)) {
				t.Errorf("%v doesn't say %q and the directory", err, c.says)
			}
			if after := files(t, dir); !reflect.DeepEqual(before, after) {
				t.Error("something was changed")
			}
		})
	}
}

func TestRefusesDiskInUse(t *testing.T) {
	dir := t.TempDir()
	d, err := Create(dir, ID{1}, Block, Options{})
	must(t, err)
	defer d.Close()
	_, err = Open(dir, Options{})
	var held *vfs.LockedError
	if !errors.Is(err, ErrInUse) || !errors.As(err, &held) || held.PID != os.Getpid() {
		t.Fatalf("second open: %v", err)
	}
}

// deniedFS is a directory whose rights are wrong: for one file, or (with an empty name) to change it.
type deniedFS struct {
	vfs.FS
	name string
}

func (f deniedFS) Open(name string) (vfs.File, error) {
	if name == f.name {
		return nil, fmt.Errorf("open %s: %w", name, syscall.EACCES)
	}
	return f.FS.Open(name)
}

func (f deniedFS) Create(name string) (vfs.File, error) {
	if f.name == "" {
		return nil, fmt.Errorf("create %s: %w", name, syscall.EACCES)
	}
	return f.FS.Create(name)
}

func TestRefusesWrongRights(t *testing.T) {
	for _, name := range []string{"", journalName, baseName, epochsName, dirtyName("p"), hashesName} {
		m := vfs.NewMem()
		o := quiet(m)
		d := newDisk(t, regionSize, o)
		must(t, d.Activate(1))
		_, err := d.Attach("p", ReplicaState{Disk: ID{1}})
		must(t, err)
		must(t, d.WriteAt([]byte("something"), 0, true))
		must(t, d.save())
		scrub(t, d, true)
		must(t, d.Close())
		o.FS = deniedFS{m, name}
		if _, err := Open("", o); !errors.Is(err, fs.ErrPermission) || errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), name) {
			t.Errorf("no right to %q: %v", name, err)
		}
		must(t, reopen(t, quiet(m)).Close())
	}
}
