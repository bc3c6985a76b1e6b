package fetch

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// spares are where the answers go of those who are asked beside the first.
var spares = sync.Pool{New: func() any { return new([MaxWant]byte) }}

// Fetch implements hydrate.Source: it fills b, whole blocks and at most MaxWant bytes, with what the disk holds at off. demand says
// that somebody waits for it. A holder that fails isn't an error as long as another has it. b is the caller's again when Fetch
// returns, which is soon after ctx ends. Errors: ErrRange, ErrNoHolder (with what the holders said), ErrClosed, that of ctx.
func (p *Pool) Fetch(ctx context.Context, off int64, b []byte, demand bool) error {
	err := ErrRange
	if inRange(off, int64(len(b)), p.hello.Size) {
		r := request{stream: behind, turn: p.turns.Add(1)}
		if demand {
			r.stream = ahead
		}
		err = p.fill(ctx, r, off, b)
	}
	if err != nil {
		return fmt.Errorf("fetch %d bytes at %d: %w", len(b), off, err)
	}
	return nil
}

// fill fetches a range from whoever has it, but for those who were tried.
func (p *Pool) fill(ctx context.Context, r request, off int64, b []byte) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for whole := true; len(b) > 0; whole = false {
		l, n, err := p.choose(ctx, r, off, int64(len(b)))
		if err != nil {
			cancel(err)
			break
		}
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
	r, err := p.race(ctx, r, l, off, b)
	if err == nil || ctx.Err() != nil {
		return err
	}
	return p.fill(ctx, r, off, b)
}

// race asks l, and if that takes unusually long another one too: who answers first, counts. If all fail it says who was tried.
func (p *Pool) race(ctx context.Context, r request, l *link, off int64, b []byte) (request, error) {
	first := l.x[r.stream].ask(off, b)
	defer l.x[r.stream].abandon(first)
	slow := p.lateness(l, r.stream)
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
				l.x[r.stream].abandon(first)
				copy(b, spare)
				return r, nil
			}
			r = r.without(o, fmt.Errorf("%s: %w", o.m.Name, err))
		case <-tick.C:
			if o = p.other(r.without(l, nil), off, int64(len(b))); o == nil {
				tick.Reset(slow) // somebody may come
				continue
			}
			whole := spares.Get().(*[MaxWant]byte)
			defer spares.Put(whole)
			spare = whole[:len(b)]
			second := o.x[r.stream].ask(off, spare)
			defer o.x[r.stream].abandon(second) // before the spare goes back
			answered = second.done
			open++
			continue
		}
		if open--; open == 0 {
			return r, err
		}
	}
}
