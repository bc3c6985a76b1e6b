//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"time"
)

// ErrWAN says that a link cannot be shaped as asked.
var ErrWAN = errors.New("a link needs a rate of 0 or 64 kbit/s to 10 Gbit/s, a round trip of 0 to 2 s, and a queue of 0 to 5 s")

// WAN is how a link between two sites is, the same both ways.
type WAN struct {
	// Rate is what passes in bits a second of whole IP packets; 0 is as fast as the computer can.
	Rate int64
	// RoundTrip is how long a packet and its answer are under way, without waiting in a queue.
	RoundTrip time.Duration
	// Queue is how much the router before the link keeps, as time at Rate; what doesn't fit is dropped. 0 is 100 ms.
	Queue time.Duration
}

// HomeWAN is the uplink that Tagalong is measured with: 7 Mbit/s and 40 ms.
var HomeWAN = WAN{Rate: 7_000_000, RoundTrip: 40 * time.Millisecond}

const (
	usualQueue = 100 * time.Millisecond
	mtu        = 1500 // bytes of an IP packet on a link
)

func (w WAN) check() error {
	if w.Rate != 0 && (w.Rate < 64_000 || w.Rate > 10_000_000_000) || w.RoundTrip < 0 || w.RoundTrip > 2*time.Second || w.Queue < 0 || w.Queue > 5*time.Second {
		return fmt.Errorf("%w: %+v", ErrWAN, w)
	}
	return nil
}

// Link is what lies between two sites: a router's bounded queue at either end, and the way. Its methods are safe for concurrent use.
type Link struct {
	ends   [2]*site
	device string // its name in both routers
	pipes  [2]*pipe
	stop   func()

	mu  sync.Mutex // one change at a time
	wan WAN
}

// Link is the one between two sites, nil if there is none.
func (l *Lab) Link(a, b string) *Link {
	i := slices.IndexFunc(l.links, func(k *Link) bool {
		return k.ends[0].name == a && k.ends[1].name == b || k.ends[0].name == b && k.ends[1].name == a
	})
	if i < 0 {
		return nil
	}
	return l.links[i]
}

// Links is all links: one between each two sites.
func (l *Lab) Links() []*Link { return slices.Clone(l.links) }

// Sites is the names of the two sites.
func (k *Link) Sites() (a, b string) { return k.ends[0].name, k.ends[1].name }

// Carried is how many bytes of whole IP packets from this site have come out at the other end; 0 for a site that isn't at the link.
func (k *Link) Carried(from string) int64 {
	for i, s := range k.ends {
		if s.name == from {
			return k.pipes[i].carried.Load()
		}
	}
	return 0
}

// Cut loses everything on the link, what is under way included, without a word to anybody: as when a provider is down.
func (k *Link) Cut() { k.setCut(true) }

// Heal undoes Cut.
func (k *Link) Heal() { k.setCut(false) }

func (k *Link) setCut(cut bool) {
	for _, p := range k.pipes {
		p.setCut(cut)
	}
}

// Shape changes what the link is like; what is under way keeps its delay, what waits in a limited link's queue is lost. Errors: ErrWAN, ErrCommand.
func (k *Link) Shape(ctx context.Context, wan WAN) error {
	if err := wan.check(); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range k.ends {
		if err := k.limit(ctx, s, wan); err != nil {
			return fmt.Errorf("shape link at site %s: %w", s.name, err)
		}
	}
	for _, p := range k.pipes {
		p.delay.Store(int64(wan.RoundTrip / 2))
	}
	k.wan = wan
	return nil
}

// limit puts a token bucket with a bounded queue before the link, in a site's router.
func (k *Link) limit(ctx context.Context, s *site, wan WAN) error {
	if wan.Rate == 0 {
		if k.wan.Rate == 0 {
			return nil
		}
		return run(ctx, "tc", "-n", s.hub, "qdisc", "del", "dev", k.device, "root")
	}
	queue := wan.Queue
	if queue == 0 {
		queue = usualQueue
	}
	if k.wan.Rate != 0 {
		// A packet that waits for more than the new bucket holds would wait for ever, and all others behind it: TCP's are joined up to 64 KiB. So
		// the queue is emptied; what was in it is lost.
		if err := run(ctx, "tc", "-n", s.hub, "qdisc", "del", "dev", k.device, "root"); err != nil {
			return err
		}
	}
	// The bucket refills with the kernel's timers: at high rates it must hold what comes between two of them.
	burst := max(4*mtu, wan.Rate/8/500)
	return run(ctx, "tc", "-n", s.hub, "qdisc", "replace", "dev", k.device, "root", "tbf",
		"rate", strconv.FormatInt(wan.Rate, 10)+"bit", "burst", strconv.FormatInt(burst, 10), "latency", strconv.FormatInt(queue.Microseconds(), 10)+"us")
}

// connect lays a link between two sites and routes what is for the other one over it.
func connect(ctx context.Context, number int, a, b *site, wan WAN) (_ *Link, err error) {
	k := &Link{ends: [2]*site{a, b}, device: "wan" + strconv.Itoa(number)}
	var ports [2]*port
	defer func() {
		if err != nil {
			for _, p := range ports {
				if p != nil {
					err = errors.Join(err, p.Close())
				}
			}
		}
	}()
	for i, s := range k.ends {
		other := k.ends[1-i]
		if ports[i], err = openPort(s.hub, k.device); err != nil {
			return nil, fmt.Errorf("link at site %s: %w", s.name, err)
		}
		for _, step := range [][]string{
			{"-n", s.hub, "link", "set", k.device, "mtu", strconv.Itoa(mtu), "txqueuelen", "1000", "up"},
			{"-n", s.hub, "route", "add", other.prefix().String(), "dev", k.device},
		} {
			if err := ip(ctx, step...); err != nil {
				return nil, err
			}
		}
	}
	k.pipes = [2]*pipe{newPipe(ports[0], ports[1]), newPipe(ports[1], ports[0])}
	if err := k.Shape(ctx, wan); err != nil {
		return nil, err
	}
	k.stop = relay(ports, k.pipes)
	return k, nil
}

// run runs a program that sets up the network.
func run(ctx context.Context, name string, args ...string) error {
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s %v: %w: %s", ErrCommand, name, args, err, out)
	}
	return nil
}
