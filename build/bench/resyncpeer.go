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
	"time"

	"tagalong.org/tagalong/app/blockindex"
	"tagalong.org/tagalong/app/diskcompare"
	"tagalong.org/tagalong/app/diskmirror"
	"tagalong.org/tagalong/p2p"
	differ "tagalong.org/tagalong/p2p/compare"
	"tagalong.org/tagalong/p2p/mirror"
	"tagalong.org/tagalong/p2p/push"
	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/vmdisk"
)

// Orders to the peer of a resync; the second has a number of bytes behind it.
const (
	orderWipe = "wipe" // be a device that never had a copy
	orderPut  = "put"  // write so much to the disk that the copy is on, one place after the other, and sync it
)

// returner is a device with a copy of a disk: it takes mirrors, pushes and comparisons, as the product does, and swallows bare streams.
type returner struct {
	dir string
	log *slog.Logger

	mu   sync.Mutex // one stream at a time, and none while it wipes
	disk *vmdisk.Store
}

// resyncPeer says who and where it is, "ID@ADDRESS", and carries out the orders on its standard input until that ends.
func resyncPeer(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("bench resyncpeer", flag.ExitOnError)
	dir, at := fs.String("dir", "", "for what it keeps"), fs.String("at", "127.0.0.1", "its IPv4 address")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if err := os.MkdirAll(*dir, 0o700); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := &returner{dir: *dir, log: warnings()}
	host, err := newHostAt(*dir, *at, fleet{all: true}, p.log)
	if err != nil {
		return err
	}
	host.Handle(mirror.Protocol, p.mirrored)
	host.Handle(push.Protocol, p.pushed)
	host.Handle(differ.Protocol, p.compared)
	host.Handle(bareProtocol, func(_ context.Context, s p2p.Stream) {
		if err := swallow(s); err != nil {
			p.log.Warn("A bare stream ended", "error", err)
		}
	})
	served := make(chan error, 1)
	go func() { served <- host.Serve(ctx) }()
	fmt.Printf("%s@/ip4/%s/tcp/%d\n", host.ID(), *at, host.Port())
	err = p.obey()
	cancel()
	<-served // its word is that of ctx
	err = errors.Join(err, host.Close())
	p.mu.Lock()
	defer p.mu.Unlock()
	return errors.Join(err, p.close())
}

func (p *returner) close() error {
	if p.disk == nil {
		return nil
	}
	err := p.disk.Close()
	p.disk = nil
	return err
}

func (p *returner) obey() error {
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		what, much, _ := strings.Cut(in.Text(), " ")
		n, _ := strconv.ParseInt(much, 10, 64) // 0 for those without
		began, err := time.Now(), error(nil)
		switch what {
		case orderWipe:
			p.mu.Lock()
			err = errors.Join(p.close(), os.RemoveAll(p.where()))
			p.mu.Unlock()
		case orderPut:
			err = put(filepath.Join(p.dir, "put"), n)
		default:
			err = errors.New("unknown order")
		}
		if err != nil {
			return err
		}
		fmt.Printf("%d %d %.4f\n", n, n, time.Since(began).Seconds())
	}
	return nil
}

func (p *returner) where() string { return filepath.Join(p.dir, "disk") }

// put writes a file of n bytes, makes it durable, and removes it.
func put(path string, n int64) error {
	fill, err := noise()
	if err != nil {
		return err
	}
	p := make([]byte, 1<<20)
	fill(p)
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	for err == nil && n > 0 {
		part := p[:min(n, int64(len(p)))]
		_, err = f.Write(part)
		n -= int64(len(part))
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close(), os.Remove(path))
}

// open makes a copy, if there is none. The caller holds mu.
func (p *returner) open(t replica.Target) (err error) {
	if p.disk == nil {
		p.disk, err = vmdisk.CreateReplica(p.where(), vmdisk.ID(t.Disk), t.Size, vmdisk.Options{Reserve: reserve, Log: p.log})
	}
	return err
}

// pushed takes a push.
func (p *returner) pushed(ctx context.Context, s p2p.Stream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	takePush(ctx, s, &blockindex.Index{}, p.log, func(h push.Hello) (*vmdisk.Store, error) {
		err := p.open(h.Target)
		return p.disk, err
	})
}

// compared answers a comparison, of a copy that is whole.
func (p *returner) compared(ctx context.Context, s p2p.Stream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var cut *vmdisk.Cut
	err := differ.Serve(ctx, s, func(h differ.Hello) (_ differ.Reader, st differ.State, err error) {
		if err = p.open(h.Target); err == nil {
			cut, err = p.disk.Cut(ctx)
		}
		if err != nil {
			return nil, st, err
		}
		return diskcompare.Reader(cut, func(int64) error { return nil }), diskmirror.State(p.disk.ReplicaState()), nil
	}, nil)
	if cut != nil {
		err = errors.Join(err, cut.Close())
	}
	if err != nil {
		p.log.Warn("A comparison ended", "error", err)
	}
}

// mirrored takes a mirror.
func (p *returner) mirrored(ctx context.Context, s p2p.Stream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var applier *vmdisk.Applier
	err := mirror.Receive(ctx, s, func(h mirror.Hello) (sink mirror.Sink, st mirror.State, err error) {
		if err = p.open(h.Target); err == nil {
			applier, err = p.disk.Apply()
		}
		if err != nil {
			return nil, st, err
		}
		return diskmirror.Sink{Applier: applier}, diskmirror.State(applier.State()), nil
	}, nil)
	if applier != nil {
		err = errors.Join(err, applier.Close())
	}
	if err != nil {
		p.log.Info("A mirror ended", "error", err) // the owner was told, and tells
	}
}
