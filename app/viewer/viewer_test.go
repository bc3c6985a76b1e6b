package viewer

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/api/apitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSettings(t *testing.T) {
	dir := t.TempDir()
	if s, err := Load(dir); err != nil || !s.Auto {
		t.Errorf("unset: %+v, %v", s, err)
	}
	for _, auto := range []bool{false, true} {
		if err := (Settings{Auto: auto}).Save(dir); err != nil {
			t.Fatal(err)
		}
		if s, err := Load(dir); err != nil || s.Auto != auto {
			t.Errorf("%+v, %v", s, err)
		}
	}
	for _, nonsense := range []string{"", "{", `{"version":2,"auto":true}`, strings.Repeat(" ", maxSettings+1)} {
		if err := os.WriteFile(settingsPath(dir), []byte(nonsense), 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := Load(dir); !errors.Is(err, ErrSettings) || s.Auto {
			t.Errorf("%.20q: %+v, %v", nonsense, s, err)
		}
	}
}

func TestConnectionFile(t *testing.T) {
	b, err := connection{Protocol: api.ScreenSPICE, Socket: "/run/a b", Password: "pw", Title: ` Work\home` + "\ntype=vnc"}.file()
	if want := "[virt-viewer]\ntype=spice\nunix-path=/run/a b\npassword=pw\ntitle=\\sWork\\\\home\\ntype=vnc\ndelete-this-file=1\n"; err != nil || string(b) != want {
		t.Errorf("%q, %v", b, err)
	}
	b, err = connection{Protocol: api.ScreenVNC, Port: 5, Password: "pw"}.file()
	if want := "[virt-viewer]\ntype=vnc\nhost=127.0.0.1\nport=5\npassword=pw\ndelete-this-file=1\n"; err != nil || string(b) != want {
		t.Errorf("%q, %v", b, err)
	}
	if _, err = (connection{Protocol: "rdp"}).file(); err == nil {
		t.Error("a strange protocol was accepted")
	}
}

// TestTheAnswerToAChallenge is as OpenSSL computes it (des-ecb, under the letters with their bits reversed).
func TestTheAnswerToAChallenge(t *testing.T) {
	challenge := make([]byte, 16)
	for i := range challenge {
		challenge[i] = byte(i)
	}
	got, err := respond("COW", challenge)
	if want := "dc72fe4da173cc3f3c684d6637ed8c28"; err != nil || hex.EncodeToString(got) != want {
		t.Errorf("%x, %v", got, err)
	}
}

// server is a VNC server that lets everybody in and then says what it hears.
func server(t *testing.T) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "tv")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, rfbVersion)
			_, _ = io.ReadFull(c, make([]byte, 12))
			_, _ = c.Write([]byte{1, rfbNone})
			_, _ = io.ReadFull(c, make([]byte, 1))
			_, _ = c.Write([]byte{0, 0, 0, 0})
			_, _ = io.Copy(c, c)
			c.Close()
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return socket
}

func TestTheBridgeWantsItsPassword(t *testing.T) {
	b, err := newBridge(server(t), "")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- b.serve(t.Context()) }()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", b.l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	stranger := dial()
	if err := enter(stranger, "guessed!"); !errors.Is(err, errPassword) {
		t.Errorf("a stranger: %v", err)
	}
	if _, err := io.ReadAll(stranger); err != nil {
		t.Errorf("a stranger isn't hung up on: %v", err)
	}
	stranger.Close()
	nonsense := dial()
	_, _ = io.WriteString(nonsense, "GET / HTTP/1.1\r\n\r\n")
	_, _ = io.ReadAll(nonsense)
	nonsense.Close()
	friend := dial()
	if err := enter(friend, b.password); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(friend, "hello"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(friend, got); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	if c, err := net.Dial("tcp", b.l.Addr().String()); err == nil {
		c.Close()
		t.Error("a second one gets in")
	}
	friend.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestTheBridgeEndsWithStrangers(t *testing.T) {
	b, err := newBridge(server(t), "")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- b.serve(t.Context()) }()
	for range maxStrangers {
		c, err := net.Dial("tcp", b.l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = enter(c, "guessed!")
		c.Close()
	}
	if err := <-ended; err == nil {
		t.Error("guessing goes on for ever")
	}
}

// FuzzRFB says anything to both sides of the handshake.
func FuzzRFB(f *testing.F) {
	f.Add([]byte(rfbVersion + "\x02" + strings.Repeat("x", 16)))
	f.Add([]byte(rfbVersion + "\x01\x01\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, said []byte) {
		peer := struct {
			io.Reader
			io.Writer
		}{strings.NewReader(string(said)), io.Discard}
		if admit(peer, "password") == nil {
			t.Error("somebody who knew no challenge got in")
		}
		peer.Reader = strings.NewReader(string(said))
		_ = enter(peer, "password")
	})
}

// TestASessionFollowsItsVM: it ends with the viewer, with the VM's going away or ending, or with whoever asked for it; not with a switch
// that fails, and not with an event about something else.
func TestASessionFollowsItsVM(t *testing.T) {
	state := func(e *apitest.Engine, change func(*api.VM)) {
		e.Update("vm.changed", "", func(st *api.Status) { change(&st.VMs[0]) })
		e.Emit(api.Event{Kind: "vm.changed", VM: "vm1"})
	}
	for name, c := range map[string]struct {
		do   func(e *apitest.Engine, closeWindow func(), cancel func())
		want End
	}{
		"closed":    {func(_ *apitest.Engine, closeWindow, _ func()) { closeWindow() }, EndClosed},
		"cancelled": {func(_ *apitest.Engine, _, cancel func()) { cancel() }, EndClosed},
		"left": {func(e *apitest.Engine, _, _ func()) {
			state(e, func(v *api.VM) { v.State = api.VMSwitching })
			state(e, func(v *api.VM) { v.Here, v.State = false, api.VMRunning })
		}, EndLeft},
		"stopped": {func(e *apitest.Engine, _, _ func()) { state(e, func(v *api.VM) { v.State = api.VMStopped }) }, EndStopped},
		"removed": {func(e *apitest.Engine, _, _ func()) {
			e.Update("vm.removed", "", func(st *api.Status) { st.VMs = nil })
			e.Emit(api.Event{Kind: "vm.removed", VM: "vm1"})
		}, EndStopped},
		"a switch that fails": {func(e *apitest.Engine, closeWindow, _ func()) {
			state(e, func(v *api.VM) { v.State = api.VMSwitching })
			state(e, func(v *api.VM) { v.State = api.VMRunning })
			e.Emit(api.Event{Kind: "vm.changed", VM: "another"})
			closeWindow()
		}, EndClosed},
	} {
		t.Run(name, func(t *testing.T) {
			e := apitest.New(api.Status{VMs: []api.VM{{ID: "vm1", Name: "Work", Here: true, State: api.VMRunning}}})
			closed, open := make(chan struct{}), make(chan struct{})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			s := Session{Engine: e, VM: "vm1", show: func(ctx context.Context, screen api.Screen, title string) error {
				if title != "Work" || screen.Socket == "" {
					t.Errorf("%q, %+v", title, screen)
				}
				close(open)
				select {
				case <-ctx.Done():
				case <-closed:
				}
				return nil
			}}
			ended := make(chan End, 1)
			go func() {
				end, err := s.Run(ctx)
				if err != nil {
					t.Error(err)
				}
				ended <- end
			}()
			<-open
			c.do(e, func() { close(closed) }, cancel)
			select {
			case got := <-ended:
				if got != c.want {
					t.Errorf("it ended as %q", got)
				}
			case <-time.After(60 * time.Second):
				t.Fatal("it doesn't end")
			}
		})
	}
}

func TestAScreenThatCannotBeOpened(t *testing.T) {
	e := apitest.New(api.Status{VMs: []api.VM{{ID: "vm1", Name: "Work", Here: true, State: api.VMStopped}}})
	e.Fail("OpenScreen", &api.Error{Code: api.CodeConflict, Sentence: "It isn't running."})
	if _, err := (Session{Engine: e, VM: "vm1"}).Run(t.Context()); !errors.Is(err, &api.Error{Code: api.CodeConflict}) {
		t.Error(err)
	}
	t.Setenv("PATH", t.TempDir())
	err := show(t.Context(), api.Screen{Protocol: api.ScreenVNC, Socket: "/run/screen.sock"}, "Work")
	if e := api.AsError(err); e.Code != api.CodeNotFound || !strings.Contains(e.Next, "virt-viewer") || !strings.Contains(e.Next, "/run/screen.sock") {
		t.Errorf("without a viewer: %v", err)
	}
}

// A viewer whose window was closed has done its work, whatever it has left running.
func TestAViewerThatLeavesAHelper(t *testing.T) {
	dir := t.TempDir()
	number := filepath.Join(dir, "pid")
	script := "#!/bin/sh\n/bin/sleep 600 &\necho $! >" + number + "\n"
	if err := os.WriteFile(filepath.Join(dir, Binary), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	t.Setenv("DISPLAY", ":0")
	if err := show(t.Context(), api.Screen{Protocol: api.ScreenSPICE, Socket: "/run/screen.sock"}, "Work"); err != nil {
		t.Error(err)
	}
	b, err := os.ReadFile(number)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	helper, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := helper.Kill(); err != nil {
		t.Errorf("the helper: %v", err)
	}
}
