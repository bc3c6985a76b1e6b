package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"runtime/pprof"
	"sync"

	"tagalong.org/tagalong/app/disknbd"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/nbd"
)

// reserve is what the product keeps free by default, in bytes.
const reserve = 1 << 30

// orderCut is what obey understands.
const orderCut = "cut"

// peerNames are the devices that the disk tracks.
var peerNames = []string{"desk", "laptop", "studio"}

// serve serves a new, full, active disk with three peers until its standard input ends. Without -counting the peers
// are away: what is written is noted for each. With it, they take every write and barrier, and throw it away.
func serve(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("bench serve", flag.ExitOnError)
	dir, socket := fs.String("dir", "", "the disk"), fs.String("socket", "", "where to serve it")
	size, counting := fs.Int64("bytes", 0, "its size"), fs.Bool("counting", false, "peers are attached")
	profile := fs.String("profile", "", "file for a CPU profile of this process")
	if err := fs.Parse(args); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	d, err := vmdisk.Create(*dir, vmdisk.NewID(), *size, vmdisk.Options{Reserve: reserve, Log: log})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	err = func() error {
		if err := prepare(d); err != nil {
			return err
		}
		if err := attach(ctx, &wg, d, *counting); err != nil {
			return err
		}
		stop, err := profiled(*profile)
		if err != nil {
			return err
		}
		defer stop()
		l, err := nbd.Listen(*socket)
		if err != nil {
			return err
		}
		wg.Go(func() {
			obey(ctx, d)
			cancel()
		})
		return (&nbd.Server{Backend: disknbd.Backend{Disk: d}, Log: log}).Serve(ctx, l)
	}()
	cancel()
	err = errors.Join(err, d.Close())
	wg.Wait()
	return err
}

// obey carries out the orders on standard input until that ends. The only one is to take a new cut in the place of the one
// before, of which the first half is copied already.
func obey(ctx context.Context, d *vmdisk.Store) {
	var c *vmdisk.Cut
	defer func() {
		if c != nil {
			_ = c.Close()
		}
	}()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if in.Text() != orderCut {
			fmt.Println("unknown order")
			continue
		}
		// Whoever lost it was measured without.
		if c != nil {
			if err := errors.Join(c.ReadAt(make([]byte, 1), d.Size()-1), c.Close()); err != nil {
				fmt.Println(err)
				return
			}
		}
		var err error
		if c, err = d.Cut(ctx); err != nil {
			fmt.Println(err)
			return
		}
		c.Release(0, d.Size()/2)
		fmt.Println("done")
	}
}

// profiled writes a CPU profile of this process to a file, from now until stop; without a name it does nothing.
func profiled(name string) (stop func(), err error) {
	if name == "" {
		return func() {}, nil
	}
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() {
		pprof.StopCPUProfile()
		_ = f.Close() // a profile that is cut short can't be read, and that is seen
	}, nil
}

// prepare activates a new disk and fills it.
func prepare(d *vmdisk.Store) error {
	if err := d.Activate(1); err != nil {
		return err
	}
	return refill(d)
}

// refill fills an active disk with noise.
func refill(d *vmdisk.Store) error {
	fill, err := noise()
	if err != nil {
		return err
	}
	p := make([]byte, 1<<20)
	for off := int64(0); off < d.Size(); off += int64(len(p)) {
		p = p[:min(d.Size()-off, int64(len(p)))]
		fill(p)
		if err := d.WriteAt(p, off, false); err != nil {
			return err
		}
	}
	return d.Flush()
}

// attach brings the three peers up to date. They stay if counting, else they are known and away, lacking nothing.
func attach(ctx context.Context, wg *sync.WaitGroup, d *vmdisk.Store, counting bool) error {
	for _, name := range peerNames {
		f, err := d.Attach(name, vmdisk.ReplicaState{Disk: d.ID(), Complete: true})
		if err != nil {
			return err
		}
		ended := make(chan error, 1)
		wg.Go(func() { ended <- count(ctx, f) })
		if _, err := d.Drain(ctx, name); err != nil {
			return err
		}
		if counting {
			continue
		}
		f.Close()
		if err := <-ended; !errors.Is(err, vmdisk.ErrClosed) {
			return fmt.Errorf("peer %s: %w", name, err)
		}
	}
	return nil
}

// count is a peer that takes everything at once and keeps nothing.
func count(ctx context.Context, f *vmdisk.Feed) error {
	for {
		op, err := f.Next(ctx)
		if err != nil {
			return err
		}
		if op.Kind == vmdisk.OpBarrier || op.Kind == vmdisk.OpCheckpoint {
			f.Acked(op.Pos)
		}
		op.Release()
	}
}
