package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"tagalong.org/tagalong/vmdisk"
)

// memoryAim is the most that a disk of 1 TiB with three peers and a tenth of its blocks dirty may take, in MiB.
const memoryAim = 64

// held is what `bench hold` found, in MiB beyond what the empty disk takes.
type held struct {
	Resident float64 // anonymous memory after a collection
	Heap     float64 // of it, what is in use
	Peak     float64 // the most that the process had, with what the collector hadn't taken back
}

// benchMemory prints one line for each way in which a tenth of the blocks may lie.
func benchMemory(ctx context.Context, s settings) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	found := false
	for _, p := range []struct {
		name string
		run  int
	}{{"scattered", 1}, {"runs-of-16", 16}, {"runs-of-1024", 1024}} {
		name := "memory/1TiB-" + p.name
		if !strings.Contains(name, s.only) {
			continue
		}
		found = true
		dir, remove, err := folder(s.fast)
		if err != nil {
			return err
		}
		out, err := tool(ctx, self, "hold", "-dir", filepath.Join(dir, "disk"), "-run", strconv.Itoa(p.run))
		remove()
		if err != nil {
			return err
		}
		var h held
		if err := json.Unmarshal(out, &h); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		fmt.Printf("%s resident=%.1f heap=%.1f peak=%.1f unit=MiB aim=%d\n", name, h.Resident, h.Heap, h.Peak, memoryAim)
	}
	if !found {
		return fmt.Errorf("no cell has %q in its name", s.only)
	}
	return nil
}

// hold makes a disk of 1 TiB with three peers that are away, dirties a tenth of its blocks in runs at random
// places, and says what that takes.
func hold(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("bench hold", flag.ExitOnError)
	dir, run := fs.String("dir", "", "the disk"), fs.Int64("run", 1, "dirty blocks in a row")
	size := fs.Int64("bytes", 1<<40, "size of the disk")
	if err := fs.Parse(args); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	d, err := vmdisk.Create(*dir, vmdisk.NewID(), *size, vmdisk.Options{Reserve: reserve, Log: log})
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Activate(1); err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	if err := attach(ctx, &wg, d, false); err != nil {
		return err
	}
	before, err := memory()
	if err != nil {
		return err
	}
	n := *run * vmdisk.Block
	for off := int64(0); off < d.Size(); off += n {
		if rand.IntN(10) != 0 {
			continue
		}
		// A trim marks blocks like a write, and takes no space here.
		if err := d.Trim(off, min(n, d.Size()-off), false); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	after, err := memory()
	if err != nil {
		return err
	}
	return json.NewEncoder(io.Writer(os.Stdout)).Encode(held{
		after.Resident - before.Resident, after.Heap - before.Heap, after.Peak - before.Resident,
	})
}

// memory is what this process takes now.
func memory() (h held, err error) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	h.Heap = float64(m.HeapAlloc) / (1 << 20)
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return h, err
	}
	var file float64
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
		if err != nil {
			continue
		}
		switch key {
		case "RssAnon":
			h.Resident = kib / 1024
		case "RssFile":
			file = kib / 1024
		case "VmHWM":
			h.Peak = kib / 1024
		}
	}
	h.Peak -= file
	return h, nil
}
