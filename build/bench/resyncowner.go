package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"tagalong.org/tagalong/app/diskmirror"
	"tagalong.org/tagalong/app/disknbd"
	"tagalong.org/tagalong/p2p"
	"tagalong.org/tagalong/p2p/mirror"
	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/nbd"
)

// Orders to the owner of a resync, beside bare. churn has a number of bytes behind it. The answer is how many bytes that were (of back: of
// content that was sent), twice, and the seconds that it took.
const (
	orderAway   = "away"   // let the peer go
	orderChurn  = "churn"  // write so much, most of it over and over in a few places
	orderBack   = "back"   // bring the peer up to date, and stay with it
	orderForget = "forget" // know nothing any more of what the peer has
	orderFollow = "follow" // begin to bring it up to date, and don't wait
)

// keeper is the owner of a disk with one peer, which comes and goes.
type keeper struct {
	disk   *vmdisk.Store
	host   *p2p.Host
	peer   string
	r      *mathrand.Rand
	leave  context.CancelFunc // ends the mirror
	mirror sync.WaitGroup
	stats  mirror.Stats
}

// resyncOwner has a new, full, active disk, which it serves at socket, and carries out the orders on its standard input until that ends.
func resyncOwner(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("bench resyncowner", flag.ExitOnError)
	dir, at := fs.String("dir", "", "for what it keeps"), fs.String("at", "127.0.0.1", "its IPv4 address")
	size, whom := fs.Int64("bytes", 0, "the disk's size"), fs.String("peer", "", "ID@ADDRESS")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if err := os.MkdirAll(*dir, 0o700); err != nil {
		return err
	}
	log := warnings()
	id, addr, _ := strings.Cut(*whom, "@")
	o := &keeper{peer: id, r: mathrand.New(mathrand.NewPCG(uint64(time.Now().UnixNano()), 1)), leave: func() {}}
	var err error
	if o.disk, err = vmdisk.Create(filepath.Join(*dir, "disk"), vmdisk.NewID(), *size, vmdisk.Options{Reserve: reserve, Log: log}); err != nil {
		return err
	}
	if o.host, err = newHostAt(*dir, *at, fleet{addrs: map[string]string{id: addr}}, log); err != nil {
		return errors.Join(err, o.disk.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	var serving sync.WaitGroup
	serving.Go(func() { _ = o.host.Serve(ctx) }) // its word is that of ctx
	err = prepare(o.disk)
	if err == nil {
		// A socket of ours is made only where nobody else can come in.
		socket := filepath.Join(*dir, "socket.d", "socket")
		l, lerr := nbd.Listen(socket)
		if err = lerr; err == nil {
			serving.Go(func() { _ = (&nbd.Server{Backend: disknbd.Backend{Disk: o.disk}, Log: log}).Serve(ctx, l) })
			fmt.Println(socket)
			err = o.obey(ctx)
		}
	}
	o.away()
	cancel()
	err = errors.Join(err, o.host.Close())
	serving.Wait()
	return errors.Join(err, o.disk.Close())
}

func (o *keeper) obey(ctx context.Context) error {
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		what, much, _ := strings.Cut(in.Text(), " ")
		n, _ := strconv.ParseInt(much, 10, 64) // 0 for those without
		began, err := time.Now(), error(nil)
		switch what {
		case orderAway:
			o.away()
		case orderChurn:
			err = o.churn(n)
		case orderForget:
			o.away()
			err = o.disk.Forget(o.peer)
		case orderFollow:
			err = o.follow(ctx)
		case orderBack:
			n = o.stats.Data.Load()
			if err = o.follow(ctx); err == nil {
				_, err = o.disk.Drain(ctx, o.peer)
			}
			n = o.stats.Data.Load() - n
		case orderBare:
			err = bare(ctx, o.host, o.peer, n)
		default:
			err = errors.New("unknown order")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		fmt.Printf("%d %d %.4f\n", n, n, time.Since(began).Seconds())
	}
	return nil
}

// away ends the mirror.
func (o *keeper) away() {
	o.leave()
	o.mirror.Wait()
}

// churn writes n bytes in pieces of up to 64 KiB, four of five into the same tenth of the disk.
func (o *keeper) churn(n int64) error {
	fill, err := noise()
	if err != nil {
		return err
	}
	p, blocks := make([]byte, 64<<10), o.disk.Size()/vmdisk.Block
	for n > 0 {
		part := p[:min(int64(1+o.r.IntN(16)), n/vmdisk.Block+1)*vmdisk.Block]
		room := blocks - 16
		if o.r.IntN(5) > 0 {
			room /= 10
		}
		fill(part)
		if err := o.disk.WriteAt(part, o.r.Int64N(room)*vmdisk.Block, false); err != nil {
			return err
		}
		n -= int64(len(part))
	}
	return o.disk.Flush()
}

// follow mirrors to the peer from now on, as the product does. It returns when the mirror has begun.
func (o *keeper) follow(ctx context.Context) error {
	changed, stop := o.host.Watch()
	defer stop()
	for !o.host.Connected(o.peer) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
	return o.attach(ctx)
}

func (o *keeper) target() replica.Target {
	return replica.Target{VM: "bench", Disk: replica.ID(o.disk.ID()), Size: o.disk.Size(), Term: o.disk.Info().Term}
}

func (o *keeper) attach(ctx context.Context) error {
	o.away()
	ctx, o.leave = context.WithCancel(ctx)
	s, err := o.host.Open(ctx, o.peer, mirror.Protocol)
	if err != nil {
		return err
	}
	begun, ended := make(chan struct{}), make(chan error, 1)
	o.mirror.Go(func() {
		defer s.Reset()
		var feed *vmdisk.Feed
		ended <- mirror.Send(ctx, s, mirror.Hello{Target: o.target()}, func(st mirror.State) (mirror.Source, error) {
			var err error
			if feed, err = o.disk.Attach(o.peer, diskmirror.ReplicaState(o.disk, st)); err == nil {
				close(begun)
			}
			return diskmirror.Source{Feed: feed}, err
		}, &o.stats)
		if feed != nil {
			feed.Close()
		}
	})
	select {
	case <-begun:
		return nil
	case err := <-ended:
		return err
	}
}
