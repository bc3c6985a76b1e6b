package fsx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"tagalong.org/tagalong/app/disknbd"
	"tagalong.org/tagalong/app/volumes"
	"tagalong.org/tagalong/app/volumes/window"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/nbd"
)

// world is a disk in a directory, a server for it, its clients, and what they know.
type world struct {
	t       testing.TB
	rnd     *rand.Rand
	noise   *rand.ChaCha8
	ops     int
	dir     string
	socket  string
	disk    *vmdisk.Store
	volume  *volumes.Volume // what clients see; nil: all of the disk
	stop    func() error    // the server
	links   []*link
	readers sync.WaitGroup
	model   *model
	cuts    []*cut
}

// cut is an open one, with the time in which it was taken.
type cut struct {
	c          *vmdisk.Cut
	start, end int64
	history    *model
	content    []byte // as it was read before
}

func newWorld(t testing.TB, seed uint64) *world {
	t.Helper()
	sockets, err := os.MkdirTemp("", "fsx") // t.TempDir may be too long for a socket, and open to others
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		t: t, rnd: rand.New(rand.NewPCG(seed, 0)), noise: rand.NewChaCha8([32]byte{byte(seed)}),
		dir: filepath.Join(t.TempDir(), "disk"), socket: filepath.Join(sockets, "s"),
		model: &model{settled: make([]byte, size)},
	}
	t.Cleanup(func() {
		if err := w.close(); err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(sockets)
	})
	space := int64(size)
	if seed%2 == 0 {
		w.volume, space = scattered()
		var at int64
		for _, e := range w.volume.Extents {
			at += e.Bytes
			w.model.borders = append(w.model.borders, at)
		}
	}
	if w.disk, err = vmdisk.Create(w.dir, vmdisk.NewID(), space, vmdisk.Options{}); err == nil {
		err = w.serve()
	}
	if err != nil {
		t.Fatal(err)
	}
	n := connections
	if *depth == 1 {
		n = 1
	}
	for i := range n {
		w.links = append(w.links, &link{ctx: t.Context(), path: w.socket, structured: i < 2, readers: &w.readers})
	}
	return w
}

// scattered is a volume of that size, in many extents of a larger store, one of them odd.
func scattered() (v *volumes.Volume, space int64) {
	v = &volumes.Volume{ID: "disk2", Kind: volumes.Disk}
	at := int64(1 << 20)
	for left := int64(size); left > 0; at += 2 << 20 {
		n := min(left, 1<<20)
		if len(v.Extents) == 1 {
			n = 12 << 10
		}
		v.Extents = append(v.Extents, volumes.Extent{At: at, Bytes: n})
		left -= n
	}
	return v, at
}

// shown is what clients see of the disk.
func (w *world) shown() vmdisk.Disk {
	if w.volume == nil {
		return w.disk
	}
	return window.New(w.disk, *w.volume)
}

// shownOf is what they would see of a cut.
func (w *world) shownOf(c *vmdisk.Cut) vmdisk.Reader {
	if w.volume == nil {
		return c
	}
	return window.NewReader(c, *w.volume)
}

// serve activates the disk, under the same term each time, and lets clients in.
func (w *world) serve() error {
	if err := w.disk.Activate(1); err != nil && !errors.Is(err, vmdisk.ErrActive) {
		return err
	}
	l, err := nbd.Listen(w.socket)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	s := &nbd.Server{Backend: disknbd.Backend{Disk: w.shown()}, Log: slog.New(slog.DiscardHandler)}
	go func() { done <- s.Serve(ctx, l) }()
	w.stop = func() error {
		cancel()
		w.stop = nil
		return <-done
	}
	return nil
}

// close ends all that still runs; after a failure too.
func (w *world) close() error {
	for _, l := range w.links {
		l.tear()
	}
	var errs []error
	if w.stop != nil {
		errs = append(errs, w.stop())
	}
	w.readers.Wait()
	for _, c := range w.cuts {
		errs = append(errs, c.c.Close())
	}
	w.cuts = nil
	if w.disk != nil {
		errs = append(errs, w.disk.Close())
	}
	return errors.Join(errs...)
}

// stir does something to the disk while it is used.
func (w *world) stir() error {
	switch x := w.rnd.IntN(16); {
	case x < 5 && len(w.cuts) < 3:
		return w.openCut()
	case x < 8 && len(w.cuts) > 0:
		return w.checkCut(w.cuts[w.rnd.IntN(len(w.cuts))])
	case x < 10 && len(w.cuts) > 0:
		return w.closeCut()
	case x < 12:
		w.links[w.rnd.IntN(len(w.links))].tear()
		return nil
	case x < 13: // the engine is replaced under a running VM
		return errors.Join(w.stop(), w.serve())
	case x < 14: // and its disk with it
		return w.reopen()
	case x < 15:
		return errors.Join(w.disk.Fence(), w.disk.Unfence())
	default:
		return w.disk.Save()
	}
}

func (w *world) reopen() error {
	err := errors.Join(w.stop(), w.disk.Close())
	for _, c := range w.cuts {
		if e := c.c.ReadAt(make([]byte, 1), 0); !errors.Is(e, vmdisk.ErrClosed) {
			err = errors.Join(err, fmt.Errorf("a cut outlives its disk: %v", e))
		}
		err = errors.Join(err, c.c.Close())
	}
	w.cuts = nil
	if err != nil {
		return fmt.Errorf("close: %w", err)
	}
	if w.disk, err = vmdisk.Open(w.dir, vmdisk.Options{}); err != nil {
		return err
	}
	return w.serve()
}

func (w *world) openCut() error {
	c := &cut{history: w.model, start: w.model.tick()}
	var err error
	if c.c, err = w.disk.Cut(w.t.Context()); err != nil {
		return err
	}
	c.end = w.model.tick()
	w.cuts = append(w.cuts, c)
	return nil
}

// checkCut reads a cut, in pieces, while the disk changes.
func (w *world) checkCut(c *cut) error {
	got, from := make([]byte, size), w.shownOf(c.c)
	for off := int64(0); off < size; {
		list, err := from.Extents(off, size-off)
		if err != nil {
			return err
		}
		for _, x := range list {
			p := got[off : off+x.Len]
			if err := from.ReadAt(p, off); err != nil {
				return fmt.Errorf("%d bytes at %d of the cut: %w", x.Len, off, err)
			}
			if x.Hole && len(bytes.Trim(p, "\x00")) > 0 {
				return fmt.Errorf("%d bytes at %d of the cut are no hole", x.Len, off)
			}
			off += x.Len
		}
	}
	if c.content != nil && !bytes.Equal(c.content, got) {
		return errors.New("the cut changed")
	}
	c.content = got
	if err := c.history.whole(look{start: c.start, end: c.end, got: got}); err != nil {
		return fmt.Errorf("cut: %w", err)
	}
	return nil
}

func (w *world) closeCut() error {
	i := w.rnd.IntN(len(w.cuts))
	c := w.cuts[i]
	w.cuts = append(w.cuts[:i:i], w.cuts[i+1:]...)
	return errors.Join(w.checkCut(c), c.c.Close())
}

// readAll is the whole disk, through a connection.
func (w *world) readAll() ([]byte, error) {
	a, err := w.links[w.rnd.IntN(len(w.links))].do(cmdRead, 0, 0, size, nil)
	if err == nil && a.errno != 0 {
		err = fmt.Errorf("read all: error %d", a.errno)
	}
	return a.data, err
}

// end looks at all that is left: the cuts, the disk when it is opened again, and its metadata.
func (w *world) end() error {
	for len(w.cuts) > 0 {
		if err := w.closeCut(); err != nil {
			return err
		}
	}
	if err := w.reopen(); err != nil {
		return err
	}
	content, err := w.readAll()
	if err != nil {
		return err
	}
	if _, err := w.model.rest(content); err != nil {
		return fmt.Errorf("opened again: %w", err)
	}
	r, err := w.disk.Check(w.t.Context(), vmdisk.CheckOptions{})
	if err == nil && (!r.OK() || r.NeedsCheck != "") {
		err = fmt.Errorf("the check found %+v", r)
	}
	return err
}

// patience is how long a link tries to reach a server that must be there soon. It is not a measure of anything.
const patience = time.Minute

// link is a client that connects again when its connection is lost.
type link struct {
	ctx        context.Context
	path       string
	structured bool
	readers    *sync.WaitGroup

	mu sync.Mutex
	c  *conn
}

func (l *link) conn() (*conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.c != nil && !l.c.lost() {
		return l.c, nil
	}
	ctx, cancel := context.WithTimeout(l.ctx, patience)
	defer cancel()
	for {
		c, err := dial(l.path, l.structured, l.readers)
		if err == nil {
			l.c = c
			return c, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("no server: %w", err)
		case <-time.After(time.Millisecond):
		}
	}
}

// tear tears the connection, if there is one.
func (l *link) tear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.c != nil {
		l.c.tear()
	}
}

// do sends a request until it is answered.
func (l *link) do(cmd, flags uint16, off int64, n uint32, data []byte) (answer, error) {
	for {
		c, err := l.conn()
		if err != nil {
			return answer{}, err
		}
		a, err := c.do(cmd, flags, off, n, data)
		if !errors.Is(err, errTorn) {
			return a, err
		}
	}
}
