package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"tagalong.org/tagalong/app/courtesy"
	"tagalong.org/tagalong/app/diskmirror"
	"tagalong.org/tagalong/app/disknbd"
	"tagalong.org/tagalong/app/second"
	"tagalong.org/tagalong/p2p"
	"tagalong.org/tagalong/p2p/mirror"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/nbd"
)

// Orders to an owner. All but the first have a number behind them, of bytes or devices.
const (
	orderDrain  = "drain"  // wait until every peer has everything, durably
	orderPour   = "pour"   // write so much to the disk, and drain
	orderBare   = "bare"   // send so much over a bare stream to the first peer
	orderStored = "stored" // the same, and both ends store it
	orderSync   = "sync"   // answer a flush when that many devices have it: 1 or 2
)

// owner is a device that mirrors its disk, as the product does, to all of its peers.
type owner struct {
	dir   string
	disk  *vmdisk.Store
	host  *p2p.Host
	peers []string
	at    int64 // where pour goes on
	gate  *second.Gate
	// guests is what serves the disk, once that has begun.
	guests atomic.Pointer[nbd.Server]
}

// mirrorOwner serves a new, full, active disk that is mirrored to its peers, once they have all of it, until its standard input ends.
func mirrorOwner(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("bench mirrorowner", flag.ExitOnError)
	dir, socket := fs.String("dir", "", "for what it keeps"), fs.String("socket", "", "where to serve the disk")
	profile := fs.String("profile", "", "file for a CPU profile of this process, once the peers have everything")
	size, whom := fs.Int64("bytes", 0, "the disk's size"), fs.String("peers", "", "ID@ADDRESS,…")
	if err := fs.Parse(args); err != nil {
		return err
	}
	log := warnings()
	if err := os.MkdirAll(*dir, 0o700); err != nil {
		return err
	}
	o := &owner{dir: *dir, gate: second.New(func(vmdisk.Elsewhere) second.Why { return second.Held }, func() { log.Warn("A flush waits for a second copy") })}
	f := fleet{addrs: map[string]string{}}
	for _, one := range strings.Split(*whom, ",") {
		id, addr, _ := strings.Cut(one, "@")
		f.addrs[id], o.peers = addr, append(o.peers, id)
	}
	var err error
	options := vmdisk.Options{Reserve: reserve, Log: log, Copy: courtesy.New(courtesy.Usual, func() courtesy.Served { return servedBy(o.guests.Load()) })}
	if o.disk, err = vmdisk.Create(filepath.Join(*dir, "disk"), vmdisk.NewID(), *size, options); err != nil {
		return err
	}
	if o.host, err = newHost(*dir, f, log); err != nil {
		return errors.Join(err, o.disk.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	err = o.run(ctx, cancel, &wg, *socket, *profile, log)
	cancel()
	err = errors.Join(err, o.host.Close())
	wg.Wait()
	return errors.Join(err, o.disk.Close())
}

func (o *owner) run(ctx context.Context, cancel context.CancelFunc, wg *sync.WaitGroup, socket, profile string, log *slog.Logger) error {
	if err := prepare(o.disk); err != nil {
		return err
	}
	wg.Go(func() {
		if err := o.host.Serve(ctx); ctx.Err() == nil {
			log.Error("The host ended", "error", err)
		}
	})
	for _, device := range o.peers {
		wg.Go(func() {
			if err := o.mirror(ctx, device); ctx.Err() == nil {
				log.Error("A mirror ended", "error", err)
				cancel()
			}
		})
	}
	if err := o.drain(ctx); err != nil {
		return err
	}
	stop, err := profiled(profile)
	if err != nil {
		return err
	}
	defer stop()
	l, err := nbd.Listen(socket)
	if err != nil {
		return err
	}
	wg.Go(func() {
		o.obey(ctx)
		cancel()
	})
	server := &nbd.Server{Backend: disknbd.Backend{Disk: o.disk, Second: o.gate.On(o.disk, ctx.Done())}, Log: log}
	o.guests.Store(server)
	return server.Serve(ctx, l)
}

// mirror mirrors to a device, as soon as it is connected, to the end.
func (o *owner) mirror(ctx context.Context, device string) error {
	changed, stop := o.host.Watch()
	defer stop()
	for !o.host.Connected(device) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
	s, err := o.host.Open(ctx, device, mirror.Protocol)
	if err != nil {
		return err
	}
	defer s.Reset()
	target := mirror.Target{VM: "bench", Disk: mirror.ID(o.disk.ID()), Size: o.disk.Size(), Term: o.disk.Info().Term}
	return mirror.Send(ctx, s, mirror.Hello{Target: target}, func(st mirror.State) (mirror.Source, error) {
		feed, err := o.disk.Attach(device, diskmirror.ReplicaState(o.disk, o.disk.Size(), st))
		return diskmirror.Source{Feed: feed}, err
	}, nil)
}

// drain waits until every peer has everything.
func (o *owner) drain(ctx context.Context) error {
	for _, device := range o.peers {
		for {
			_, err := o.disk.Drain(ctx, device)
			if err == nil {
				break
			}
			if !errors.Is(err, vmdisk.ErrDetached) { // it is, until the mirror has begun
				return err
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	return nil
}

// pour writes n bytes to the disk, and waits until they are everywhere.
func (o *owner) pour(ctx context.Context, n int64) error {
	fill, err := noise()
	if err != nil {
		return err
	}
	p := make([]byte, 1<<20)
	fill(p)
	for ; n > 0; n -= int64(len(p)) {
		if o.at+int64(len(p)) > o.disk.Size() {
			o.at = 0
		}
		// What is written faster than it can be sent is sent once only, however often it is written. Nothing is written twice here before
		// it was sent: the writes wait for the slowest peer.
		for o.behind() > bound {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Millisecond):
			}
		}
		if err := o.disk.WriteAt(p, o.at, false); err != nil {
			return err
		}
		o.at += int64(len(p))
	}
	return o.drain(ctx)
}

// bound is how much pour lets wait in a queue, in bytes: half of what it holds.
const bound = 32 << 20

// behind is how much waits for the slowest peer.
func (o *owner) behind() (most int64) {
	for _, p := range o.disk.Peers() {
		most = max(most, p.Queued)
	}
	return most
}

// obey carries out the orders on standard input until that ends.
func (o *owner) obey(ctx context.Context) {
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		what, much, _ := strings.Cut(in.Text(), " ")
		n, _ := strconv.ParseInt(much, 10, 64) // 0 for those without
		var err error
		switch what {
		case orderDrain:
			err = o.drain(ctx)
		case orderPour:
			err = o.pour(ctx, n)
		case orderSync:
			o.gate.Set(n == 2)
		case orderBare:
			err = bare(ctx, o.host, o.peers[0], n)
		case orderStored:
			err = stored(ctx, o.host, o.peers[0], o.dir, n)
		default:
			err = errors.New("unknown order")
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("done")
	}
}
