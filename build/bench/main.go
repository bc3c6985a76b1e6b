// Command bench measures the disk against other people's servers, in the same run on the same computer, what the directory takes, and what a disk gives that isn't there yet:
// build/bench.sh builds and runs it and says how to call it.
//
// What it guarantees: contenders get the same load, on the same kind of file with the same cache mode, in
// interleaved rounds whose order turns around each time; each figure is a ratio within a round, and comes with
// its spread. A contender that fails ends the run: no figure is left out. It leaves neither files nor processes.
//
// What it doesn't: its figures depend on the computer and on what else runs there, so no test asks for them.
//
// Ours is a process of its own, like the peers: this program starts itself as `bench serve`.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"
)

// settings are the options of a run.
type settings struct {
	rounds  int
	seconds time.Duration
	only    string
	size    int64 // of an image, in bytes
	fast    string
	scratch string
}

// benchmarks are the sub-benchmarks by name.
var benchmarks = map[string]func(ctx context.Context, s settings) error{
	"nbd":     benchNBD,
	"flush":   benchFlush,
	"cut":     benchCut,
	"memory":  benchMemory,
	"mirror":  benchMirror,
	"push":    benchPush,
	"day":     benchDay,
	"resync":  benchResync,
	"hydrate": benchHydrate,
	"switch":  benchSwitch,

	"directory": benchDirectory,
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("say what to measure: %s", strings.Join(names(), ", "))
	}
	switch args[0] {
	case "serve":
		return serve(ctx, args[1:])
	case "hold":
		return hold(ctx, args[1:])
	case "dirpeer":
		return dirpeer(ctx, args[1:])
	case "mirrorpeer":
		return mirrorPeer(ctx, args[1:])
	case "pushpeer":
		return pushPeer(ctx, args[1:])
	case "pushowner":
		return pushOwner(ctx, args[1:])
	case "resyncpeer":
		return resyncPeer(ctx, args[1:])
	case "resyncowner":
		return resyncOwner(ctx, args[1:])
	case "hydrateholder":
		return hydrateHolder(ctx, args[1:])
	case "hydrateowner":
		return hydrateOwner(ctx, args[1:])
	case "mirrorowner":
		return mirrorOwner(ctx, args[1:])
	}
	measure := benchmarks[args[0]]
	if measure == nil {
		return fmt.Errorf("there is no benchmark %q, but %s", args[0], strings.Join(names(), ", "))
	}
	var s settings
	fs := flag.NewFlagSet("bench "+args[0], flag.ExitOnError)
	fs.IntVar(&s.rounds, "rounds", 5, "rounds of each cell")
	seconds := fs.Float64("seconds", 2, "seconds of each measurement")
	fs.StringVar(&s.only, "only", "", "only cells whose name has this")
	mib := fs.Int64("mib", 512, "size of an image in MiB")
	fs.StringVar(&s.fast, "fast", "/dev/shm", "a folder on tmpfs")
	fs.StringVar(&s.scratch, "scratch", os.TempDir(), "a folder on a disk")
	if err := fs.Parse(args[1:]); err != nil {
		return err
	}
	if s.rounds < 1 || *seconds <= 0 || *mib < 8 || fs.NArg() > 0 {
		return fmt.Errorf("%q: see build/bench.sh", args)
	}
	s.seconds, s.size = time.Duration(*seconds*float64(time.Second)), *mib<<20
	return measure(ctx, s)
}

func names() []string {
	var list []string
	for n := range benchmarks {
		list = append(list, n)
	}
	sort.Strings(list)
	return list
}

// folder makes a temporary folder below parent, and what removes it.
func folder(parent string) (string, func(), error) {
	dir, err := os.MkdirTemp(parent, "tagalong-bench-")
	if err != nil {
		return "", nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", nil, err
	}
	return dir, func() { _ = os.RemoveAll(dir) }, nil // what stays is in a temporary folder
}
