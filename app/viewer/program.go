package viewer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"tagalong.org/tagalong/app/api"
)

// Binary is the program that is looked for on the PATH.
const Binary = "remote-viewer"

// killAfter is how long a viewer that is told to end may take.
const killAfter = 3 * time.Second

// errMissing is what the person reads who has no viewer.
func errMissing(screen api.Screen, cause error) error {
	next := "Install it (on Debian and Ubuntu: sudo apt install virt-viewer) and try again."
	if screen.Protocol == api.ScreenVNC && screen.Password == "" {
		next = fmt.Sprintf("Install it (on Debian and Ubuntu: sudo apt install virt-viewer) and try again; or use another VNC viewer that can open a Unix socket: vncviewer %s", screen.Socket)
	}
	return &api.Error{Code: api.CodeNotFound, Sentence: "There is no program on this device that shows a VM's screen: " + Binary + " isn't installed.",
		Next: next, Cause: cause.Error()}
}

// hasDisplay says whether a window can be shown, as far as that is known beforehand.
func hasDisplay() bool {
	switch runtime.GOOS {
	case "windows", "darwin":
		return true
	}
	return os.Getenv("DISPLAY") != "" || os.Getenv("WAYLAND_DISPLAY") != ""
}

// show runs the viewer until its window is closed, its connection ends, or ctx does, and leaves nothing behind.
func show(ctx context.Context, screen api.Screen, title string) error {
	path, err := exec.LookPath(Binary)
	if err != nil {
		return errMissing(screen, err)
	}
	if !hasDisplay() {
		return &api.Error{Code: api.CodeConflict, Sentence: "There is no display here to show a screen on.", Next: "Do it in a desktop session."}
	}
	c := connection{Protocol: screen.Protocol, Socket: screen.Socket, Password: screen.Password, Title: title}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	bridged := make(chan struct{})
	if screen.Protocol == api.ScreenVNC {
		b, err := newBridge(screen.Socket, screen.Password)
		if err != nil {
			return err
		}
		c.Port, c.Password = b.port(), b.password
		go func() {
			defer close(bridged)
			_ = b.serve(ctx) // the viewer says what it is about
		}()
	} else {
		close(bridged)
	}
	defer func() { cancel(); <-bridged }()
	dir, err := os.MkdirTemp("", "tagalong-screen-")
	if err != nil {
		return fmt.Errorf("viewer: make a private directory: %w", err)
	}
	defer os.RemoveAll(dir)
	content, err := c.file()
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "screen.vv")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		return fmt.Errorf("viewer: write the connection: %w", err)
	}
	cmd := exec.CommandContext(ctx, path, file)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = killAfter
	words := &tail{}
	cmd.Stdout, cmd.Stderr = io.Discard, words
	began := time.Now()
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil, errors.Is(err, exec.ErrWaitDelay): // its window was closed; what it has started may go on
		return nil
	case errors.As(err, &exit) && time.Since(began) < killAfter:
		// One that was looked at for a while and then ended in whatever way has done what it is for.
		return &api.Error{Code: api.CodeInternal, Sentence: "The viewer couldn't show the screen.", Next: "See whether it starts by itself: " + Binary + " --version",
			Cause: fmt.Sprintf("%v: %s", err, words)}
	case err != nil && exit == nil:
		return fmt.Errorf("viewer: start %s: %w", Binary, err)
	}
	return nil
}

// tail keeps the end of what is written to it.
type tail struct{ b []byte }

const maxTail = 2 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if len(t.b) > maxTail {
		t.b = append(t.b[:0], t.b[len(t.b)-maxTail:]...)
	}
	return len(p), nil
}

func (t *tail) String() string { return strings.TrimSpace(string(t.b)) }
