package fetch

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"time"
)

const testSize = 64 << 20

var (
	handOff = Position{Term: 3, Barrier: 100}
	whole   = State{Complete: true, Position: handOff}
)

func hello() Hello {
	return Hello{Target: Target{VM: "vm", Disk: ID{1}, Size: testSize, Term: 4}, At: handOff}
}

// fillBlock fills a block with what it holds in that version; version 0 is zeros.
func fillBlock(p []byte, block int64, version uint64) {
	clear(p)
	if version == 0 {
		return
	}
	for i := 0; i < len(p); i += 512 {
		binary.BigEndian.PutUint64(p[i:], uint64(block)+1)
		binary.BigEndian.PutUint64(p[i+8:], version)
	}
}

// versionOf is the version of a block, if that is what p is.
func versionOf(p []byte, block int64) (uint64, bool) {
	version := binary.BigEndian.Uint64(p[8:])
	want := make([]byte, len(p))
	fillBlock(want, block, version)
	return version, string(want) == string(p)
}

// fake is a Reader with the versions that at says.
type fake struct {
	size int64
	at   func(block int64) uint64
	hook func(off, n int64) error // may be nil
}

func (f *fake) ReadAt(p []byte, off int64) error {
	if !inRange(off, int64(len(p)), f.size) {
		panic("the disk was asked for what it doesn't have")
	}
	if f.hook != nil {
		if err := f.hook(off, int64(len(p))); err != nil {
			return err
		}
	}
	for i := 0; i < len(p); i += Block {
		block := (off + int64(i)) / Block
		fillBlock(p[i:i+Block], block, f.at(block))
	}
	return nil
}

// ones is a Reader of a disk whose blocks are all of version 1.
func ones() *fake { return &fake{size: testSize, at: func(int64) uint64 { return 1 }} }

// checkOnes checks what was fetched from ones.
func checkOnes(t testing.TB, p []byte, off int64) {
	t.Helper()
	for i := 0; i < len(p); i += Block {
		if v, ok := versionOf(p[i:i+Block], (off+int64(i))/Block); !ok || v != 1 {
			t.Fatalf("block %d isn't what it was", (off+int64(i))/Block)
		}
	}
}

// path is a way between two devices: what all its streams carry in one direction takes its turn, at rate bytes a second, and
// arrives after delay. Rate 0 is no limit. Where busy isn't 0 nothing is carried for so long after each on: the computers at its ends do
// something else.
type path struct {
	delay    time.Duration
	rate     float64
	on, busy time.Duration

	mu    sync.Mutex
	began time.Time
	free  [2]time.Time
	bytes [2]int64
	ends  []*end
}

// send says when n bytes that are sent now arrive.
func (p *path) send(way, n int) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.free[way].Before(now) {
		p.free[way] = now
	}
	if p.rate > 0 {
		p.free[way] = p.carry(p.free[way], time.Duration(float64(n)/p.rate*float64(time.Second)))
	}
	p.bytes[way] += int64(n)
	return p.free[way].Add(p.delay)
}

// carry says when what takes so long is through that begins at t. The caller holds mu.
func (p *path) carry(t time.Time, took time.Duration) time.Time {
	if p.busy == 0 {
		return t.Add(took)
	}
	if p.began.IsZero() {
		p.began = t
	}
	for {
		phase := t.Sub(p.began) % (p.on + p.busy)
		switch left := p.on - phase; {
		case left <= 0:
			t = t.Add(left + p.busy)
		case took <= left:
			return t.Add(took)
		default:
			t, took = t.Add(left), took-left
		}
	}
}

func (p *path) carried(way int) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bytes[way]
}

// open is a stream over the path: both ends.
func (p *path) open() (a, b *end) {
	x, y := &pipe{wake: make(chan struct{})}, &pipe{wake: make(chan struct{})}
	a, b = &end{p: p, way: 0, in: x, out: y}, &end{p: p, way: 1, in: y, out: x}
	p.mu.Lock()
	p.ends = append(p.ends, a)
	p.mu.Unlock()
	return a, b
}

// cut resets all streams over the path.
func (p *path) cut() {
	p.mu.Lock()
	ends := p.ends
	p.ends = nil
	p.mu.Unlock()
	for _, e := range ends {
		_ = e.Reset()
	}
}

var errReset = errors.New("stream reset")

type chunk struct {
	at time.Time
	p  []byte
}

// pipe is one direction of a stream.
type pipe struct {
	mu       sync.Mutex
	chunks   []chunk
	err      error     // of reading, when chunks is empty; errReset at once
	deadline time.Time // of reading
	wake     chan struct{}
}

func (x *pipe) change(f func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	f()
	close(x.wake)
	x.wake = make(chan struct{})
}

func (x *pipe) fail(err error) {
	x.change(func() {
		if x.err != errReset {
			x.err = err
		}
	})
}

func (x *pipe) read(p []byte) (int, error) {
	for {
		x.mu.Lock()
		now := time.Now()
		wait := time.Hour
		switch {
		case x.err == errReset:
			x.mu.Unlock()
			return 0, errReset
		case !x.deadline.IsZero() && !x.deadline.After(now):
			x.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		case len(x.chunks) > 0 && !x.chunks[0].at.After(now):
			n := copy(p, x.chunks[0].p)
			if x.chunks[0].p = x.chunks[0].p[n:]; len(x.chunks[0].p) == 0 {
				x.chunks = x.chunks[1:]
			}
			x.mu.Unlock()
			return n, nil
		case len(x.chunks) > 0:
			wait = x.chunks[0].at.Sub(now)
		case x.err != nil:
			x.mu.Unlock()
			return 0, x.err
		}
		if !x.deadline.IsZero() {
			wait = min(wait, x.deadline.Sub(now))
		}
		wake := x.wake
		x.mu.Unlock()
		t := time.NewTimer(wait)
		select {
		case <-wake:
		case <-t.C:
		}
		t.Stop()
	}
}

// end is one end of a stream over a path.
type end struct {
	p       *path
	way     int
	in, out *pipe
	left    *int64 // reset after so many bytes were written; nil: never
}

func (e *end) Read(p []byte) (int, error) { return e.in.read(p) }

func (e *end) Write(p []byte) (int, error) {
	if e.left != nil {
		if *e.left -= int64(len(p)); *e.left < 0 {
			p = p[:max(0, int64(len(p))+*e.left)]
			defer e.Reset()
		}
	}
	e.out.mu.Lock()
	err := e.out.err
	e.out.mu.Unlock()
	if err != nil {
		return 0, errReset
	}
	if len(p) > 0 {
		at := e.p.send(e.way, len(p))
		e.out.change(func() { e.out.chunks = append(e.out.chunks, chunk{at, append([]byte(nil), p...)}) })
	}
	return len(p), nil
}

func (e *end) CloseWrite() error { e.out.fail(io.EOF); return nil }
func (e *end) Close() error      { e.out.fail(io.EOF); e.in.fail(errReset); return nil }
func (e *end) Reset() error      { e.out.fail(errReset); e.in.fail(errReset); return nil }

func (e *end) SetReadDeadline(t time.Time) error {
	e.in.change(func() { e.in.deadline = t })
	return nil
}
func (e *end) SetWriteDeadline(time.Time) error { return nil }
func (e *end) SetDeadline(t time.Time) error    { return e.SetReadDeadline(t) }

// holder serves a Reader over a path.
type holder struct {
	name  string
	path  *path
	wg    sync.WaitGroup
	stats Stats

	mu     sync.Mutex
	disk   Reader
	state  State
	budget []int64 // bytes that the streams may write before they are cut, one after the other
	away   bool    // dialling fails
}

var errAway = errors.New("away")

func (h *holder) dial(ctx context.Context) (Stream, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.away {
		return nil, errAway
	}
	a, b := h.path.open()
	if len(h.budget) > 0 {
		b.left, h.budget = &h.budget[0], h.budget[1:]
	}
	disk, state := h.disk, h.state
	h.wg.Go(func() {
		_ = Serve(context.Background(), b, func(Hello) (Reader, State, error) { return disk, state, nil }, &h.stats)
	})
	return a, nil
}

// become makes what the holder has, from the next stream on, another disk.
func (h *holder) become(st State, disk Reader) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.state, h.disk = st, disk
}

// leave makes the holder vanish.
func (h *holder) leave() {
	h.mu.Lock()
	h.away = true
	h.mu.Unlock()
	h.path.cut()
}

func (h *holder) holder() Holder {
	return Holder{Name: h.name, Dial: h.dial, Judge: func(State) (Lacks, error) { return nil, nil }}
}

// newPool is a Pool that is closed, with what the holders still do, before the test ends.
func newPool(t testing.TB, o Options, holders ...*holder) *Pool {
	t.Helper()
	p, err := NewPool(hello(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Close()
		for _, h := range holders {
			h.path.cut()
			h.wg.Wait()
		}
	})
	for _, h := range holders {
		p.Add(h.holder())
	}
	return p
}

// connected waits until so many holders are connected.
func connected(t testing.TB, p *Pool, n int) {
	t.Helper()
	for range 10000 {
		got := 0
		for _, h := range p.Holders() {
			if h.Connected {
				got++
			}
		}
		if got == n {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("%d holders aren't connected: %+v", n, p.Holders())
}

// fetchOne fetches what is waited for, or isn't.
func fetchOne(ctx context.Context, p *Pool, off int64, b []byte, demand bool) error {
	w := Want{Off: off, P: b, Kind: Pull}
	if demand {
		w.Kind = Demand
	}
	return p.Fetch(ctx, w)
}

func get(t testing.TB, p *Pool, off, n int64, demand bool) []byte {
	t.Helper()
	b := make([]byte, n)
	if err := fetchOne(t.Context(), p, off, b, demand); err != nil {
		t.Fatal(err)
	}
	return b
}
