package disktool

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/durable"
	"tagalong.org/tagalong/app/savedmemory"
	"tagalong.org/tagalong/app/volumes"
	"tagalong.org/tagalong/app/volumes/window"
	"tagalong.org/tagalong/vmdisk"
)

// A VM's store may hold several disks. How it is cut is in the VM's record; the engine keeps a copy in a file beside the store, for who works on it
// without an engine. A store without such a file is one disk.

func tableFile(dir string) string { return filepath.Join(filepath.Dir(dir), "volumes.json") }

// KeepTable writes the copy of the table of the store in dir, if it isn't what is there.
func KeepTable(dir string, t volumes.Table) error {
	b, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("describe the disks: %w", err)
	}
	if old, err := os.ReadFile(tableFile(dir)); err == nil && string(old) == string(b) {
		return nil
	}
	if err := durable.Write(tableFile(dir), b); err != nil {
		return fmt.Errorf("keep the table of disks: %w", err)
	}
	return nil
}

// KeptTable reads the copy beside the store in dir, an absolute path; the zero Table if there is none.
func KeptTable(dir string) (t volumes.Table, err error) {
	b, err := os.ReadFile(tableFile(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &t)
	}
	if err == nil {
		err = t.Check()
	}
	if err != nil {
		return volumes.Table{}, fmt.Errorf("read the copy of the table of disks: %w", err)
	}
	return t, nil
}

// tableOf is how the store in dir is cut, without an engine that knows. size is the store's.
func tableOf(dir string, size int64) (volumes.Table, error) {
	if _, ok := vmOf(dir); !ok {
		return volumes.One(size), nil
	}
	t, err := KeptTable(dir)
	if err == nil && t.IsZero() {
		t = volumes.One(size)
	}
	if err != nil {
		return t, &api.Error{Code: api.CodeInternal, Sentence: fmt.Sprintf("What %s says of the disks can't be read.", tableFile(dir)),
			Next: "Start Tagalong once: it writes that file anew.", Cause: err.Error()}
	}
	return t, nil
}

// volumeOf is a disk of a table by its ID or name; "" is the first.
func volumeOf(t volumes.Table, name string) (volumes.Volume, error) {
	if name == "" {
		return t.Volumes[0], nil
	}
	if v, ok := t.Find(name); ok && v.Kind == volumes.Disk && !v.Making {
		return v, nil
	}
	var known []string
	for _, v := range t.Of(volumes.Disk) {
		known = append(known, v.Called())
	}
	return volumes.Volume{}, &api.Error{Code: api.CodeNotFound, Sentence: fmt.Sprintf("There is no disk %q in it.", name), Next: "It has: " + strings.Join(known, ", ") + "."}
}

// suspendedIn says whether the memory of a suspended guest is in a store that is whole.
func suspendedIn(disk *vmdisk.Store, t volumes.Table) bool {
	for _, v := range t.Of(volumes.Memory) {
		if _, err := savedmemory.Read(window.NewReader(disk, v)); !errors.Is(err, savedmemory.ErrNone) {
			return true // what can't be read might be one
		}
	}
	return false
}
