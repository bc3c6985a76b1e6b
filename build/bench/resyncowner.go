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
	"sync/atomic"
	"time"

	"tagalong.org/tagalong/app/courtesy"
	"tagalong.org/tagalong/app/diskcompare"
	"tagalong.org/tagalong/app/diskmirror"
	"tagalong.org/tagalong/app/disknbd"
	"tagalong.org/tagalong/p2p"
	differ "tagalong.org/tagalong/p2p/compare"
	"tagalong.org/tagalong/p2p/mirror"
	"tagalong.org/tagalong/p2p/push"
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
	orderFirst  = "pushed" // push all of the disk to it, which has nothing
	orderDiffer = "differ" // find out what it lacks by comparing
	orderSent   = "sent"   // say how much content was sent so far
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
	guests atomic.Pointer[nbd.Server]
}

// served is what guests had of the disk.
func (o *keeper) served() courtesy.Served { return servedBy(o.guests.Load()) }

// servedBy is what guests had of the disks of a server; nil has none yet.
func servedBy(server *nbd.Server) courtesy.Served {
	if server == nil {
		return courtesy.Served{}
	}
	s := server.Stats()
	return courtesy.Served{Requests: s.Reads + s.Writes + s.Flushes + s.Trims + s.Zeroes, Bytes: s.ReadBytes + s.WriteBytes, Took: s.Took, Open: s.Open}
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
	if o.disk, err = vmdisk.Create(filepath.Join(*dir, "disk"), vmdisk.NewID(), *size, vmdisk.Options{Reserve: reserve, Log: log, Copy: courtesy.New(courtesy.Usual, o.served)}); err != nil {
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
			server := &nbd.Server{Backend: disknbd.Backend{Disk: o.disk}, Log: log}
			o.guests.Store(server)
			serving.Go(func() { _ = server.Serve(ctx, l) })
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
		case orderFirst:
			var stats push.Stats
			if o.away(); err == nil {
				err = (&pusher{disk: o.disk, host: o.host, peer: o.peer}).push(ctx, true, &stats)
			}
			n = stats.Content.Load()
		case orderDiffer:
			n, err = o.differ(ctx)
		case orderSent:
			n = o.stats.Data.Load()
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
	if err := o.connected(ctx); err != nil {
		return err
	}
	return o.attach(ctx)
}

// connected waits until the peer is.
func (o *keeper) connected(ctx context.Context) error {
	changed, stop := o.host.Watch()
	defer stop()
	for !o.host.Connected(o.peer) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
	return nil
}

// differ has the disk know what the peer lacks, of which it knows nothing, and returns how many bytes that took on the stream.
func (o *keeper) differ(ctx context.Context) (int64, error) {
	o.away()
	if err := o.connected(ctx); err != nil {
		return 0, err
	}
	s, err := o.host.Open(ctx, o.peer, differ.Protocol)
	if err != nil {
		return 0, err
	}
	defer s.Reset()
	var c *vmdisk.Comparison
	var stats differ.Stats
	err = differ.Run(ctx, s, differ.Hello{Version: differ.Version, Target: o.target()}, func(st differ.State) (differ.Disk, error) {
		var err error
		if c, err = o.disk.Compare(o.peer, diskmirror.ReplicaState(o.disk, o.disk.Size(), st)); err != nil {
			return nil, err
		}
		return diskcompare.Owner(c, func(int64) error { return nil }), nil
	}, &stats)
	if c != nil {
		defer c.Close()
	}
	if err == nil {
		err = c.Finish()
	}
	return stats.Sent.Load() + stats.Received.Load(), err
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
			if feed, err = o.disk.Attach(o.peer, diskmirror.ReplicaState(o.disk, o.disk.Size(), st)); err == nil {
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
