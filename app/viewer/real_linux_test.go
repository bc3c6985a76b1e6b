package viewer

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/app/hypervisor/qemu"
	"tagalong.org/tagalong/app/hypervisor/qmp"
)

// needs fails with what is to be installed.
func needs(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Fatalf("%s is missing: run build/deps.sh test", p)
		}
	}
}

// display starts an X server without a screen, and makes it the test's.
func display(t *testing.T) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command("Xvfb", "-displayfd", "3", "-screen", "0", "1024x768x24", "-nolisten", "tcp")
	cmd.ExtraFiles = []*os.File{w}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	n, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatalf("Xvfb didn't start: %v", err)
	}
	t.Setenv("DISPLAY", ":"+strings.TrimSpace(n))
	t.Setenv("GDK_BACKEND", "x11")
	t.Setenv("NO_AT_BRIDGE", "1") // there is no desktop to tell of windows
}

// picture is what a screen shows, three bytes a pixel.
type picture struct {
	w, h int
	pix  []byte
}

func readPPM(b []byte) (p picture, err error) {
	r := bufio.NewReader(bytes.NewReader(b))
	var most int
	if _, err = fmt.Fscanf(r, "P6\n%d %d\n%d\n", &p.w, &p.h, &most); err != nil {
		return p, err
	}
	if most != 255 || p.w <= 0 || p.h <= 0 || p.w > 1<<14 || p.h > 1<<14 {
		return p, errors.New("a strange picture")
	}
	p.pix = make([]byte, 3*p.w*p.h)
	_, err = io.ReadFull(r, p.pix)
	return p, err
}

// blank says that there is one colour only.
func (p picture) blank() bool {
	return len(p.pix) < 6 || bytes.Equal(p.pix[3:], p.pix[:len(p.pix)-3])
}

// within says whether q is somewhere in p, pixel by pixel.
func (q picture) within(p picture) bool {
	row := func(p picture, x, y, n int) []byte { return p.pix[3*(y*p.w+x):][:3*n] }
	for y := 0; y+q.h <= p.h; y++ {
	next:
		for x := 0; x+q.w <= p.w; x++ {
			for dy := range q.h {
				if !bytes.Equal(row(q, 0, dy, q.w), row(p, x, y+dy, q.w)) {
					continue next
				}
			}
			return true
		}
	}
	return false
}

// desktop is what the X server shows.
func desktop(t *testing.T) picture {
	t.Helper()
	b, err := exec.Command("import", "-silent", "-window", "root", "-depth", "8", "ppm:-").Output()
	if err != nil {
		t.Fatalf("look at the display: %v", err)
	}
	p, err := readPPM(b)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// pc is one QEMU, of which the test can see the screen behind the viewer's back.
type pc struct {
	t *testing.T
	q *qemu.QEMU
	c hypervisor.Config
	g hypervisor.Guest
}

func boot(t *testing.T, c hypervisor.Config, incoming bool) *pc {
	t.Helper()
	p := &pc{t: t, q: &qemu.QEMU{Accel: "tcg"}, c: c}
	var err error
	if p.c.Dir, err = os.MkdirTemp("", "tv"); err != nil {
		t.Fatal(err)
	}
	start := p.q.Start
	if incoming {
		start = p.q.StartIncoming
	}
	if p.g, err = start(t.Context(), p.c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(p.g.Kill(context.Background()), p.g.Close(), os.RemoveAll(p.c.Dir)); err != nil {
			t.Error(err)
		}
	})
	return p
}

// screen asks QEMU what the guest shows. There is room for one at its control socket.
func (p *pc) screen() picture {
	p.t.Helper()
	ctx := p.t.Context()
	if err := p.g.Close(); err != nil {
		p.t.Fatal(err)
	}
	c, err := qmp.Dial(ctx, filepath.Join(p.c.Dir, "qmp.sock"), nil)
	if err != nil {
		p.t.Fatal(err)
	}
	file := filepath.Join(p.t.TempDir(), "screen.ppm")
	err = errors.Join(c.Do(ctx, "screendump", map[string]any{"filename": file}, nil), c.Close())
	if p.g, _ = p.q.Find(ctx, p.c); err != nil || p.g == nil {
		p.t.Fatalf("see the screen: %v", err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		p.t.Fatal(err)
	}
	pic, err := readPPM(b)
	if err != nil {
		p.t.Fatal(err)
	}
	return pic
}

// view opens the screen as a person would see it, waits until that is what the guest shows, and closes it. It returns the picture.
func (p *pc) view() picture {
	t := p.t
	t.Helper()
	ticket, err := p.g.OpenScreen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the screen speaks %s", ticket.Protocol)
	ctx, cancel := context.WithCancel(t.Context())
	closed := make(chan error, 1)
	go func() {
		closed <- show(ctx, api.Screen{Protocol: ticket.Protocol, Socket: ticket.Socket, Password: ticket.Password}, "Work")
	}()
	var seen picture
	for deadline := time.Now().Add(5 * time.Minute); ; {
		seen = p.screen()
		now := desktop(t)
		if !seen.blank() && !now.blank() && seen.within(now) {
			break
		}
		select {
		case err := <-closed:
			t.Fatalf("the viewer ended: %v", err)
		default:
		}
		if time.Now().After(deadline) {
			keep := filepath.Join(os.TempDir(), "tagalong-viewer-failed.ppm")
			_ = os.WriteFile(keep, append(fmt.Appendf(nil, "P6\n%d %d\n255\n", now.w, now.h), now.pix...), 0o600)
			t.Fatalf("the display doesn't show the guest's screen (%dx%d, blank: %v); it is in %s", seen.w, seen.h, seen.blank(), keep)
		}
	}
	p.noLeak(ticket.Password)
	if ticket.Protocol == api.ScreenSPICE {
		p.allChannels()
	}
	cancel()
	if err := <-closed; err != nil {
		t.Errorf("the viewer: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "tagalong-screen-*")); len(left) > 0 {
		t.Errorf("it left %v", left)
	}
	return seen
}

// What SPICE calls its channels.
var channelNames = map[int]string{1: "main, with the guest's agent: clipboard and resolution", 2: "the picture", 3: "keys and mouse", 4: "the pointer's picture", 5: "sound", 6: "the microphone"}

// allChannels waits until the viewer has all that SPICE offers: it takes no more than the VM has devices for. There is room for one at the control socket.
func (p *pc) allChannels() {
	t := p.t
	t.Helper()
	ctx := t.Context()
	if err := p.g.Close(); err != nil {
		t.Fatal(err)
	}
	c, err := qmp.Dial(ctx, filepath.Join(p.c.Dir, "qmp.sock"), nil)
	if err != nil {
		t.Fatal(err)
	}
	var missing map[int]string
	for deadline := time.Now().Add(90 * time.Second); ; {
		var told struct {
			Channels []struct {
				Type int `json:"channel-type"`
			} `json:"channels"`
		}
		if err := c.Do(ctx, "query-spice", nil, &told); err != nil {
			t.Fatal(err)
		}
		missing = maps.Clone(channelNames)
		for _, x := range told.Channels {
			delete(missing, x.Type)
		}
		if len(missing) == 0 || time.Now().After(deadline) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	for _, name := range missing {
		t.Errorf("the viewer has no channel for %s", name)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if p.g, err = p.q.Find(ctx, p.c); err != nil {
		t.Fatal(err)
	}
}

// noLeak looks for the ticket where others could see it.
func (p *pc) noLeak(secret string) {
	if secret == "" {
		return
	}
	for _, pattern := range []string{"/proc/[0-9]*/cmdline", "/proc/[0-9]*/environ", filepath.Join(p.c.Dir, "*.log")} {
		files, _ := filepath.Glob(pattern)
		for _, f := range files {
			if b, err := os.ReadFile(f); err == nil && bytes.Contains(b, []byte(secret)) {
				p.t.Errorf("%s has the ticket", f)
			}
		}
	}
}

// disk serves an empty disk to several.
func disk(t *testing.T) (socket string, size int64) {
	t.Helper()
	dir, err := os.MkdirTemp("", "tv")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	image := filepath.Join(dir, "disk")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 8<<20)); err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "nbd.sock")
	cmd := exec.Command("qemu-nbd", "-t", "-f", "raw", "-e", "8", "-k", socket, image)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for deadline := time.Now().Add(90 * time.Second); ; {
		// It is there a moment before anybody listens.
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			return socket, 8 << 20
		}
		if time.Now().After(deadline) {
			t.Fatal("qemu-nbd doesn't start")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestARealScreen looks at a real display that a real viewer draws a real guest's screen on, as each kind of virtual hardware shows
// it, of the newest before and after the guest went to another QEMU.
func TestARealScreen(t *testing.T) {
	needs(t, Binary, "Xvfb", "import", qemu.Binary, "qemu-nbd")
	display(t)
	socket, size := disk(t)
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			c := hypervisor.Config{VM: strings.Repeat("5e", 16), Name: "Work", CPUs: 1, MemoryKiB: qemu.EvenMemory(64 << 10),
				Machine: qemu.DefaultMachine, CPU: qemu.DefaultCPU, Screen: true,
				Disks: []hypervisor.Disk{{ID: "disk0", Kind: hypervisor.DiskDrive, Bytes: size, Socket: socket}}}
			kind.set(&c)
			giver := boot(t, c, false)
			before := giver.view()
			if !kind.moves {
				return
			}
			taker := boot(t, c, true)
			teleport(t, giver.g, taker.g)
			after := taker.view()
			if before.w != after.w || before.h != after.h {
				t.Errorf("%dx%d before, %dx%d after", before.w, before.h, after.w, after.h)
			}
		})
	}
}

// kinds are the virtual hardware there is.
var kinds = []struct {
	name  string
	set   func(*hypervisor.Config)
	moves bool // it is looked at after a teleport, too
}{
	{"the first generation", func(*hypervisor.Config) {}, false},
	{"the newest generation", func(c *hypervisor.Config) { c.Hardware = hypervisor.HardwareNow }, true},
}

// teleport carries the running guest from one to the other.
func teleport(t *testing.T, giver, taker hypervisor.Guest) {
	t.Helper()
	ctx := t.Context()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(giver.Pause(ctx))
	in, err := taker.Incoming(ctx)
	check(err)
	out, err := giver.Teleport(ctx)
	check(err)
	carried := make(chan struct{}, 2)
	for _, way := range [][2]io.ReadWriteCloser{{in, out.Stream()}, {out.Stream(), in}} {
		go func() { _, _ = io.Copy(way[0], way[1]); carried <- struct{}{} }()
	}
	check(out.AtSwitchover(ctx))
	check(out.Finish(ctx))
	check(taker.Loaded(ctx))
	in.Close()
	out.Stream().Close()
	<-carried
	<-carried
	check(taker.Continue(ctx))
}
