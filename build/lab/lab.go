//go:build linux

// Package lab makes PCs for tests out of network namespaces: hosts with an
// address each on one Ethernet, real multicast included, whose cables can be
// pulled. Or on several, the sites: packets between two of those, but no
// multicast, take a link with a rate, a delay and a bounded queue, which counts
// what it carries and can be cut (WAN, Link).
//
// What it guarantees: the network of the computer it runs on stays as it is (the
// bridge has a namespace of its own); Close ends what still runs inside and
// removes everything; what a killed run has left behind, the next New or Sweep
// removes. What it does not: hosts share the file system, the processes' numbers
// and the clock; there is no way out to the internet; each two sites have a link
// of their own, so a site's links don't share one uplink; a link's delay grows
// with the computer's load, its rate doesn't.
//
// It needs root or, through Enter, a system that lets users have user
// namespaces; and iproute2 (build/deps.sh test).
//
// Test it with: go test ./build/lab/
package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
)

// What this package may answer.
var (
	// ErrPrivilege says that this process may not make network namespaces.
	ErrPrivilege = errors.New("making test hosts needs root: run this as root (sudo), or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1)")
	// ErrName says that a host's name cannot be used.
	ErrName = errors.New("a host's name must be unique and 1 to 32 small letters and digits")
	// ErrTooMany says that there are no addresses for so many hosts.
	ErrTooMany = errors.New("too many hosts")
	// ErrCommand says that a command which sets up the network failed.
	ErrCommand = errors.New("command failed")
)

const (
	maxHosts = 250 // of a site
	maxSites = 16
	bridge   = "br0"
	device   = "eth0"
	// cleanup bounds how long Close and Sweep take.
	cleanup = 30 * time.Second
)

var hostName = regexp.MustCompile(`^[a-z0-9]{1,32}$`)

// labs counts the labs of this process, for their names.
var labs atomic.Int64

// Lab is a set of hosts. Its methods are safe for concurrent use, except Close,
// which comes last.
type Lab struct {
	sites []*site
	links []*Link
	hosts []*Host
}

// Site is a place with an Ethernet of its own.
type Site struct {
	Name  string // as a host's name
	Hosts []string
}

// site is a Site that was made.
type site struct {
	name  string
	index int
	hub   string // the bridge's namespace, and the router's
}

// prefix is the site's addresses.
func (s *site) prefix() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 97, byte(s.index), 0}), 24)
}

// router is the address through which the other sites are reached.
func (s *site) router() netip.Addr {
	return netip.AddrFrom4([4]byte{10, 97, byte(s.index), 254})
}

// Host is one PC of a lab.
type Host struct {
	name  string
	netns string
	site  *site
	port  string // its end of the cable at the bridge
	addr  netip.Addr
}

// New makes hosts with the given names, the first with the address 10.97.0.1
// and so on, all connected. First it removes what dead runs have left. Close it.
// Errors: ErrPrivilege, ErrName, ErrTooMany, ErrCommand.
func New(ctx context.Context, names ...string) (*Lab, error) {
	return NewSites(ctx, WAN{}, Site{Name: "lan", Hosts: names})
}

// NewSites makes sites with a link between each two, all of one kind to begin
// with: hosts of the first have the addresses 10.97.0.1 and so on, of the second
// 10.97.1.1. With more than one site the hosts' TCP is cubic, or reno where a namespace
// may not have that, whatever the computer's own is. Otherwise it does as New. Errors: ErrWAN, and
// those of New.
func NewSites(ctx context.Context, wan WAN, sites ...Site) (*Lab, error) {
	if err := errors.Join(checkNames(sites), wan.check()); err != nil {
		return nil, fmt.Errorf("make lab: %w", err)
	}
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("make lab: %w", ErrPrivilege)
	}
	if err := Sweep(ctx); err != nil {
		return nil, fmt.Errorf("make lab: %w", err)
	}
	prefix, err := ownPrefix()
	if err != nil {
		return nil, fmt.Errorf("make lab: %w", err)
	}
	prefix += strconv.FormatInt(labs.Add(1), 10) + "-"
	l := &Lab{}
	if err := l.build(ctx, prefix, wan, sites); err != nil {
		return nil, errors.Join(fmt.Errorf("make lab: %w", err), l.Close())
	}
	return l, nil
}

func checkNames(sites []Site) error {
	if len(sites) > maxSites {
		return fmt.Errorf("%w: %d sites, at most %d", ErrTooMany, len(sites), maxSites)
	}
	var places, names []string
	for _, s := range sites {
		places, names = append(places, s.Name), append(names, s.Hosts...)
		if len(s.Hosts) > maxHosts {
			return fmt.Errorf("%w: %d, at most %d", ErrTooMany, len(s.Hosts), maxHosts)
		}
	}
	for _, list := range [][]string{places, names} {
		for i, n := range list {
			if !hostName.MatchString(n) || slices.Contains(list[:i], n) {
				return fmt.Errorf("%w: %q", ErrName, n)
			}
		}
	}
	return nil
}

func (l *Lab) build(ctx context.Context, prefix string, wan WAN, sites []Site) error {
	several := len(sites) > 1
	for i, place := range sites {
		// No host can have this name: it has capitals.
		s := &site{name: place.Name, index: i, hub: prefix + "HUB" + strconv.Itoa(i)}
		l.sites = append(l.sites, s)
		if err := s.build(ctx, several); err != nil {
			return fmt.Errorf("site %s: %w", s.name, err)
		}
		for j, name := range place.Hosts {
			h := &Host{
				name:  name,
				netns: prefix + name,
				site:  s,
				port:  "p" + strconv.Itoa(j),
				addr:  netip.AddrFrom4([4]byte{10, 97, byte(i), byte(j + 1)}),
			}
			l.hosts = append(l.hosts, h)
			if err := h.build(ctx, several); err != nil {
				return fmt.Errorf("host %s: %w", name, err)
			}
		}
	}
	for i, a := range l.sites {
		for _, b := range l.sites[i+1:] {
			k, err := connect(ctx, len(l.links), a, b, wan)
			if err != nil {
				return err
			}
			l.links = append(l.links, k)
		}
	}
	return nil
}

func (s *site) build(ctx context.Context, routes bool) error {
	steps := [][]string{
		{"netns", "add", s.hub},
		// Without snooping, multicast reaches everyone from the first packet.
		{"-n", s.hub, "link", "add", bridge, "type", "bridge", "mcast_snooping", "0", "forward_delay", "0"},
		{"-n", s.hub, "link", "set", bridge, "up"},
	}
	if routes {
		steps = append(steps, []string{"-n", s.hub, "addr", "add", s.router().String() + "/24", "dev", bridge})
	}
	for _, step := range steps {
		if err := ip(ctx, step...); err != nil {
			return err
		}
	}
	if !routes {
		return nil
	}
	return inNamespace(s.hub, func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) })
}

func (h *Host) build(ctx context.Context, routed bool) error {
	if err := ip(ctx, "netns", "add", h.netns); err != nil {
		return err
	}
	if err := h.Do(skipAddressDetection); err != nil {
		return err
	}
	hub := h.site.hub
	steps := [][]string{
		{"-n", hub, "link", "add", h.port, "type", "veth", "peer", "name", device, "netns", h.netns},
		{"-n", h.netns, "link", "set", "lo", "up"},
		{"-n", h.netns, "addr", "add", h.addr.String() + "/24", "brd", "+", "dev", device},
		{"-n", h.netns, "link", "set", device, "up"},
		{"-n", h.netns, "route", "add", "224.0.0.0/4", "dev", device},
		{"-n", hub, "link", "set", h.port, "master", bridge},
		{"-n", hub, "link", "set", h.port, "up"},
	}
	if routed {
		steps = append(steps, []string{"-n", h.netns, "route", "add", "default", "via", h.site.router().String()})
	}
	for _, s := range steps {
		if err := ip(ctx, s...); err != nil {
			return err
		}
	}
	if !routed {
		return nil
	}
	return h.Do(useUsualTCP)
}

// useUsualTCP takes the congestion control that people's PCs have. Not every
// system allows it in a namespace; the other one it comes from is always allowed.
func useUsualTCP() error {
	const file = "/proc/sys/net/ipv4/tcp_congestion_control"
	if os.WriteFile(file, []byte("cubic"), 0) == nil {
		return nil
	}
	return os.WriteFile(file, []byte("reno"), 0)
}

// skipAddressDetection makes IPv6 addresses usable at once; nobody else is there
// to have them.
func skipAddressDetection() error {
	for _, c := range []string{"all", "default"} {
		err := os.WriteFile("/proc/sys/net/ipv6/conf/"+c+"/accept_dad", []byte("0"), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("skip address detection: %w", err)
		}
	}
	return nil
}

// Hosts is all hosts, in the order of their names in New.
func (l *Lab) Hosts() []*Host { return slices.Clone(l.hosts) }

// Host is the host of that name, nil if there is none.
func (l *Lab) Host(name string) *Host {
	i := slices.IndexFunc(l.hosts, func(h *Host) bool { return h.name == name })
	if i < 0 {
		return nil
	}
	return l.hosts[i]
}

// Close kills what still runs on the hosts and removes them.
func (l *Lab) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), cleanup)
	defer cancel()
	for _, k := range l.links {
		k.stop()
	}
	var errs []error
	for _, h := range l.hosts {
		errs = append(errs, remove(ctx, h.netns))
	}
	for _, s := range l.sites {
		errs = append(errs, remove(ctx, s.hub))
	}
	return errors.Join(errs...)
}

// ip runs ip(8).
func ip(ctx context.Context, args ...string) error {
	_, err := ipOutput(ctx, args...)
	return err
}

func ipOutput(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "ip", args...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		if bytes.Contains(said.Bytes(), []byte("Operation not permitted")) {
			err = errors.Join(ErrPrivilege, err)
		}
		return "", fmt.Errorf("%w: ip %v: %w: %s", ErrCommand, args, err, bytes.TrimSpace(said.Bytes()))
	}
	return out.String(), nil
}
