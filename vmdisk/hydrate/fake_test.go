package hydrate

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"tagalong.org/tagalong/vmdisk/blockset"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errLine = errors.New("line is down")

// source is a device with the old owner's disk: block x holds its number.
type source struct {
	t       *testing.T
	latency time.Duration // of each fetch
	perByte time.Duration
	// fail, if not nil, may refuse the n-th fetch, of blocks [a, b).
	fail func(n int, a, b int64) error
	// stale, if not nil, are the only blocks that may be fetched.
	stale *blockset.Set

	mu     sync.Mutex
	flying *blockset.Set
	jobs   []job // in the order in which they began
	now    int   // fetches under way
	most   int
	bytes  int64 // under way that didn't begin as a demand
	peak   int64
	urged  []job // what began without being waited for, and then was
	room   Room  // Pull 0 is 8 fetches of MaxFetch
}

func newSource(t *testing.T, blocks int64) *source {
	return &source{t: t, latency: 10 * time.Millisecond, flying: blockset.New(blocks)}
}

func (s *source) Room() Room {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.room
	if r == (Room{}) {
		r = Room{Pull: 8 * MaxFetch, Ahead: MaxFetch, Piece: MaxFetch}
	}
	return r
}

func (s *source) Fetch(ctx context.Context, w Want) error {
	off, p := w.Off, w.P
	j := job{off / Block, (off + int64(len(p))) / Block, w.Kind}
	if off%Block != 0 || len(p)%Block != 0 || len(p) == 0 || len(p) > MaxFetch {
		s.t.Errorf("fetch of %d bytes at %d", len(p), off)
	}
	s.mu.Lock()
	if s.flying.Next(j.a, true) < j.b {
		s.t.Errorf("blocks %d-%d are in flight twice", j.a, j.b)
	}
	if s.stale != nil && s.stale.Next(j.a, false) < j.b {
		s.t.Errorf("blocks %d-%d were not all stale", j.a, j.b)
	}
	s.flying.Add(j.a, j.b)
	s.jobs = append(s.jobs, j)
	n := len(s.jobs)
	s.now++
	s.most = max(s.most, s.now)
	if w.Kind != Demand {
		s.bytes += int64(len(p))
		s.peak = max(s.peak, s.bytes)
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.flying.Remove(j.a, j.b)
		s.now--
		if w.Kind != Demand {
			s.bytes -= int64(len(p))
		}
	}()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(s.latency + s.perByte*time.Duration(len(p))):
	}
	select {
	case <-w.Urgent:
		if w.Kind != Demand {
			s.mu.Lock()
			s.urged = append(s.urged, j)
			s.mu.Unlock()
		}
	default:
		if w.Kind == Demand {
			s.t.Errorf("a demand of blocks %d-%d isn't urgent", j.a, j.b)
		}
	}
	if s.fail != nil {
		if err := s.fail(n, j.a, j.b); err != nil {
			return err
		}
	}
	for at := int64(0); at < int64(len(p)); at += Block {
		binary.LittleEndian.PutUint64(p[at:], uint64((off+at)/Block)+1)
	}
	return nil
}

func (s *source) began() []job {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]job(nil), s.jobs...)
}

// disk is what hydrates: two layers, as in vmdisk. A block is 8 bytes here.
type disk struct {
	t  *testing.T
	h  *Hydrator
	mu sync.Mutex
	// fetched and written are layers, base is below them; 0 is nothing.
	base, fetched, written []uint64
	put                    func(off int64) error // may fail
}

// newDisk lacks the stale blocks; the others hold what the source has.
func newDisk(t *testing.T, stale *blockset.Set, o Options) *disk {
	n := stale.Blocks()
	d := &disk{t: t, base: make([]uint64, n), fetched: make([]uint64, n), written: make([]uint64, n), h: New(stale, o)}
	for x := range n {
		if !stale.Has(x) {
			d.base[x] = uint64(x) + 1
		}
	}
	return d
}

func (d *disk) Put(off int64, p []byte) error {
	if d.put != nil {
		if err := d.put(off); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for at := int64(0); at < int64(len(p)); at += Block {
		x := (off + at) / Block
		if d.fetched[x] != 0 {
			d.t.Errorf("block %d came twice", x)
		}
		d.fetched[x] = binary.LittleEndian.Uint64(p[at:])
	}
	return nil
}

// read waits for blocks [a, b) and says what they are.
func (d *disk) read(ctx context.Context, a, b int64) ([]uint64, error) {
	if err := d.h.Wait(ctx, a*Block, (b-a)*Block); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []uint64
	for x := a; x < b; x++ {
		v := d.base[x]
		if d.fetched[x] != 0 {
			v = d.fetched[x]
		}
		if d.written[x] != 0 {
			v = d.written[x]
		}
		out = append(out, v)
	}
	return out, nil
}

func (d *disk) write(a, b int64, v uint64) {
	d.mu.Lock()
	for x := a; x < b; x++ {
		d.written[x] = v
	}
	d.mu.Unlock()
	d.h.Drop(a*Block, (b-a)*Block)
}

func all(blocks int64) *blockset.Set {
	s := blockset.New(blocks)
	s.Add(0, blocks)
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// begin runs d.h until stop, which returns what Run did.
func (d *disk) begin(src Source) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	end := make(chan error, 1)
	go func() { end <- d.h.Run(ctx, src, d) }()
	return func() error {
		cancel()
		return <-end
	}
}

func (j job) String() string { return fmt.Sprintf("%d-%d %v", j.a, j.b, j.kind) }
