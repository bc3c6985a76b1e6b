package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// benchHydrate measures what a disk gives all of which is stale, over how long a way, to whom; then over a home's uplink, and to a guest in a LAN.
func benchHydrate(ctx context.Context, s settings) error {
	for _, part := range []func(context.Context, settings) error{benchCurve, benchUplink, benchUnpack} {
		if err := part(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// published is what r3map's authors have published (their thesis, "Results"), in MB/s, by the round trip: reading through a managed mount, with
// pull and without. One computer, the round trip simulated.
var published = map[time.Duration]struct{ pull, demand float64 }{
	0:                     {pull: 2400},
	6 * time.Millisecond:  {demand: 10},
	25 * time.Millisecond: {pull: 500, demand: 10},
	80 * time.Millisecond: {},
}

// roundTrips are the points of the curve.
var roundTrips = []time.Duration{0, 6 * time.Millisecond, 25 * time.Millisecond, 80 * time.Millisecond}

// benchCurve measures reading over ways of several round trips that carry what the processor can.
func benchCurve(ctx context.Context, s settings) (err error) {
	if cells := (&curve{}).cells(s); !wanted(s, cells) {
		return nil
	}
	dir, remove, err := folder(s.fast)
	if err != nil {
		return err
	}
	defer remove()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var c curve
	blank := filepath.Join(dir, "blank")
	holder, said, err := announced(ctx, "hydrateholder", self, "hydrateholder", "-dir", filepath.Join(dir, "holder"), "-blank", blank,
		"-bytes", strconv.FormatInt(s.size, 10), "-profile", profileOf("hydrateholder"))
	if err != nil {
		return err
	}
	defer holder.stop()
	at, err := parseGiven(said)
	if err != nil {
		return err
	}
	if c.path, err = newPath(at.dial()); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.path.close()) }()
	at.addr = fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", c.path.port())
	owner, _, err := announced(ctx, "hydrateowner", append([]string{self}, at.owner(filepath.Join(dir, "owner"), blank, s.size)...)...)
	if err != nil {
		return err
	}
	defer owner.stop()
	c.holder, c.owner = holder, owner
	return compare(ctx, s, c.cells(s))
}

// given is what a holder says: who and where it is, and the position of the hand-off.
type given struct {
	id, addr      string
	term, barrier uint64
}

func parseGiven(line string) (g given, err error) {
	var where string
	if _, err := fmt.Sscan(line, &where, &g.term, &g.barrier); err != nil {
		return g, fmt.Errorf("a holder says %q: %w", line, err)
	}
	g.id, g.addr, _ = strings.Cut(where, "@")
	return g, nil
}

// dial is its address for a dialer.
func (g given) dial() string {
	f := strings.Split(g.addr, "/") // "", ip4, ADDRESS, tcp, PORT
	return f[2] + ":" + f[4]
}

// owner is the command line of who was given its disk.
func (g given) owner(dir, blank string, size int64, more ...string) []string {
	return append([]string{"hydrateowner", "-dir", dir, "-blank", blank, "-bytes", strconv.FormatInt(size, 10), "-peer", g.id + "@" + g.addr,
		"-term", strconv.FormatUint(g.term, 10), "-barrier", strconv.FormatUint(g.barrier, 10), "-profile", profileOf("hydrateowner")}, more...)
}

// curve is a holder and who takes from it over a way.
type curve struct {
	path          *path
	holder, owner *server
}

func (c *curve) cells(s settings) (cells []cell) {
	for _, trip := range roundTrips {
		reads := func(pull int, length time.Duration) func(context.Context) (sample, error) {
			return func(ctx context.Context) (sample, error) {
				return c.rate(ctx, trip, fmt.Sprint(orderSequential, " ", pull, " ", length.Milliseconds()))
			}
		}
		stream := func(name string, how int) contender {
			return contender{name: name, measure: func(ctx context.Context) (sample, error) {
				return c.rate(ctx, trip, fmt.Sprint(orderCarry, " ", s.size, " ", how))
			}}
		}
		constant := func(rate, aim float64) contender {
			return contender{name: "r3map-published", aim: aim, measure: func(context.Context) (sample, error) { return sample{rate: rate}, nil }}
		}
		name := fmt.Sprintf("hydrate/%s-%dms", "%s", trip.Milliseconds())
		pull := cell{name: fmt.Sprintf(name, "pull"), unit: "MB/s", contenders: []contender{
			{name: "ours", measure: reads(1, 0)}, stream("bare-stream", carryBare), stream("kept-stream", carryKept), stream("file-stream", carryFile),
		}}
		if p := published[trip].pull; p > 0 {
			pull.contenders = append(pull.contenders, constant(p, 1))
		}
		demand := cell{name: fmt.Sprintf(name, "demand"), unit: "MB/s", contenders: []contender{
			{name: "ours", measure: reads(0, s.seconds)}, stream("bare-stream", carryBare),
		}}
		if p := published[trip].demand; p > 0 {
			demand.contenders[1] = constant(p, 1)
		}
		cells = append(cells, pull, demand)
		if trip == 0 {
			continue
		}
		// One place here, one there: nothing can be guessed, and each takes the round trip at least.
		cells = append(cells, cell{name: fmt.Sprintf(name, "random"), unit: "ms", contenders: []contender{
			{name: "ours", measure: func(ctx context.Context) (sample, error) { return c.latency(ctx, trip, s.seconds) }},
			{name: "round-trip", measure: func(context.Context) (sample, error) { return sample{rate: trip.Seconds() * 1000}, nil }},
		}})
	}
	return cells
}

// rate has the owner do something at a round trip, and is how fast that went, in MB/s, and what processor time it took both ends for each MB.
func (c *curve) rate(ctx context.Context, trip time.Duration, order string) (sample, error) {
	if err := c.path.take(ctx, trip); err != nil {
		return sample{}, err
	}
	var n int64
	var seconds float64
	before := c.owner.cpu() + c.holder.cpu()
	if err := c.owner.ask(order, &n, &seconds); err != nil {
		return sample{}, err
	}
	mb := float64(n) / 1e6
	return sample{rate: mb / seconds, cpu: (c.owner.cpu() + c.holder.cpu() - before) / mb}, nil
}

// latency is how long a random read takes, the median in milliseconds. One that is faster than the way wasn't stale, or went another way.
func (c *curve) latency(ctx context.Context, trip, length time.Duration) (sample, error) {
	if err := c.path.take(ctx, trip); err != nil {
		return sample{}, err
	}
	var p50, p99 float64
	times := max(10, int(length/max(trip, time.Millisecond)))
	if err := c.owner.ask(fmt.Sprint(orderRandom, " 0 ", times, " 0"), &p50, &p99); err != nil {
		return sample{}, err
	}
	if p50 < trip.Seconds() {
		return sample{}, fmt.Errorf("reads took %v s, and the round trip is %v", p50, trip)
	}
	return sample{rate: p50 * 1000}, nil
}

// ask gives a server an order, and reads its answer into the given variables.
func (s *server) ask(order string, into ...any) error {
	if _, err := fmt.Fprintln(s.stdin, order); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	line, err := s.stdout.ReadString('\n')
	if err == nil {
		_, err = fmt.Sscan(line, into...)
	}
	if err != nil {
		return fmt.Errorf("%s: asked to %s, it said %q: %w", s.name, order, line, err)
	}
	return nil
}
