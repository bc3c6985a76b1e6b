package p2p

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func init() { deviceMain = playDevice }

// script is what a device in a namespace is told at its start, as JSON in helperEnv. Afterwards it gets commands, one a
// line, and reports one a line.
type script struct {
	KeyFile string
	Listen  string
	Verbose bool
}

func playDevice() int {
	var sc script
	if err := json.Unmarshal([]byte(os.Getenv(helperEnv)), &sc); err != nil {
		fmt.Println("failed", err)
		return 1
	}
	level := slog.LevelWarn
	if sc.Verbose {
		level = slog.LevelDebug
	}
	members, where := &list{}, &book{}
	h, err := New(Options{
		KeyFile: sc.KeyFile, Listen: []string{sc.Listen}, Members: members, Addresses: where,
		Discovery: true, Version: "test",
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})),
	})
	if err != nil {
		fmt.Println("failed", err)
		return 1
	}
	defer h.Close()
	h.Handle("/test/echo/1", echo)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { _ = h.Serve(ctx) }()
	go report(ctx, h)
	fmt.Println("ready", h.ID())
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		verb, arg, _ := strings.Cut(in.Text(), " ")
		switch verb {
		case "allow":
			members.set(strings.Fields(arg)...)
			h.AllowChanged()
		case "at":
			id, addr, _ := strings.Cut(arg, " ")
			where.Save(id, []string{addr})
		case "peers":
			b, err := json.Marshal(h.Peers())
			if err != nil {
				fmt.Println("failed", err)
			}
			fmt.Println("peers", string(b))
		case "pair":
			var port int
			_, _ = fmt.Sscan(arg, &port)
			h.SetPairPort(port)
		case "find":
			fctx, fcancel := context.WithTimeout(ctx, patience)
			found, err := h.FindPairing(fctx)
			fcancel()
			fmt.Println("found", found, err)
		case "echo":
			fmt.Println("echoed", tryEcho(ctx, h, arg))
		case "churn":
			churn(ctx, h, arg)
			fmt.Println("churned")
		}
	}
	return 0
}

// report prints who is connected whenever that changes.
func report(ctx context.Context, h *Host) {
	news, cancel := h.Watch()
	defer cancel()
	was := make(map[string]bool)
	for {
		for _, p := range h.Peers() {
			if p.Connected != was[p.ID] {
				was[p.ID] = p.Connected
				fmt.Println("connected", p.ID, p.Connected)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-news:
		}
	}
}

func tryEcho(ctx context.Context, h *Host, id string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s, err := h.Open(ctx, id, "/test/echo/1")
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := s.Write([]byte("hi")); err != nil {
		return err
	}
	if err := s.CloseWrite(); err != nil {
		return err
	}
	got, err := io.ReadAll(s)
	if err == nil && string(got) != "hi" {
		err = fmt.Errorf("echo %q", got)
	}
	return err
}

// churn loses every connection to a device as soon as it is there, 100 times, and waits for the last one.
func churn(ctx context.Context, h *Host, id string) {
	p, err := decodeID(id)
	if err != nil {
		return
	}
	news, cancel := h.Watch()
	defer cancel()
	for lost := 0; lost <= 100 && ctx.Err() == nil; {
		c := h.best(p)
		if c == nil {
			select {
			case <-news:
			case <-ctx.Done():
			}
			continue
		}
		if lost < 100 {
			h.hangUp(c)
		}
		lost++
	}
}

// lan is two namespaces joined by a cable.
type lan struct {
	names [2]string
	addrs [2]string
}

func newLAN(t *testing.T, subnet int) *lan {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("This test builds network namespaces and must run as root.")
	}
	l := &lan{}
	for i := range l.names {
		name := fmt.Sprintf("tagp2p-%d-%d-%d", os.Getpid(), subnet, i)
		l.names[i], l.addrs[i] = name, fmt.Sprintf("10.77.%d.%d", subnet, i+1)
		ip(t, "netns", "add", name)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	}
	ip(t, "-n", l.names[0], "link", "add", "lan0", "type", "veth", "peer", "name", "lan0", "netns", l.names[1])
	for i, name := range l.names {
		ip(t, "-n", name, "addr", "add", l.addrs[i]+"/24", "dev", "lan0")
		ip(t, "-n", name, "link", "set", "lo", "up")
		ip(t, "-n", name, "link", "set", "lan0", "up")
	}
	return l
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("Network namespaces can't be set up here: ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// remote is a device in a namespace.
type remote struct {
	id    string
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string
}

func (l *lan) start(t *testing.T, where int, keyFile string) *remote {
	t.Helper()
	return l.startAt(t, where, keyFile, "/ip4/0.0.0.0/tcp/0")
}

func (l *lan) startAt(t *testing.T, where int, keyFile, listen string) *remote {
	t.Helper()
	raw, err := json.Marshal(script{KeyFile: keyFile, Listen: listen, Verbose: testing.Verbose()})
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := &remote{cmd: exec.Command("ip", "netns", "exec", l.names[where], self), lines: make(chan string, 1024)}
	r.cmd.Env = append(os.Environ(), helperEnv+"="+string(raw))
	r.cmd.Stderr = t.Output()
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if r.in, err = r.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(r.lines)
		for sc := bufio.NewScanner(out); sc.Scan(); {
			r.lines <- sc.Text()
		}
	}()
	t.Cleanup(r.kill)
	r.id = strings.TrimPrefix(r.expect(t, "ready "), "ready ")
	return r
}

// kill ends the process as a power cut would.
func (r *remote) kill() {
	_ = r.cmd.Process.Kill()
	for range r.lines {
		continue
	}
	_ = r.cmd.Wait()
}

func (r *remote) tell(t *testing.T, line string) {
	t.Helper()
	if _, err := io.WriteString(r.in, line+"\n"); err != nil {
		t.Fatal(err)
	}
}

// expect skips lines until one begins so.
func (r *remote) expect(t *testing.T, begin string) string {
	t.Helper()
	limit := time.After(3 * patience)
	for {
		select {
		case line, ok := <-r.lines:
			if !ok {
				t.Fatalf("device %s ended; waiting for %q", r.id, begin)
			}
			if strings.HasPrefix(line, begin) {
				return line
			}
			if strings.HasPrefix(line, "failed") {
				t.Fatalf("device: %s", line)
			}
		case <-limit:
			t.Fatalf("device %s doesn't say %q", r.id, begin)
		}
	}
}

func TestDevicesFindEachOtherByMulticast(t *testing.T) {
	l := newLAN(t, 1)
	dir := t.TempDir()
	a := l.start(t, 0, filepath.Join(dir, "a"))
	b := l.start(t, 1, filepath.Join(dir, "b"))

	// The pairing door is found before anybody knows anybody.
	a.tell(t, "pair 4242")
	b.tell(t, "find")
	if line := b.expect(t, "found "); !strings.Contains(line, l.addrs[0]+":4242") || !strings.Contains(line, "<nil>") {
		t.Errorf("pairing door: %s", line)
	}
	a.tell(t, "pair 0")

	// Nobody was told an address: only discovery can bring them together.
	a.tell(t, "allow "+b.id)
	b.tell(t, "allow "+a.id)
	a.expect(t, "connected "+b.id+" true")
	b.expect(t, "connected "+a.id+" true")
	b.tell(t, "echo "+a.id)
	if line := b.expect(t, "echoed "); line != "echoed <nil>" {
		t.Error(line)
	}

	// After a power cut the device has another port and remembers no addresses.
	b.kill()
	a.expect(t, "connected "+b.id+" false")
	again := l.start(t, 1, filepath.Join(dir, "b"))
	if again.id != b.id {
		t.Fatalf("identity changed from %s to %s", b.id, again.id)
	}
	again.tell(t, "allow "+a.id)
	start := time.Now()
	a.expect(t, "connected "+b.id+" true")
	t.Logf("seen again after %v", time.Since(start))
	again.expect(t, "connected "+a.id+" true")

	// Another address, as after a move to another network.
	ip(t, "-n", l.names[1], "addr", "flush", "dev", "lan0")
	a.expect(t, "connected "+b.id+" false")
	again.expect(t, "connected "+a.id+" false") // else it might be connected anew before it has noticed
	ip(t, "-n", l.names[1], "addr", "add", "10.77.1.77/24", "dev", "lan0")
	a.expect(t, "connected "+b.id+" true")
	again.expect(t, "connected "+a.id+" true")
	again.tell(t, "echo "+a.id)
	if line := again.expect(t, "echoed "); line != "echoed <nil>" {
		t.Error(line)
	}
}

// The library's own limits, which loopback is exempt from, refuse the 17th connection.
func TestHundredReconnectsOverARealLink(t *testing.T) {
	l := newLAN(t, 2)
	dir := t.TempDir()
	a := l.start(t, 0, filepath.Join(dir, "a"))
	b := l.start(t, 1, filepath.Join(dir, "b"))
	a.tell(t, "allow "+b.id)
	b.tell(t, "allow "+a.id)
	b.expect(t, "connected "+a.id+" true")
	b.tell(t, "churn "+a.id)
	b.expect(t, "churned")
	b.tell(t, "echo "+a.id)
	if line := b.expect(t, "echoed "); line != "echoed <nil>" {
		t.Error(line)
	}
}
