//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tagalong.org/tagalong/build/guest/console"
)

// patience is for a busy computer; what is waited for takes seconds.
const patience = 5 * time.Minute

// image is a fresh disk of the test guest.
func image(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "guest.img")
	cmd := exec.Command("../testguest.sh", "--out", file)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		t.Fatalf("build the test guest: %v\n%s", err, said.String())
	}
	return file
}

// saying is what a process has said so far.
type saying struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *saying) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *saying) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// vm is a running QEMU.
type vm struct {
	t       *testing.T
	cmd     *exec.Cmd
	monitor io.WriteCloser
	said    saying // by QEMU
	err     error  // how it ended; likewise
	ended   chan struct{}
	console *console.Console
}

// start runs QEMU with disk and connects to its console.
func start(t *testing.T, name, disk string, tl *console.Timeline, extra ...string) *vm {
	t.Helper()
	dir := t.TempDir()
	serial := filepath.Join(dir, "serial")
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", "pc-i440fx-7.2", "-accel", "tcg", "-cpu", "Nehalem",
		// Not a multiple of 256 KiB: QEMU before 9.0 corrupts the memory of an
		// emulated guest in a migration otherwise.
		"-m", "524160K",
		"-drive", "file=" + disk + ",format=raw,if=none,id=disk",
		"-device", "virtio-blk-pci,drive=disk",
		"-chardev", "socket,id=serial,path=" + serial + ",server=on,wait=off",
		"-serial", "chardev:serial",
		"-monitor", "stdio",
	}
	v := &vm{t: t, cmd: exec.Command("qemu-system-x86_64", append(args, extra...)...), ended: make(chan struct{})}
	v.cmd.Stdout, v.cmd.Stderr = &v.said, &v.said
	var err error
	if v.monitor, err = v.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := v.cmd.Start(); err != nil {
		t.Fatalf("start QEMU (build/deps.sh test installs it): %v", err)
	}
	go func() {
		defer close(v.ended)
		v.err = v.cmd.Wait()
	}()
	t.Cleanup(v.kill)
	ctx, cancel := context.WithCancel(deadline(t))
	defer cancel()
	go func() {
		select {
		case <-v.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	if v.console, err = console.Dial(ctx, name, serial, tl); err != nil {
		t.Fatalf("%v\n%s", err, v.words())
	}
	t.Cleanup(func() { v.console.Close() })
	return v
}

// words is how QEMU ended and what it said.
func (v *vm) words() string {
	select {
	case <-v.ended:
		return fmt.Sprintf("QEMU ended (%v): %s", v.err, v.said.String())
	default:
		return "QEMU runs on"
	}
}

// must fails the test if a command to the guest failed.
func (v *vm) must(err error) {
	v.t.Helper()
	if err != nil {
		v.t.Fatalf("%v\n%s", err, v.words())
	}
}

// kill ends QEMU as a power cut would.
func (v *vm) kill() {
	if err := v.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		v.t.Errorf("kill QEMU: %v", err)
	}
	<-v.ended
}

// tell gives QEMU's monitor a command.
func (v *vm) tell(command string) {
	v.t.Helper()
	if _, err := io.WriteString(v.monitor, command+"\n"); err != nil {
		v.t.Fatalf("monitor: %v\n%s", err, v.words())
	}
}

// stop has the guest stand still, and returns when it does.
func (v *vm) stop() {
	v.t.Helper()
	v.tell("stop")
	v.tell("info status")
	ctx := deadline(v.t)
	poll := time.NewTicker(tickEvery)
	defer poll.Stop()
	for !strings.Contains(v.said.String(), "VM status: paused") {
		select {
		case <-ctx.Done():
			v.t.Fatalf("the guest doesn't stand still: %s", v.said.String())
		case <-poll.C:
		}
	}
}

func (v *vm) ready() console.Boot {
	v.t.Helper()
	b, err := v.console.WaitReady(deadline(v.t))
	v.must(err)
	return b
}

func (v *vm) verify() console.Verdict {
	v.t.Helper()
	verdict, err := v.console.Verify(deadline(v.t))
	v.must(err)
	if bad := v.console.Bad(); !verdict.OK || len(bad) > 0 {
		v.t.Fatalf("%s\n%s", verdict.Text, strings.Join(bad, "\n"))
	}
	return verdict
}

func (v *vm) waitEnd() {
	v.t.Helper()
	select {
	case <-v.ended:
	case <-deadline(v.t).Done():
		v.t.Fatal("the guest did not go down")
	}
}

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// waitTick waits until the time line has tick n.
func waitTick(t *testing.T, tl *console.Timeline, n uint64) {
	t.Helper()
	ctx := deadline(t)
	poll := time.NewTicker(tickEvery)
	defer poll.Stop()
	for {
		if last, ok := tl.Last(); ok && last.N >= n {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("tick %d did not come", n)
		case <-poll.C:
		}
	}
}

// waitListening waits until somebody listens at the Unix socket path, without connecting to it: whoever does so first is taken for the giver.
func waitListening(t *testing.T, path string) {
	t.Helper()
	ctx := deadline(t)
	poll := time.NewTicker(tickEvery)
	defer poll.Stop()
	for {
		sockets, err := os.ReadFile("/proc/net/unix")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(sockets)) {
			// The fourth field is its flags, of which one says that it listens.
			if f := strings.Fields(line); len(f) == 8 && f[3] == "00010000" && f[7] == path {
				return
			}
		}
		select {
		case <-ctx.Done():
			t.Fatalf("nobody listens at %s", path)
		case <-poll.C:
		}
	}
}

// The guest boots from its own disk, survives a power cut with all that it was
// promised, and goes down in good order when its power button is pressed.
func TestGuestBootsAndSurvivesAPowerCut(t *testing.T) {
	disk := image(t)
	began := time.Now()
	first := console.NewTimeline()
	v := start(t, "first", disk, first)
	if b := v.ready(); b.Last != 0 || b.Lost != 0 || b.Bad != 0 {
		t.Fatalf("a fresh disk: %+v", b)
	}
	t.Logf("ready after %v", time.Since(began).Round(100*time.Millisecond))
	v.must(v.console.SetRate(deadline(t), console.Rate{Records: 200, Fsync: 7, Mem: 4, Set: 16}))
	if got := v.verify(); got.MemPages != 16<<20/4096 || got.Ticks == 0 {
		t.Errorf("verdict: %s", got.Text)
	}
	waitTick(t, first, 300)
	durable, err := v.console.Sync(deadline(t))
	v.must(err)
	v.kill()
	if _, told := v.console.Progress(); told > durable {
		durable = told
	}
	if m, d := first.Missing(), first.Doubled(); len(m)+len(d) > 0 {
		t.Errorf("ticks missing %v, doubled %v", m, d)
	}

	v = start(t, "second", disk, console.NewTimeline())
	b := v.ready()
	if b.Lost != 0 || b.Bad != 0 || b.Last < durable {
		t.Fatalf("after the power cut, %d records being durable: %+v", durable, b)
	}
	v.verify()
	durable, err = v.console.StopWriter(deadline(t))
	v.must(err)
	v.tell("system_powerdown")
	v.waitEnd()

	v = start(t, "third", disk, console.NewTimeline())
	if b := v.ready(); b.Lost != 0 || b.Bad != 0 || b.Last != durable {
		t.Fatalf("after the power button, %d records being written: %+v", durable, b)
	}
	_, err = v.console.PowerOff(deadline(t))
	v.must(err)
	v.waitEnd()
}

// The guest goes on elsewhere without losing a tick, a record or a page, and
// the time line shows the pause.
func TestGuestMovesWithItsMemory(t *testing.T) {
	disk := image(t)
	tl := console.NewTimeline()
	a := start(t, "A", disk, tl)
	a.ready()
	a.must(a.console.SetRate(deadline(t), console.Rate{Records: 100, Fsync: 5, Mem: 2, Set: 16}))
	stream := filepath.Join(t.TempDir(), "stream")
	b := start(t, "B", disk, tl, "-incoming", "unix:"+stream)
	waitListening(t, stream)
	before, ok := tl.Last()
	if !ok {
		t.Fatal("no tick yet")
	}
	a.tell("migrate -d unix:" + stream)
	b.ready()
	last, _ := tl.Last()
	waitTick(t, tl, last.N+50)
	a.kill()
	b.verify()

	gaps := tl.SwitchGaps()
	if len(gaps) != 1 || gaps[0].From.Console != "A" || gaps[0].To.Console != "B" || gaps[0].From.N < before.N {
		t.Fatalf("the guest's way: %v", gaps)
	}
	t.Logf("the guest paused %v", gaps[0])
	if m, d := tl.Missing(), tl.Doubled(); len(m)+len(d) > 0 {
		t.Errorf("ticks missing %v, doubled %v", m, d)
	}
	told, _ := a.console.Progress()
	if v := b.verify(); v.Last < told {
		t.Errorf("A told of record %d, B has %d", told, v.Last)
	}
}
