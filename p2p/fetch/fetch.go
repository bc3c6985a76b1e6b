package fetch

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// spares are where the answers go of those who are asked beside the first.
var spares = sync.Pool{New: func() any { return new([MaxWant]byte) }}

// Kind is what a fetch is for.
type Kind int

const (
	// Pull: nobody waits for it. Only holders are asked that may be pulled from, as fast as that is allowed (Pool.Allow).
	Pull Kind = iota
	// Ahead: somebody will want it soon. It is asked for as a Pull is, but before all of them, and of whoever has it.
	Ahead
	// Demand: somebody waits for it.
	Demand
)

// Want is what is wanted: to fill P, whole blocks and at most MaxWant bytes, with what the disk holds at Off.
type Want struct {
	Off  int64
	P    []byte
	Kind Kind
	// Urgent, if not nil, is closed when somebody waits for it: from then on it is a Demand, as far as it wasn't asked for yet; and for what
	// was, another one is asked as soon as for a Demand if the answer is late.
	Urgent <-chan struct{}
}

// Fetch fills w.P. A holder that fails isn't an error as long as another has it. P is the caller's again when Fetch
// returns, which is soon after ctx ends. Errors: ErrRange, ErrNoHolder (with what the holders said; ErrAbsent too if there was nobody to ask),
// ErrClosed, that of ctx.
func (p *Pool) Fetch(ctx context.Context, w Want) error {
	err := ErrRange
	if inRange(w.Off, int64(len(w.P)), p.hello.Size) {
		err = p.fill(ctx, request{kind: w.Kind, sudden: w.Kind == Demand, urgent: w.Urgent, turn: p.turns.Add(1)}, w.Off, w.P)
	}
	if err != nil {
		return fmt.Errorf("fetch %d bytes at %d: %w", len(w.P), w.Off, err)
	}
	return nil
}

// fill fetches a range from whoever has it, but for those who were tried.
func (p *Pool) fill(ctx context.Context, r request, off int64, b []byte) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for whole := true; len(b) > 0; whole = false {
		c := p.choose(ctx, r, off, int64(len(b)))
		if c.err != nil {
			cancel(c.err)
			break
		}
		l, n := c.l, c.n
		r := r
		r.kind = c.kind
		at, part := off, b[:n]
		off, b = off+n, b[n:]
		get := func() {
			if err := p.part(ctx, r, l, at, part); err != nil {
				cancel(err)
			}
		}
		if whole && len(b) == 0 {
			get()
		} else {
			wg.Go(get)
		}
	}
	wg.Wait()
	return context.Cause(ctx)
}

// part fetches what l was booked for from it, or else from others.
func (p *Pool) part(ctx context.Context, r request, l *link, off int64, b []byte) error {
	if err := p.allowed(ctx, r, l, int64(len(b))); err != nil {
		p.unbook(l, r, int64(len(b)))
		return err
	}
	r, err := p.race(ctx, r, l, off, b)
	if err == nil || ctx.Err() != nil {
		return err
	}
	return p.fill(ctx, r, off, b)
}

// allowed waits until as much may be pulled from l, or somebody waits for it.
func (p *Pool) allowed(ctx context.Context, r request, l *link, n int64) error {
	pace := p.paceOf(l)
	if r.kind != Pull || pace == nil || pace.Rate() == 0 {
		return nil
	}
	until, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	if r.urgent != nil {
		wg.Go(func() {
			select {
			case <-r.urgent:
				stop()
			case <-until.Done():
			}
		})
	}
	_ = pace.Wait(until, n) // it ends early only by stop, or by ctx
	stop()
	return context.Cause(ctx)
}

// race asks l, and if that takes unusually long another one too: who answers first, counts. If all fail it says who was tried.
func (p *Pool) race(ctx context.Context, r request, l *link, off int64, b []byte) (request, error) {
	asked := l.x[r.stream()]
	first := asked.ask(off, b, r.sudden)
	defer asked.abandon(first)
	slow := p.lateness(l, r.stream())
	urgent := r.urgent
	if r.kind == Demand {
		urgent = nil // it is treated so
	}
	tick := time.NewTimer(slow)
	defer tick.Stop()
	var o *link
	var answered chan error // o's
	var spare []byte
	for open := 1; ; {
		var err error
		select {
		case <-ctx.Done():
			return r, context.Cause(ctx)
		case err = <-first.done:
			if err == nil {
				return r, nil
			}
			r = r.without(l, fmt.Errorf("%s: %w", l.m.Name, err))
		case err = <-answered:
			if err == nil {
				asked.abandon(first)
				copy(b, spare)
				return r, nil
			}
			r = r.without(o, fmt.Errorf("%s: %w", o.m.Name, err))
		case <-urgent:
			r.kind, urgent = Demand, nil
			if answered == nil {
				slow = p.lateness(l, ahead)
				tick.Reset(max(0, slow-time.Since(first.asked)))
			}
			continue
		case <-tick.C:
			if o = p.other(r.without(l, nil), off, int64(len(b))); o == nil {
				tick.Reset(slow) // somebody may come
				continue
			}
			whole := spares.Get().(*[MaxWant]byte)
			defer spares.Put(whole)
			spare = whole[:len(b)]
			x := o.x[r.stream()]
			second := x.ask(off, spare, r.sudden)
			defer x.abandon(second) // before the spare goes back
			answered = second.done
			open++
			continue
		}
		if open--; open == 0 {
			return r, err
		}
	}
}
