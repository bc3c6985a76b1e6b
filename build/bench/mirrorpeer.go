package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"tagalong.org/tagalong/app/diskmirror"
	"tagalong.org/tagalong/p2p"
	"tagalong.org/tagalong/p2p/mirror"
	"tagalong.org/tagalong/vmdisk"
)

// bareProtocol is a stream that carries a length in a line, so many bytes, and a byte back.
const bareProtocol = "/tagalong/bench/bare/1"

// storedProtocol is as bareProtocol, but what comes is stored.
const storedProtocol = "/tagalong/bench/stored/1"

// fleet is who may connect, and where they are: the peers of an owner, or for a peer, everybody.
type fleet struct {
	all   bool
	addrs map[string]string
}

func (f fleet) Allowed(id string) bool { return f.all || f.addrs[id] != "" }

func (f fleet) List() (list []string) {
	for id := range f.addrs {
		list = append(list, id)
	}
	return list
}

func (f fleet) Load(id string) []string { return []string{f.addrs[id]} }
func (f fleet) Save(string, []string)   {}

// newHost is a device on loopback, with the product's own host.
func newHost(dir string, f fleet, log *slog.Logger) (*p2p.Host, error) {
	return newHostAt(dir, "127.0.0.1", f, log)
}

// newHostAt is newHost at an IPv4 address.
func newHostAt(dir, at string, f fleet, log *slog.Logger) (*p2p.Host, error) {
	return p2p.New(p2p.Options{KeyFile: filepath.Join(dir, "key"), Listen: []string{"/ip4/" + at + "/tcp/0"}, Members: f, Addresses: f, Log: log, Version: "bench"})
}

func warnings() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// mirrorPeer is a device that takes the mirror of a disk, as the product does, and swallows bare streams. It says who and where it is,
// "ID@ADDRESS", and ends when its standard input does.
func mirrorPeer(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("bench mirrorpeer", flag.ExitOnError)
	dir := fs.String("dir", "", "for what it keeps")
	profile := fs.String("profile", "", "file for a CPU profile of this process, once it has everything")
	if err := fs.Parse(args); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	log := warnings()
	if err := os.MkdirAll(*dir, 0o700); err != nil {
		return err
	}
	host, err := newHost(*dir, fleet{all: true}, log)
	if err != nil {
		return err
	}
	var begin sync.Once
	stop := func() {}
	reached := func() {
		begin.Do(func() {
			var perr error
			if stop, perr = profiled(*profile); perr != nil {
				stop = func() {}
				log.Warn("No profile", "error", perr)
			}
		})
	}
	var disk *vmdisk.Store // made by the first stream; there is one at a time
	host.Handle(mirror.Protocol, func(ctx context.Context, s p2p.Stream) {
		var applier *vmdisk.Applier
		err := mirror.Receive(ctx, s, func(h mirror.Hello) (sink mirror.Sink, st mirror.State, err error) {
			if disk == nil {
				disk, err = vmdisk.CreateReplica(filepath.Join(*dir, "disk"), vmdisk.ID(h.Disk), h.Size, vmdisk.Options{Reserve: reserve, Log: log})
			}
			if err == nil {
				applier, err = disk.Apply()
			}
			if err != nil {
				return nil, st, err
			}
			return diskmirror.Sink{Applier: applier, Reached: reached}, diskmirror.State(applier.State()), nil
		}, nil)
		if applier != nil {
			err = errors.Join(err, applier.Close())
		}
		if err != nil {
			log.Info("A mirror ended", "error", err) // the owner was told, and tells
		}
	})
	host.Handle(bareProtocol, func(_ context.Context, s p2p.Stream) {
		if err := swallow(s); err != nil {
			log.Warn("A bare stream ended", "error", err)
		}
	})
	host.Handle(storedProtocol, func(_ context.Context, s p2p.Stream) {
		f, err := overwritten(filepath.Join(*dir, "stored"))
		if err == nil {
			err = errors.Join(swallowTo(s, f), f.Close())
		}
		if err != nil {
			log.Warn("A stream wasn't stored", "error", err)
		}
	})
	served := make(chan error, 1)
	go func() { served <- host.Serve(ctx) }()
	fmt.Printf("%s@/ip4/127.0.0.1/tcp/%d\n", host.ID(), host.Port())
	_, err = io.Copy(io.Discard, os.Stdin)
	cancel()
	if serr := <-served; !errors.Is(serr, context.Canceled) {
		err = errors.Join(err, serr)
	}
	err = errors.Join(err, host.Close())
	stop() // after the handler, which begins it
	if disk != nil {
		err = errors.Join(err, disk.Close())
	}
	return err
}

// overwritten is a file that is written from its beginning on, over what it has.
func overwritten(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
}

// swallow is the other end of bare.
func swallow(s p2p.Stream) error { return swallowTo(s, io.Discard) }

// swallowTo is swallow, but what comes goes to w.
func swallowTo(s p2p.Stream, w io.Writer) error {
	r := bufio.NewReaderSize(s, 128<<10)
	text, err := r.ReadString('\n')
	if err != nil {
		return err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return err
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, io.LimitReader(r, n), make([]byte, 1<<20)); err != nil {
		return err
	}
	_, err = s.Write([]byte{1})
	return err
}

// bare sends n bytes over one stream to a device, and waits until they are there.
func bare(ctx context.Context, host *p2p.Host, device string, n int64) error {
	return streamOf(ctx, host, device, bareProtocol, n, func(int64, []byte) error { return nil })
}

// stored is bare with all that is sent stored at both ends, in dir and by the device: once, in order and without a sync.
func stored(ctx context.Context, host *p2p.Host, device, dir string, n int64) error {
	f, err := overwritten(filepath.Join(dir, "stored"))
	if err != nil {
		return err
	}
	store := func(_ int64, p []byte) error { _, err := f.Write(p); return err }
	return errors.Join(streamOf(ctx, host, device, storedProtocol, n, store), f.Close())
}

// streamOf is bare of a protocol that is as bareProtocol on the wire. What is sent is noise; before that each part is shown to first, which may put something
// else into it.
func streamOf(ctx context.Context, host *p2p.Host, device, protocol string, n int64, first func(off int64, p []byte) error) error {
	fill, err := noise()
	if err != nil {
		return err
	}
	p := make([]byte, 1<<20)
	fill(p)
	s, err := host.Open(ctx, device, protocol)
	if err != nil {
		return err
	}
	defer s.Reset()
	if _, err := fmt.Fprintf(s, "%d\n", n); err != nil {
		return err
	}
	for off := int64(0); off < n; off += int64(len(p)) {
		part := p[:min(n-off, int64(len(p)))]
		if err := first(off, part); err != nil {
			return err
		}
		if _, err := s.Write(part); err != nil {
			return err
		}
	}
	_, err = io.ReadFull(s, make([]byte, 1))
	return err
}
