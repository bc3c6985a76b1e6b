//go:build unix

package vfs

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// What isn't a plain file in a directory isn't opened, whatever opening it would do.
func TestOpensPlainFilesOnly(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.WriteFile(at("file"), nil, 0o600), os.Symlink("file", at("link")), os.Mkdir(at("dir"), 0o700),
		syscall.Mkfifo(at("pipe"), 0o600), os.Symlink("/dev/null", at("device"))); err != nil {
		t.Fatal(err)
	}
	for _, fsys := range []FS{OS(dir), ReadOnly(OS(dir))} {
		for _, name := range []string{"link", "dir", "pipe", "device"} {
			if _, err := fsys.Open(name); !errors.Is(err, ErrNotFile) || !strings.Contains(err.Error(), name) {
				t.Errorf("open of a %s: %v", name, err)
			}
			if _, err := fsys.Lock(name); !errors.Is(err, ErrNotFile) {
				t.Errorf("lock of a %s: %v", name, err)
			}
		}
	}
	if _, err := OS(at("file")).List(); !errors.Is(err, ErrNotDir) {
		t.Errorf("list of a file: %v", err)
	}
}

// A lock that another process holds says which.
func TestLockNamesItsHolder(t *testing.T) {
	dir := t.TempDir()
	if os.Getenv("VFS_LOCK_DIR") != "" {
		if _, err := OS(os.Getenv("VFS_LOCK_DIR")).Lock("lock"); err != nil {
			t.Fatal(err)
		}
		os.Stdout.WriteString("locked\n")
		_, _ = os.Stdin.Read(make([]byte, 1))
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestLockNamesItsHolder$")
	cmd.Env = append(os.Environ(), "VFS_LOCK_DIR="+dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 7)); err != nil {
		t.Fatal(err)
	}
	for _, fsys := range []FS{OS(dir), ReadOnly(OS(dir))} {
		_, err := fsys.Lock("lock")
		var held *LockedError
		if !errors.Is(err, ErrLocked) || !errors.As(err, &held) || held.PID != cmd.Process.Pid {
			t.Errorf("locked by process %d: %v", cmd.Process.Pid, err)
		}
	}
	if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
		t.Fatal(err)
	}
	l, err := OS(dir).Lock("lock")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "lock"), []byte("\x00nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OS(dir).Lock("lock"); !errors.Is(err, ErrLocked) {
		t.Errorf("with nonsense in the file: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// Reading only changes nothing, and needs no right to.
func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte("content"), 0o400); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(dir, 0o700)
	fsys := ReadOnly(OS(dir))
	l, err := fsys.Lock("lock")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := content(t, fsys, "a"); got != "content" {
		t.Fatalf("read %q", got)
	}
	f, err := fsys.Open("a")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, werr := f.WriteAt([]byte("x"), 0)
	_, cerr := fsys.Create("b")
	for i, err := range []error{werr, cerr, f.Truncate(0), f.Sync(), f.Punch(0, 1), f.ZeroRange(0, 1), fsys.Rename("a", "b"), fsys.Remove("a"), fsys.SyncDir()} {
		if !errors.Is(err, ErrReadOnly) {
			t.Errorf("call %d: %v", i, err)
		}
	}
	if names, err := fsys.List(); err != nil || len(names) != 1 {
		t.Fatalf("left %v, %v", names, err)
	}
}
