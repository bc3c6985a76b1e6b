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
	orderServe      = "serve"      // 1 if all is there: serve the disk, which fetches only what is read. Answer: bytes stale
	orderPull       = "pull"       // of the disk that is served: fetch the rest too. Answer: bytes stale
	orderLeft       = "left"       // of the disk that is served. Answer: bytes stale
	orderEnd        = "end"        // serve it no more. Answer: bytes stale
	orderCarry      = "carry"      // bytes, 1 to have them stored and read: send so many over a bare stream. Answer: bytes, seconds
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
		switch words[0] {
		case orderSequential:
			answer, err = h.sequential(ctx, n[0] == 1, time.Duration(n[1])*time.Millisecond)
		case orderRandom:
			answer, err = h.random(ctx, n[0] == 1, int(n[1]), time.Duration(n[2])*time.Millisecond)
		case orderServe:
			answer, err = h.serve(ctx, n[0] == 1)
		case orderPull, orderLeft:
			if words[0] == orderPull {
				h.serving.disk.Pull(true)
			}
			answer = fmt.Sprint(h.serving.disk.Info().Stale)
		case orderEnd:
			answer = fmt.Sprint(h.serving.disk.Info().Stale)
			stop := h.stopServing
			h.stopServing = nil
			err = stop()
		case orderCarry:
			began := time.Now()
			err = bareOf(ctx, h.host, h.peer, map[int64]string{0: bareProtocol, 1: keptProtocol}[n[1]], n[0])
			answer = fmt.Sprint(n[0], time.Since(began).Seconds())
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

// lackingDisk is a disk all of which is stale at first, and what fetches that, as in the product.
type lackingDisk struct {
	disk   *vmdisk.Store
	dir    string
	cancel context.CancelFunc
	ended  chan error
}

// lack opens a disk of which nothing is here, and begins to fetch it. It returns when the holder answers.
func (h *hydrator) lack(ctx context.Context, pull bool) (l *lackingDisk, err error) {
	l = &lackingDisk{dir: filepath.Join(h.dir, "disk"), ended: make(chan error, 1)}
	if _, err := tool(ctx, "cp", "-a", "--sparse=always", h.blank, l.dir); err != nil {
		return nil, err
	}
	if l.disk, err = vmdisk.Open(l.dir, vmdisk.Options{Reserve: reserve, Log: h.log}); err != nil {
		return nil, err
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
		return nil, errors.Join(err, l.disk.Close())
	}
	ctx, l.cancel = context.WithCancel(ctx)
	go func() { l.ended <- run.Serve(ctx) }()
	for !slices.ContainsFunc(run.Holders(), func(i fetch.HolderInfo) bool { return i.Connected }) {
		if _, lacks := l.disk.Hydration(); !lacks {
			break
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), l.end())
		case <-time.After(time.Millisecond):
		}
	}
	return l, nil
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
	began := time.Now()
	l, err := h.lack(ctx, pull)
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
	l, err := h.lack(ctx, pull)
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

// serve serves the disk over NBD. Of one that is whole everything is fetched before.
func (h *hydrator) serve(ctx context.Context, whole bool) (answer string, err error) {
	l, err := h.lack(ctx, whole)
	if err != nil {
		return "", err
	}
	for lacks := whole; lacks; {
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return "", errors.Join(err, l.end())
		}
		_, lacks = l.disk.Hydration()
	}
	listener, err := nbd.Listen(h.socket)
	if err != nil {
		return "", errors.Join(err, l.end())
	}
	serving, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var failed error
	wg.Go(func() {
		failed = (&nbd.Server{Backend: disknbd.Backend{Disk: l.disk}, Log: h.log}).Serve(serving, listener)
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
