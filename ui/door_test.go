package ui

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"

	"tagalong.org/tagalong/app/api"
)

// openTestDoor opens a door and serves it until the test ends; each call of show is counted.
func openTestDoor(t *testing.T) (path string, shows *int, end func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "door")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path = filepath.Join(dir, "run", "ui.sock")
	l, err := openDoor(path)
	if err != nil {
		t.Fatal(err)
	}
	shows = new(int)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		serveDoor(ctx, l, slog.New(slog.DiscardHandler), func() { *shows++ })
	}()
	end = func() { cancel(); <-done }
	t.Cleanup(end)
	return path, shows, end
}

func TestSecondLaunch(t *testing.T) {
	path, shows, end := openTestDoor(t)
	for range 3 {
		if _, err := openDoor(path); !errors.Is(err, errShown) {
			t.Fatalf("second launch: %v", err)
		}
	}
	end()
	if *shows != 3 {
		t.Errorf("shown %d times", *shows)
	}
	l, err := openDoor(path)
	if err != nil {
		t.Fatalf("after the first has ended: %v", err)
	}
	_ = l.Close()
}

func TestDoorTakesNonsense(t *testing.T) {
	path, shows, end := openTestDoor(t)
	for _, word := range []string{"", "\n", "hide 1\n", "show 2\n", string(make([]byte, 10000))} {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		// The door may hang up before it has read everything.
		_, _ = io.WriteString(conn, word)
		_ = conn.(*net.UnixConn).CloseWrite()
		if got, _ := io.ReadAll(conn); len(got) != 0 {
			t.Errorf("answered %q to %q", got, word)
		}
		_ = conn.Close()
	}
	end()
	if *shows != 0 {
		t.Errorf("shown %d times", *shows)
	}
}

func TestDoorStuck(t *testing.T) {
	dir, err := os.MkdirTemp("", "door")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "ui.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	if _, err := openDoor(path); !errors.Is(err, &api.Error{Code: api.CodeBusy}) {
		t.Errorf("a stranger at the door: %v", err)
	}
	_ = l.Close()
	<-done
}

func TestDoorIsNoLongerThanTheEngines(t *testing.T) {
	if a, b := len(doorPath("/x/api.sock")), len("/x/api.sock"); a > b {
		t.Errorf("%d bytes instead of %d", a, b)
	}
}
