package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/build/lab"
	"tagalong.org/tagalong/build/story"
)

// ourMover moves the guest with the product: an engine on each PC, the disk mirrored on the LAN and pushed over the slow line.
type ourMover struct {
	binary, image, dir string
	line               switchLine

	fleet *story.Fleet
	vm    api.VM
}

const (
	switchDesk, switchLaptop = "desk", "laptop"
)

// switchSites is where the PCs are.
func switchSites(l switchLine) []lab.Site {
	if l.far {
		return []lab.Site{{Name: "home", Hosts: []string{switchDesk}}, {Name: "office", Hosts: []string{switchLaptop}}}
	}
	return []lab.Site{{Name: "lan", Hosts: []string{switchDesk, switchLaptop}}}
}

func (m *ourMover) boot(ctx context.Context) (err error) {
	o := story.Options{Binary: m.binary, Image: m.image, Dir: m.dir, Out: io.Discard, Sites: switchSites(m.line)}
	if os.Getenv("BENCH_VERBOSE") != "" {
		o.Out = os.Stderr
	}
	if m.line.far {
		o.WAN = lab.WAN{RoundTrip: m.line.wan.RoundTrip} // the first copy isn't what is measured
	}
	if m.fleet, err = story.BeginFleet(ctx, o, switchDesk, switchLaptop); err != nil {
		return err
	}
	if err := m.fleet.Make(ctx, switchDesk, story.VMName); err != nil {
		return err
	}
	c, _, err := m.fleet.Boot(ctx, switchDesk, story.VMName)
	if err != nil {
		return err
	}
	if err := c.Close(); err != nil {
		return err
	}
	m.vm, err = m.fleet.UntilVM(ctx, m.fleet.PC(switchDesk), story.VMName, "a copy on the other PC", func(v api.VM) bool {
		return len(v.Replicas) == 1 && v.Replicas[0].Position != api.Position{}
	})
	if err != nil || !m.line.far {
		return err
	}
	return m.fleet.Lab.Links()[0].Shape(ctx, m.line.wan)
}

func (m *ourMover) hosts() []*lab.Host { return m.fleet.Lab.Hosts() }

// run is the VM's folder on a PC while it runs.
func (m *ourMover) run(pc int) string {
	return filepath.Join(filepath.Dir(api.SocketPath(m.fleet.PCs[pc].Data)), m.vm.ID[:12])
}

func (m *ourMover) console(pc int) string { return filepath.Join(m.run(pc), "console.sock") }

func (m *ourMover) pid(pc int) (int, error) {
	text, err := os.ReadFile(filepath.Join(m.run(pc), "qemu.pid"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

func (m *ourMover) ready(ctx context.Context, from, to int) error {
	if m.line.far {
		return nil
	}
	return m.fleet.AwaitLive(ctx, m.fleet.PCs[from].Name, story.VMName, 1)
}

func (m *ourMover) move(ctx context.Context, from, to int) error {
	taker := m.fleet.PCs[to]
	if _, err := taker.Client.Switch(ctx, api.SwitchVM{VM: story.VMName}); err != nil {
		return err
	}
	began, phase := time.Now(), api.SwitchPhase("")
	for {
		v, err := taker.VM(ctx, story.VMName)
		if err != nil {
			return err
		}
		if v.Switch != nil && v.Switch.Phase != phase && os.Getenv("BENCH_VERBOSE") != "" {
			phase = v.Switch.Phase
			fmt.Fprintf(os.Stderr, "    %v %s, %d bytes of memory\n", time.Since(began).Round(time.Millisecond), phase, v.Switch.Memory)
		}
		if v.Switch != nil && v.Switch.Phase.Ended() {
			if v.Switch.Phase != api.PhaseDone {
				return fmt.Errorf("it ended as %s: %w\n%s\n%s", v.Switch.Phase, v.Switch.Error, m.fleet.PCs[from].LastWords(), taker.LastWords())
			}
			return nil
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return errors.Join(err, errors.New(m.fleet.LastWords()))
		}
	}
}

// disk implements mover: the disk is there.
func (m *ourMover) disk() time.Duration { return 0 }

// settled waits until nothing of the disk is lacking.
func (m *ourMover) settled(ctx context.Context, from, to int) error {
	_, err := m.fleet.UntilVM(ctx, m.fleet.PCs[to], story.VMName, "whole", func(v api.VM) bool { return v.Hydration == nil })
	return err
}

func (m *ourMover) close() error {
	if m.fleet == nil {
		return nil
	}
	if os.Getenv("BENCH_VERBOSE") != "" {
		for _, p := range m.fleet.PCs {
			for line := range strings.Lines(p.LastWords()) {
				if strings.Contains(line, "stands still") || strings.Contains(line, "goes on here") {
					fmt.Fprint(os.Stderr, p.Name, ": ", line)
				}
			}
		}
	}
	return m.fleet.Close()
}
