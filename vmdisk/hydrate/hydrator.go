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
	// ErrAbsent, returned by a Source, says that nobody has these blocks who is there now, or, as an AbsentError, some of them. They
	// are left alone until the Source's Room changes; those who wait for them go on waiting.
	ErrAbsent = errors.New("hydrate: nobody who is there has that")
	// ErrClosed: the Hydrator was closed.
	ErrClosed = errors.New("hydrate: closed")
	// ErrRunning: it is fetching already.
	ErrRunning = errors.New("hydrate: running already")
)

// Kind is what a fetch is for.
type Kind int

const (
	// Pull: nobody waits for it; the disk shall become whole.
	Pull Kind = iota
	// Ahead: a reader who goes on in sequence will want it soon.
	Ahead
	// Demand: somebody waits for it.
	Demand
)

func (k Kind) String() string { return [...]string{"pull", "ahead", "demand"}[k] }

// Want is what a Source is asked for: to fill P, whole blocks and at most MaxFetch bytes, with what the disk holds at Off.
type Want struct {
	Off  int64
	P    []byte
	Kind Kind
	// Urgent is closed when somebody waits for it by now: from then on it is as good as a Demand. Of a Demand it is closed.
	Urgent <-chan struct{}
}

// Room is how much is worth asking a Source for at once of what nobody waits for, in bytes: enough to keep it busy, and to have something
// wait for its turn there. (What waits there waits in vain when somebody else becomes more urgent, so it shouldn't be much more.)
type Room struct {
	// Pull and Ahead bound what is in flight of each Kind; 0 is nothing.
	Pull, Ahead int64
	// Piece bounds one fetch; at least a Block.
	Piece int64
	// Changed is closed when another Room is to be asked for, though no fetch has ended: who is there has changed, or what may be
	// pulled. It is another one then. nil is never.
	Changed <-chan struct{}
}

// AbsentError is an ErrAbsent for Len bytes at Off, whole blocks, of what was wanted.
type AbsentError struct {
	Off, Len int64
	Err      error
}

func (e *AbsentError) Error() string { return fmt.Sprintf("%d bytes at %d: %v", e.Len, e.Off, e.Err) }

// Unwrap says that it is an ErrAbsent, and why.
func (e *AbsentError) Unwrap() []error { return []error{ErrAbsent, e.Err} }

// Source is where stale blocks are fetched from: a device that holds the disk as it was at the hand-off, or several.
type Source interface {
	// Fetch fills w.P. It is called from several goroutines at once, never for the same block. P is the caller's again when
	// Fetch returns; it must return soon after ctx ends.
	Fetch(ctx context.Context, w Want) error
	// Room must not block, nor call the Hydrator.
	Room() Room
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
	// Demand is how many fetches there are at once that somebody waits for; 0 is 16.
	Demand int
	// Flight bounds the memory of all others, in bytes; 0 is 64 MiB. One of them there always may be.
	Flight int64
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
	demand           int           // fetches under way that began as such
	flights          []*flight     // all that are under way
	flying           [Demand]int64 // bytes of them, of each other kind
	fetched, dropped int64         // blocks
	meter            meter
	trouble          error // the last fetch's
	failures         int   // in a row
	until            time.Time
}

// flight is a fetch under way.
type flight struct {
	job
	urgent  chan struct{}
	urged   bool            // urgent is closed
	changed <-chan struct{} // the Room's as it began
}

// urge says that somebody waits for it. The caller holds mu.
func (f *flight) urge() {
	if !f.urged {
		f.urged = true
		close(f.urgent)
	}
}

// New is a Hydrator for a disk that lacks the blocks in stale, which stays the caller's.
func New(stale *blockset.Set, o Options) *Hydrator {
	o.Demand, o.Flight = cmp.Or(max(0, o.Demand), 16), cmp.Or(max(0, o.Flight), 64<<20)
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
		if h.plan.follows() {
			h.signal()
		}
		h.mu.Unlock()
		return nil
	}
	w := &waiter{a: a, b: b, done: make(chan struct{})}
	h.plan.waiting = append(h.plan.waiting, w)
	h.plan.near = b
	for _, f := range h.flights {
		if f.a < b && a < f.b && h.plan.lacks(max(a, f.a), min(b, f.b)) {
			f.urge()
		}
	}
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
	// Total was stale at first, Left still is; Fetched came from the source, Written was written over. Absent is what of Left
	// nobody has who is there, as far as it was asked for.
	Total, Left, Fetched, Written, Absent int64
	// Rate is in bytes per second, Remaining how long the rest takes; both are 0 if that isn't known.
	Rate      float64
	Remaining time.Duration
	// Running says that there is a source, Waiting how many reads wait for it, Blocked how many of them for what is Absent.
	Running          bool
	Waiting, Blocked int
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
		Absent:  h.plan.absent.Count() * Block,
		Running: h.running, Waiting: len(h.plan.waiting), Err: h.trouble,
	}
	for _, w := range h.plan.waiting {
		if h.plan.absent.Next(w.a, true) < w.b {
			p.Blocked++
		}
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
