package hydrate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"tagalong.org/tagalong/vmdisk/blockset"
)

const (
	// Block is the unit of what is stale, in bytes.
	Block = 4096
	// MaxFetch is the most that is asked of a Source at once, in bytes.
	MaxFetch = 256 << 10

	minAhead  = 64 << 10
	aheadTime = 20 * time.Millisecond
	firstWait = 100 * time.Millisecond
	lastWait  = 5 * time.Second
)

// The errors of this package; ask with errors.Is.
var (
	// ErrGone, returned by a Source, says that it will never answer again. Every other error of a Source is passing: it
	// is asked again.
	ErrGone = errors.New("hydrate: the source is gone")
	// ErrNoSource: blocks are stale, and for Options.Patience nobody was there to fetch them from. Passing.
	ErrNoSource = errors.New("hydrate: no source for stale blocks")
	// ErrClosed: the Hydrator was closed.
	ErrClosed = errors.New("hydrate: closed")
	// ErrRunning: it is fetching already.
	ErrRunning = errors.New("hydrate: running already")
)

// Source is where stale blocks are fetched from: a device that holds the disk as it was at the hand-off.
type Source interface {
	// Fetch fills p, whole blocks and at most MaxFetch bytes, with what the disk holds at off. demand says that somebody
	// waits for it: it goes ahead of what isn't. Called from several goroutines at once, never for the same block. p is
	// the caller's again when Fetch returns; it must return soon after ctx ends.
	Fetch(ctx context.Context, off int64, p []byte, demand bool) error
}

// Sink takes what was fetched.
type Sink interface {
	// Put stores whole blocks at off below what was written there: a write may happen at the same moment, and must be what
	// is read afterwards. When Put has returned nil, the blocks are read from where it stored them. Called from several
	// goroutines at once, never for the same block. syscall.ENOSPC is passing; every other error ends Run.
	Put(off int64, p []byte) error
}

// Options for a Hydrator. The zero value is good.
type Options struct {
	// Demand and Background are how many fetches there are at once of each kind; 0 is 16 and 8.
	Demand, Background int
	// Patience is how long Wait waits without a source; 0 is 10 s.
	Patience time.Duration
	// Log gets what happens; nil is silence.
	Log *slog.Logger
}

// Hydrator makes one disk whole. Its methods may be called from any goroutine.
type Hydrator struct {
	o     Options
	log   *slog.Logger
	total int64 // blocks that were stale at first
	wake  chan struct{}
	done  chan struct{} // closed by Close

	mu               sync.Mutex
	plan             *plan
	running, closed  bool
	quiet            bool          // the background begins nothing
	turn             chan struct{} // closed when running changes
	demand, behind   int           // fetches under way, of each kind
	fetched, dropped int64         // blocks
	meter            meter
	trouble          error // the last fetch's
	failures         int   // in a row
	until            time.Time
	buffers          [][]byte
}

// New is a Hydrator for a disk that lacks the blocks in stale, which stays the caller's.
func New(stale *blockset.Set, o Options) *Hydrator {
	o.Demand, o.Background = cmp.Or(max(0, o.Demand), 16), cmp.Or(max(0, o.Background), 8)
	o.Patience = cmp.Or(o.Patience, 10*time.Second)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Hydrator{
		o: o, log: o.Log, total: stale.Count(), plan: newPlan(stale),
		wake: make(chan struct{}, 1), done: make(chan struct{}), turn: make(chan struct{}),
	}
}

// blocks is the range of blocks that n bytes at off touch.
func blocks(off, n int64) (a, b int64) { return off / Block, (off + n + Block - 1) / Block }

// Stale says whether any of n bytes at off is stale.
func (h *Hydrator) Stale(off, n int64) bool {
	a, b := blocks(off, n)
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.plan.lacks(a, b)
}

// Extent says whether the byte off is stale, and up to which byte before end that is so.
func (h *Hydrator) Extent(off, end int64) (stale bool, to int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	stale = h.plan.stale.Has(off / Block)
	return stale, min(end, h.plan.stale.Next(off/Block, !stale)*Block)
}

// Wait returns when none of n bytes at off is stale any more; they are fetched ahead of what nobody waits for. Errors:
// ErrNoSource, ErrClosed, that of ctx.
func (h *Hydrator) Wait(ctx context.Context, off, n int64) error {
	a, b := blocks(off, n)
	h.mu.Lock()
	h.plan.read(a, b)
	if !h.plan.lacks(a, b) {
		h.mu.Unlock()
		return nil
	}
	w := &waiter{a: a, b: b, done: make(chan struct{})}
	h.plan.waiting = append(h.plan.waiting, w)
	h.signal()
	running, turn := h.running, h.turn
	h.mu.Unlock()
	err := h.wait(ctx, w, running, turn)
	if err == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.plan.leave(w)
	return fmt.Errorf("wait for %d stale bytes at %d: %w", n, off, err)
}

func (h *Hydrator) wait(ctx context.Context, w *waiter, running bool, turn <-chan struct{}) error {
	for {
		var late <-chan time.Time
		if !running {
			t := time.NewTimer(h.o.Patience)
			defer t.Stop()
			late = t.C
		}
		select {
		case <-w.done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-h.done:
			return ErrClosed
		case <-late:
			return ErrNoSource
		case <-turn:
			h.mu.Lock()
			running, turn = h.running, h.turn
			h.mu.Unlock()
		}
	}
}

// Drop says that n bytes at off, whole blocks, were written: nothing needs to be fetched for them, and what is in flight
// is thrown away. What was written must be what is read when Drop is called.
func (h *Hydrator) Drop(off, n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := h.plan.stale.Count()
	h.plan.drop(off/Block, (off+n)/Block)
	h.dropped += before - h.plan.stale.Count()
	if h.plan.stale.Empty() {
		h.signal()
	}
}

// Pull says whether the background fetches what nobody waits for; it does at first. Without it only what somebody waits for comes, with what
// follows that, and Run ends only when all of the disk was asked for or written.
func (h *Hydrator) Pull(on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.quiet = !on
	h.signal()
}

// Left is a copy of the set of stale blocks.
func (h *Hydrator) Left() *blockset.Set {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.plan.stale.Clone()
}

// Progress says how far a Hydrator is. Sizes are in bytes.
type Progress struct {
	// Total was stale at first, Left still is; Fetched came from the source, Written was written over.
	Total, Left, Fetched, Written int64
	// Rate is in bytes per second, Remaining how long the rest takes; both are 0 if that isn't known.
	Rate      float64
	Remaining time.Duration
	// Running says that there is a source, Waiting how many reads wait for it.
	Running bool
	Waiting int
	// Err is why the last fetch failed, if it did.
	Err error
}

// maxRemaining is the longest time that is worth telling.
const maxRemaining = 1000 * time.Hour

// Progress says how far it is.
func (h *Hydrator) Progress() Progress {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := Progress{
		Total: h.total * Block, Left: h.plan.stale.Count() * Block, Fetched: h.fetched * Block, Written: h.dropped * Block,
		Running: h.running, Waiting: len(h.plan.waiting), Err: h.trouble,
	}
	if !h.running {
		return p
	}
	if p.Rate = h.meter.rate(time.Now()); p.Rate >= 1 {
		p.Remaining = time.Duration(min(float64(p.Left)/p.Rate*float64(time.Second), float64(maxRemaining)))
	}
	return p
}

// Close ends all waiting and keeps Run from beginning again; one that is under way must be ended by its context. It may be
// called more than once.
func (h *Hydrator) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.closed = true
		close(h.done)
	}
}

func (h *Hydrator) signal() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// passing says whether trouble with the sink may be over soon.
func passing(err error) bool { return errors.Is(err, syscall.ENOSPC) }
