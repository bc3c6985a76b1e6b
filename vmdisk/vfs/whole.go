package vfs

import "errors"

// TempSuffix ends the names of files that Stage leaves if there is a crash before Place.
const TempSuffix = ".new"

// WriteNew stores a whole file under its name, atomically and durably.
func WriteNew(fsys FS, name string, b []byte) error {
	if err := Stage(fsys, name, b); err != nil {
		return err
	}
	_, err := Place(fsys, name)
	return err
}

// Stage stores b durably, beside the file called name.
func Stage(fsys FS, name string, b []byte) error {
	temp := name + TempSuffix
	_ = fsys.Remove(temp) // usually there is none; if it can't go, Create says so
	f, err := fsys.Create(temp)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = fsys.Remove(temp) // the next one tries again
	}
	return err
}

// Place gives what was staged its name, durably if there is no error. placed says that it has the name.
func Place(fsys FS, name string) (placed bool, err error) {
	temp := name + TempSuffix
	if err := fsys.Rename(temp, name); err != nil {
		_ = fsys.Remove(temp) // the next one tries again
		return false, err
	}
	return true, fsys.SyncDir()
}
