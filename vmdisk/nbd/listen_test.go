package nbd

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestListen(t *testing.T) {
	path := socketPath(t)
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" {
		for file, want := range map[string]fs.FileMode{path: fs.ModeSocket | 0o600, filepath.Dir(path): fs.ModeDir | 0o700} {
			if info, err := os.Stat(file); err != nil || info.Mode() != want {
				t.Errorf("%s: %v, %v", file, info.Mode(), err)
			}
		}
	}
	if _, err := Listen(path); !errors.Is(err, ErrInUse) {
		t.Errorf("second listener: %v", err)
	}
	if nc, err := net.Dial("unix", path); err != nil {
		t.Errorf("after a second try, the first is deaf: %v", err)
	} else if err := nc.Close(); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket stays: %v", err)
	}
}

func TestListenReplacesStaleSocket(t *testing.T) {
	path := socketPath(t)
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	// What a killed process leaves behind.
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Fatal(err)
	}
	l, err = Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestListenRefusals(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes and kinds of files mean nothing there")
	}
	dir := filepath.Dir(socketPath(t))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("keep me"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(file); !errors.Is(err, ErrNotSocket) {
		t.Errorf("a file: %v", err)
	}
	if p, err := os.ReadFile(file); err != nil || string(p) != "keep me" {
		t.Errorf("the file is now %q, %v", p, err)
	}
	if _, err := Listen(filepath.Join(dir, strings.Repeat("x", maxSocketPath))); !errors.Is(err, ErrPathTooLong) {
		t.Errorf("a long path: %v", err)
	}
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []fs.FileMode{0o750, 0o701, 0o770} {
		if err := os.Chmod(open, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Listen(filepath.Join(open, "s")); !errors.Is(err, ErrUnsafeDir) {
			t.Errorf("a directory of mode %v: %v", mode, err)
		}
	}
	if _, err := Listen(filepath.Join(file, "d", "s")); err == nil {
		t.Error("a file is taken for a directory")
	}
}
