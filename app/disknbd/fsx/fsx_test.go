package fsx

import (
	"errors"
	"flag"
	"fmt"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
)

var (
	seed  = flag.Uint64("fsx.seed", 0, "the only seed of TestTorture, or 0")
	seeds = flag.Uint64("fsx.seeds", 2, "how many seeds TestTorture tries")
	ops   = flag.Int("fsx.ops", 900, "how many requests each has")
	depth = flag.Int("fsx.depth", 4, "requests in flight on each connection; with 1 there is one connection")
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	// size of the disk: three open cuts keep more than their memory holds.
	size = 12<<20 + 4096
	// hot is where most small requests go.
	hot = 256 << 10
	// largest request that changes or reads something, in bytes; tooLarge for one that carries data.
	largest  = 4 << 20
	tooLarge = 32<<20 + 1
	// perRound is how many requests there are between two rests, stirs how often something happens meanwhile.
	perRound, stirs = 60, 4
	connections     = 3
)

// TestTorture needs a few minutes for -fsx.seeds 100.
func TestTorture(t *testing.T) {
	first, n := uint64(1), *seeds
	if *seed != 0 {
		first, n = *seed, 1
	}
	for s := first; s < first+n; s++ {
		t.Run(fmt.Sprint(s), func(t *testing.T) {
			w := newWorld(t, s)
			for done := 0; done < *ops; done += perRound {
				if err := w.round(min(perRound, *ops-done)); err != nil {
					t.Fatalf("-fsx.seed %d, round %d: %v", s, done/perRound, err)
				}
			}
			if err := w.end(); err != nil {
				t.Fatalf("-fsx.seed %d: %v", s, err)
			}
		})
	}
}

// round sends n requests while things happen, waits for all, and looks at the whole disk.
func (w *world) round(n int) error {
	list := make(chan *op, n)
	for range n {
		w.ops++
		list <- w.newOp()
	}
	close(list)
	var g errgroup.Group
	progress := make(chan struct{}, n)
	for i, l := range w.links {
		for range *depth {
			g.Go(func() error {
				for o := range list {
					err := w.perform(l, o)
					progress <- struct{}{}
					if err != nil {
						return fmt.Errorf("connection %d: %v: %w", i, o, err)
					}
				}
				return nil
			})
		}
	}
	all := make(chan error, 1)
	go func() { all <- g.Wait() }()
	var ended bool
	var err, stirred error
	for range stirs {
		for range n / (stirs + 1) {
			if !ended {
				select {
				case <-progress:
				case err = <-all:
					ended = true
				}
			}
		}
		if stirred == nil {
			stirred = w.stir()
		}
	}
	if !ended {
		err = <-all
	}
	if err = errors.Join(err, stirred); err != nil {
		return err
	}
	content, err := w.readAll()
	if err != nil {
		return err
	}
	history, err := w.model.rest(content)
	if err != nil {
		return fmt.Errorf("at rest: %w", err)
	}
	for _, c := range w.cuts {
		if c.history == w.model {
			c.history = history
		}
	}
	return nil
}

// newOp makes up a request.
func (w *world) newOp() *op {
	r := w.rnd
	o := &op{id: w.ops}
	o.n = 1 + r.Int64N(1<<r.IntN(23))
	if o.n < largest && r.IntN(40) == 0 {
		o.n = largest
	}
	where := int64(size)
	if o.n <= hot/4 && r.IntN(3) > 0 {
		where = hot
	}
	o.off = r.Int64N(where - o.n + 1)
	if unit := []int64{1, 512, 4096, 4096}[r.IntN(4)]; unit > 1 {
		o.off -= o.off % unit
		o.n += unit - 1 - (o.n-1)%unit
		o.n = min(o.n, size-o.off)
	}
	if r.IntN(6) == 0 {
		o.flags |= flagFUA
	}
	switch x := r.IntN(100); {
	case x < 35:
		o.cmd, o.changes, o.data = cmdWrite, true, make([]byte, o.n)
		w.fill(o.data)
	case x < 65:
		o.cmd = cmdRead
	case x < 77:
		o.cmd, o.changes = cmdZero, true
		if r.IntN(2) == 0 {
			o.flags |= flagNoHole
		}
	case x < 85:
		o.cmd, o.changes = cmdTrim, true
	case x < 92:
		o.cmd = cmdStatus
		if r.IntN(2) == 0 {
			o.flags |= flagReqOne
		}
	case x < 97:
		o.cmd, o.off, o.n = cmdFlush, 0, 0
	default:
		o.cmd = cmdCache
	}
	return o
}

// fill makes up data: noise, with zeros for a half or all of it now and then.
func (w *world) fill(p []byte) {
	switch w.rnd.IntN(8) {
	case 0:
		return
	case 1:
		p = p[len(p)/2:]
	case 2:
		p = p[:(len(p)+1)/2]
	}
	_, _ = w.noise.Read(p) // never fails
}

// perform sends a request, again and again until it is answered, and checks the answer.
func (w *world) perform(l *link, o *op) error {
	if o.id%25 == 0 {
		if err := l.refused(o.id); err != nil {
			return err
		}
	}
	if o.cmd == cmdStatus && !l.structured {
		return l.fails(errINVAL, o.cmd, o.flags, o.off, uint32(o.n), nil)
	}
	w.model.begin(o)
	a, err := l.do(o.cmd, o.flags, o.off, uint32(o.n), o.data)
	w.model.end(o)
	switch {
	case err != nil:
		return err
	case a.errno != 0:
		return fmt.Errorf("error %d", a.errno)
	case o.cmd == cmdRead:
		_, err = w.model.check(look{start: o.start, end: o.end, off: o.off, got: a.data})
		return err
	case o.cmd == cmdStatus:
		return w.checkStatus(o, a.extents)
	}
	return nil
}

// checkStatus holds extents against the model: a hole is one, and nothing is told beyond what was asked.
func (w *world) checkStatus(o *op, list []extent) error {
	if len(list) == 0 || o.flags&flagReqOne != 0 && len(list) > 1 {
		return fmt.Errorf("%d extents", len(list))
	}
	off, stop := o.off, o.off+o.n
	for _, x := range list {
		if x.n == 0 || x.n > stop-off || x.state != 0 && x.state != 3 {
			return fmt.Errorf("an extent of %d bytes at %d with state %d", x.n, off, x.state)
		}
		if x.state == 3 {
			if _, err := w.model.check(look{start: o.start, end: o.end, off: off, got: make([]byte, x.n)}); err != nil {
				return fmt.Errorf("it is said to be a hole: %w", err)
			}
		}
		off += x.n
	}
	return nil
}

// refused sends something that can't be done.
func (l *link) refused(i int) error {
	switch i / 25 % 8 {
	case 0:
		return l.fails(errINVAL, cmdRead, 0, 0, tooLarge, nil)
	case 1:
		return l.fails(errINVAL, cmdWrite, flagFUA, 0, tooLarge, make([]byte, tooLarge))
	case 2:
		return l.fails(errNOSPC, cmdWrite, 0, size-1, 2, []byte{1, 2})
	case 3:
		return l.fails(errNOSPC, cmdZero, flagNoHole, size-4096, 8192, nil)
	case 4:
		return l.fails(errINVAL, cmdTrim, 0, size-4096, 1<<32-1, nil)
	case 5:
		return l.fails(errINVAL, cmdRead, 0, -1, 1, nil)
	case 6:
		return l.fails(errINVAL, cmdWrite, flagReqOne, 0, 1, []byte{1})
	default:
		return l.fails(errINVAL, 99, 0, 0, 1, nil)
	}
}

func (l *link) fails(errno uint32, cmd, flags uint16, off int64, n uint32, data []byte) error {
	a, err := l.do(cmd, flags, off, n, data)
	if err == nil && a.errno != errno {
		err = fmt.Errorf("command %d of %d bytes at %d: error %d instead of %d", cmd, n, off, a.errno, errno)
	}
	return err
}
