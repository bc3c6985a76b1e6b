package fetch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// request is who fetches a range: what for, since when, and who couldn't give it.
type request struct {
	kind   Kind
	sudden bool            // it was a Demand from the beginning
	urgent <-chan struct{} // closed when it is as good as a Demand; nil is never
	turn   uint64          // who came earlier has the lower one
	tried  []*member
	errs   []error // of tried
}

// stream is the one on which it is asked for.
func (r *request) stream() int {
	if r.kind == Demand {
		return ahead
	}
	return behind
}

// before orders requests: who is served first.
func (r *request) before(o *request) int {
	return cmp.Or(cmp.Compare(o.kind, r.kind), cmp.Compare(r.turn, o.turn))
}

// without is r after l failed. Its holder isn't asked again, also when it comes back: whoever fetches shall hear of it.
func (r request) without(l *link, err error) request {
	r.tried = append(slices.Clip(r.tried), l.m)
	r.errs = append(slices.Clip(r.errs), err)
	return r
}

// waiter waits until somebody can be asked for the first of n bytes at off.
type waiter struct {
	request
	off, n int64
	got    chan choice // 1-buffered
}

// choice is whom to ask, for how many bytes, as what Kind of fetch; they are booked. Or an error.
type choice struct {
	l    *link
	n    int64
	kind Kind
	err  error
}

// lack says whether the holder lacks the block at off, and how many bytes after off, at most n, that is so.
func (l *link) lack(off, n int64) (lacks bool, run int64) {
	if l.lacks == nil {
		return false, n
	}
	lacks, end := l.lacks(off)
	return lacks, min(n, max(Block, (end-off)/Block*Block))
}

// why says why nobody was picked.
type why int

const (
	nobody why = 0 // nobody has it
	failed why = 1 // whoever has it was tried
	full   why = 2 // somebody has it, and has enough to do
)

// absent is how many of the n bytes at off, of which nobody has the first block, nobody has. The caller holds mu.
func (p *Pool) absent(off, n int64) int64 {
	for _, l := range p.links {
		if lacks, run := l.lack(off, n); lacks {
			n = min(n, run)
		}
	}
	return n
}

// pick chooses whom to ask for the first of n bytes at off, and for how many; if that is nobody, how many none of them has. The caller holds mu.
func (p *Pool) pick(r request, off, n int64) (best *link, got int64, reason why) {
	var cost float64
	now, later := time.Now(), n
	for _, l := range p.links {
		lacks, run := l.lack(off, n)
		if lacks {
			continue
		}
		if slices.Contains(r.tried, l.m) {
			reason = max(reason, failed)
			continue
		}
		if r.kind == Pull && !l.m.allowance.Pull {
			reason = full
			continue
		}
		stream := r.stream()
		c, room := float64(l.usual(now, stream, Block)), l.asked[stream] < mostAsked
		if stream == behind {
			// All are filled alike: each gives in proportion to its rate.
			run = min(run, l.pace.piece(l.tight(now)))
			c, room = l.pace.fill(run), room && l.pace.room(run, l.tight(now))
		}
		if !room {
			reason = full
			continue
		}
		if best == nil || c < cost {
			best, got, cost = l, run, c
		}
	}
	if best == nil {
		return nil, p.absent(off, n), reason
	}
	if r.kind == Demand {
		// Who is nearer may have what follows.
		for _, l := range p.links {
			if lacks, run := l.lack(off, n); lacks && float64(l.usual(now, ahead, Block)) < cost {
				later = min(later, run)
			}
		}
	}
	return best, min(got, later), 0
}

// tryGrant answers w, if that can be done now. The caller holds mu.
func (p *Pool) tryGrant(w *waiter) bool {
	if p.closed {
		w.got <- choice{err: ErrClosed}
		return true
	}
	l, n, reason := p.pick(w.request, w.off, w.n)
	switch {
	case l != nil:
		l.book(time.Now(), w.stream(), n, w.sudden)
		w.got <- choice{l: l, n: n, kind: w.kind}
	case reason == failed, reason == nobody && w.kind != Demand && len(p.links) > 0:
		// The background shall rather go on with what somebody has.
		w.got <- choice{err: w.nobody(n)}
	default:
		return false
	}
	return true
}

// nobody says that the range isn't to be had; n bytes of it nobody has.
func (w *waiter) nobody(n int64) error {
	if len(w.tried) == 0 {
		return &AbsentError{w.off, n}
	}
	err := fmt.Errorf("%d bytes at %d: %w", w.n, w.off, ErrNoHolder)
	return errors.Join(append([]error{err}, w.errs...)...)
}

// notify answers those who wait, as far as that can be done now, the oldest first. The caller holds mu.
func (p *Pool) notify() {
	p.waiting = slices.DeleteFunc(p.waiting, p.tryGrant)
}

// choose chooses whom to ask for the first of n bytes at off, and for how many, waiting for a holder that has room, or for
// some time for one that has the bytes.
func (p *Pool) choose(ctx context.Context, r request, off, n int64) choice {
	if r.kind != Demand {
		select {
		case <-r.urgent:
			r.kind = Demand
		default:
		}
	}
	w := p.queue(r, off, n)
	wait, urgent := p.o.Patience, r.urgent
	if r.kind == Demand {
		urgent = nil
	} else {
		wait *= 30
	}
	patience := time.NewTimer(wait)
	defer patience.Stop()
	for {
		select {
		case c := <-w.got:
			return c
		case <-ctx.Done():
			if c := p.leave(w, func() bool { return true }); c.l != nil {
				p.unbook(c.l, w.request, c.n)
			}
			return choice{err: context.Cause(ctx)}
		case <-urgent:
			if c := p.leave(w, func() bool { return true }); c.l != nil {
				return c
			}
			r.kind, urgent, wait = Demand, nil, p.o.Patience
			w = p.queue(r, off, n)
			patience.Reset(wait)
		case <-patience.C:
			c := p.leave(w, func() bool {
				_, _, reason := p.pick(r, off, n)
				return reason != full
			})
			if c.l != nil || c.err != nil {
				return c
			}
			patience.Reset(wait)
		}
	}
}

// queue puts somebody in who waits to be served.
func (p *Pool) queue(r request, off, n int64) *waiter {
	w := &waiter{request: r, off: off, n: n, got: make(chan choice, 1)}
	p.mu.Lock()
	defer p.mu.Unlock()
	at, _ := slices.BinarySearchFunc(p.waiting, w, func(a, b *waiter) int { return a.before(&b.request) })
	p.waiting = slices.Insert(p.waiting, at, w)
	p.notify()
	return w
}

// leave ends the waiting of w if it wants to go, with an error; if it was answered meanwhile, that is returned.
func (p *Pool) leave(w *waiter, gone func() bool) choice {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case c := <-w.got:
		return c
	default:
	}
	if !gone() {
		return choice{}
	}
	p.waiting = slices.DeleteFunc(p.waiting, func(o *waiter) bool { return o == w })
	return choice{err: w.nobody(p.absent(w.off, w.n))}
}

// unbook takes back what l won't be asked for.
func (p *Pool) unbook(l *link, r request, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.end(time.Now(), r.stream(), n, r.sudden, 0)
	p.notify()
}

// other picks and books another link that has all of n bytes at off, however much it has to do; nil if there is none.
func (p *Pool) other(r request, off, n int64) *link {
	p.mu.Lock()
	defer p.mu.Unlock()
	var best *link
	var cost time.Duration
	now := time.Now()
	for _, l := range p.links {
		if lacks, run := l.lack(off, n); lacks || run < n || slices.Contains(r.tried, l.m) || l.asked[r.stream()] >= mostAsked {
			continue
		}
		if c := l.usual(now, r.stream(), n); best == nil || c < cost {
			best, cost = l, c
		}
	}
	if best != nil {
		best.book(now, r.stream(), n, r.sudden)
	}
	return best
}

// lateness is after what time somebody else is asked for what l was asked.
func (p *Pool) lateness(l *link, stream int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return late(l.usual(time.Now(), stream, 0), stream)
}
