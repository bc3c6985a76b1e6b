package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tagalong.org/tagalong/directory"
)

const (
	fleetVMs    = 5
	fleetBlocks = 1 << 28 // of a disk of 1 TiB
	fleetStale  = .1      // of them, at random places

	settleTime = 40 * time.Second
)

// stale is a set of random blocks.
type stale struct{ seed uint64 }

func (s stale) Runs() iter.Seq2[uint64, uint64] {
	return func(yield func(uint64, uint64) bool) {
		r := rand.New(rand.NewPCG(s.seed, 1))
		var first, n uint64
		for at := uint64(0); ; at++ {
			at += uint64(math.Log(1-r.Float64()) / math.Log(1-fleetStale))
			if at >= fleetBlocks {
				break
			}
			if n > 0 && first+n == at {
				n++
				continue
			}
			if n > 0 && !yield(first, n) {
				return
			}
			first, n = at, 1
		}
		if n > 0 {
			yield(first, n)
		}
	}
}

// child is another device's directory, a process of its own.
type child struct {
	name, dir, addr string
	cmd             *exec.Cmd
	stdin           io.WriteCloser
	lines           *bufio.Scanner
}

// startChild starts a device's directory, which meets those at addrs.
func startChild(ctx context.Context, name, dir string, addrs ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{name: name, dir: dir}
	c.cmd = exec.CommandContext(ctx, self, "dirpeer", "-dir", dir, "-name", name, "-dial", strings.Join(addrs, ","))
	c.cmd.Stderr = os.Stderr
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	c.lines = bufio.NewScanner(out)
	c.addr, err = c.say("")
	return c, err
}

// say sends the child an order and returns its answer.
func (c *child) say(order string) (string, error) {
	if order != "" {
		if _, err := io.WriteString(c.stdin, order+"\n"); err != nil {
			return "", fmt.Errorf("%s: %w", c.name, err)
		}
	}
	if !c.lines.Scan() {
		return "", errors.Join(fmt.Errorf("%s has ended", c.name), c.lines.Err())
	}
	return c.lines.Text(), nil
}

func (c *child) memory() (h held, err error) {
	text, err := c.say("memory")
	if err == nil {
		err = json.Unmarshal([]byte(text), &h)
	}
	return h, err
}

func (c *child) stop() error {
	_ = c.stdin.Close()
	return c.cmd.Wait()
}

// benchDirectory measures three devices' directories, joined by TCP on this computer, without encryption: what they take with the stale
// sets of five disks of 1 TiB, and how long it takes until a change is durable on both others.
func benchDirectory(ctx context.Context, s settings) error {
	root, remove, err := folder(s.scratch)
	if err != nil {
		return err
	}
	defer remove()
	d, err := openDirectory("a", filepath.Join(root, "a"))
	if err != nil {
		return err
	}
	defer d.Close()
	b, err := startChild(ctx, "b", filepath.Join(root, "b"))
	if err != nil {
		return err
	}
	c, err := startChild(ctx, "c", filepath.Join(root, "c"), b.addr)
	if err != nil {
		return err
	}
	whole := ctx
	ctx, cancel := context.WithCancel(ctx)
	join := &joints{dir: d, self: "a"}
	defer join.wait()
	defer cancel()
	for name, addr := range map[string]string{"b": b.addr, "c": c.addr} {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		join.add(ctx, nc, name)
	}
	children := []*child{b, c}
	agree := func() error {
		want := digest(d)
		for _, x := range children {
			if got, err := x.say("until " + want); err != nil || got != want {
				return errors.Join(fmt.Errorf("%s: %q", x.name, got), err)
			}
		}
		return nil
	}
	// All begin with something to say, so that what they will agree on isn't known yet.
	for settled := false; !settled; time.Sleep(time.Millisecond) {
		settled = true
		for _, x := range children {
			got, err := x.say("digest")
			if err != nil {
				return err
			}
			settled = settled && got == digest(d)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	empty, err := c.memory()
	if err != nil {
		return err
	}

	before := join.bytes.Load()
	var put, all time.Duration
	for i := range fleetVMs {
		vm := fmt.Sprintf("vm%d", i)
		if err := createVM(d, vm); err != nil {
			return err
		}
		began := time.Now()
		if err := d.PutReplica(vm, deviceID("b"), directory.ReplicaInfo{Complete: true}, stale{uint64(i)}); err != nil {
			return err
		}
		put += time.Since(began)
		if err := agree(); err != nil {
			return err
		}
		all += time.Since(began)
	}
	stats := d.ChunkStats()
	full, err := c.memory()
	if err != nil {
		return err
	}
	mib := func(n int64) float64 { return float64(n) / (1 << 20) }
	blocks := float64(fleetVMs) * fleetBlocks * fleetStale
	fmt.Printf("directory/sets vms=%d chunks=%d content=%.1f unit=MiB bits-a-stale-block=%.2f entropy=%.2f\n",
		fleetVMs, stats.Count, mib(stats.Bytes), 8*float64(stats.Bytes)/blocks,
		-math.Log2(fleetStale)-(1-fleetStale)/fleetStale*math.Log2(1-fleetStale))
	fmt.Printf("directory/wire sent-by-owner=%.1f unit=MiB (to two devices, which also ask each other)\n", mib(join.bytes.Load()-before))
	fmt.Printf("directory/first put=%.2f agreed=%.2f unit=s (all of them, one after the other)\n", put.Seconds(), all.Seconds())
	fmt.Printf("directory/memory heap=%.1f resident=%.1f peak=%.1f empty-heap=%.1f empty-resident=%.1f unit=MiB (a receiving device, in all, at once)\n",
		full.Heap, full.Resident, full.Peak, empty.Heap, empty.Resident)

	for _, change := range []struct {
		name string
		do   func(round int) error
	}{
		{"agree-state", func(round int) error { return d.PutVM(fleetVM("vm0", fmt.Sprint("state ", round))) }},
		{"agree-set-empty", func(round int) error {
			return d.PutReplica("vm0", deviceID("c"), directory.ReplicaInfo{Complete: true, Position: directory.Position{Term: 1, Barrier: uint64(round)}}, few{})
		}},
		{"agree-set-few", func(round int) error {
			return d.PutReplica("vm0", deviceID("c"), directory.ReplicaInfo{Complete: true}, few{uint64(round) * 100, 1 << 20, 1 << 27})
		}},
	} {
		var took []float64
		wire := join.bytes.Load()
		for round := range s.rounds + 1 {
			began := time.Now()
			if err := change.do(round); err != nil {
				return err
			}
			if err := agree(); err != nil {
				return err
			}
			if round == 0 {
				wire = join.bytes.Load()
				continue
			}
			took = append(took, float64(time.Since(began).Microseconds())/1000)
		}
		fmt.Printf("directory/%s median=%.1f least=%.1f most=%.1f unit=ms rounds=%d wire=%.1f unit=KiB-a-change-from-owner\n", change.name, median(took),
			slices.Min(took), slices.Max(took), s.rounds, float64(join.bytes.Load()-wire)/1024/float64(s.rounds))
	}
	// Badger gives what a compaction took back little by little.
	select {
	case <-time.After(settleTime):
	case <-ctx.Done():
		return ctx.Err()
	}
	if full, err = c.memory(); err != nil {
		return err
	}
	fmt.Printf("directory/memory-settled heap=%.1f resident=%.1f peak=%.1f unit=MiB (%s later)\n", full.Heap, full.Resident, full.Peak, settleTime)
	cancel() // before the others end
	join.wait()
	for _, x := range children {
		if err := x.stop(); err != nil {
			return fmt.Errorf("%s: %w", x.name, err)
		}
	}
	disk, err := allocated(filepath.Join(c.dir, "db"))
	if err != nil {
		return err
	}
	fmt.Printf("directory/disk db=%.1f unit=MiB (of a receiving device, closed)\n", mib(disk))
	again, err := reopened(whole, c.dir)
	if err != nil {
		return err
	}
	fmt.Printf("directory/reopened heap=%.1f resident=%.1f peak=%.1f unit=MiB\n", again.Heap, again.Resident, again.Peak)
	return nil
}

// reopened is what a directory takes when it has just been opened.
func reopened(ctx context.Context, dir string) (h held, err error) {
	c, err := startChild(ctx, "c", dir)
	if err != nil {
		return h, err
	}
	if h, err = c.memory(); err != nil {
		return h, err
	}
	return h, c.stop()
}

// few are single blocks, in order.
type few []uint64

func (f few) Runs() iter.Seq2[uint64, uint64] {
	return func(yield func(uint64, uint64) bool) {
		for _, block := range f {
			if !yield(block, 1) {
				return
			}
		}
	}
}

// allocated is what the files below dir take on disk, in bytes.
func allocated(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		size, err := onDisk(path)
		n += size
		return err
	})
	return n, err
}
