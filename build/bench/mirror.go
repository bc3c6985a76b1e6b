package main

import (
	"bufio"
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
)

const (
	// steadyPace is the thesis's worst five seconds, in bytes a second.
	steadyPace = 15_000_000
	// pourBytes is how much is measured at a time of what one mirror carries.
	pourBytes = 256 << 20
)

// mirrored is an owner with its peers.
type mirrored struct {
	*server
	peers []*server
}

func (m mirrored) cpu() float64 {
	sum := m.server.cpu()
	for _, p := range m.peers {
		sum += p.cpu()
	}
	return sum
}

func (m mirrored) stop() {
	if m.server != nil {
		m.server.stop()
	}
	stopAll(m.peers)
}

// elsewhere is what a peer's command line begins with that shall disturb nobody here, as if it ran on a PC of its own.
var elsewhere = []string{"chrt", "--idle", "0"}

// mirrorTo starts n peers, on tmpfs, and an owner in dir that mirrors to all of them. wrap is what the peers' command lines begin with.
func mirrorTo(ctx context.Context, dir, fast string, size int64, n int, wrap ...string) (m mirrored, err error) {
	defer func() {
		if err != nil {
			m.stop()
		}
	}()
	self, err := os.Executable()
	if err != nil {
		return m, err
	}
	var where []string
	for i := range n {
		p, at, err := announced(ctx, "mirrorpeer", append(slices.Clone(wrap), self, "mirrorpeer",
			"-dir", filepath.Join(fast, "peer"+strconv.Itoa(i)), "-profile", profileOf("peer"+strconv.Itoa(i)))...)
		if err != nil {
			return m, err
		}
		m.peers, where = append(m.peers, p), append(where, at)
	}
	socket := filepath.Join(dir, "owner.d", "socket")
	m.server, err = spawn(ctx, "mirrored", socket, self, "mirrorowner", "-dir", filepath.Join(dir, "owner"), "-socket", socket,
		"-bytes", strconv.FormatInt(size, 10), "-peers", strings.Join(where, ","), "-profile", profileOf("owner"))
	return m, err
}

// announced starts a process of ours that serves nothing on a socket, and returns the first line that it says.
func announced(ctx context.Context, name string, argv ...string) (*server, string, error) {
	return announce(name, exec.CommandContext(ctx, argv[0], argv[1:]...))
}

// announce is announced of a command.
func announce(name string, cmd *exec.Cmd) (*server, string, error) {
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, "", err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	if err := cmd.Start(); err != nil {
		return nil, "", err
	}
	s := &server{name, "", cmd, stdin, bufio.NewReader(stdout), make(chan struct{})}
	line, err := s.stdout.ReadString('\n')
	go func() {
		_ = cmd.Wait() // whoever waits for an answer finds out
		close(s.ended)
	}()
	if err != nil {
		s.stop()
		return nil, "", fmt.Errorf("%s: %w", name, err)
	}
	return s, strings.TrimSpace(line), nil
}

// daemon serves what QEMU can do with disks.
const daemon = "qemu-storage-daemon"

// quorum starts QEMU's way to have every write on four disks: a file, and three NBD targets over Unix sockets, without encryption.
func quorum(ctx context.Context, dir string, size int64) (m mirrored, err error) {
	defer func() {
		if err != nil {
			m.stop()
		}
	}()
	local := filepath.Join(dir, "quorum.raw")
	if err := makeImage(local, size); err != nil {
		return m, err
	}
	argv := []string{daemon, "--blockdev", "driver=file,node-name=c0,filename=" + local}
	children := "children.0=c0"
	for i := 1; i <= len(peerNames); i++ {
		image, socket := filepath.Join(dir, fmt.Sprintf("target%d.raw", i)), filepath.Join(dir, fmt.Sprintf("target%d.socket", i))
		if err := makeImage(image, size); err != nil {
			return m, err
		}
		p, err := spawn(ctx, daemon, socket, daemon, "--blockdev", "driver=file,node-name=f,filename="+image,
			"--nbd-server", "addr.type=unix,addr.path="+socket, "--export", "type=nbd,id=f,node-name=f,name=,writable=on")
		if err != nil {
			return m, err
		}
		m.peers = append(m.peers, p)
		argv = append(argv, "--blockdev", fmt.Sprintf("driver=nbd,node-name=c%d,server.type=unix,server.path=%s", i, socket))
		children += fmt.Sprintf(",children.%d=c%d", i, i)
	}
	socket := filepath.Join(dir, "quorum.socket")
	argv = append(argv, "--blockdev", "driver=quorum,node-name=q,vote-threshold="+strconv.Itoa(len(peerNames)+1)+","+children,
		"--nbd-server", "addr.type=unix,addr.path="+socket, "--export", "type=nbd,id=q,node-name=q,name=,writable=on")
	m.server, err = spawn(ctx, daemon, socket, argv...)
	return m, err
}

// benchMirror compares a disk that is mirrored to three with QEMU's quorum, with the same disk that isn't mirrored, and one mirror with a
// bare stream between the same two devices.
func benchMirror(ctx context.Context, s settings) error {
	none := errNoCell
	for _, part := range []func(context.Context, settings) error{mirrorAgainstQuorum, mirrorAgainstNone, mirrorAgainstStream} {
		switch err := part(ctx, s); {
		case err == nil:
			none = nil
		case !errors.Is(err, errNoCell):
			return err
		}
	}
	return none
}

// mirrorAgainstQuorum: what is written within the time of the load counts, over that time and what it takes until all of it is at all
// three peers.
func mirrorAgainstQuorum(ctx context.Context, s settings) error {
	loads := []struct {
		load
		aim float64
	}{
		{load{block: 4 << 10, depth: 1, write: true}, 1.5},
		{load{block: 4 << 10, depth: 32, write: true}, 4},
		{load{block: 1 << 20, depth: 4, write: true}, 1.3},
	}
	var us, them mirrored
	var cells []cell
	for _, l := range loads {
		measure := func(m *mirrored, drain bool) func(context.Context) (sample, error) {
			return func(ctx context.Context) (sample, error) {
				before := m.cpu()
				r, err := fio(ctx, m.socket, s.size, l.load, s.seconds)
				took := r.count / max(1, r.rate)
				if err == nil && drain {
					began := time.Now()
					err = m.order(orderDrain)
					took += time.Since(began).Seconds()
				}
				return sample{r.count / max(took, 1e-9), (m.cpu() - before) / max(1, r.count)}, err
			}
		}
		cells = append(cells, cell{"mirror/" + l.String(), "iops", []contender{
			{name: "ours", measure: measure(&us, true)}, {name: "quorum", measure: measure(&them, false), aim: l.aim},
		}})
	}
	if !wanted(s, cells) {
		return errNoCell
	}
	dir, remove, err := folder(s.fast)
	if err != nil {
		return err
	}
	defer remove()
	if us, err = mirrorTo(ctx, dir, dir, s.size, len(peerNames)); err != nil {
		return err
	}
	defer us.stop()
	if them, err = quorum(ctx, dir, s.size); err != nil {
		return err
	}
	defer them.stop()
	return compare(ctx, s, cells)
}

// mirrorAgainstNone: the owner's disk is on the scratch folder, its peers' on tmpfs, since each of them would have a disk of its own. What a write
// takes at a steady pace is measured twice: with the peers as they are, which take the processor away from the owner just when it writes, and (apart) with
// peers that only get what is left of it, as if they were PCs of their own: then it is what mirroring costs the owner's PC.
func mirrorAgainstNone(ctx context.Context, s settings) error {
	var us, apart mirrored
	var alone *server
	// What is measured of fio's report, of a mirrored disk and the same unmirrored.
	both := func(m *mirrored, l load, pick func(report) float64) []contender {
		of := func(socket func() string) func(context.Context) (sample, error) {
			return func(ctx context.Context) (sample, error) {
				r, err := fio(ctx, socket(), s.size, l, s.seconds)
				return sample{rate: pick(r)}, err
			}
		}
		return []contender{{name: "ours", measure: of(func() string { return m.socket })}, {name: "unmirrored", measure: of(func() string { return alone.socket })}}
	}
	pairs := load{block: 4 << 10, depth: 1, write: true, sync: true}
	steady := load{block: 64 << 10, depth: 1, write: true, sync: true, pace: steadyPace}
	write, flush := func(r report) float64 { return r.slowWrite / 1000 }, func(r report) float64 { return r.slowFlush / 1000 }
	cells := []cell{
		{"mirror/" + pairs.String(), "iops", both(&us, pairs, func(r report) float64 { return r.rate })},
		{"mirror/steady-write-p99", "us", both(&us, steady, write)},
		{"mirror/steady-flush-p99", "us", both(&us, steady, flush)},
		{"mirror/steady-write-p99-apart", "us", both(&apart, steady, write)},
		{"mirror/steady-flush-p99-apart", "us", both(&apart, steady, flush)},
	}
	// What it costs to have flushes wait for a second device (sync = "two"), whose drive is the fast folder here: the trip there and back.
	waiting := func(devices int) func(context.Context) (sample, error) {
		return func(ctx context.Context) (sample, error) {
			if err := us.order(fmt.Sprintf("%s %d", orderSync, devices)); err != nil {
				return sample{}, err
			}
			r, err := fio(ctx, us.socket, s.size, pairs, s.seconds)
			return sample{rate: r.rate}, errors.Join(err, us.order(orderSync+" 1"))
		}
	}
	cells[0].contenders[1].aim = 0.8
	for i := range cells[1:] {
		cells[1+i].contenders[1].most = 1.15
	}
	cells = append(cells, cell{"mirror/two-" + pairs.String(), "iops", []contender{{name: "two", measure: waiting(2)}, {name: "one", measure: waiting(1)}}})
	if !wanted(s, cells) {
		return errNoCell
	}
	for _, one := range []struct {
		m    *mirrored
		wrap []string
	}{{&us, nil}, {&apart, elsewhere}} {
		dir, remove, err := folder(s.scratch)
		if err != nil {
			return err
		}
		defer remove()
		fast, removeFast, err := folder(s.fast)
		if err != nil {
			return err
		}
		defer removeFast()
		if *one.m, err = mirrorTo(ctx, dir, fast, s.size, len(peerNames), one.wrap...); err != nil {
			return err
		}
		defer one.m.stop()
	}
	dir, remove, err := folder(s.scratch)
	if err != nil {
		return err
	}
	defer remove()
	if alone, err = ours(ctx, dir, "unmirrored", s.size, false); err != nil {
		return err
	}
	defer alone.stop()
	return compare(ctx, s, cells)
}

// mirrorAgainstStream: what one mirror carries, from the write on the owner to the acknowledged barrier, against a bare stream of the same host, and against
// one that both ends store, once and without a sync: what pays the same two cores for the least that a mirror has to do.
func mirrorAgainstStream(ctx context.Context, s settings) error {
	var us mirrored
	measure := func(order string) func(context.Context) (sample, error) {
		return func(context.Context) (sample, error) {
			before, began := us.cpu(), time.Now()
			err := us.order(fmt.Sprintf("%s %d", order, pourBytes))
			const mb = pourBytes / 1e6
			return sample{mb / time.Since(began).Seconds(), (us.cpu() - before) / mb}, err
		}
	}
	cells := []cell{{"mirror/one", "MB/s", []contender{
		{name: "ours", measure: measure(orderPour)}, {name: "stream", measure: measure(orderBare), aim: 0.85}, {name: "stored-stream", measure: measure(orderStored)},
	}}}
	if !wanted(s, cells) {
		return errNoCell
	}
	dir, remove, err := folder(s.fast)
	if err != nil {
		return err
	}
	defer remove()
	if us, err = mirrorTo(ctx, dir, dir, s.size, 1); err != nil {
		return err
	}
	defer us.stop()
	return compare(ctx, s, cells)
}
