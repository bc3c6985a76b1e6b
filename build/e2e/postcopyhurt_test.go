//go:build linux

package e2e

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/build/guest/console"
	"tagalong.org/tagalong/build/lab"
	"tagalong.org/tagalong/build/story"
)

// TestHurtAheadOfItsMemory has a VM go ahead of its memory, and hurts what it then hangs on: the giver's engine, and each QEMU. The guest goes on with all of its memory
// if both QEMUs live; otherwise the person reads that it is lost, and starts the VM, whose disk has all that was durable.
func TestHurtAheadOfItsMemory(t *testing.T) {
	t.Parallel()
	ctx, f := fleetAt(t, lab.WAN{Rate: 40e6, RoundTrip: 4 * time.Millisecond, Queue: 100 * time.Millisecond},
		lab.Site{Name: "home", Hosts: []string{desk}}, lab.Site{Name: "office", Hosts: []string{laptop}})
	must(t, f.Make(ctx, desk, work))
	booted(ctx, t, f, desk, work, 0)
	_, err := f.UntilVM(ctx, f.PC(desk), work, "a copy on the laptop", func(v api.VM) bool {
		return len(v.Replicas) == 1 && v.Replicas[0].Position != (api.Position{})
	})
	must(t, err)
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
		c, err := f.Listen(ctx, from, work)
		must(t, err)
		durable, err := c.Sync(ctx)
		must(t, err)
		must(t, c.SetRate(ctx, console.Rate{Records: 20, Fsync: 4, Mem: 24, Set: 64, Noise: true}))
		began := aheadTo(ctx, t, f, from, to)
		v, err := f.PC(to).VM(ctx, work)
		must(t, err)
		if v.Trailing == nil {
			t.Fatal("all of the memory is there before anything could be hurt")
		}
		f.Say("killing %s", hurt.what)
		must(t, hurt.do())
		if !hurt.lost {
			c, err = f.Listen(ctx, to, work)
			must(t, err)
			must(t, c.SetRate(ctx, console.Rate{Records: 20, Fsync: 4, Mem: 1, Set: 16}))
			whole(ctx, t, f, to, from, began)
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

// killQEMU kills the QEMU on a PC; there must be one.
func killQEMU(ctx context.Context, p *story.PC) error {
	pids, err := p.Host.Processes(ctx)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		name, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
		if err == nil && strings.HasPrefix(string(name), "qemu-system") {
			return unix.Kill(pid, unix.SIGKILL)
		}
	}
	return errors.New("there is no QEMU on " + p.Name)
}
