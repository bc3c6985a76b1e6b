//go:build linux

package story

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/build/guest/console"
	"tagalong.org/tagalong/build/lab"
)

// Fleet is a person's PCs, as many as there are names, for what a VM goes through when one of them is out of reach. Its
// methods are called one at a time; each waits until what it is called for is so, or fails.
type Fleet struct {
	o     Options
	Lab   *lab.Lab
	PCs   []*PC
	began time.Time

	consoles map[string]*console.Console // by PC and VM

	// guarded by mu
	mu sync.Mutex
}

// BeginFleet makes the PCs, starts their engines, and pairs each with the one before: the others come to know each other
// through those. Close it in the end, also after an error. Of the options it uses Binary, Image, Dir, Out, Rate, Env, MemoryMiB and,
// instead of names, Sites, WAN and Prepare.
func BeginFleet(ctx context.Context, o Options, names ...string) (*Fleet, error) {
	if len(o.Sites) == 0 {
		o.Sites = []lab.Site{{Name: "lan", Hosts: names}}
	}
	if o.Rate == (console.Rate{}) {
		o.Rate = usualRate
	}
	f := &Fleet{o: o, began: time.Now(), consoles: map[string]*console.Console{}}
	var err error
	if f.Lab, err = lab.NewSites(ctx, o.WAN, o.Sites...); err != nil {
		return f, err
	}
	names = nil
	for _, host := range f.Lab.Hosts() {
		if o.Prepare != nil {
			ours, err := o.Prepare(ctx, host)
			if err != nil {
				return f, err
			}
			if !ours {
				continue
			}
		}
		p, err := newPC(host, o.Binary, o.Dir, host.Name(), f.Say)
		if err != nil {
			return f, err
		}
		if o.Env != nil {
			p.env = o.Env(p.Name)
		}
		f.PCs, names = append(f.PCs, p), append(names, p.Name)
		if err := p.Start(ctx); err != nil {
			return f, err
		}
	}
	for i := range f.PCs[1:] {
		if err := pairPCs(ctx, f.PCs[i], f.PCs[i+1], f.Say); err != nil {
			return f, err
		}
	}
	return f, f.AwaitConnected(ctx, names...)
}

// Close ends everything that the fleet has started.
func (f *Fleet) Close() error {
	var errs []error
	for _, c := range f.consoles {
		errs = append(errs, ignoreClosed(c.Close()))
	}
	for _, p := range f.PCs {
		errs = append(errs, p.killVMs(), p.close())
	}
	if f.Lab != nil {
		errs = append(errs, f.Lab.Close())
	}
	return errors.Join(errs...)
}

// LastWords ends the engines and is the end of every one's log, with what its goroutines waited for. It is for a fleet that failed.
func (f *Fleet) LastWords() string {
	text := ""
	for _, p := range f.PCs {
		p.autopsy()
		text += p.LastWords() + "\n"
	}
	return text
}

// Say prints one line, with the time since the beginning.
func (f *Fleet) Say(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fmt.Fprintf(f.o.Out, "%6.1fs  %s\n", time.Since(f.began).Seconds(), fmt.Sprintf(format, args...))
}

// PC is the one of that name, which must be.
func (f *Fleet) PC(name string) *PC {
	return f.PCs[slices.IndexFunc(f.PCs, func(p *PC) bool { return p.Name == name })]
}

// Until waits for a condition of one PC's status. An error of the condition is only told if it never comes true.
func (f *Fleet) Until(ctx context.Context, p *PC, what string, condition func(*api.Status) (bool, error)) error {
	err := until(ctx, what+" on "+p.Name, 3*time.Minute, func(ctx context.Context) (bool, error) {
		status, err := p.Client.Status(ctx)
		if err != nil {
			return false, err
		}
		return condition(status)
	})
	return err
}

// UntilVM waits for a condition of one VM as one PC sees it.
func (f *Fleet) UntilVM(ctx context.Context, p *PC, vm, what string, condition func(api.VM) bool) (api.VM, error) {
	var seen api.VM
	err := until(ctx, fmt.Sprintf("%s: %s on %s", vm, what, p.Name), 3*time.Minute, func(ctx context.Context) (bool, error) {
		v, err := p.VM(ctx, vm)
		if err != nil {
			return false, err
		}
		seen = v
		if !condition(v) {
			return false, fmt.Errorf("it is %s, owner %s, term %d, conflict %v, problem %v, replicas %+v", v.State, v.OwnerName, v.Term, v.Conflict != nil, v.Problem, v.Replicas)
		}
		return true, nil
	})
	return seen, err
}

// AwaitConnected waits until each of these PCs is connected to each other one of them.
func (f *Fleet) AwaitConnected(ctx context.Context, names ...string) error {
	for _, name := range names {
		err := f.Until(ctx, f.PC(name), "connections to the others", func(s *api.Status) (bool, error) {
			for _, other := range names {
				there := other == name || slices.ContainsFunc(s.Devices, func(d api.Device) bool { return d.Name == other && d.Connected })
				if !there {
					return false, fmt.Errorf("%s isn't connected", other)
				}
			}
			return true, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Cut pulls a PC's cable and waits until the PC has noticed.
func (f *Fleet) Cut(ctx context.Context, name string) error {
	f.Say("the cable of %s is pulled", name)
	if err := f.Lab.Host(name).Cut(ctx); err != nil {
		return err
	}
	for _, p := range f.PCs {
		err := f.Until(ctx, p, name+" to be gone", func(s *api.Status) (bool, error) {
			return !slices.ContainsFunc(s.Devices, func(d api.Device) bool { return d.Connected && (p.Name == name || d.Name == name) }), nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Heal plugs a PC's cable in again.
func (f *Fleet) Heal(ctx context.Context, name string) error {
	f.Say("the cable of %s is plugged in again", name)
	return f.Lab.Host(name).Heal(ctx)
}

// Kill ends a PC's engine as a crash would, and waits until its successor answers.
func (f *Fleet) Kill(ctx context.Context, name string) error {
	p := f.PC(name)
	f.Say("kill -9: the engine on %s", name)
	before := p.Restarts()
	if err := p.Kill(); err != nil {
		return err
	}
	err := until(ctx, "another engine on "+name, 3*time.Minute, func(context.Context) (bool, error) { return p.Restarts() > before, nil })
	if err != nil {
		return err
	}
	ready, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return p.Client.WaitReady(ready)
}

// Make makes a VM from the test guest's image on a PC, and waits until all PCs know it.
func (f *Fleet) Make(ctx context.Context, on, vm string) error {
	p := f.PC(on)
	if _, err := makeVM(ctx, p, vm, f.o.Image, cmp.Or(f.o.MemoryMiB, memoryMiB), func(api.Job) {}); err != nil {
		return err
	}
	for _, p := range f.PCs {
		if _, err := f.UntilVM(ctx, p, vm, "known", func(api.VM) bool { return true }); err != nil {
			return err
		}
	}
	return nil
}

// Boot starts a VM on a PC and returns what its guest found on its disk.
func (f *Fleet) Boot(ctx context.Context, on, vm string) (*console.Console, console.Boot, error) {
	p := f.PC(on)
	if err := p.Client.StartVM(ctx, vm); err != nil {
		return nil, console.Boot{}, fmt.Errorf("start %s on %s: %w", vm, on, err)
	}
	c, err := f.Listen(ctx, on, vm)
	if err != nil {
		return nil, console.Boot{}, err
	}
	ready, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	boot, err := c.WaitReady(ready)
	if err != nil {
		return c, boot, fmt.Errorf("boot %s on %s: %w", vm, on, err)
	}
	f.Say("%s has booted on %s: %d records, the last is %d, %d lost, %d bad", vm, on, boot.Records, boot.Last, boot.Lost, boot.Bad)
	return c, boot, c.SetRate(ctx, f.o.Rate)
}

// Listen connects to a guest's serial line on a PC. The ticks of each line are on a time line of their own.
func (f *Fleet) Listen(ctx context.Context, on, vm string) (*console.Console, error) {
	p := f.PC(on)
	v, err := p.VM(ctx, vm)
	if err != nil {
		return nil, err
	}
	key := on + "/" + v.ID
	if c := f.consoles[key]; c != nil {
		_ = c.Close()
		delete(f.consoles, key)
	}
	dial, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	path := filepath.Join(filepath.Dir(api.SocketPath(p.Data)), v.ID[:12], "console.sock")
	c, err := console.Dial(dial, on, path, console.NewTimeline())
	if err != nil {
		return nil, fmt.Errorf("listen to %s on %s: %w", vm, on, err)
	}
	f.consoles[key] = c
	return c, nil
}

// AwaitLive waits until the owner says of all other PCs that every write reaches them as it happens.
func (f *Fleet) AwaitLive(ctx context.Context, owner, vm string, others int) error {
	_, err := f.UntilVM(ctx, f.PC(owner), vm, "all copies live", func(v api.VM) bool {
		live := 0
		for _, r := range v.Replicas {
			if r.State == api.ReplicaLive {
				live++
			}
		}
		return v.Here && live == others
	})
	if err == nil {
		f.Say("%d copies of %s are live", others, vm)
	}
	return err
}

// Stop shuts a VM's guest down in good order and returns the number of its newest record.
func (f *Fleet) Stop(ctx context.Context, on, vm string) (uint64, error) {
	v, err := f.PC(on).VM(ctx, vm)
	if err != nil {
		return 0, err
	}
	c := f.consoles[on+"/"+v.ID]
	if c == nil {
		return 0, fmt.Errorf("nobody listens to %s on %s", vm, on)
	}
	last, err := c.PowerOff(ctx)
	if err != nil && !errors.Is(err, console.ErrClosed) {
		return last, err
	}
	_, err = f.UntilVM(ctx, f.PC(on), vm, "stopped", func(v api.VM) bool { return v.State == api.VMStopped })
	return last, err
}

// Write lets a guest write on until it has made n more records durable, and lets it check itself.
func (f *Fleet) Write(ctx context.Context, c *console.Console, n uint64) (durable uint64, err error) {
	_, begun := c.Progress()
	err = until(ctx, "the guest to write on "+c.Name(), 2*time.Minute, func(context.Context) (bool, error) {
		_, durable = c.Progress()
		return durable >= begun+n, nil
	})
	if err != nil {
		return 0, err
	}
	check, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	verdict, err := c.Verify(check)
	if err == nil && !verdict.OK {
		err = fmt.Errorf("the guest on %s finds itself damaged: %s", c.Name(), verdict.Text)
	}
	return durable, err
}

// SameDisks ends the engines of the PCs and compares a VM's disks byte by byte. It returns the disk's size.
func (f *Fleet) SameDisks(ctx context.Context, vm string, names ...string) (int64, error) {
	v, err := f.PC(names[0]).VM(ctx, vm)
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		if err := f.PC(name).Stop(); err != nil {
			return 0, err
		}
	}
	var bytes int64
	for _, name := range names[1:] {
		if bytes, err = compareDisks(f.PC(names[0]), f.PC(name), v.ID); err != nil {
			return bytes, fmt.Errorf("the disks of %s and %s: %w", names[0], name, err)
		}
	}
	return bytes, nil
}
