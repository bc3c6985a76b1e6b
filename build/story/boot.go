//go:build linux

package story

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"tagalong.org/tagalong/build/guest/console"
)

// lastBreath is how long a hypervisor whose line has ended may take to end too, before it is killed.
const lastBreath = time.Second

// BootCopy starts a guest straight from the base file of a PC's copy, as somebody without Tagalong would, and lets it check itself. vm is the
// VM's ID, durable the newest record that must be there. The engine must have ended. The copy stays as it is.
func (f *Fleet) BootCopy(ctx context.Context, p *PC, vm string, durable uint64) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("the copy on %s, booted: %w", p.Name, err)
		}
	}()
	serial := filepath.Join(f.o.Dir, "serial-"+p.Name)
	// Not of ctx: killed when time is up, QEMU would seem to have ended early.
	cmd := exec.Command("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", "pc-i440fx-7.2", "-accel", "tcg", "-cpu", "Nehalem", "-m", "262080K", "-snapshot",
		"-drive", "file="+p.base(vm)+",format=raw,if=none,id=disk", "-device", "virtio-blk-pci,drive=disk",
		"-chardev", "socket,id=serial,path="+serial+",server=on,wait=off", "-serial", "chardev:serial")
	var said strings.Builder
	began := time.Now()
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() {
		how := "was killed"
		select {
		case gone := <-ended:
			how = fmt.Sprintf("ended by itself: %v", gone)
		case <-time.After(lastBreath):
			_ = cmd.Process.Kill()
			<-ended
		}
		if err != nil {
			err = fmt.Errorf("%w (after %v QEMU %s: %s)", err, time.Since(began).Round(time.Second), how, said.String())
		}
	}()
	c, err := console.Dial(ctx, p.Name, serial, console.NewTimeline())
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w; it said %+v", err, c.Lines())
		}
		_ = c.Close()
	}()
	boot, err := c.WaitReady(ctx)
	if err != nil {
		return err
	}
	if boot.Lost != 0 || boot.Bad != 0 || boot.Last < durable {
		return fmt.Errorf("it found %+v, but record %d was durable", boot, durable)
	}
	verdict, err := c.Verify(ctx)
	if err == nil && !verdict.OK {
		err = fmt.Errorf("it finds itself damaged: %s", verdict.Text)
	}
	if err == nil {
		f.Say("the copy on %s boots, ends with record %d, and is well: %s", p.Name, boot.Last, verdict.Text)
	}
	return err
}
