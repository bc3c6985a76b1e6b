//go:build linux

package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/build/guest/console"
	"tagalong.org/tagalong/build/lab"
	"tagalong.org/tagalong/build/story"
)

// Options of a run.
type Options struct {
	// Binary is the built tagalong, Image the test guest's disk, Dir an empty directory on a disk with some GiB left.
	Binary, Image, Dir string
	// Out gets what happens, a line a thing.
	Out io.Writer
	// Plan is what goes wrong.
	Plan Plan
	// WAN is what lies between the sites.
	WAN lab.WAN
	// Rate is the guest's load; the zero value is a usual one.
	Rate console.Rate
}

const (
	vmName = story.VMName
	// diskSize is what fits on a PC's disk: twice what Tagalong wants to stay free, in bytes.
	diskSize = 2 << 30
	reserve  = 1 << 30
)

// world is the fleet and what is known of it. The one goroutine that carries the plan out has the fields that aren't guarded.
type world struct {
	o     Options
	fleet *story.Fleet
	began time.Time
	vm    string // its ID

	unreachable map[string]Kind // PCs that can't be asked, or reached by others, and what for
	asleep      map[string]bool
	heals       []heal
	moving      chan struct{} // closed when the last switch is over; nil before the first
	started     time.Time     // when the person last started the VM
	resting     bool          // the VM has been shut down for good
	tossed      int           // coins
	snapshots   int

	listening sync.WaitGroup

	// guarded by mu
	mu        sync.Mutex
	failed    error
	current   *history
	forked    *fork // while a takeover isn't over
	histories int
	lines     []*line
	owner     string // who had it last
}

// heal ends a wound.
type heal struct {
	due  time.Time
	what string
	do   func(context.Context) error
}

// fork is a takeover whose former owner hasn't been heard of since, or whose conflict isn't decided.
type fork struct {
	old     string // the former owner
	theirs  *history
	taken   uint64 // how far the taker's first start found the records; 0 is not yet known
	started bool
	keep    string    // whose side the person has chosen
	chosen  time.Time // and when
}

// line is one guest's console on one PC.
type line struct {
	pc      string
	console *console.Console
	ticks   *console.Timeline
	began   time.Duration // the time line's start, since the beginning

	run     string
	history *history
	ready   bool
}

// fail notes what went wrong first.
func (w *world) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed == nil && err != nil {
		w.failed = err
	}
}

func (w *world) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed
}

// begin makes the disks, the PCs, and the VM, and waits until each PC has a copy.
func begin(ctx context.Context, o Options) (_ *world, err error) {
	if o.Rate == (console.Rate{}) {
		o.Rate = console.Rate{Records: 30, Fsync: 4, Mem: 1, Set: 16}
	}
	w := &world{o: o, began: time.Now(), unreachable: map[string]Kind{}, asleep: map[string]bool{}, current: &history{}}
	if err := story.SweepDisks(); err != nil {
		return w, err
	}
	sites := []lab.Site{{Name: "home", Hosts: []string{"desk", "nas"}}, {Name: "office", Hosts: []string{"laptop"}}}
	for _, s := range sites {
		for _, name := range s.Hosts {
			if err := story.MountDisk(w.mount(name), diskSize); err != nil {
				return w, err
			}
		}
	}
	w.fleet, err = story.BeginFleet(ctx, story.Options{
		Binary: o.Binary, Image: o.Image, Dir: o.Dir, Out: o.Out, Sites: sites, WAN: o.WAN, Rate: o.Rate,
	})
	if err != nil {
		return w, err
	}
	if err := w.fleet.Make(ctx, "desk", vmName); err != nil {
		return w, err
	}
	v, err := w.fleet.PC("desk").VM(ctx, vmName)
	if err != nil {
		return w, err
	}
	w.vm, w.owner = v.ID, "desk"
	for _, p := range w.fleet.PCs {
		w.listening.Go(func() { w.listen(ctx, p) })
	}
	if err := w.fleet.PC("desk").Client.StartVM(ctx, vmName); err != nil {
		return w, err
	}
	_, err = w.fleet.UntilVM(ctx, w.fleet.PC("desk"), vmName, "each copy begun to be whole", func(v api.VM) bool {
		whole := 0
		for _, r := range v.Replicas {
			if r.Position != (api.Position{}) {
				whole++
			}
		}
		return whole == len(w.fleet.PCs)-1 && w.durable() > 0
	})
	return w, err
}

// durable is the newest record that a guest of the current history was told durable.
func (w *world) durable() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.current.durable
}

// mount is where a PC's disk is.
func (w *world) mount(name string) string { return filepath.Join(w.o.Dir, name) }

// fill leaves a PC's disk with so many bytes; freeUp undoes it.
func (w *world) fill(name string, left int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(w.mount(name), &st); err != nil {
		return err
	}
	f, err := os.Create(w.ballast(name))
	if err != nil {
		return err
	}
	if take := int64(st.Bavail)*st.Bsize - left; take > 0 {
		// Somebody else may take what is left while this does.
		if err := unix.Fallocate(int(f.Fd()), 0, 0, take); err != nil && !errors.Is(err, unix.ENOSPC) {
			return errors.Join(err, f.Close())
		}
	}
	return f.Close()
}

func (w *world) freeUp(name string) error { return os.Remove(w.ballast(name)) }

// close ends everything and unmounts the disks.
func (w *world) close() error {
	var errs []error
	if w.fleet != nil {
		if w.fleet.Lab != nil {
			for name := range w.asleep {
				errs = append(errs, w.fleet.Lab.Host(name).Wake(context.Background()))
			}
		}
		errs = append(errs, w.fleet.Close())
	}
	w.listening.Wait()
	for _, name := range []string{"desk", "nas", "laptop"} {
		errs = append(errs, story.UnmountDisk(w.mount(name)))
	}
	return errors.Join(errs...)
}

// say prints one line.
func (w *world) say(format string, args ...any) { w.fleet.Say(format, args...) }

// listen hears every guest on a PC, one after the other, until ctx ends.
func (w *world) listen(ctx context.Context, p *story.PC) {
	path := filepath.Join(filepath.Dir(api.SocketPath(p.Data)), w.vm[:12], "console.sock")
	for ctx.Err() == nil {
		began := time.Since(w.began)
		l := &line{pc: p.Name, ticks: console.NewTimeline(), began: began}
		c, err := console.Dial(ctx, p.Name, path, l.ticks)
		if err != nil {
			return
		}
		l.console = c
		w.mu.Lock()
		w.lines = append(w.lines, l)
		w.mu.Unlock()
		w.hear(ctx, l)
		if err := c.Close(); err != nil && !errors.Is(err, console.ErrClosed) {
			w.fail(err)
		}
		w.settled(l)
	}
}

// hear follows one guest until its line ends.
func (w *world) hear(ctx context.Context, l *line) {
	boot, err := l.console.WaitReady(ctx)
	if err != nil {
		return // it never ran here, or not for long
	}
	fresh := w.met(l, boot)
	if fresh {
		if err := l.console.SetRate(ctx, w.o.Rate); err != nil && !errors.Is(err, console.ErrClosed) && ctx.Err() == nil {
			w.say("the guest on %s takes no rate: %v", l.pc, err)
		}
	}
	for {
		w.settled(l)
		select {
		case <-ctx.Done():
			return
		case <-l.console.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// met judges what a guest found at its start, and says whether it hasn't been met before.
func (w *world) met(l *line, boot console.Boot) (fresh bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fresh = true
	for _, o := range w.lines {
		if o.ready && o.run == boot.Run {
			fresh = false
			l.history = o.history
		}
	}
	if fresh {
		l.history = w.historyOf(l.pc)
	}
	l.run, l.ready = boot.Run, true
	w.say("the guest on %s (run %s, history %d): %d records, the last is %d, %d lost, %d bad", l.pc, boot.Run, l.history.number, boot.Records, boot.Last, boot.Lost, boot.Bad)
	if !fresh {
		return false
	}
	if boot.Lost != 0 || boot.Bad != 0 || boot.Last < l.history.durable {
		w.failLocked(fmt.Errorf("the guest that started on %s found %+v, but record %d was durable", l.pc, boot, l.history.durable))
	}
	if w.forked != nil && l.history == w.current && !w.forked.started {
		w.forked.started, w.forked.taken = true, boot.Last
	}
	return true
}

func (w *world) failLocked(err error) {
	if w.failed == nil {
		w.failed = err
	}
}

// historyOf is which history a PC's guest belongs to. The caller holds mu.
func (w *world) historyOf(pc string) *history {
	if w.forked != nil && w.forked.old == pc {
		return w.forked.theirs
	}
	return w.current
}

// settled takes over what a guest has told.
func (w *world) settled(l *line) {
	_, durable := l.console.Progress()
	bad := l.console.Bad()
	w.mu.Lock()
	defer w.mu.Unlock()
	if l.history != nil {
		l.history.told(durable)
	}
	if len(bad) > 0 {
		w.failLocked(fmt.Errorf("the guest on %s complains: %s", l.pc, strings.Join(bad, "; ")))
	}
}

// heard is the line of the guest that runs on a PC, nil if none does.
func (w *world) heard(pc string) *line {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := len(w.lines) - 1; i >= 0; i-- {
		if l := w.lines[i]; l.pc == pc && l.ready {
			select {
			case <-l.console.Done():
				return nil
			default:
				return l
			}
		}
	}
	return nil
}

// historyHeard is which history a line's guest belongs to.
func (w *world) historyHeard(l *line) *history {
	w.mu.Lock()
	defer w.mu.Unlock()
	return l.history
}

// stretches is everything that was heard.
func (w *world) stretches() []story.Stretch {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []story.Stretch
	for _, l := range w.lines {
		ticks := l.ticks.Ticks()
		if !l.ready || len(ticks) == 0 {
			continue
		}
		first, last := ticks[0], ticks[len(ticks)-1]
		all = append(all, story.Stretch{PC: l.pc, Run: l.run, History: l.history.number,
			From: l.began + first.At, To: l.began + last.At, First: first.N, Last: last.N})
	}
	return all
}
