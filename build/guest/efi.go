//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// efiVars is where the kernel shows the variables of the firmware, if that is an UEFI.
const efiVars = "/sys/firmware/efi/efivars"

// efiWord is the one that the guest keeps for whoever asks, beside the firmware's own.
const efiWord = "TagalongWord-7a6a1060-0000-4000-8000-000000000003"

// efiAttributes of it: kept over starts, for the firmware and for systems.
var efiAttributes = []byte{7, 0, 0, 0}

// efi keeps a word in the firmware's variables.
type efi struct {
	mount sync.Once
	err   error
}

func (e *efi) ready() error {
	e.mount.Do(func() {
		if _, err := os.Stat("/sys/firmware/efi"); errors.Is(err, fs.ErrNotExist) {
			e.err = errors.New("started by a BIOS")
			return
		}
		e.err = unix.Mount("efivarfs", efiVars, "efivarfs", 0, "")
	})
	return e.err
}

// write keeps the word.
func (e *efi) write(word string) error {
	if err := e.ready(); err != nil {
		return err
	}
	name := filepath.Join(efiVars, efiWord)
	if err := mutable(name); err != nil {
		return err
	}
	// A variable is written in one piece.
	return os.WriteFile(name, append(efiAttributes[:4:4], word...), 0o600)
}

// mutable lets a variable be written again: the kernel protects those that it doesn't know.
func mutable(name string) error {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, 0)
}

// read is the word, "" if there is none yet.
func (e *efi) read() (string, error) {
	if err := e.ready(); err != nil {
		return "", err
	}
	b, err := os.ReadFile(filepath.Join(efiVars, efiWord))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", err
	case len(b) < len(efiAttributes):
		return "", fmt.Errorf("a variable of %d bytes", len(b))
	}
	return string(b[len(efiAttributes):]), nil
}
