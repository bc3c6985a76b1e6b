package crash

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/vfs"
)

var (
	only    = flag.String("crash.only", "", "the only workload of TestExhaustive, such as \"live a w f\"")
	longest = flag.Int("crash.longest", 3, "how many operations the longest workloads of TestExhaustive have")
	some    = flag.Int("crash.some", 1, "how many arbitrary losses each crash point of TestExhaustive gets")
)

const (
	block  = vmdisk.Block
	border = 4 << 20 // between two regions of the activity log
)

// operation is one letter of a workload.
type operation struct {
	name byte
	do   func(w *world) error
}

var operations = []operation{
	{'w', func(w *world) error { return w.write(block, block, false) }},
	{'W', func(w *world) error { return w.write(border-2*block, 4*block, false) }},
	{'o', func(w *world) error { return w.write(block, 2*block, false) }},
	{'u', func(w *world) error { return w.write(block+3*cell, block+2*cell, false) }},
	{'z', func(w *world) error { return w.zero(border-block, 2*block, false, false) }},
	{'t', func(w *world) error { return w.trim(cell, 2*block, false) }},
	{'Z', func(w *world) error { return w.zero(block, block, true, true) }},
	{'F', func(w *world) error { return w.write(w.owner.Size()-block, block, true) }},
	{'G', (*world).grow},
	{'f', (*world).flush},
	{'s', (*world).save},
	{'x', (*world).fence},
	{'g', (*world).give},
	{'r', (*world).restart},
	{'a', (*world).attach},
	{'p', (*world).deliver},
	{'k', (*world).ack},
	{'h', (*world).hash},
	{'c', (*world).takeCut},
}

// start is what disks contain when a workload begins.
type start struct {
	name   string
	om, rm *vfs.Mem
	m      *told
	stamp  uint64
	open   func(w *world) error // after opening
}

func (s start) world() (*world, error) {
	w, err := newWorld(s.om.After(vfs.LoseNothing, 0), s.rm.After(vfs.LoseNothing, 0), s.m)
	if err != nil {
		return nil, err
	}
	w.stamp = s.stamp
	if s.open != nil {
		err = s.open(w)
	}
	return w, err
}

// starts are: a new disk with a new replica; one that is followed, with recorded hashes; and one whose owner died while it was followed, with
// most regions logged and something not sent.
func starts(t *testing.T) []start {
	t.Helper()
	om, rm := vfs.NewMem(), vfs.NewMem()
	d, err := vmdisk.Create("", diskID, diskSize, options(om))
	must(t, err)
	must(t, d.Activate(1))
	must(t, d.Close())
	r, err := vmdisk.CreateReplica("", diskID, diskSize, options(rm))
	must(t, err)
	must(t, r.Close())
	fresh := start{"fresh", om, rm, &told{term: 1, cells: map[int64]state{}, history: map[vmdisk.Position]values{}, size: diskSize, growing: diskSize}, 100, nil}

	w, err := fresh.world()
	must(t, err)
	must(t, w.write(0, 3*block, false))
	must(t, w.write(border-3*block, 6*block, false))
	must(t, w.attach())
	must(t, w.deliver())
	must(t, w.ack())
	must(t, w.write(3*block, block, false))
	must(t, w.attach())
	must(t, w.save()) // regions that are logged, or in the epoch log, get no hashes
	must(t, w.hash())
	must(t, w.close())
	live := start{name: "live", om: w.om, rm: w.rm, m: w.m.flushed(), stamp: 200, open: func(w *world) error {
		more := func() error { return w.write(border+9*block, block, true) }
		// Attached twice, so that it is stored that the peer lacks nothing; then a little more, so that the replica has
		// an epoch in its log, for a region with hashes.
		for _, do := range []func() error{w.attach, w.deliver, w.ack, w.attach, w.attach, w.deliver, w.ack, more, w.deliver, w.ack} {
			if err := do(); err != nil && !errors.Is(err, errNothing) {
				return err
			}
		}
		return nil
	}}
	live.m = live.m.but(func(m *told) { m.active = false })

	w, err = live.world()
	must(t, err)
	for off := int64(0); off < diskSize; off += border {
		must(t, w.write(off+5*block, block, false))
	}
	must(t, w.flush())
	must(t, w.deliver())
	must(t, w.write(3*block, block, false))
	dead := start{name: "dead", stamp: 300, om: w.om.After(vfs.LoseNothing, 0), rm: w.rm.After(vfs.LoseNothing, 0)}
	dead.m = w.m.flushed().but(func(m *told) { m.active = false })
	must(t, w.close())
	return []start{fresh, live, dead}
}

// TestExhaustive visits every crash point of every workload of up to three operations: of each those in its last, as
// the others belong to the shorter workloads.
func TestExhaustive(t *testing.T) {
	all := starts(t)
	if *only != "" {
		for _, s := range all {
			if f := strings.Fields(*only); s.name == f[0] {
				c := &visitor{r: rand.New(rand.NewPCG(1, 0)), some: 50, second: 1, thorough: 1}
				must(t, s.run(c, strings.Join(f[1:], "")))
				t.Logf("%d crash points", c.count)
			}
		}
		return
	}
	var works []func(c *visitor) error
	for _, s := range all {
		for _, list := range words(*longest) {
			if s.name == "dead" && len(list) == *longest {
				continue
			}
			if len(list) > 2 && strings.Contains(list, "G") && *longest == 3 {
				continue // TestRandom has them
			}
			works = append(works, func(c *visitor) error {
				c.some, c.second, c.thorough = *some, 250, 4
				if len(list) < 3 {
					c.some, c.second, c.thorough = 2**some, 3*len(list)-2, 1
				}
				if err := s.run(c, list); err != nil {
					return fmt.Errorf("-crash.only=\"%s %s\": %w", s.name, list, err)
				}
				return nil
			})
		}
	}
	visited := inParallel(t, works)
	t.Logf("%d crash points of %d workloads", visited, len(works))
	if visited < 100_000 && *longest > 2 {
		t.Errorf("only %d crash points were visited", visited)
	}
}

// inParallel does all works and returns how many crash points they visited.
func inParallel(t *testing.T, works []func(c *visitor) error) int64 {
	var visited, next atomic.Int64
	t.Run("all", func(t *testing.T) {
		for part := range 4 {
			t.Run(fmt.Sprint(part), func(t *testing.T) {
				t.Parallel()
				for i := next.Add(1) - 1; i < int64(len(works)) && !t.Failed(); i = next.Add(1) - 1 {
					c := &visitor{r: rand.New(rand.NewPCG(uint64(i), 0))}
					if err := works[i](c); err != nil {
						t.Error(err)
					}
					visited.Add(int64(c.count))
				}
			})
		}
	})
	return visited.Load()
}

// words are all workloads of 1 to n operations.
func words(n int) []string {
	last, out := []string{""}, []string(nil)
	for range n {
		var longer []string
		for _, w := range last {
			for _, op := range operations {
				longer = append(longer, w+string(op.name))
			}
		}
		out, last = append(out, longer...), longer
	}
	return out
}

func operate(w *world, name byte) error {
	for _, op := range operations {
		if op.name == name {
			return op.do(w)
		}
	}
	return fmt.Errorf("no operation is called %q", name)
}

// run does a workload and visits the crash points of its last operation. One in which an operation does nothing is a
// shorter one, and left out.
func (s start) run(c *visitor, list string) (err error) {
	list = strings.ReplaceAll(list, " ", "")
	w, err := s.world()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	for i := range len(list) {
		if i == len(list)-1 {
			w.trace()
		}
		err := operate(w, list[i])
		if errors.Is(err, errNothing) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("operation %d: %w", i+1, err)
		}
	}
	if err := w.finish(c.r.Uint64()); err != nil {
		return err
	}
	for i, p := range w.points {
		if err := c.visit(p); err != nil {
			return fmt.Errorf("crash point %d of %d: %w", i+1, len(w.points), err)
		}
	}
	return nil
}
