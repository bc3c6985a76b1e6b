//go:build linux && !ci

package ui

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
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

// TestRealShots writes a picture of every state to $TAGALONG_UI_SHOTS, for people to look at.
func TestRealShots(t *testing.T) {
	dir := os.Getenv("TAGALONG_UI_SHOTS")
	if dir == "" {
		t.Skip("TAGALONG_UI_SHOTS names no directory for pictures")
	}
	need(t, "Xvfb", "dbus-daemon", "xdotool", "import")
	for name, st := range shots(time.Now()) {
		t.Run(name, func(t *testing.T) {
			display, bus := startX(t), startBus(t)
			engine := newFakeEngine(st)
			socket := serve(t, engine)
			if st == nil {
				socket = filepath.Join(filepath.Dir(socket), "nobody.sock")
			}
			launch(t, socket, display, bus, true)
			until(t, "a window", func() bool { return len(windows(display)) == 1 })
			if name == "pairing" {
				clickAt(t, display, 685, 92)
				clickAt(t, display, 380, 245)
			}
			// Nothing tells when the first frames have been drawn; pictures are for people to judge.
			time.Sleep(3 * time.Second)
			cmd := exec.Command("import", "-window", windows(display)[0], filepath.Join(dir, name+".png"))
			cmd.Env = append(os.Environ(), "DISPLAY="+display)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// clickAt presses the mouse in the window, for a person who looks at the picture to have been right.
func clickAt(t *testing.T, display string, x, y int) {
	t.Helper()
	time.Sleep(2 * time.Second)
	cmd := exec.Command("xdotool", "mousemove", "--window", windows(display)[0], fmt.Sprint(x), fmt.Sprint(y), "sleep", "0.3", "click", "1")
	cmd.Env = append(os.Environ(), "DISPLAY="+display)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// shots are the states worth a picture; nil is an engine that isn't there.
func shots(now time.Time) map[string]*api.Status {
	m := map[string]*api.Status{"elsewhere": sample(now), "pairing": sample(now), "none": nil}
	with := func(name string, change func(*api.Status)) {
		st := sample(now)
		change(st)
		m[name] = st
	}
	with("switching", func(st *api.Status) {
		st.VMs[0].Switch, st.VMs[0].State = switching(), api.VMSwitching
	})
	with("many", func(st *api.Status) {
		here := *cloneStatus(st)
		play := here.VMs[0]
		play.ID, play.Name, play.Here, play.Owner, play.OwnerName = "p", "Play", true, "D", "Desk"
		play.Replicas[0].State, play.Replicas[1].State = api.ReplicaCopying, api.ReplicaOwner
		play.Replicas[0].Remaining, play.Replicas[0].Copied, play.Replicas[0].Rate = 12*gib, 20*gib, 80*mib
		play.Replicas[0].ETA = 150 * time.Second
		old := cloneStatus(st).VMs[0]
		old.ID, old.Name, old.Owner, old.OwnerName, old.State = "o", "Old accounts, a VM with a rather long name", "A", "Attic", api.VMStopped
		st.VMs = append(st.VMs, play, old)
		st.Jobs = []api.Job{{ID: "j", Kind: "import", VMName: "Photos", Bytes: 7 * gib, Total: 20 * gib, Rate: 210 * mib, ETA: 63 * time.Second}}
	})
	with("problem", func(st *api.Status) {
		st.VMs[0].Here, st.VMs[0].Owner, st.VMs[0].OwnerName, st.VMs[0].State = true, "D", "Desk", api.VMPaused
		st.VMs[0].Replicas = st.VMs[0].Replicas[1:]
		st.VMs[0].Replicas[0].State = api.ReplicaOwner
		st.VMs[0].Problem = &api.Error{Code: api.CodeSpace, Sentence: "The disk of this PC is full, so Work waits.", Next: "Free some space; Work then goes on by itself."}
	})
	with("empty", func(st *api.Status) { st.VMs, st.Devices = nil, st.Devices[:1] })
	with("no-hypervisor", func(st *api.Status) { st.Hypervisor = api.Hypervisor{} })
	return m
}
