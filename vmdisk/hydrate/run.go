package hydrate

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"sync"
	"time"
)

// Run fetches from src into to until nothing is stale, and then returns nil. It may be ended and begun again, with another
// source too. Errors: ErrGone, ErrRunning, ErrClosed, that of to and of ctx.
func (h *Hydrator) Run(ctx context.Context, src Source, to Sink) error {
	if err := h.begin(); err != nil {
		return fmt.Errorf("hydrate: %w", err)
	}
	ctx, stop := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	var changed <-chan struct{}
	for ctx.Err() == nil {
		room := src.Room()
		if room.Changed != changed {
			changed = room.Changed
			h.anew()
		}
		f, idle, again := h.next(room)
		if idle {
			break
		}
		if f != nil {
			wg.Go(func() {
				if err := h.fetch(ctx, f, src, to); err != nil {
					stop(err)
				}
			})
			continue
		}
		var late <-chan time.Time
		if again > 0 {
			late = time.After(again)
		}
		select {
		case <-ctx.Done():
		case <-h.done:
			stop(ErrClosed)
		case <-h.wake:
		case <-changed:
		case <-late:
		}
	}
	err := context.Cause(ctx)
	stop(nil)
	wg.Wait()
	if h.finish() {
		return nil
	}
	return fmt.Errorf("hydrate: %w", err)
}

func (h *Hydrator) begin() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.closed:
		return ErrClosed
	case h.running:
		return ErrRunning
	}
	h.plan.failed.Reset()
	h.plan.absent.Reset()
	h.meter, h.trouble, h.failures, h.until = meter{}, nil, 0, time.Time{}
	h.turned(true)
	return nil
}

// turned says that there is a source now, or none. The caller holds mu.
func (h *Hydrator) turned(running bool) {
	h.running = running
	close(h.turn)
	h.turn = make(chan struct{})
}

// finish says whether the disk is whole.
func (h *Hydrator) finish() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.turned(false)
	return h.plan.stale.Empty()
}

// anew forgets what nobody had, as somebody has come or gone.
func (h *Hydrator) anew() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.plan.absent.Reset()
}

// next is the next fetch, if one may begin now. idle says that nothing is stale; again is after which time to ask again, 0
// when something has happened.
func (h *Hydrator) next(room Room) (f *flight, idle bool, again time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.plan.stale.Empty() {
		return nil, true, 0
	}
	if wait := time.Until(h.until); wait > 0 {
		return nil, false, wait
	}
	j, ok := h.choose(room)
	if !ok {
		return nil, false, 0
	}
	f = &flight{job: j, urgent: make(chan struct{}), changed: room.Changed}
	h.flights = append(h.flights, f)
	if j.kind == Demand {
		h.demand++
	} else {
		h.flying[j.kind] += (j.b - j.a) * Block
	}
	if j.kind == Demand || h.plan.awaited(j.a, j.b) {
		f.urge()
	}
	return f, false, 0
}

// choose is the next fetch. The caller holds mu.
func (h *Hydrator) choose(room Room) (job, bool) {
	if h.demand < h.o.Demand {
		if j, ok := h.plan.demand(); ok {
			return j, true
		}
	}
	h.plan.ahead.reach(room.Ahead)
	piece := max(1, min(maxBlocks, room.Piece/Block))
	all := h.flying[Pull] + h.flying[Ahead]
	may := func(kind Kind, most int64) bool {
		n := piece * Block
		return most > 0 && (h.flying[kind] == 0 || h.flying[kind]+n <= most) && (all == 0 || all+n <= h.o.Flight)
	}
	if may(Ahead, room.Ahead) {
		if j, ok := h.plan.follow(piece); ok {
			return j, true
		}
	}
	if !h.quiet && may(Pull, room.Pull) {
		return h.plan.pull(piece)
	}
	return job{}, false
}

// fetch does one fetch. An error is final.
func (h *Hydrator) fetch(ctx context.Context, f *flight, src Source, to Sink) error {
	buf := buffer(int(f.b-f.a) * Block)
	defer release(buf)
	err := src.Fetch(ctx, Want{Off: f.a * Block, P: *buf, Kind: f.kind, Urgent: f.urgent})
	final := errors.Is(err, ErrGone)
	if err == nil {
		h.mu.Lock()
		wanted := h.plan.wanted(f.job)
		h.mu.Unlock()
		for _, w := range wanted {
			if err = to.Put(w.a*Block, (*buf)[(w.a-f.a)*Block:(w.b-f.a)*Block]); err != nil {
				final = !passing(err)
				break
			}
		}
	}
	h.landed(ctx, f, err)
	if final {
		return err
	}
	return nil
}

// landed ends a fetch.
func (h *Hydrator) landed(ctx context.Context, f *flight, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.flights = slices.DeleteFunc(h.flights, func(o *flight) bool { return o == f })
	if f.kind == Demand {
		h.demand--
	} else {
		h.flying[f.kind] -= (f.b - f.a) * Block
	}
	how := arrived
	switch {
	case errors.Is(err, ErrAbsent):
		how = nowhere
		select {
		case <-f.changed: // somebody has come meanwhile
			how = undone
		default:
		}
	case err != nil:
		how = missed
	}
	j, before := f.job, h.plan.stale.Count()
	if some := new(AbsentError); how == nowhere && errors.As(err, &some) {
		a, b := blocks(some.Off, some.Len)
		if a, b = max(a, j.a), min(b, j.b); a < b {
			h.plan.missing(a, b)
			how = undone // the others may be had
		}
	}
	h.plan.end(j, how)
	now := time.Now()
	switch {
	case err == nil:
		h.fetched += before - h.plan.stale.Count()
		h.meter.add(now, (j.b-j.a)*Block)
		h.trouble, h.failures = nil, 0
	case how == nowhere, how == undone:
	case ctx.Err() == nil:
		// What failed together with another one doesn't count again.
		if !h.until.After(now) {
			h.until = now.Add(min(lastWait, firstWait<<min(h.failures, 10)))
			h.failures++
		}
		if h.trouble == nil {
			h.log.Warn("Fetching stale blocks failed, it is tried again", "off", j.a*Block, "bytes", (j.b-j.a)*Block, "err", err)
		}
		h.trouble = err
	}
	h.signal()
}

// buffers are of 1, 2, 4 … 64 blocks.
var buffers [7]sync.Pool

// class is the buffers of at least n bytes.
func class(n int) int { return bits.Len(uint((n+Block-1)/Block - 1)) }

func buffer(n int) *[]byte {
	b, _ := buffers[class(n)].Get().(*[]byte)
	if b == nil {
		whole := make([]byte, Block<<class(n))
		b = &whole
	}
	*b = (*b)[:n]
	return b
}

func release(b *[]byte) { buffers[class(len(*b))].Put(b) }
