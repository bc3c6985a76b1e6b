package console

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Boot is what the guest found on its disk when it started.
type Boot struct {
	Records int
	Last    uint64 // the end of the unbroken sequence
	Durable uint64
	Lost    int
	Bad     int
	Run     string // names this start of the guest
}

// Verdict is the guest's own check of its disks, memory and time. Records and Last are of the first disk, Bad and Lost of all that are written.
type Verdict struct {
	OK       bool
	Records  int
	Last     uint64
	Bad      int
	Lost     int
	MemPages int
	MemBad   int
	FSErrors int
	Ticks    uint64
	Missing  int
	Gaps     int
	MaxGap   int64  // by the guest's own clock, microseconds
	Text     string // the guest's own words
}

// Rate is what the guest does: records a second and records between two syncs,
// MiB of memory dirtied a second and MiB that it is spread over; with Noise, what is written there can't be compressed.
type Rate struct {
	Records int
	Fsync   int
	Mem     int
	Set     int
	Noise   bool
}

// WaitReady waits until the guest runs here and takes commands, and returns what
// it found at its start. It works on a guest that has been running for long, or
// comes in by a switch. Nothing is said to the guest before its first tick: a
// hypervisor that waits for a switch would swallow it.
func (c *Console) WaitReady(ctx context.Context) (Boot, error) {
	select {
	case <-ctx.Done():
		return Boot{}, fmt.Errorf("wait for the guest: console %s: %w", c.name, ctx.Err())
	case <-c.done:
		return Boot{}, fmt.Errorf("wait for the guest: %w", c.ended())
	case <-c.ticking:
	}
	for {
		try, cancel := context.WithTimeout(ctx, askAgain)
		text, err := c.Command(try, "boot", "BOOT ")
		cancel()
		if err == nil {
			return parseBoot(text)
		}
		// The first command may stick to what a switch left on the line.
		again := errors.Is(err, ErrRefused) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
		if ctx.Err() != nil || !again {
			return Boot{}, fmt.Errorf("wait for the guest: %w", err)
		}
	}
}

// Verify lets the guest check everything it knows. An error means that there is
// no verdict; a bad one is none.
func (c *Console) Verify(ctx context.Context) (Verdict, error) {
	text, err := c.Command(ctx, "verify", "V ")
	if err != nil {
		return Verdict{}, fmt.Errorf("verify: %w", err)
	}
	return parseVerdict(text)
}

// SetRate tells the guest what to do.
func (c *Console) SetRate(ctx context.Context, r Rate) error {
	noise := 0
	if r.Noise {
		noise = 1
	}
	_, err := c.Command(ctx, fmt.Sprintf("rate recs=%d fsync=%d mem=%d set=%d noise=%d", r.Records, r.Fsync, r.Mem, r.Set, noise), "OK rate")
	return err
}

// Sync makes all records durable and returns the newest one's number.
func (c *Console) Sync(ctx context.Context) (uint64, error) {
	return c.durableAfter(ctx, "sync")
}

// Disks are the newest records of a guest's further disks, by their names in the guest (vdb).
type Disks map[string]uint64

// WriteDisks makes the guest overwrite all its disks but the first with records, as it writes the first, from now on until it ends. It returns what it found
// there at this start of the guest: the newest records, and how many are lost or bad on all of them.
func (c *Console) WriteDisks(ctx context.Context) (d Disks, lost, bad int, err error) {
	text, err := c.Command(ctx, "disks", "OK disks")
	if err != nil {
		return nil, 0, 0, err
	}
	f := fields(text)
	n := f.int("disks")
	d, lost, bad = f.disks(), f.int("lost"), f.int("bad")
	if f.err == nil && n != len(d) {
		f.err = fmt.Errorf("%w: %q", errTorn, text)
	}
	return d, lost, bad, f.err
}

// SyncDisks makes all records on all disks durable, and returns the newest ones' numbers on the further disks that are written.
func (c *Console) SyncDisks(ctx context.Context) (Disks, error) {
	text, err := c.Command(ctx, "sync", "OK sync")
	if err != nil {
		return nil, err
	}
	f := fields(text)
	return f.disks(), f.err
}

// StopWriter makes the guest write no more records, all being durable, and
// returns the newest one's number.
func (c *Console) StopWriter(ctx context.Context) (uint64, error) {
	return c.durableAfter(ctx, "stop")
}

// StartWriter makes the guest write again.
func (c *Console) StartWriter(ctx context.Context) error {
	_, err := c.durableAfter(ctx, "start")
	return err
}

// PowerOff asks the guest to go down in good order; the console ends when the
// hypervisor does. It returns the newest durable record's number.
func (c *Console) PowerOff(ctx context.Context) (uint64, error) {
	return c.durableAfter(ctx, "poweroff")
}

// Unpacked is what the guest has unpacked from the archive in its image.
type Unpacked struct {
	Files int
	Bytes uint64
	// Took is by the guest's clock, until everything was durable.
	Took time.Duration
}

// Unpack makes the guest unpack the archive that testguest.sh --archive has put into its image. It can do so once.
func (c *Console) Unpack(ctx context.Context) (Unpacked, error) {
	text, err := c.Command(ctx, "unpack", "OK unpack")
	if err != nil {
		return Unpacked{}, err
	}
	f := fields(text)
	return Unpacked{Files: f.int("files"), Bytes: f.uint("bytes"), Took: time.Duration(f.uint("us")) * time.Microsecond}, f.err
}

func (c *Console) durableAfter(ctx context.Context, word string) (uint64, error) {
	text, err := c.Command(ctx, word, "OK "+word)
	if err != nil {
		return 0, err
	}
	f := fields(text)
	durable := f.uint("durable")
	if f.err != nil {
		return 0, f.err
	}
	// It is told here as by any other line: who listens only now hears of what was before.
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last, c.durable = max(c.last, durable), max(c.durable, durable)
	return durable, nil
}

func parseBoot(text string) (Boot, error) {
	f := fields(text)
	b := Boot{
		Records: f.int("n"),
		Last:    f.uint("last"),
		Durable: f.uint("durable"),
		Lost:    f.int("lost"),
		Bad:     f.int("bad"),
		Run:     f.text("run"),
	}
	return b, f.err
}

func parseVerdict(text string) (Verdict, error) {
	f := fields(text)
	v := Verdict{
		OK:       strings.HasPrefix(text, "V ok "),
		Records:  f.int("records"),
		Last:     f.uint("last"),
		Bad:      f.int("bad"),
		Lost:     f.int("lost"),
		MemPages: f.int("mem_pages"),
		MemBad:   f.int("mem_bad"),
		FSErrors: f.int("fs_errors"),
		Ticks:    f.uint("ticks"),
		Missing:  f.int("missing"),
		Gaps:     f.int("gaps"),
		MaxGap:   int64(f.uint("maxgap_us")),
		Text:     text,
	}
	return v, f.err
}

// parseProgress reads an R line.
func parseProgress(text string) (last, durable uint64, ok bool) {
	f := strings.Fields(text)
	if len(f) != 3 || f[0] != "R" {
		return 0, 0, false
	}
	last, err1 := strconv.ParseUint(f[1], 10, 64)
	durable, err2 := strconv.ParseUint(f[2], 10, 64)
	return last, durable, err1 == nil && err2 == nil && durable <= last
}

// answer is a line of name=value words; the first thing wrong stays in err.
type answer struct {
	line  string
	words map[string]string
	err   error
}

func fields(line string) *answer {
	a := &answer{line: line, words: make(map[string]string)}
	for _, w := range strings.Fields(line) {
		if name, value, ok := strings.Cut(w, "="); ok {
			a.words[name] = value
		}
	}
	return a
}

// errTorn says that a line lacks something it should have.
var errTorn = errors.New("line from the guest is incomplete")

func (a *answer) text(name string) string {
	v, ok := a.words[name]
	if !ok && a.err == nil {
		a.err = fmt.Errorf("%w: no %s in %q", errTorn, name, a.line)
	}
	return v
}

func (a *answer) uint(name string) uint64 {
	v, err := strconv.ParseUint(a.text(name), 10, 64)
	if err != nil && a.err == nil {
		a.err = fmt.Errorf("%w: %s in %q", errTorn, name, a.line)
	}
	return v
}

// disks are the numbers of what is called as a disk is.
func (a *answer) disks() Disks {
	d := Disks{}
	for name := range a.words {
		if strings.HasPrefix(name, "vd") {
			d[name] = a.uint(name)
		}
	}
	return d
}

func (a *answer) int(name string) int { return int(min(a.uint(name), 1<<31-1)) }
