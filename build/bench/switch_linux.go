package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tagalong.org/tagalong/build/guest/console"
	"tagalong.org/tagalong/build/lab"
)

// switchLoad is what the guest does while it moves.
type switchLoad struct {
	name string
	rate console.Rate
	// most are the aims: ours against theirs, and bytes against the touched memory.
	pause, run, bytes float64
}

// switchLine is what lies between the two PCs.
type switchLine struct {
	name  string
	wan   lab.WAN
	far   bool
	loads []switchLoad
}

var switchLines = []switchLine{
	{name: "lan", loads: []switchLoad{
		{"idle", console.Rate{Records: 0, Fsync: 1, Mem: 0, Set: 32}, 0.7, 0.5, 0.5},
		{"writing", console.Rate{Records: 200, Fsync: 8, Mem: 0, Set: 32}, 0.7, 0.5, 0.5},
		{"dirtying", console.Rate{Records: 0, Fsync: 1, Mem: 8, Set: 128}, 0.7, 0.5, 0.5},
	}},
	// What a line carries of 875 kB a second bounds what can converge on it.
	{name: "wan", wan: lab.HomeWAN, far: true, loads: []switchLoad{
		{"idle", console.Rate{Records: 0, Fsync: 1, Mem: 0, Set: 32}, 0.7, 0.5, 0.5},
		{"writing", console.Rate{Records: 20, Fsync: 8, Mem: 0, Set: 32}, 0.7, 0.5, 0.5},
		{"dirtying", console.Rate{Records: 0, Fsync: 1, Mem: 1, Set: 64}, 0.7, 0.5, 0.5},
	}},
}

// switched is what one switch was like.
type switched struct {
	pause, run    time.Duration // of the guest, and from the click to its first tick on the other PC
	disk          time.Duration // of run, in which nothing but the disk moved
	bytes         int64         // on the line, both ways, in that time
	touched       int64         // bytes of memory that the guest had ever used
	before, after float64       // the guest's ticks, of what there would be undisturbed
	unfinished    bool          // it wasn't there after movePatience: run is how long it was given, and only touched is known beside
}

// errUnfinished says that a switch wasn't over after movePatience. Stock's memory need not converge on a slow line.
var errUnfinished = errors.New("the guest had not arrived in time")

// mover is one way to move a guest between the two PCs of a lab.
type mover interface {
	// boot starts the guest on the first PC.
	boot(ctx context.Context) error
	// console is the guest's serial line on a PC, and pid its process there.
	console(pc int) string
	pid(pc int) (int, error)
	// ready waits until a switch may be asked for, as on any day.
	ready(ctx context.Context, from, to int) error
	// move is from the click until the guest runs there.
	move(ctx context.Context, from, to int) error
	// disk is for how long the last move carried nothing but the disk.
	disk() time.Duration
	// settled ends what is left to do after a switch.
	settled(ctx context.Context, from, to int) error
	hosts() []*lab.Host
	close() error
}

// benchSwitch measures a switch against stock QEMU's migration with the disk mirrored over NBD, as Incus drives it: the same guest, in the same run.
func benchSwitch(ctx context.Context, s settings) (err error) {
	var lines []switchLine
	for _, l := range switchLines {
		l.loads = slices.DeleteFunc(slices.Clone(l.loads), func(load switchLoad) bool { return !strings.Contains("switch/"+l.name+"-"+load.name, s.only) })
		if len(l.loads) > 0 {
			lines = append(lines, l)
		}
	}
	if len(lines) == 0 {
		return errNoCell
	}
	dir, remove, err := folder(s.scratch)
	if err != nil {
		return err
	}
	defer remove()
	binary := filepath.Join(dir, "tagalong")
	compile := exec.CommandContext(ctx, "go", "build", "-tags", "nogui", "-o", binary, "./cmd/tagalong")
	compile.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := compile.CombinedOutput(); err != nil {
		return fmt.Errorf("build tagalong: %w: %s", err, out)
	}
	out, err := tool(ctx, "./build/testguest.sh")
	if err != nil {
		return err
	}
	bare := strings.TrimSpace(string(out))
	full := filepath.Join(dir, "full")
	if err := fillImage(full, bare, s.size); err != nil {
		return fmt.Errorf("fill the guest's disk: %w", err)
	}
	for _, l := range lines {
		image := full
		if l.far {
			image = bare
		}
		if err := compareSwitches(ctx, s, l, dir, binary, image); err != nil {
			return err
		}
	}
	return nil
}

// fillImage makes an image of a disk that has size more bytes of content, as the disk of a desktop has gigabytes; half of them are zeros, which compress.
func fillImage(path, bare string, size int64) (err error) {
	from, err := os.Open(bare)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	if _, err := io.Copy(to, from); err != nil {
		return err
	}
	content := rand.NewChaCha8([32]byte{6})
	block := make([]byte, 64<<10)
	for ; size > 0; size -= int64(len(block)) {
		if _, err := content.Read(block[:len(block)/2]); err != nil {
			return err
		}
		if _, err := to.Write(block); err != nil {
			return err
		}
	}
	return nil
}

// compareSwitches measures all loads on one line, in rounds: each way has its PCs and its guest anew in each of them, and for itself.
func compareSwitches(ctx context.Context, s settings, l switchLine, dir, binary, image string) error {
	found := map[string]map[string][]switched{"ours": {}, "theirs": {}}
	groups := []switchLine{l}
	if l.far {
		// Each load has a guest of its own: what the one before left of it would count, were it never there.
		groups = nil
		for _, load := range l.loads {
			one := l
			one.loads = []switchLoad{load}
			groups = append(groups, one)
		}
	}
	for round := range s.rounds {
		order := []string{"ours", "theirs"}
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, name := range order {
			for i, group := range groups {
				in := filepath.Join(dir, fmt.Sprintf("%s%s%d.%d", l.name, name[:1], round, i))
				if err := os.Mkdir(in, 0o700); err != nil {
					return err
				}
				var m mover
				if name == "ours" {
					m = &ourMover{binary: binary, image: image, dir: in, line: group}
				} else {
					m = &stockMover{image: image, dir: in, line: group}
				}
				if err := measureMover(ctx, m, group, found[name]); err != nil {
					return fmt.Errorf("%s over %s: %w", name, l.name, err)
				}
				if err := os.RemoveAll(in); err != nil {
					return err
				}
			}
		}
	}
	for _, load := range l.loads {
		tellSwitches("switch/"+l.name+"-"+load.name, load, found["ours"][load.name], found["theirs"][load.name])
	}
	return nil
}

// measureMover moves a guest with each load once, after one move that isn't counted.
func measureMover(ctx context.Context, m mover, l switchLine, found map[string][]switched) (err error) {
	defer func() { err = errors.Join(err, m.close()) }()
	if err := m.boot(ctx); err != nil {
		return err
	}
	b := &moving{mover: m, timeline: console.NewTimeline()}
	defer func() { err = errors.Join(err, b.hangUp()) }()
	if err := b.listen(ctx, 0); err != nil {
		return err
	}
	loads := l.loads
	if !l.far {
		// Over the slow line a first move would take as long as those that count, and what it warms up counts for little.
		loads = append([]switchLoad{l.loads[0]}, loads...)
	}
	for i, load := range loads {
		got, err := b.move(ctx, load)
		if _, stock := m.(*stockMover); stock && l.far && errors.Is(err, errUnfinished) {
			got.unfinished = true
		} else if err != nil {
			return fmt.Errorf("%s: %w", load.name, err)
		}
		if os.Getenv("BENCH_VERBOSE") != "" {
			fmt.Fprintf(os.Stderr, "%s %s: pause %v, run %v, %d bytes of %d touched, ticks before %.2f after %.2f\n", l.name, load.name, got.pause, got.run, got.bytes, got.touched, got.before, got.after)
		}
		if i >= len(loads)-len(l.loads) {
			found[load.name] = append(found[load.name], got)
		}
	}
	return nil
}

// moving is a guest on its way to and fro, with one who listens.
type moving struct {
	mover
	timeline *console.Timeline
	line     *console.Console
	at       int
}

const (
	// restBefore is how long a guest is left alone with a new load, and what its ticks are compared with; watchAfter how long they are looked at after a switch.
	restBefore = 3 * time.Second
	watchAfter = 2 * time.Second
)

func (b *moving) listen(ctx context.Context, pc int) error {
	c, err := b.dial(ctx, pc)
	if err != nil {
		return err
	}
	b.line = c
	_, err = c.WaitReady(ctx)
	return err
}

func (b *moving) dial(ctx context.Context, pc int) (*console.Console, error) {
	return console.Dial(ctx, b.hosts()[pc].Name(), b.console(pc), b.timeline)
}

func (b *moving) hangUp() error {
	if b.line == nil {
		return nil
	}
	line := b.line
	b.line = nil
	if err := line.Close(); err != nil && !errors.Is(err, console.ErrClosed) && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// move moves the guest to the other PC under a load, and looks at it from outside.
func (b *moving) move(ctx context.Context, load switchLoad) (r switched, err error) {
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, movePatience)
	defer cancel()
	from, to := b.at, 1-b.at
	if err := b.line.SetRate(ctx, load.rate); err != nil {
		return r, err
	}
	if err := b.ready(ctx, from, to); err != nil {
		return r, err
	}
	quiet := b.timeline.Now()
	if err := pause(ctx, restBefore); err != nil {
		return r, err
	}
	pid, err := b.pid(from)
	if err != nil {
		return r, err
	}
	if r.touched, err = touched(pid); err != nil {
		return r, err
	}
	gaps := len(b.timeline.SwitchGaps())
	sent, err := b.carried(ctx)
	if err != nil {
		return r, err
	}
	click := b.timeline.Now()
	type dialled struct {
		c   *console.Console
		err error
	}
	heard := make(chan dialled, 1)
	go func() {
		// The line is there as soon as the taker's hypervisor is.
		c, err := b.dial(ctx, to)
		heard <- dialled{c, err}
	}()
	moved := b.mover.move(ctx, from, to)
	late := errors.Is(ctx.Err(), context.DeadlineExceeded) && whole.Err() == nil
	if moved != nil {
		cancel()
	}
	d := <-heard
	if err := errors.Join(moved, d.err); err != nil {
		if late {
			r.run, err = b.timeline.Now()-click, errors.Join(errUnfinished, err)
		}
		if d.c != nil {
			err = errors.Join(err, d.c.Close())
		}
		return r, err
	}
	if err := b.hangUp(); err != nil {
		return r, err
	}
	b.line, b.at = d.c, to
	for len(b.timeline.SwitchGaps()) <= gaps {
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return r, fmt.Errorf("wait for the guest's first tick: %w", err)
		}
	}
	all, err := b.carried(ctx)
	if err != nil {
		return r, err
	}
	gap := b.timeline.SwitchGaps()[gaps]
	r.pause, r.run, r.disk, r.bytes = gap.Pause(), gap.To.At-click, b.disk(), all-sent
	if err := pause(ctx, watchAfter); err != nil {
		return r, err
	}
	usual := b.ticks(quiet, click)
	r.before = b.ticks(click, gap.From.At) / usual
	r.after = b.ticks(gap.To.At, b.timeline.Now()) / usual
	v, err := b.line.Verify(ctx)
	if err == nil && !v.OK {
		err = fmt.Errorf("the guest finds itself damaged: %s", v.Text)
	}
	if err != nil {
		return r, err
	}
	return r, b.settled(ctx, from, to)
}

// movePatience bounds a switch; over the slow line one takes minutes.
const movePatience = 15 * time.Minute

// ticks is how many of the guest's ticks arrived a second within a time.
func (b *moving) ticks(from, to time.Duration) float64 {
	n := 0
	for _, t := range b.timeline.Ticks() {
		if t.At >= from && t.At < to {
			n++
		}
	}
	return float64(n) / max((to-from).Seconds(), 1e-3)
}

// carried is how many bytes the first PC has sent and received.
func (b *moving) carried(ctx context.Context) (n int64, err error) {
	for _, way := range []string{"rx_bytes", "tx_bytes"} {
		out, err := b.hosts()[0].Command(ctx, "cat", "/sys/class/net/eth0/statistics/"+way).Output()
		if err != nil {
			return 0, err
		}
		var bytes int64
		if _, err := fmt.Sscan(string(out), &bytes); err != nil {
			return 0, err
		}
		n += bytes
	}
	return n, nil
}

// touched is how much of its memory a guest has ever used, in bytes: what of QEMU's largest mapping of that size is there.
func touched(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return 0, err
	}
	var most, size int64
	for line := range strings.Lines(string(text)) {
		var kib int64
		if _, err := fmt.Sscanf(line, "Size: %d kB", &kib); err == nil {
			size = kib
		}
		if _, err := fmt.Sscanf(line, "Rss: %d kB", &kib); err == nil && size == guestKiB {
			most = max(most, kib<<10)
		}
	}
	if most == 0 {
		return 0, fmt.Errorf("process %d has no mapping of the guest's memory", pid)
	}
	return most, nil
}

// guestKiB is the guest's memory: 512 MiB, and not a multiple of 256 KiB, which QEMU 7.2 corrupts under emulation.
const guestKiB = 524160

// tellSwitches prints the figures of one load. A stock switch that wasn't over in time counts with that time for "run", which makes the ratio worse for us than
// it is, and for nothing else.
func tellSwitches(name string, load switchLoad, ours, theirs []switched) {
	ratio := func(what, unit string, of func(switched) float64, most float64) {
		var ratios, mine, a, b []float64
		late := 0
		for i := range ours {
			mine = append(mine, of(ours[i]))
			if theirs[i].unfinished {
				late++
				if what != "run" {
					continue
				}
			}
			a, b = append(a, of(ours[i])), append(b, of(theirs[i]))
			ratios = append(ratios, a[len(a)-1]/b[len(b)-1])
		}
		if len(ratios) == 0 {
			fmt.Printf("%s-%s ours=%.1f theirs=none unit=%s peer=qemu+nbd-mirror rounds=%d late=%d\n", name, what, median(mine), unit, len(ours), late)
			return
		}
		fmt.Printf("%s-%s ratio=%.2f ours=%.1f theirs=%.1f unit=%s peer=qemu+nbd-mirror spread=%.2f-%.2f rounds=%d", name, what,
			median(ratios), median(a), median(b), unit, slices.Min(ratios), slices.Max(ratios), len(ratios))
		if late > 0 {
			fmt.Printf(" late=%d", late)
		}
		if most > 0 {
			fmt.Printf(" most=%g", most)
		}
		fmt.Println()
	}
	ratio("pause", "ms", func(s switched) float64 { return ms(s.pause) }, load.pause)
	ratio("run", "ms", func(s switched) float64 { return ms(s.run) }, load.run)
	ratio("rest", "ms", func(s switched) float64 { return ms(s.run - s.disk) }, 0)
	ratio("wire", "bytes", func(s switched) float64 { return float64(s.bytes) }, 0)
	var share []float64
	for _, s := range ours {
		share = append(share, float64(s.bytes)/float64(s.touched))
	}
	fmt.Printf("%s-bytes ratio=%.3f touched=%.0f peer=touched-memory spread=%.3f-%.3f rounds=%d most=%g\n", name, median(share), float64(ours[0].touched), slices.Min(share), slices.Max(share), len(ours), load.bytes)
	ratio("before", "ticks", func(s switched) float64 { return s.before }, 0)
	ratio("after", "ticks", func(s switched) float64 { return s.after }, 0)
}
