//go:build linux && !ci

package ui

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
)

// startX starts an X server of the test's own and returns its name.
func startX(t *testing.T) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("Xvfb", "-displayfd", "3", "-screen", "0", "1000x700x24", "-nolisten", "tcp")
	cmd.ExtraFiles = []*os.File{w}
	background(t, cmd)
	_ = w.Close()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatalf("X server said nothing: %v", err)
	}
	_ = r.Close()
	return ":" + strings.TrimSpace(line)
}

// serve puts engine behind a real socket.
func serve(t *testing.T, engine api.Engine) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tui")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "run", "api.sock")
	l, err := api.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- api.NewServer(engine, slog.New(slog.DiscardHandler)).Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return socket
}

// program is this test binary, run as the real thing.
type program struct {
	cmd  *exec.Cmd
	out  bytes.Buffer
	done chan error
}

func launch(t *testing.T, socket, display, bus string, show bool) *program {
	t.Helper()
	p := &program{cmd: exec.Command(os.Args[0]), done: make(chan error, 1)}
	env := []string{"HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH"), "LANG=" + cmp.Or(os.Getenv("TAGALONG_UI_SHOTS_LANG"), "C.UTF-8"), "LIBGL_ALWAYS_SOFTWARE=1",
		childEnv + "=" + socket, "DISPLAY=" + display, "DBUS_SESSION_BUS_ADDRESS=" + bus, "FYNE_THEME=" + os.Getenv("FYNE_THEME")}
	if show {
		env = append(env, "TAGALONG_UI_TEST_SHOW=1")
	}
	p.cmd.Env = env
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("the program said:\n%s", &p.out)
		}
	})
	return p
}

// wait returns how the program ended.
func (p *program) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-p.done:
		p.done <- err
		return err
	case <-time.After(patience):
		t.Fatal("the program doesn't end")
		return nil
	}
}

// windows lists the visible windows of the program by X.
func windows(display string) []string {
	cmd := exec.Command("xdotool", "search", "--onlyvisible", "--name", "^Tagalong$")
	cmd.Env = append(os.Environ(), "DISPLAY="+display)
	out, _ := cmd.Output()
	return strings.Fields(string(out))
}

func TestRealWindowWithoutTray(t *testing.T) {
	need(t, "Xvfb", "dbus-daemon", "xdotool")
	display, bus := startX(t), startBus(t)
	socket := serve(t, newFakeEngine(sample(time.Now())))
	first := launch(t, socket, display, bus, false)
	until(t, "a window, as nobody shows a tray", func() bool { return len(windows(display)) == 1 })

	second := launch(t, socket, display, bus, false)
	if err := second.wait(t); err != nil {
		t.Fatalf("second launch: %v\n%s", err, &second.out)
	}
	if n := len(windows(display)); n != 1 {
		t.Errorf("%d windows after a second launch", n)
	}

	press(t, display, "ctrl+w")
	if err := first.wait(t); err != nil {
		t.Errorf("closing the window without a tray should end the program well: %v\n%s", err, &first.out)
	}
}

// press presses keys in the program's window.
func press(t *testing.T, display, keys string) {
	t.Helper()
	ids := windows(display)
	if len(ids) == 0 {
		t.Fatal("no window to press keys in")
	}
	// Without a window manager nobody gives the window the keyboard.
	cmd := exec.Command("xdotool", "windowfocus", "--sync", ids[0], "key", keys)
	cmd.Env = append(os.Environ(), "DISPLAY="+display)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestRealNoDisplay(t *testing.T) {
	socket := serve(t, newFakeEngine(sample(time.Now())))
	p := launch(t, socket, "", "", true)
	err := p.wait(t)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Fatalf("ended with %v", err)
	}
	if got := p.out.String(); !strings.HasPrefix(got, "There is no screen") || strings.Contains(got, "panic") {
		t.Errorf("said %q", got)
	}
}

func TestRealWithoutBus(t *testing.T) {
	need(t, "Xvfb", "xdotool")
	display := startX(t)
	socket := serve(t, newFakeEngine(sample(time.Now())))
	p := launch(t, socket, display, "", false)
	until(t, "a window", func() bool { return len(windows(display)) == 1 })
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := p.wait(t); err != nil {
		t.Errorf("interrupted: %v\n%s", err, &p.out)
	}
}
