//go:build linux

package matrix

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/build/guest/console"
	"tagalong.org/tagalong/build/holds"
	"tagalong.org/tagalong/build/story"
)

// Options of a world.
type Options struct {
	// Binary is tagalong built with the tag tagalonghold, Image the test guest's disk, Dir an empty directory with a short path.
	Binary, Image, Dir string
	// Out gets what happens, a line a thing.
	Out io.Writer
	// Rate is the guest's load; the zero value is a usual one.
	Rate console.Rate
}

const (
	vmName = story.VMName
	// memoryMiB is little, so that a switch takes a second.
	memoryMiB = 160
	// diskSize is what fits on a PC's disk, in bytes. What isn't used takes nothing.
	diskSize = 3 << 30
	// patience bounds every wait: it says only that something hangs.
	patience = 4 * time.Minute
	// askFor bounds one question to an engine; it may be dead.
	askFor = 5 * time.Second
)

// names of the two PCs.
var names = [2]string{"desk", "laptop"}

// world is two PCs with a VM, and what is known of it. One goroutine carries cells out; the witnesses have theirs.
type world struct {
	o         Options
	fleet     *story.Fleet
	holds     map[string]*holds.Holds
	began     time.Time
	vm        string // its ID
	listening sync.WaitGroup
	cancel    context.CancelFunc
	seen      [2]atomic.Int64 // how often each PC's monitor said that the guest runs

	// guarded by mu
	mu      sync.Mutex
	failed  error
	ears    []*ear
	durable uint64 // the newest record that a guest was told durable
}

// fail notes what went wrong first.
func (w *world) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failLocked(err)
}

func (w *world) failLocked(err error) {
	if w.failed == nil {
		w.failed = err
	}
}

func (w *world) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed
}

func (w *world) say(format string, args ...any) { w.fleet.Say(format, args...) }

// runFile is one of the files of the VM's QEMU on a PC.
func (w *world) runFile(p *story.PC, name string) string {
	return filepath.Join(filepath.Dir(api.SocketPath(p.Data)), w.vm[:12], name)
}

// begin makes the PCs and the VM, and boots it on the first one. Close it also after an error.
func begin(ctx context.Context, o Options) (*world, error) {
	if o.Rate == (console.Rate{}) {
		o.Rate = console.Rate{Records: 40, Fsync: 4, Mem: 2, Set: 16}
	}
	w := &world{o: o, began: time.Now(), holds: map[string]*holds.Holds{}, cancel: func() {}}
	real, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		return w, err
	}
	if err := story.SweepDisks(); err != nil {
		return w, err
	}
	bin := filepath.Join(o.Dir, "bin")
	if err := wrapQEMU(bin, real); err != nil {
		return w, err
	}
	for _, name := range names {
		if err := story.MountDisk(w.mount(name), diskSize); err != nil {
			return w, err
		}
		if w.holds[name], err = holds.New(filepath.Join(o.Dir, name+".hold")); err != nil {
			return w, err
		}
	}
	w.fleet, err = story.BeginFleet(ctx, story.Options{
		Binary: o.Binary, Image: o.Image, Dir: o.Dir, Out: o.Out, Rate: o.Rate, MemoryMiB: memoryMiB,
		Env: func(pc string) []string {
			return []string{"TAGALONG_HOLD=" + filepath.Join(o.Dir, pc+".hold"), "PATH=" + bin + ":" + os.Getenv("PATH")}
		},
	}, names[:]...)
	if err != nil {
		return w, err
	}
	if err := w.fleet.Make(ctx, names[0], vmName); err != nil {
		return w, err
	}
	v, err := w.fleet.PC(names[0]).VM(ctx, vmName)
	if err != nil {
		return w, err
	}
	w.vm = v.ID
	watching, cancel := context.WithCancel(context.WithoutCancel(ctx))
	w.cancel = cancel
	for _, p := range w.fleet.PCs {
		w.listening.Go(func() { w.listen(watching, p) })
	}
	w.listening.Go(func() { w.never(watching) })
	if err := w.fleet.PC(names[0]).Client.StartVM(ctx, vmName); err != nil {
		return w, err
	}
	_, err = w.rest(ctx)
	return w, err
}

func (w *world) mount(name string) string { return filepath.Join(w.o.Dir, name) }

// fill leaves a PC's disk without a byte; freeUp undoes it.
func (w *world) fill(name string) error { return story.ResizeDisk(w.mount(name), 0) }

func (w *world) freeUp(name string) error { return story.ResizeDisk(w.mount(name), diskSize) }

// close ends everything and unmounts the disks.
func (w *world) close() error {
	var errs []error
	for _, h := range w.holds {
		if h != nil {
			errs = append(errs, h.Close())
		}
	}
	if w.fleet != nil {
		errs = append(errs, w.fleet.Close())
	}
	w.cancel()
	w.listening.Wait()
	for _, name := range names {
		errs = append(errs, story.UnmountDisk(w.mount(name)))
	}
	return errors.Join(errs...)
}

// views is what each PC says of the VM; one that doesn't answer is an error.
func (w *world) views(ctx context.Context) (v [2]api.VM, err error) {
	for i, p := range w.fleet.PCs {
		ask, cancel := context.WithTimeout(ctx, askFor)
		v[i], err = p.VM(ask, vmName)
		cancel()
		if err != nil {
			return v, fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	return v, nil
}

// until waits for a condition of both PCs' views. The condition says what is missing, or nothing.
func (w *world) until(ctx context.Context, what string, missing func([2]api.VM) string) ([2]api.VM, error) {
	deadline := time.Now().Add(patience)
	for {
		v, err := w.views(ctx)
		why := ""
		if err != nil {
			why = err.Error()
		} else if why = missing(v); why == "" {
			return v, w.failure()
		}
		switch {
		case w.failure() != nil:
			return v, w.failure()
		case ctx.Err() != nil:
			return v, ctx.Err()
		case time.Now().After(deadline):
			return v, fmt.Errorf("%s: not within %v: %s\n%s", what, patience, why, told(v))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// told is both PCs' views as a developer wants to read them.
func told(views [2]api.VM) string {
	text := ""
	for i, v := range views {
		text += fmt.Sprintf("%s says: %s, here %v, owner %s, term %d, problem %v", names[i], v.State, v.Here, v.OwnerName, v.Term, v.Problem)
		if v.Switch != nil {
			text += fmt.Sprintf(", switch %s (%v)", v.Switch.Phase, v.Switch.Error)
		}
		for _, r := range v.Replicas {
			text += fmt.Sprintf(", copy on %s %s lacks %d", r.DeviceName, r.State, r.Remaining)
		}
		if v.Hydration != nil {
			text += fmt.Sprintf(", lacks %d", v.Hydration.Remaining)
		}
		text += "\n"
	}
	return text
}

// owner is the PC that says it has the VM: exactly one must.
func owner(v [2]api.VM) (int, bool) {
	switch {
	case v[0].Here == v[1].Here, v[0].OwnerName != v[1].OwnerName:
		return 0, false
	case v[0].Here:
		return 0, true
	default:
		return 1, true
	}
}

// rest waits until the VM runs on one PC, its guest writes, all of its disk is there, and the other one's copy gets every write. It returns which
// PC has it.
func (w *world) rest(ctx context.Context) (int, error) {
	var told uint64
	v, err := w.until(ctx, "the VM doesn't come to rest", func(v [2]api.VM) string {
		i, ok := owner(v)
		if !ok {
			return "not one owner"
		}
		e := w.heard(names[i])
		switch {
		case v[i].State != api.VMRunning:
			return "it is " + string(v[i].State)
		case v[0].Switch != nil && !v[0].Switch.Phase.Ended(), v[1].Switch != nil && !v[1].Switch.Phase.Ended():
			return "its switch hasn't ended"
		case e == nil:
			return "no guest is heard"
		case v[i].Hydration != nil:
			return "not all of the disk is there"
		case len(v[i].Replicas) != 1 || v[i].Replicas[0].State != api.ReplicaLive:
			return "the copy isn't live"
		}
		_, durable := e.console.Progress()
		if told == 0 {
			told = durable
		}
		if durable <= told {
			return "the guest doesn't write"
		}
		return ""
	})
	i, _ := owner(v)
	return i, err
}
