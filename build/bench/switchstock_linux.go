package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"tagalong.org/tagalong/app/hypervisor/qmp"
	"tagalong.org/tagalong/build/lab"
)

// stockMover moves the guest with QEMU alone, as Incus drives it for VMs whose disk isn't shared: the target's QEMU serves its blank disk over NBD,
// the source's mirrors onto it (blockdev-mirror, write-blocking), then memory goes with auto-converge, and pauses before the switchover until the mirror is
// ended. In its favour: nothing is encrypted, and all of it begins at once and goes on at the very event.
type stockMover struct {
	image, dir string
	line       switchLine

	net      *lab.Lab
	guests   [2]*stockGuest
	mirrored time.Duration // the last move's mirror, until it had copied all
}

// stockGuest is a QEMU process.
type stockGuest struct {
	dir   string
	cmd   *exec.Cmd
	said  *bytes.Buffer
	qmp   *qmp.Client
	ended chan struct{}
}

const (
	stockMemoryPort = "4444"
	stockDiskPort   = "10809"
)

func (m *stockMover) boot(ctx context.Context) (err error) {
	if m.net, err = lab.NewSites(ctx, m.line.wan, switchSites(m.line)...); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(m.dir, "0"), 0o700); err != nil {
		return err
	}
	if _, err := tool(ctx, "cp", "--sparse=always", m.image, filepath.Join(m.dir, "0", "disk")); err != nil {
		return err
	}
	m.guests[0], err = m.start(ctx, 0, false)
	return err
}

func (m *stockMover) hosts() []*lab.Host { return m.net.Hosts() }

func (m *stockMover) console(pc int) string { return filepath.Join(m.dir, fmt.Sprint(pc), "console") }

func (m *stockMover) pid(pc int) (int, error) { return m.guests[pc].cmd.Process.Pid, nil }

// start starts a QEMU on a PC, with the product's virtual hardware of generation 2.
func (m *stockMover) start(ctx context.Context, pc int, incoming bool) (*stockGuest, error) {
	dir := filepath.Join(m.dir, fmt.Sprint(pc))
	monitor := filepath.Join(dir, "qmp")
	for _, stale := range []string{monitor, m.console(pc)} {
		if err := os.Remove(stale); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	args := []string{"qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
		"-machine", "pc-i440fx-7.2,usb=off,dump-guest-core=off", "-accel", "tcg", "-cpu", "Nehalem", "-smp", "1", "-m", fmt.Sprint(guestKiB, "K"), "-rtc", "base=utc",
		"-qmp", "unix:" + monitor + ",server=on,wait=off",
		"-chardev", "socket,id=console0,server=on,wait=off,path=" + m.console(pc), "-device", "isa-serial,chardev=console0",
		"-blockdev", fmt.Sprintf(`{"driver":"file","node-name":"disk0","filename":%q,"discard":"unmap","cache":{"direct":true,"no-flush":false},"aio":"native"}`, filepath.Join(dir, "disk")),
		"-device", "virtio-blk-pci,drive=disk0,id=vd0,addr=0x3,bootindex=0,write-cache=on",
		"-object", "rng-random,id=rng0,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng0,addr=0x4",
		"-netdev", "user,id=net0", "-device", "virtio-net-pci,netdev=net0,addr=0x5,romfile=",
		"-device", "virtio-serial-pci,id=vser0,addr=0x7", "-chardev", "null,id=agent0", "-device", "virtserialport,bus=vser0.0,nr=1,chardev=agent0,name=org.qemu.guest_agent.0",
		"-device", "virtio-balloon-pci,id=balloon0,addr=0x9,free-page-reporting=on", "-device", "vmgenid,guid=102f78b6-723b-06f5-ffad-9aef89e2421b",
		"-chardev", "null,id=vdagent0", "-audiodev", "none,id=snd0", "-device", "virtserialport,bus=vser0.0,nr=2,chardev=vdagent0,name=com.redhat.spice.0",
		"-device", "virtio-vga,addr=0x2", "-device", "qemu-xhci,id=usb0,addr=0x6", "-device", "usb-tablet,bus=usb0.0,port=1",
		"-device", "intel-hda,id=hda0,addr=0x8", "-device", "hda-duplex,bus=hda0.0,cad=0,audiodev=snd0",
	}
	if incoming {
		args = append(args, "-S", "-incoming", "defer")
	}
	g := &stockGuest{dir: dir, cmd: m.net.Hosts()[pc].Command(context.WithoutCancel(ctx), args[0], args[1:]...), said: &bytes.Buffer{}, ended: make(chan struct{})}
	g.cmd.Stdout, g.cmd.Stderr = g.said, g.said
	if err := g.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = g.cmd.Wait() // who talks to it finds out
		close(g.ended)
	}()
	var err error
	g.qmp, err = qmp.Dial(ctx, monitor, func() error {
		select {
		case <-g.ended:
			return fmt.Errorf("QEMU ended: %s", g.said)
		default:
			return nil
		}
	})
	if err != nil {
		g.end()
		return nil, err
	}
	return g, nil
}

func (g *stockGuest) end() {
	_ = g.cmd.Process.Kill()
	<-g.ended
	if g.qmp != nil {
		_ = g.qmp.Close()
	}
}

// event waits for an event whose field has a value.
func (g *stockGuest) event(ctx context.Context, sub *qmp.Subscription, name, field, value string) error {
	for {
		e, err := sub.Next(ctx)
		if err != nil {
			return fmt.Errorf("wait for %s: %w", name, err)
		}
		var data map[string]any
		if e.Name == "BLOCK_JOB_ERROR" {
			return fmt.Errorf("%s: %s", e.Name, e.Data)
		}
		if e.Name != name {
			continue
		}
		if err := json.Unmarshal(e.Data, &data); err != nil {
			return err
		}
		if data[field] == value {
			return nil
		}
		if data[field] == "failed" || data[field] == "cancelled" {
			return fmt.Errorf("%s: %s", name, e.Data)
		}
	}
}

func (m *stockMover) disk() time.Duration { return m.mirrored }

func (m *stockMover) ready(context.Context, int, int) error { return nil }

// move implements mover; all of it is what Incus does between the click and the running guest.
func (m *stockMover) move(ctx context.Context, from, to int) (err error) {
	dir := filepath.Join(m.dir, fmt.Sprint(to))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	size, err := os.Stat(filepath.Join(m.dir, fmt.Sprint(from), "disk"))
	if err != nil {
		return err
	}
	if err := blankFile(filepath.Join(dir, "disk"), size.Size()); err != nil {
		return err
	}
	a := m.guests[from]
	b, err := m.start(ctx, to, true)
	if err != nil {
		return err
	}
	m.guests[to] = b
	addr := m.net.Hosts()[to].Addr().String()
	aEvents, bEvents := a.qmp.Subscribe(), b.qmp.Subscribe()
	defer aEvents.Close()
	defer bEvents.Close()
	type step struct {
		g       *stockGuest
		command string
		args    map[string]any
	}
	run := func(steps ...step) error {
		for _, s := range steps {
			var args any // none at all, not none in a map
			if s.args != nil {
				args = s.args
			}
			if err := s.g.qmp.Do(ctx, s.command, args, nil); err != nil {
				return err
			}
		}
		return nil
	}
	nbd := map[string]any{"type": "inet", "host": addr, "port": stockDiskPort}
	mirror := time.Now()
	if err := run(
		step{b, "nbd-server-start", map[string]any{"addr": map[string]any{"type": "inet", "data": map[string]any{"host": addr, "port": stockDiskPort}}}},
		step{b, "block-export-add", map[string]any{"type": "nbd", "id": "disk", "node-name": "disk0", "name": "disk", "writable": true}},
		step{b, "migrate-set-capabilities", capabilities("events")},
		step{b, "migrate-incoming", map[string]any{"uri": "tcp:" + addr + ":" + stockMemoryPort}},
		step{a, "blockdev-add", map[string]any{"driver": "nbd", "node-name": "target", "server": nbd, "export": "disk"}},
		step{a, "blockdev-mirror", map[string]any{"job-id": "mirror", "device": "disk0", "target": "target", "sync": "full", "copy-mode": "write-blocking"}},
	); err != nil {
		return err
	}
	if err := a.event(ctx, aEvents, "BLOCK_JOB_READY", "device", "mirror"); err != nil {
		return err
	}
	m.mirrored = time.Since(mirror)
	if err := run(
		step{a, "migrate-set-capabilities", capabilities("events", "auto-converge", "pause-before-switchover", "zero-blocks")},
		step{a, "migrate", map[string]any{"uri": "tcp:" + addr + ":" + stockMemoryPort}},
	); err != nil {
		return err
	}
	if err := a.event(ctx, aEvents, "MIGRATION", "status", "pre-switchover"); err != nil {
		return err
	}
	// A mirror that is ready ends in order when it is cancelled.
	if err := run(step{a, "block-job-cancel", map[string]any{"device": "mirror"}}); err != nil {
		return err
	}
	if err := a.event(ctx, aEvents, "BLOCK_JOB_COMPLETED", "device", "mirror"); err != nil {
		return err
	}
	if err := run(
		step{b, "nbd-server-stop", nil},
		step{a, "migrate-continue", map[string]any{"state": "pre-switchover"}},
	); err != nil {
		return err
	}
	if err := b.event(ctx, bEvents, "MIGRATION", "status", "completed"); err != nil {
		return err
	}
	// "completed" comes a moment before it can go on.
	for {
		if err = b.qmp.Do(ctx, "cont", nil, nil); err == nil {
			break
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func capabilities(on ...string) map[string]any {
	var list []map[string]any
	for _, name := range on {
		list = append(list, map[string]any{"capability": name, "state": true})
	}
	return map[string]any{"capabilities": list}
}

// settled ends the source.
func (m *stockMover) settled(_ context.Context, from, _ int) error {
	m.guests[from].end()
	m.guests[from] = nil
	return nil
}

func (m *stockMover) close() error {
	for _, g := range m.guests {
		if g != nil {
			g.end()
		}
	}
	if m.net == nil {
		return nil
	}
	return m.net.Close()
}

// blankFile makes a file of holes in place of what was there.
func blankFile(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}
