//go:build linux

// Package lab makes PCs for tests out of network namespaces: hosts with an
// address each on one Ethernet, real multicast included, whose cables can be
// pulled.
//
// What it guarantees: the network of the computer it runs on stays as it is (the
// bridge has a namespace of its own); Close ends what still runs inside and
// removes everything; what a killed run has left behind, the next New or Sweep
// removes. What it does not: hosts share the file system, the processes' numbers
// and the clock; there is no way out to the internet.
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
	maxHosts = 250
	bridge   = "br0"
	device   = "eth0"
	// cleanup bounds how long Close and Sweep take.
	cleanup = 30 * time.Second
)

var hostName = regexp.MustCompile(`^[a-z0-9]{1,32}$`)

// labs counts the labs of this process, for their names.
var labs atomic.Int64

// Lab is a set of hosts on one Ethernet. Its methods are safe for concurrent
// use, except Close, which comes last.
type Lab struct {
	hub   string // the bridge's namespace
	hosts []*Host
}

// Host is one PC of a lab.
type Host struct {
	name  string
	netns string
	hub   string
	port  string // its end of the cable at the bridge
	addr  netip.Addr
}

// New makes hosts with the given names, the first with the address 10.97.0.1
// and so on, all connected. First it removes what dead runs have left. Close it.
// Errors: ErrPrivilege, ErrName, ErrTooMany, ErrCommand.
func New(ctx context.Context, names ...string) (*Lab, error) {
	if err := checkNames(names); err != nil {
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
	// No host can have this name: it has a capital.
	l := &Lab{hub: prefix + "HUB"}
	if err := l.build(ctx, prefix, names); err != nil {
		return nil, errors.Join(fmt.Errorf("make lab: %w", err), l.Close())
	}
	return l, nil
}

func checkNames(names []string) error {
	if len(names) > maxHosts {
		return fmt.Errorf("%w: %d, at most %d", ErrTooMany, len(names), maxHosts)
	}
	for i, n := range names {
		if !hostName.MatchString(n) || slices.Contains(names[:i], n) {
			return fmt.Errorf("%w: %q", ErrName, n)
		}
	}
	return nil
}

func (l *Lab) build(ctx context.Context, prefix string, names []string) error {
	steps := [][]string{
		{"netns", "add", l.hub},
		// Without snooping, multicast reaches everyone from the first packet.
		{"-n", l.hub, "link", "add", bridge, "type", "bridge", "mcast_snooping", "0", "forward_delay", "0"},
		{"-n", l.hub, "link", "set", bridge, "up"},
	}
	for _, s := range steps {
		if err := ip(ctx, s...); err != nil {
			return err
		}
	}
	for i, name := range names {
		h := &Host{
			name:  name,
			netns: prefix + name,
			hub:   l.hub,
			port:  "p" + strconv.Itoa(i),
			addr:  netip.AddrFrom4([4]byte{10, 97, 0, byte(i + 1)}),
		}
		l.hosts = append(l.hosts, h)
		if err := h.build(ctx); err != nil {
			return fmt.Errorf("host %s: %w", name, err)
		}
	}
	return nil
}

func (h *Host) build(ctx context.Context) error {
	if err := ip(ctx, "netns", "add", h.netns); err != nil {
		return err
	}
	if err := h.Do(skipAddressDetection); err != nil {
		return err
	}
	for _, s := range [][]string{
		{"-n", h.hub, "link", "add", h.port, "type", "veth", "peer", "name", device, "netns", h.netns},
		{"-n", h.netns, "link", "set", "lo", "up"},
		{"-n", h.netns, "addr", "add", h.addr.String() + "/24", "brd", "+", "dev", device},
		{"-n", h.netns, "link", "set", device, "up"},
		{"-n", h.netns, "route", "add", "224.0.0.0/4", "dev", device},
		{"-n", h.hub, "link", "set", h.port, "master", bridge},
		{"-n", h.hub, "link", "set", h.port, "up"},
	} {
		if err := ip(ctx, s...); err != nil {
			return err
		}
	}
	return nil
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
	var errs []error
	for _, h := range l.hosts {
		errs = append(errs, remove(ctx, h.netns))
	}
	errs = append(errs, remove(ctx, l.hub))
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
