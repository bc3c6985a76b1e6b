package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"log/slog"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"tagalong.org/tagalong/app/blockindex"
	"tagalong.org/tagalong/app/diskmirror"
	"tagalong.org/tagalong/app/diskpush"
	"tagalong.org/tagalong/p2p"
	"tagalong.org/tagalong/p2p/push"
	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/vmdisk"
)

// pushPeer is a device that takes pushes of a disk, as the product does, and swallows bare streams. It says who and where it is, "ID@ADDRESS", and
// ends when its standard input does.
func pushPeer(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("bench pushpeer", flag.ExitOnError)
	dir, at := fs.String("dir", "", "for what it keeps"), fs.String("at", "127.0.0.1", "its IPv4 address")
	if err := fs.Parse(args); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := os.MkdirAll(*dir, 0o700); err != nil {
		return err
	}
	log := warnings()
	host, err := newHostAt(*dir, *at, fleet{all: true}, log)
	if err != nil {
		return err
	}
	var disk *vmdisk.Store // made by the first stream; there is one at a time
	var index blockindex.Index
	owner := make(chan string, 1)
	host.Handle(push.Protocol, func(ctx context.Context, s p2p.Stream) {
		select {
		case owner <- s.Peer():
		default:
		}
		takePush(ctx, s, &index, log, func(h push.Hello) (_ *vmdisk.Store, err error) {
			if disk == nil {
				disk, err = vmdisk.CreateReplica(filepath.Join(*dir, "disk"), vmdisk.ID(h.Disk), h.Size, vmdisk.Options{Reserve: reserve, Log: log})
			}
			return disk, err
		})
	})
	host.Handle(bareProtocol, func(_ context.Context, s p2p.Stream) {
		if err := swallow(s); err != nil {
			log.Warn("A bare stream ended", "error", err)
		}
	})
	served := make(chan error, 1)
	go func() { served <- host.Serve(ctx) }()
	fmt.Printf("%s@/ip4/%s/tcp/%d\n", host.ID(), *at, host.Port())
	err = probe(ctx, host, owner)
	cancel()
	if serr := <-served; !errors.Is(serr, context.Canceled) {
		err = errors.Join(err, serr)
	}
	err = errors.Join(err, host.Close())
	if disk != nil {
		err = errors.Join(err, disk.Close())
	}
	return err
}

// takePush takes a push to the disk that open returns.
func takePush(ctx context.Context, s p2p.Stream, index *blockindex.Index, log *slog.Logger, open func(push.Hello) (*vmdisk.Store, error)) {
	var applier *vmdisk.Applier
	var look *blockindex.Look
	defer func() { look.Close() }()
	err := push.Receive(ctx, s, func(h push.Hello) (push.Replica, push.State, error) {
		disk, err := open(h)
		if err == nil {
			applier, err = disk.Apply()
		}
		if err != nil {
			return push.Replica{}, push.State{}, err
		}
		sink, err := diskpush.NewSink(applier)
		if err != nil {
			return push.Replica{}, push.State{}, err
		}
		sink.Seen = func(off int64, p []byte) { index.Learn("bench", off, p) }
		r := push.Replica{Sink: sink}
		look = index.Look(!applier.State().Complete, func(_ string, p []byte, off int64) error { return disk.Peek(p, off) })
		if look != nil {
			r.Index = look
		}
		return r, push.State(diskmirror.State(applier.State())), nil
	}, nil)
	if applier != nil {
		err = errors.Join(err, applier.Close())
	}
	if err != nil {
		log.Info("A push ended", "error", err) // the owner was told, and tells
	}
}

// askProtocol is a stream on which each byte is answered with a block.
const askProtocol = "/tagalong/bench/ask/1"

// probe asks the owner for a block for each line on the standard input, and says how long it took, in seconds, until that ends.
func probe(ctx context.Context, host *p2p.Host, owner <-chan string) error {
	var s p2p.Stream
	p := make([]byte, vmdisk.Block)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if s == nil {
			var err error
			if s, err = host.Open(ctx, <-owner, askProtocol); err != nil {
				return err
			}
			defer s.Reset()
		}
		began := time.Now()
		if _, err := s.Write(p[:1]); err != nil {
			return err
		}
		if _, err := io.ReadFull(s, p); err != nil {
			return err
		}
		fmt.Printf("%.6f\n", time.Since(began).Seconds())
	}
	return nil
}

// serveBlock answers with blocks of noise.
func serveBlock(s p2p.Stream) error {
	defer s.Reset()
	fill, err := noise()
	if err != nil {
		return err
	}
	p := make([]byte, vmdisk.Block)
	for {
		if _, err := io.ReadFull(s, p[:1]); err != nil {
			return err
		}
		fill(p)
		if _, err := s.Write(p); err != nil {
			return err
		}
	}
}

// Orders to a pusher, each followed by a number.
const (
	orderScatter = "scatter" // write so many blocks of noise, scattered
	orderDay     = "day"     // write and push a day
	orderPush    = "push"    // push what was written; with 1, without knowing what
)

// pusher is a device that pushes its disk to another one.
type pusher struct {
	disk *vmdisk.Store
	host *p2p.Host
	peer string
	r    *mathrand.Rand
}

// pushOwner has a new, full, active disk, and carries out the orders on its standard input until that ends. It answers each with a line: what went over the
// stream both ways, what of that went there, and the content, in bytes, and how long it took, in seconds.
func pushOwner(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("bench pushowner", flag.ExitOnError)
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
	o := &pusher{peer: id, r: mathrand.New(mathrand.NewPCG(uint64(time.Now().UnixNano()), 1))}
	var err error
	if o.disk, err = vmdisk.Create(filepath.Join(*dir, "disk"), vmdisk.NewID(), *size, vmdisk.Options{Reserve: reserve, Log: log}); err != nil {
		return err
	}
	if o.host, err = newHostAt(*dir, *at, fleet{addrs: map[string]string{id: addr}}, log); err != nil {
		return errors.Join(err, o.disk.Close())
	}
	o.host.Handle(askProtocol, func(_ context.Context, s p2p.Stream) {
		if err := serveBlock(s); err != nil {
			log.Info("A stream of questions ended", "error", err)
		}
	})
	ctx, cancel := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- o.host.Serve(ctx) }()
	err = prepare(o.disk)
	if err == nil {
		fmt.Println("ready")
		err = o.obey(ctx)
	}
	cancel()
	<-served // its word is that of ctx
	return errors.Join(err, o.host.Close(), o.disk.Close())
}

func (o *pusher) obey(ctx context.Context) error {
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		what, much, _ := strings.Cut(in.Text(), " ")
		n, err := strconv.ParseInt(much, 10, 64)
		if err != nil {
			return err
		}
		began := time.Now()
		var stats push.Stats
		switch what {
		case orderScatter:
			err = o.scatter(n)
		case orderPush:
			err = o.push(ctx, n == 1, &stats)
		case orderDay:
			if err = o.day(ctx, os.Stdout); err == nil {
				continue
			}
		case orderBare:
			err = bare(ctx, o.host, o.peer, n)
		default:
			err = errors.New("unknown order")
		}
		if err != nil {
			return err
		}
		fmt.Printf("%d %d %d %.3f\n", stats.Sent.Load()+stats.Received.Load(), stats.Sent.Load(), stats.Content.Load(), time.Since(began).Seconds())
	}
	return nil
}

// scatter writes n different blocks.
func (o *pusher) scatter(n int64) error {
	p, blocks := make([]byte, vmdisk.Block), o.disk.Size()/vmdisk.Block
	fill, err := noise()
	if err != nil {
		return err
	}
	for _, x := range o.r.Perm(int(blocks))[:n] {
		fill(p)
		if err := o.disk.WriteAt(p, int64(x)*vmdisk.Block, false); err != nil {
			return err
		}
	}
	return o.disk.Flush()
}

// push pushes a cut; blindly is without knowing what was written since the last one.
func (o *pusher) push(ctx context.Context, blindly bool, stats *push.Stats) error {
	changed, stop := o.host.Watch()
	defer stop()
	for !o.host.Connected(o.peer) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
	cut, err := o.disk.Cut(ctx)
	if err != nil {
		return err
	}
	defer cut.Close()
	s, err := o.host.Open(ctx, o.peer, push.Protocol)
	if err != nil {
		return err
	}
	defer s.Reset()
	h := push.Hello{Target: replica.Target{VM: "bench", Disk: replica.ID(o.disk.ID()), Size: o.disk.Size(), Term: 1}, Cut: push.Position(cut.Position())}
	return push.Send(ctx, s, h, func(st push.State, holds iter.Seq2[int64, int64]) (push.Work, error) {
		if blindly {
			return diskpush.Work(o.disk, cut, cut.Size(), nil, false, holds), nil
		}
		lacks, exact := diskpush.Lacks(o.disk, cut, o.peer, diskpush.State(o.disk, st), alone{})
		return diskpush.Work(o.disk, cut, cut.Size(), lacks, exact, holds), nil
	}, push.Options{Stats: stats})
}

// alone is the history of a disk that nobody else has ever written, and of whose copies nothing is told.
type alone struct{}

// Has implements diskpush.History.
func (alone) Has(vmdisk.Position) bool { return true }

// Told implements diskpush.History.
func (alone) Told(string) (diskpush.Told, bool) { return diskpush.Told{}, false }
