package hydrate

import (
	"context"
	"errors"
	"fmt"
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
	for ctx.Err() == nil {
		j, ok, idle, again := h.next()
		if idle {
			break
		}
		if ok {
			wg.Go(func() {
				if err := h.fetch(ctx, j, src, to); err != nil {
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
	h.buffers = nil
	return h.plan.stale.Empty()
}

// next is the next fetch, if one may begin now. idle says that nothing is stale; again is after which time to ask again, 0
// when something has happened.
func (h *Hydrator) next() (j job, ok, idle bool, again time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.plan.stale.Empty() {
		return j, false, true, 0
	}
	now := time.Now()
	if wait := h.until.Sub(now); wait > 0 {
		return j, false, false, wait
	}
	if h.demand < h.o.Demand {
		ahead := int64(h.meter.rate(now) * aheadTime.Seconds())
		if j, ok = h.plan.demand(min(MaxFetch, max(minAhead, ahead)) / Block); ok {
			h.demand++
			return j, true, false, 0
		}
	}
	room := h.o.Background
	switch {
	case h.quiet:
		room = 0
	case h.demand > 0:
		room = 1
	}
	if h.behind < room {
		if j, ok = h.plan.background(); ok {
			h.behind++
		}
	}
	return j, ok, false, 0
}

// fetch does one fetch. An error is final.
func (h *Hydrator) fetch(ctx context.Context, j job, src Source, to Sink) error {
	buf := h.buffer()
	err := src.Fetch(ctx, j.a*Block, buf[:(j.b-j.a)*Block], j.demand)
	final := errors.Is(err, ErrGone)
	if err == nil {
		h.mu.Lock()
		wanted := h.plan.wanted(j)
		h.mu.Unlock()
		for _, w := range wanted {
			if err = to.Put(w.a*Block, buf[(w.a-j.a)*Block:(w.b-j.a)*Block]); err != nil {
				final = !passing(err)
				break
			}
		}
	}
	h.landed(ctx, j, buf, err)
	if final {
		return err
	}
	return nil
}

// landed ends a fetch.
func (h *Hydrator) landed(ctx context.Context, j job, buf []byte, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.buffers = append(h.buffers, buf)
	if j.demand {
		h.demand--
	} else {
		h.behind--
	}
	before := h.plan.stale.Count()
	h.plan.end(j, err == nil)
	now := time.Now()
	switch {
	case err == nil:
		h.fetched += before - h.plan.stale.Count()
		h.meter.add(now, (j.b-j.a)*Block)
		h.trouble, h.failures = nil, 0
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

func (h *Hydrator) buffer() []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.buffers); n > 0 {
		b := h.buffers[n-1]
		h.buffers = h.buffers[:n-1]
		return b
	}
	return make([]byte, MaxFetch)
}
