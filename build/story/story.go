//go:build linux

package story

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/build/guest/console"
	"tagalong.org/tagalong/build/lab"
)

// Options of a story.
type Options struct {
	// Binary is the built tagalong, Image the test guest's disk, Dir an empty directory for everything.
	Binary, Image, Dir string
	// Sites is where a fleet's PCs are, and WAN what lies between each two sites; nil is all in one place.
	Sites []lab.Site
	WAN   lab.WAN
	// Prepare, if not nil, is called for each of a fleet's hosts first. It says whether the host is one of the person's PCs, and gets an engine.
	Prepare func(ctx context.Context, h *lab.Host) (ours bool, err error)
	// Out gets the story, a line a step.
	Out io.Writer
	// Switches is how often the VM moves; 0 is two: there and back.
	Switches int
	// Rate is what the guest does meanwhile; the zero value is the usual load.
	Rate console.Rate
	// Mirroring, if not nil, is called once while the disk is being mirrored: the place for disasters.
	Mirroring func(ctx context.Context, s *Story) error
	// BeforeSwitches, if not nil, is called once when the mirror is live: the place for trouble.
	BeforeSwitches func(ctx context.Context, s *Story) error
	// Settle is how long the guest is left to run after each switch.
	Settle time.Duration
	// Quiet leaves progress out.
	Quiet bool
	// Env, if not nil, is what a fleet's engine on a PC has in its environment besides the usual.
	Env func(pc string) []string
	// MemoryMiB is the memory of a fleet's guest; 0 is the usual.
	MemoryMiB int64
}

// usualRate is a desktop that is being used: 50 records of 4 KiB a second, a sync every eighth, 2 MiB
// of memory a second within 64 MiB.
var usualRate = console.Rate{Records: 50, Fsync: 8, Mem: 2, Set: 64}

// VMName is what the VM is called in the story.
const VMName = "Work"

// memoryMiB is the test guest's memory; Tagalong makes it a size that moves well.
const memoryMiB = 512

// Result is what the witnesses said.
type Result struct {
	Switches []SwitchResult
	Records  int
	Last     uint64
	Lost     int
	Bad      int
	Ticks    uint64
	Missing  int
	Doubled  int
	Compared int64 // bytes of disk found the same
	Mirrored int64 // bytes sent for the disk, from both sides
	Restarts int
}

// SwitchResult is one switch.
type SwitchResult struct {
	To string
	// GuestPause is the gap between two of the guest's ticks, by the host's clock.
	GuestPause time.Duration
	// StopToRun is what the engines measured, from stopping the guest to its going on.
	StopToRun time.Duration
	// Took is from the click to the running guest.
	Took   time.Duration
	Memory int64
	Disk   int64
}

// Story is one run.
type Story struct {
	o    Options
	Lab  *lab.Lab
	A, B *PC
	VM   string // its ID

	timeline *console.Timeline
	consoles map[string]*console.Console // by PC
	result   Result
	began    time.Time

	// guarded by mu
	mu sync.Mutex
}

// Run plays the story to its end and judges it. The result is what was found out, even with an error.
func Run(ctx context.Context, o Options) (_ *Result, err error) {
	s, err := Begin(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.Play(ctx); err != nil {
		return &s.result, fmt.Errorf("%w\n%s\n%s", err, s.A.LastWords(), s.B.LastWords())
	}
	return &s.result, nil
}

// Begin makes the PCs. Close the story in the end.
func Begin(ctx context.Context, o Options) (_ *Story, err error) {
	if o.Switches == 0 {
		o.Switches = 2
	}
	if o.Rate == (console.Rate{}) {
		o.Rate = usualRate
	}
	if o.Settle == 0 {
		o.Settle = 2 * time.Second
	}
	s := &Story{o: o, timeline: console.NewTimeline(), consoles: map[string]*console.Console{}, began: time.Now()}
	s.Lab, err = lab.New(ctx, "desk", "laptop")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	hosts := s.Lab.Hosts()
	if s.A, err = newPC(hosts[0], o.Binary, o.Dir, "desk", s.say); err != nil {
		return nil, err
	}
	s.B, err = newPC(hosts[1], o.Binary, o.Dir, "laptop", s.say)
	return s, err
}

// Close ends everything the story started.
func (s *Story) Close() error {
	var errs []error
	for _, c := range s.consoles {
		errs = append(errs, ignoreClosed(c.Close()))
	}
	for _, p := range []*PC{s.A, s.B} {
		if p == nil {
			continue
		}
		errs = append(errs, p.killVMs(), p.close())
	}
	if s.Lab != nil {
		errs = append(errs, s.Lab.Close())
	}
	return errors.Join(errs...)
}

func ignoreClosed(err error) error {
	if errors.Is(err, console.ErrClosed) || errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// killVMs ends guests that a failed story left running.
func (p *PC) killVMs() error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	status, err := p.Client.Status(ctx)
	if err != nil {
		return nil // no engine: nothing was started, or the lab's end takes it
	}
	var errs []error
	for _, v := range status.VMs {
		if v.Console != "" {
			errs = append(errs, p.Client.StopVM(ctx, v.ID, true))
		}
	}
	return errors.Join(errs...)
}

// say prints one line of the story, with the time since it began.
func (s *Story) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.o.Out, "%6.1fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// Play plays all chapters.
func (s *Story) Play(ctx context.Context) error {
	for _, chapter := range []func(context.Context) error{
		s.startEngines, s.pair, s.makeVM, s.boot, s.mirror, s.trouble, s.switches, s.end,
	} {
		if err := chapter(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *Story) startEngines(ctx context.Context) error {
	for _, p := range []*PC{s.A, s.B} {
		if err := p.Start(ctx); err != nil {
			return err
		}
		s.say("%s: a PC at %s, its engine runs (process %d)", p.Name, p.Host.Addr(), p.PID())
	}
	return nil
}

func (s *Story) pair(ctx context.Context) error {
	if err := pairPCs(ctx, s.A, s.B, s.say); err != nil {
		return err
	}
	for _, p := range []*PC{s.A, s.B} {
		err := until(ctx, p.Name+" to see the other", 3*time.Minute, func(ctx context.Context) (bool, error) {
			status, err := p.Client.Status(ctx)
			return err == nil && len(status.Devices) == 1 && status.Devices[0].Connected, err
		})
		if err != nil {
			return err
		}
	}
	s.say("they have found each other and are connected (TLS, both ends known)")
	return nil
}

func (s *Story) makeVM(ctx context.Context) (err error) {
	p := s.progress("importing the test guest's disk on " + s.A.Name)
	defer p.end()
	s.VM, err = makeVM(ctx, s.A, VMName, s.o.Image, memoryMiB, func(j api.Job) { p.show(j.Bytes, j.Total, j.Rate, j.ETA) })
	return err
}

func (s *Story) boot(ctx context.Context) error {
	began := time.Now()
	if err := s.A.Client.StartVM(ctx, VMName); err != nil {
		return fmt.Errorf("start the VM: %w", err)
	}
	s.say("%s starts on %s, in QEMU with software emulation", VMName, s.A.Name)
	c, err := s.listen(ctx, s.A)
	if err != nil {
		return err
	}
	ready, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	if _, err := c.WaitReady(ready); err != nil {
		return fmt.Errorf("boot the guest: %w\n%s", err, s.heard(c))
	}
	if err := c.SetRate(ctx, s.o.Rate); err != nil {
		return err
	}
	s.say("the guest has booted in %.1f s; it writes %d records/s (sync every %d), dirties %d MiB/s of memory, ticks every 10 ms",
		time.Since(began).Seconds(), s.o.Rate.Records, s.o.Rate.Fsync, s.o.Rate.Mem)
	return nil
}

// heard is what came over a console, for the report of a failure.
func (s *Story) heard(c *console.Console) string {
	text := fmt.Sprintf("--- heard from the guest: %d ticks and these lines ---\n", len(s.timeline.Ticks()))
	for _, l := range c.Lines() {
		text += fmt.Sprintf("%6.1fs  %q\n", l.At.Seconds(), l.Text)
	}
	return text
}

// listen connects to the guest's serial line on a PC.
func (s *Story) listen(ctx context.Context, p *PC) (*console.Console, error) {
	if c := s.consoles[p.Name]; c != nil {
		_ = c.Close()
		delete(s.consoles, p.Name)
	}
	path := filepath.Join(filepath.Dir(api.SocketPath(p.Data)), s.VM[:12], "console.sock")
	dial, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	c, err := console.Dial(dial, p.Name, path, s.timeline)
	if err != nil {
		return nil, fmt.Errorf("listen to the guest on %s: %w", p.Name, err)
	}
	s.consoles[p.Name] = c
	return c, nil
}

// replica is how the other PC's copy of the disk stands, as its owner says.
func (s *Story) replica(ctx context.Context, owner *PC) (api.Replica, error) {
	v, err := owner.VM(ctx, VMName)
	if err != nil {
		return api.Replica{}, err
	}
	if len(v.Replicas) == 0 {
		return api.Replica{}, errNotYet
	}
	return v.Replicas[0], nil
}

func (s *Story) mirror(ctx context.Context) error {
	disaster := s.o.Mirroring
	p := s.progress("mirroring the disk to " + s.B.Name)
	err := until(ctx, "the mirror", 10*time.Minute, func(ctx context.Context) (bool, error) {
		r, err := s.replica(ctx, s.A)
		if err != nil {
			return false, err
		}
		p.show(r.Copied, r.Copied+r.Remaining, r.Rate, r.ETA)
		if disaster != nil && r.Copied > 0 {
			p.end()
			if err := disaster(ctx, s); err != nil {
				return false, err
			}
			disaster = nil
			return false, nil
		}
		return r.State == api.ReplicaLive && disaster == nil, nil
	})
	p.end()
	if err != nil {
		return err
	}
	s.say("the mirror is live: every write reaches %s as it happens", s.B.Name)
	return nil
}

func (s *Story) trouble(ctx context.Context) error {
	if s.o.BeforeSwitches == nil {
		return nil
	}
	return s.o.BeforeSwitches(ctx, s)
}

// other is the PC that isn't p.
func (s *Story) other(p *PC) *PC {
	if p == s.A {
		return s.B
	}
	return s.A
}
