package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"tagalong.org/tagalong/build/guest/console"
	"tagalong.org/tagalong/build/lab"
)

// apart is a holder and who takes its disk, each in a network namespace of its own.
type apart struct {
	net           *lab.Lab
	holder, owner *server
	dir, socket   string
	remove        func()
	waited        map[string][]float64 // by what was measured: the share of the time for which reads waited for stale blocks
}

// setApart starts a holder on the first host of net and an owner on the second, and takes net over. The holder's disk has size bytes, of noise or of
// an image. End it.
func setApart(ctx context.Context, s settings, net *lab.Lab, size int64, image string) (a *apart, err error) {
	a = &apart{net: net, remove: func() {}, waited: map[string][]float64{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.end())
		}
	}()
	if a.dir, a.remove, err = folder(s.fast); err != nil {
		return a, err
	}
	self, err := os.Executable()
	if err != nil {
		return a, err
	}
	from, to := net.Hosts()[0], net.Hosts()[1]
	blank := filepath.Join(a.dir, "blank")
	var said string
	a.holder, said, err = announce("hydrateholder", from.Command(ctx, self, "hydrateholder", "-dir", filepath.Join(a.dir, "holder"), "-blank", blank,
		"-bytes", strconv.FormatInt(size, 10), "-image", image, "-at", from.Addr().String(), "-profile", profileOf("hydrateholder")))
	if err != nil {
		return a, err
	}
	at, err := parseGiven(said)
	if err != nil {
		return a, err
	}
	// A socket of ours is made only where nobody else can come in.
	a.socket = filepath.Join(a.dir, "socket.d", "socket")
	a.owner, _, err = announce("hydrateowner", to.Command(ctx, self,
		at.owner(filepath.Join(a.dir, "owner"), blank, size, "-at", to.Addr().String(), "-socket", a.socket)...))
	return a, err
}

func (a *apart) end() error {
	for _, s := range []*server{a.owner, a.holder} {
		if s != nil {
			s.stop()
		}
	}
	a.remove()
	return a.net.Close()
}

const (
	// uplinkReads is how many reads make a sample over the home's uplink, uplinkRest the rest after each.
	uplinkReads = 25
	uplinkRest  = 50 * time.Millisecond
	uplinkSize  = 256 << 20
)

// benchUplink measures what a guest waits for 4 KiB over a home's uplink, idle and while the rest is pulled.
func benchUplink(ctx context.Context, s settings) (err error) {
	var a *apart
	var use []float64 // of the line
	latency := func(pull int) func(context.Context) (sample, error) {
		return func(context.Context) (sample, error) {
			link := a.net.Links()[0]
			rate := carrying(func() int64 { return link.Carried("home") })
			var p50, p99 float64
			err := a.owner.ask(fmt.Sprint(orderRandom, " ", pull, " ", uplinkReads, " ", uplinkRest.Milliseconds()), &p50, &p99)
			carried := rate()
			if err != nil {
				return sample{}, err
			}
			if pull == 1 {
				use = append(use, carried*8)
			}
			return sample{rate: p50 * 1000}, nil
		}
	}
	cells := []cell{{name: "hydrate/uplink-read", unit: "ms", contenders: []contender{
		{name: "ours", measure: latency(1)},
		{name: "idle", measure: latency(0), most: 1.6},
		{name: "round-trip", measure: func(context.Context) (sample, error) {
			return sample{rate: lab.HomeWAN.RoundTrip.Seconds() * 1000}, nil
		}},
	}}}
	if !wanted(s, cells) {
		return nil
	}
	net, err := lab.NewSites(ctx, lab.HomeWAN, lab.Site{Name: "home", Hosts: []string{"desk"}}, lab.Site{Name: "office", Hosts: []string{"laptop"}})
	if err != nil {
		return err
	}
	if a, err = setApart(ctx, s, net, uplinkSize, ""); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.end()) }()
	if err := compare(ctx, s, cells); err != nil {
		return err
	}
	rate := median(use[1:]) // the first was to warm up
	fmt.Printf("hydrate/uplink-use ratio=%.3f bits=%.0f unit=bit/s link=%d rounds=%d aim=0.95\n", rate/float64(lab.HomeWAN.Rate), rate, lab.HomeWAN.Rate, s.rounds)
	return nil
}

// carrying watches how much a line has carried. What it returns ends that, and says how many bytes a second that was from when the first
// of them came to when the last did: to open a disk and to close it is no use of the line.
func carrying(carried func() int64) (rate func() float64) {
	const little = 64 << 10 // greetings, and what is left of another time
	stop, done := make(chan struct{}), make(chan float64, 1)
	go func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		at := carried()
		var first, last int64
		var began, ended time.Time
		for {
			select {
			case <-stop:
				done <- float64(last-first) / max(1e-9, ended.Sub(began).Seconds())
				return
			case now := <-tick.C:
				switch n := carried(); {
				case began.IsZero() && n-at < little:
				case began.IsZero():
					first, last, began, ended = n, n, now, now
				case n > last:
					last, ended = n, now
				}
			}
		}
	}()
	return func() float64 {
		close(stop)
		return <-done
	}
}

const (
	// lanRate is in bits a second, lanQueue what may wait before it.
	lanRate  = "1gbit"
	lanQueue = "5ms"
	// unpackRounds is the most, since a guest boots for each.
	unpackRounds = 3
)

// benchUnpack measures how long a guest takes to unpack an archive of small files, all of its disk being stale, against nothing being stale.
func benchUnpack(ctx context.Context, s settings) (err error) {
	var a *apart
	took := func(whole, pull bool) func(context.Context) (sample, error) {
		return func(ctx context.Context) (sample, error) { return a.unpack(ctx, whole, pull) }
	}
	cells := []cell{{name: "hydrate/unpack-pull", unit: "ms", contenders: []contender{
		{name: "ours", measure: took(false, true)},
		{name: "nothing-stale", measure: took(true, false), most: 1.1},
	}}, {name: "hydrate/unpack-demand", unit: "ms", contenders: []contender{
		{name: "ours", measure: took(false, false)},
		{name: "nothing-stale", measure: took(true, false), most: 1.56},
	}}}
	if !wanted(s, cells) {
		return nil
	}
	s.rounds = min(s.rounds, unpackRounds)
	out, err := tool(ctx, "./build/testguest.sh", "--archive")
	if err != nil {
		return err
	}
	image := strings.TrimSpace(string(out))
	info, err := os.Stat(image)
	if err != nil {
		return err
	}
	net, err := lab.New(ctx, "desk", "laptop")
	if err != nil {
		return err
	}
	for _, h := range net.Hosts() {
		if _, err := tool(ctx, "tc", "-n", h.Namespace(), "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", lanRate, "burst", "256k", "latency", lanQueue); err != nil {
			return errors.Join(err, net.Close())
		}
	}
	if a, err = setApart(ctx, s, net, info.Size(), image); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.end()) }()
	err = compare(ctx, s, cells)
	// A guest whose processor is emulated is as fast as the computer has time for it. This says what was due to what was lacking.
	for order, name := range map[string]string{orderPull: "pull", orderLeft: "demand"} {
		if shares := a.waited[order]; err == nil && len(shares) > 1 {
			fmt.Printf("hydrate/unpack-%s-waits share=%.4f spread=%.4f-%.4f rounds=%d\n", name, median(shares[1:]), slices.Min(shares[1:]), slices.Max(shares[1:]), len(shares)-1)
		}
	}
	return err
}

// unpack boots a guest from the disk, which fetches only what that reads, and lets it unpack its archive, with all that is stale fetched before, pulled meanwhile,
// or fetched as it is read. Whatever it is, the guest and the computer come to it alike: the same boot, then a rest.
func (a *apart) unpack(ctx context.Context, whole, pull bool) (_ sample, err error) {
	var stale int64
	if err := a.owner.ask(orderServe, &stale); err != nil {
		return sample{}, err
	}
	defer func() { err = errors.Join(err, a.owner.ask(orderEnd, &stale)) }() // after QEMU's end
	serial := filepath.Join(a.dir, "serial")
	// As the product has it, but for the processor, which is emulated everywhere.
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", "pc-i440fx-7.2", "-accel", "tcg", "-cpu", "Nehalem", "-m", "524160K",
		"-blockdev", fmt.Sprintf(`{"driver":"nbd","node-name":"disk","server":{"type":"unix","path":%q},"export":""}`, a.socket),
		"-device", "virtio-blk-pci,drive=disk",
		"-chardev", "socket,id=serial,path="+serial+",server=on,wait=off", "-serial", "chardev:serial")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return sample{}, fmt.Errorf("start QEMU: %w", err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		if err != nil {
			err = fmt.Errorf("%w (QEMU: %s)", err, said.String())
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, guestPatience)
	defer cancel()
	c, err := console.Dial(ctx, "guest", serial, console.NewTimeline())
	if err != nil {
		return sample{}, err
	}
	defer c.Close()
	if _, err := c.WaitReady(ctx); err != nil {
		return sample{}, err
	}
	// Its own load would be measured too.
	if _, err := c.StopWriter(ctx); err != nil {
		return sample{}, err
	}
	if whole {
		if err := a.owner.ask(orderWhole, &stale); err != nil {
			return sample{}, err
		}
	}
	if err := pause(ctx, guestRest); err != nil {
		return sample{}, err
	}
	order := orderLeft
	if pull {
		order = orderPull
	}
	var waited float64
	if err := errors.Join(a.owner.ask(orderWaited, &waited), a.owner.ask(order, &stale)); err != nil {
		return sample{}, err
	}
	began := time.Now()
	u, err := c.Unpack(ctx)
	took := time.Since(began)
	if err == nil {
		err = a.owner.ask(orderWaited, &waited)
	}
	if err != nil {
		return sample{}, err
	}
	if u.Files < 1000 || u.Bytes < 10<<20 {
		return sample{}, fmt.Errorf("the guest unpacked %+v", u)
	}
	v, err := c.Verify(ctx)
	if err == nil && !v.OK {
		err = fmt.Errorf("the guest finds itself damaged: %s", v.Text)
	}
	if !whole && stale < int64(u.Bytes)*3/4 {
		return sample{}, fmt.Errorf("only %d bytes were stale, and the archive has %d: it was measured on what the boot had brought", stale, u.Bytes)
	}
	if os.Getenv("BENCH_VERBOSE") != "" {
		fmt.Fprintf(os.Stderr, "unpack whole=%v pull=%v: %d bytes were stale, it took %v (%v by the guest's clock) for %d files of %d bytes, and reads waited for %.3f s\n", whole, pull, stale, took, u.Took, u.Files, u.Bytes, waited)
	}
	if !whole {
		a.waited[order] = append(a.waited[order], waited/took.Seconds())
	}
	return sample{rate: float64(u.Took.Microseconds()) / 1000}, err
}

// guestRest is for what a guest does by itself when it has booted, and stores of what was written so far.
const guestRest = 5 * time.Second

// guestPatience is for a busy computer; what is waited for takes seconds.
const guestPatience = 3 * time.Minute
