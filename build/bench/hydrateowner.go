package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"tagalong.org/tagalong/app/disknbd"
	"tagalong.org/tagalong/app/hydrating"
	"tagalong.org/tagalong/p2p"
	"tagalong.org/tagalong/p2p/fetch"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/nbd"
)

// Orders to a hydrator. Numbers stand behind each; "pull" is 1 if what nobody has asked for is fetched too.
const (
	orderSequential = "sequential" // pull, milliseconds (0: all of the disk): read from the beginning. Answer: bytes, seconds
	orderRandom     = "random"     // pull, how often, milliseconds of rest after each: read 4 KiB that are stale. Answer: median and 99th percentile in seconds
	orderServe      = "serve"      // serve the disk, which fetches only what is read. Answer: bytes stale
	orderWhole      = "whole"      // of the disk that is served: fetch the rest, and wait until all is in one file. Answer: bytes stale
	orderPull       = "pull"       // of the disk that is served: fetch the rest too. Answer: bytes stale
	orderLeft       = "left"       // of the disk that is served. Answer: bytes stale
	orderWaited     = "waited"     // of the disk that is served. Answer: for how many seconds reads waited for stale blocks since that was asked
	orderEnd        = "end"        // serve it no more. Answer: bytes stale
	orderCarry      = "carry"      // bytes, one of what is below: send so many over a bare stream. Answer: bytes, seconds
)

// What becomes of what a bare stream carries.
const (
	carryBare = 0 // nothing
	carryKept = 1 // it is stored, and read once
	carryFile = 2 // that, and it is read from a file before it is sent
)

// hydrator is a device that was given a disk of which it has nothing, again and again.
type hydrator struct {
	dir, blank, peer, socket string
	size                     int64
	at                       fetch.Position
	host                     *p2p.Host
	log                      *slog.Logger
	r                        *mathrand.Rand
	serving                  *lackingDisk
	stopServing              func() error
	file                     *os.File // of noise; nil as long as none was needed
}

// hydrateOwner carries out the orders on its standard input, an answer a line, until that ends.
func hydrateOwner(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("bench hydrateowner", flag.ExitOnError)
	h := &hydrator{r: mathrand.New(mathrand.NewPCG(uint64(time.Now().UnixNano()), 1)), log: warnings()}
	fs.StringVar(&h.dir, "dir", "", "for what it keeps")
	fs.StringVar(&h.blank, "blank", "", "the copy that it was given the disk onto")
	fs.StringVar(&h.socket, "socket", "", "where to serve the disk")
	fs.Int64Var(&h.size, "bytes", 0, "the disk's size")
	at, whom := fs.String("at", "127.0.0.1", "its IPv4 address"), fs.String("peer", "", "ID@ADDRESS of who gave it")
	fs.Uint64Var(&h.at.Term, "term", 0, "of the hand-off")
	fs.Uint64Var(&h.at.Barrier, "barrier", 0, "of the hand-off")
	profile := fs.String("profile", "", "file for a CPU profile of this process")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if err := os.MkdirAll(h.dir, 0o700); err != nil {
		return err
	}
	id, addr, _ := strings.Cut(*whom, "@")
	h.peer = id
	var err error
	if h.host, err = newHostAt(h.dir, *at, fleet{addrs: map[string]string{id: addr}}, h.log); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- h.host.Serve(ctx) }()
	stop, err := profiled(*profile)
	if err == nil {
		fmt.Println("ready")
		err = h.obey(ctx)
		stop()
	}
	cancel()
	<-served // its word is that of ctx
	return errors.Join(err, h.host.Close())
}

func (h *hydrator) obey(ctx context.Context) (err error) {
	defer func() {
		if h.stopServing != nil {
			err = errors.Join(err, h.stopServing())
		}
		if h.file != nil {
			err = errors.Join(err, h.file.Close())
		}
	}()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		words := strings.Fields(in.Text())
		var n [3]int64
		for i, w := range words[1:] {
			if _, err := fmt.Sscan(w, &n[i]); err != nil {
				return err
			}
		}
		answer := ""
		if err := h.connected(ctx); err != nil {
			return err
		}
		switch words[0] {
		case orderSequential:
			answer, err = h.sequential(ctx, n[0] == 1, time.Duration(n[1])*time.Millisecond)
		case orderRandom:
			answer, err = h.random(ctx, n[0] == 1, int(n[1]), time.Duration(n[2])*time.Millisecond)
		case orderServe:
			answer, err = h.serve(ctx)
		case orderWhole:
			answer, err = h.serving.whole(ctx)
		case orderPull, orderLeft:
			if words[0] == orderPull {
				h.serving.disk.Pull(true)
			}
			answer = fmt.Sprint(h.serving.disk.Info().Stale)
		case orderWaited:
			answer = fmt.Sprint(h.serving.waits.take().Seconds())
		case orderEnd:
			answer = fmt.Sprint(h.serving.disk.Info().Stale)
			stop := h.stopServing
			h.stopServing = nil
			err = stop()
		case orderCarry:
			answer, err = h.carry(ctx, n[0], int(n[1]))
		default:
			err = errors.New("unknown order")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", in.Text(), err)
		}
		fmt.Println(answer)
	}
	return nil
}

// connected waits for the holder: over another way there is another connection.
func (h *hydrator) connected(ctx context.Context) error {
	for !h.host.Connected(h.peer) {
		if err := pause(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// carry sends n bytes over a bare stream.
func (h *hydrator) carry(ctx context.Context, n int64, how int) (answer string, err error) {
	protocol, first := keptProtocol, func(int64, []byte) error { return nil }
	switch how {
	case carryBare:
		protocol = bareProtocol
	case carryFile:
		if err := h.noiseFile(n); err != nil {
			return "", err
		}
		first = func(off int64, p []byte) error { _, err := h.file.ReadAt(p, off); return err }
	}
	began := time.Now()
	err = streamOf(ctx, h.host, h.peer, protocol, n, first)
	return fmt.Sprint(n, time.Since(began).Seconds()), err
}

// noiseFile makes a file of n bytes of noise, if there is none yet: it is kept, and of that size always.
func (h *hydrator) noiseFile(n int64) error {
	if h.file != nil {
		return nil
	}
	fill, err := noise()
	if err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(h.dir, "file"))
	if err != nil {
		return err
	}
	p := make([]byte, 1<<20)
	for off := int64(0); off < n; off += int64(len(p)) {
		fill(p)
		if _, err := f.WriteAt(p, off); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	h.file = f
	return nil
}

// lackingDisk is a disk all of which is stale at first, and what fetches that, as in the product.
type lackingDisk struct {
	disk   *vmdisk.Store
	dir    string
	cancel context.CancelFunc
	ended  chan error
	waits  waits
}

// lack opens a disk of which nothing is here, and begins to fetch it. It returns when the holder answers, with when the disk was opened: to make
// it is no part of fetching it.
func (h *hydrator) lack(ctx context.Context, pull bool) (l *lackingDisk, began time.Time, err error) {
	l = &lackingDisk{dir: filepath.Join(h.dir, "disk"), ended: make(chan error, 1)}
	if _, err := tool(ctx, "cp", "-a", "--sparse=always", h.blank, l.dir); err != nil {
		return nil, began, err
	}
	began = time.Now()
	if l.disk, err = vmdisk.Open(l.dir, vmdisk.Options{Reserve: reserve, Log: h.log}); err != nil {
		return nil, began, err
	}
	l.disk.Pull(pull)
	if err = l.disk.Activate(h.at.Term + 1); err == nil {
		err = l.disk.SetClean(h.peer, vmdisk.Position(h.at))
	}
	var run *hydrating.Run
	if err == nil {
		run, err = hydrating.New(hydrating.Options{
			Disk: l.disk, Net: hydrateNet{h}, Log: h.log,
			Hello: fetch.Hello{Target: fetch.Target{VM: "bench", Disk: fetch.ID(l.disk.ID()), Size: h.size, Term: h.at.Term + 1}, At: h.at},
		})
	}
	if err != nil {
		return nil, began, errors.Join(err, l.disk.Close())
	}
	ctx, l.cancel = context.WithCancel(ctx)
	go func() { l.ended <- run.Serve(ctx) }()
	for !slices.ContainsFunc(run.Holders(), func(i fetch.HolderInfo) bool { return i.Connected }) {
		if _, lacks := l.disk.Hydration(); !lacks {
			break
		}
		select {
		case <-ctx.Done():
			return nil, began, errors.Join(ctx.Err(), l.end())
		case <-time.After(time.Millisecond):
		}
	}
	return l, began, nil
}

// end ends the fetching and removes the disk.
func (l *lackingDisk) end() error {
	l.cancel()
	err := <-l.ended
	if errors.Is(err, context.Canceled) || errors.Is(err, vmdisk.ErrClosed) { // by the line above, or by EndWaiting
		err = nil
	}
	l.disk.EndWaiting()
	return errors.Join(err, l.disk.Close(), os.RemoveAll(l.dir))
}

// hydrateNet is where the one holder is.
type hydrateNet struct{ h *hydrator }

func (n hydrateNet) Connected() []string {
	if n.h.host.Connected(n.h.peer) {
		return []string{n.h.peer}
	}
	return nil
}

func (n hydrateNet) Watch() (<-chan struct{}, func()) { return n.h.host.Watch() }

func (n hydrateNet) Open(ctx context.Context, device string) (fetch.Stream, error) {
	return n.h.host.Open(ctx, device, fetch.Protocol)
}

// step is how much a sequential guest reads at once, in bytes: what Linux reads ahead.
const step = 128 << 10

// sequential reads from the beginning, one read after the other, to the end or for some time.
func (h *hydrator) sequential(ctx context.Context, pull bool, length time.Duration) (answer string, err error) {
	l, began, err := h.lack(ctx, pull)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, l.end()) }()
	if length > 0 {
		began = time.Now() // else what precedes the first byte counts too
	}
	p, off := make([]byte, step), int64(0)
	for ; off+step <= h.size && (length == 0 || time.Since(began) < length); off += step {
		if err := l.disk.ReadAt(p, off); err != nil {
			return "", err
		}
	}
	return fmt.Sprint(off, time.Since(began).Seconds()), nil
}

// random reads blocks here and there that are stale, with a rest after each.
func (h *hydrator) random(ctx context.Context, pull bool, times int, rest time.Duration) (answer string, err error) {
	l, _, err := h.lack(ctx, pull)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, l.end()) }()
	took, p := make([]float64, 0, times), make([]byte, vmdisk.Block)
	if pull {
		// Until the background has found its pace nothing is measured.
		if err := pause(ctx, settle); err != nil {
			return "", err
		}
	}
	for len(took) < times {
		off := h.r.Int64N(h.size/vmdisk.Block) * vmdisk.Block
		if !l.disk.Stale(off, vmdisk.Block) {
			if _, lacks := l.disk.Hydration(); !lacks {
				return "", errors.New("nothing is stale any more: the disk is too small for this")
			}
			continue
		}
		began := time.Now()
		if err := l.disk.ReadAt(p, off); err != nil {
			return "", err
		}
		took = append(took, time.Since(began).Seconds())
		if err := pause(ctx, rest); err != nil {
			return "", err
		}
	}
	slices.Sort(took)
	return fmt.Sprint(median(took), took[len(took)*99/100]), nil
}

// settle is how long a pull runs before something is measured beside it.
const settle = 3 * time.Second

func pause(ctx context.Context, length time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(length):
		return nil
	}
}

// whole fetches all of the disk, and returns when it is as one that has never lacked anything: without layers.
func (l *lackingDisk) whole(ctx context.Context) (answer string, err error) {
	l.disk.Pull(true)
	for {
		_, lacks := l.disk.Hydration()
		layers, err := filepath.Glob(filepath.Join(l.dir, "*.map"))
		if err != nil {
			return "", err
		}
		if !lacks && len(layers) == 0 {
			return fmt.Sprint(l.disk.Info().Stale), nil
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return "", err
		}
	}
}

// serve serves the disk over NBD.
func (h *hydrator) serve(ctx context.Context) (answer string, err error) {
	l, _, err := h.lack(ctx, false)
	if err != nil {
		return "", err
	}
	listener, err := nbd.Listen(h.socket)
	if err != nil {
		return "", errors.Join(err, l.end())
	}
	serving, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var failed error
	wg.Go(func() {
		failed = (&nbd.Server{Backend: disknbd.Backend{Disk: watched{l.disk, &l.waits}}, Log: h.log}).Serve(serving, listener)
	})
	h.serving = l
	h.stopServing = func() error {
		l.disk.EndWaiting()
		cancel()
		wg.Wait()
		if errors.Is(failed, context.Canceled) {
			failed = nil
		}
		return errors.Join(failed, l.end())
	}
	return fmt.Sprint(l.disk.Info().Stale), nil
}
