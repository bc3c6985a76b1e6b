//go:build linux

package e2e

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/build/guest/console"
	"tagalong.org/tagalong/build/holds"
	"tagalong.org/tagalong/build/lab"
	"tagalong.org/tagalong/build/story"
)

// TestHurtAheadOfItsMemory has a VM go ahead of its memory, and hurts what it then hangs on: the giver's engine, and each QEMU; and before that it is called off too
// late, and the giver's engine dies in the moment before the VM is given away. The guest goes on with all of its memory if both QEMUs live; otherwise the
// person reads that it is lost, and starts the VM, whose disk has all that was durable.
func TestHurtAheadOfItsMemory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, compile(filepath.Join(dir, "tagalong"), "nogui tagalonghold"))
	steps := map[string]*holds.Holds{}
	for _, pc := range []string{desk, laptop} {
		h, err := holds.New(filepath.Join(dir, pc))
		must(t, err)
		t.Cleanup(func() { _ = h.Close() }) // nobody is left to be held
		steps[pc] = h
	}
	ctx, f := fleetWith(t, story.Options{
		Binary: filepath.Join(dir, "tagalong"), Env: func(pc string) []string { return []string{"TAGALONG_HOLD=" + filepath.Join(dir, pc)} },
		WAN:   quick,
		Sites: []lab.Site{{Name: "home", Hosts: []string{desk}}, {Name: "office", Hosts: []string{laptop}}},
	})
	must(t, f.Make(ctx, desk, work))
	booted(ctx, t, f, desk, work, 0)
	_, err := f.UntilVM(ctx, f.PC(desk), work, "a copy on the laptop", func(v api.VM) bool {
		return len(v.Replicas) == 1 && v.Replicas[0].Position != (api.Position{})
	})
	must(t, err)
	link := f.Lab.Link("home", "office")
	diesGiving(ctx, t, f, steps, desk, laptop)
	from, to := desk, laptop
	for _, hurt := range []struct {
		what string
		do   func() error
		lost bool
	}{
		{"the giver's engine", func() error { return f.Kill(ctx, from) }, false},
		{"the giver's QEMU", func() error { return killQEMU(ctx, f.PC(from)) }, true},
		{"the taker's QEMU", func() error { return killQEMU(ctx, f.PC(to)) }, true},
	} {
		c := busy(ctx, t, f, from)
		durable, err := c.Sync(ctx)
		must(t, err)
		slowed := slowFromStop(ctx, t, f, steps[from])
		began := aheadTo(ctx, t, f, from, to)
		must(t, <-slowed)
		v, err := f.PC(to).VM(ctx, work)
		must(t, err)
		if v.Trailing == nil {
			t.Fatal("all of the memory is there before anything could be hurt")
		}
		calledOffLate(ctx, t, f, from, to)
		pid, err := qemuOn(ctx, f.PC(to))
		must(t, err)
		f.Say("killing %s", hurt.what)
		must(t, hurt.do())
		must(t, link.Shape(ctx, quick))
		if !hurt.lost {
			c, err = f.Listen(ctx, to, work)
			must(t, err)
			must(t, c.SetRate(ctx, console.Rate{Records: 20, Fsync: 4, Mem: 1, Set: 16}))
			whole(ctx, t, f, to, from, began)
			sameQEMU(ctx, t, f.PC(to), pid)
		} else {
			v, err = f.UntilVM(ctx, f.PC(to), work, "stopped, and explained", func(v api.VM) bool { return v.State == api.VMStopped && v.Problem != nil })
			must(t, err)
			f.Say("the person reads: %v", v.Problem)
			if v.Problem.Next == "" || v.Problem.Remedy != api.RemedyStart || !strings.Contains(v.Problem.Sentence, "lost") {
				t.Errorf("the person reads %+v", v.Problem)
			}
			booted(ctx, t, f, to, work, durable)
			_, err = f.UntilVM(ctx, f.PC(from), work, "a copy like any other", func(v api.VM) bool { return !v.Here && v.Lending == nil && v.Problem == nil })
			must(t, err)
		}
		from, to = to, from
	}
}

// quick is a line on which the memory of a guest that runs comes in a second or two; slow one on which the rest takes many, whatever else the machine does.
var (
	quick = lab.WAN{Rate: 1e9, RoundTrip: 4 * time.Millisecond, Queue: 100 * time.Millisecond}
	slow  = lab.WAN{Rate: 8e6, RoundTrip: 4 * time.Millisecond, Queue: 100 * time.Millisecond}
)

// slowFromStop has the line become slow when the next switch has stopped the guest. It says when that was done, or why not.
func slowFromStop(ctx context.Context, t *testing.T, f *story.Fleet, giver *holds.Holds) <-chan error {
	t.Helper()
	held := giver.Arm("switchover")
	done := make(chan error, 1)
	go func() {
		defer held.LetGo()
		select {
		case <-held.Reached:
			done <- f.Lab.Link("home", "office").Shape(ctx, slow)
		case <-ctx.Done():
			done <- ctx.Err()
		}
	}()
	return done
}

// busy has the guest write so much memory that much of it is missing where it goes ahead of it.
func busy(ctx context.Context, t *testing.T, f *story.Fleet, on string) *console.Console {
	t.Helper()
	c, err := f.Listen(ctx, on, work)
	must(t, err)
	must(t, c.SetRate(ctx, console.Rate{Records: 20, Fsync: 4, Mem: 24, Set: 64, Noise: true}))
	return c
}

// diesGiving kills the giver's engine when the last of the devices' state has left, and the VM isn't given away yet. It goes on where it was, with its memory.
func diesGiving(ctx context.Context, t *testing.T, f *story.Fleet, steps map[string]*holds.Holds, from, to string) {
	t.Helper()
	c := busy(ctx, t, f, from)
	pid, err := qemuOn(ctx, f.PC(from))
	must(t, err)
	slowed := slowFromStop(ctx, t, f, steps[from])
	held := steps[from].Arm("persist-given")
	begun, err := f.PC(to).Client.Switch(ctx, api.SwitchVM{VM: work, Way: api.WayPostCopy})
	must(t, err)
	select {
	case <-held.Reached:
	case <-ctx.Done():
		t.Fatal("the VM was never about to be given away")
	}
	must(t, <-slowed)
	must(t, f.Kill(ctx, from))
	steps[from].Disarm()
	must(t, f.Lab.Link("home", "office").Shape(ctx, quick))
	v, err := f.UntilVM(ctx, f.PC(to), work, "told that it stays", func(v api.VM) bool {
		return v.Switch != nil && v.Switch.ID == begun.ID && v.Switch.Phase.Ended()
	})
	must(t, err)
	f.Say("the person at %s reads: %v", to, v.Switch.Error)
	if v.Switch.Phase != api.PhaseFailed || v.Switch.Error == nil || v.Switch.Error.Remedy != api.RemedySwitch {
		t.Errorf("the switch ended as %s, %+v", v.Switch.Phase, v.Switch.Error)
	}
	_, err = f.UntilVM(ctx, f.PC(from), work, "going on where it was", func(v api.VM) bool { return v.Here && v.State == api.VMRunning && v.Problem == nil })
	must(t, err)
	must(t, c.SetRate(ctx, console.Rate{Records: 20, Fsync: 4, Mem: 1, Set: 16}))
	wrote(ctx, t, f, c)
	verdict, err := c.Verify(ctx)
	must(t, err)
	if !verdict.OK {
		t.Fatalf("the guest finds itself damaged: %s", verdict.Text)
	}
	sameQEMU(ctx, t, f.PC(from), pid)
}

// calledOffLate calls a switch off, on both PCs, that is over but for memory that is missing: nothing comes of that.
func calledOffLate(ctx context.Context, t *testing.T, f *story.Fleet, from, to string) {
	t.Helper()
	for _, name := range []string{from, to} {
		v, err := f.PC(name).VM(ctx, work)
		must(t, err)
		if v.Switch == nil {
			t.Errorf("%s knows of no switch", name)
			continue
		}
		err = f.PC(name).Client.CancelSwitch(ctx, v.Switch.ID)
		f.Say("calling it off on %s says: %v", name, err)
		if v.Switch.CanEnd || err == nil || api.AsError(err).Sentence == "" {
			t.Errorf("on %s it can be called off %v, and that says: %v", name, v.Switch.CanEnd, err)
		}
	}
}

// sameQEMU fails if another QEMU than pid runs on a PC.
func sameQEMU(ctx context.Context, t *testing.T, p *story.PC, pid int) {
	t.Helper()
	if now, err := qemuOn(ctx, p); err != nil || now != pid {
		t.Errorf("the QEMU on %s was %d and is %d, %v", p.Name, pid, now, err)
	}
}

// killQEMU kills the QEMU on a PC; there must be one.
func killQEMU(ctx context.Context, p *story.PC) error {
	pid, err := qemuOn(ctx, p)
	if err != nil {
		return err
	}
	return unix.Kill(pid, unix.SIGKILL)
}

// qemuOn is the QEMU on a PC; there must be one.
func qemuOn(ctx context.Context, p *story.PC) (int, error) {
	pids, err := p.Host.Processes(ctx)
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		name, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
		if err == nil && strings.HasPrefix(string(name), "qemu-system") {
			return pid, nil
		}
	}
	return 0, errors.New("there is no QEMU on " + p.Name)
}
