package fetch

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Options for a Pool. The zero value is good.
type Options struct {
	// Patience is how long a demand waits for a holder when there is none; the background waits 30 times as long, as it has nothing
	// else to do, unless there are holders that lack what it wants. 0 is 1 s.
	Patience time.Duration
	// Log gets what happens; nil is silence.
	Log *slog.Logger
}

// Pool fetches blocks of one disk from several holders. Its methods may be called from any goroutine.
type Pool struct {
	hello  Hello
	o      Options
	log    *slog.Logger
	ctx    context.Context // of all members
	cancel context.CancelFunc
	wg     sync.WaitGroup // of the members' run
	turns  atomic.Uint64

	mu      sync.Mutex
	closed  bool
	members map[string]*member
	links   []*link
	waiting []*waiter     // who is served first comes first
	changed chan struct{} // closed when who is there changes, or what may be pulled from whom
}

// NewPool is a Pool without holders, for the disk and the position that h names. The caller must Close it. Errors: ErrHello.
func NewPool(h Hello, o Options) (*Pool, error) {
	h.Version = Version
	if err := h.Check(ErrHello); err != nil {
		return nil, err
	}
	if h.At.Term == 0 || h.At.Term > h.Term {
		return nil, fmt.Errorf("position of term %d for the owner of term %d: %w", h.At.Term, h.Term, ErrHello)
	}
	o.Patience = cmp.Or(o.Patience, time.Second)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	p := &Pool{hello: h, o: o, log: o.Log, members: map[string]*member{}, changed: make(chan struct{})}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p, nil
}

// Add adds a holder, in place of another of that name. It doesn't wait. A closed Pool takes none. A Hydrator that had to give up blocks for
// want of a holder asks for them last, one by one: it should be run anew when one comes (HolderInfo.Connected).
func (p *Pool) Add(h Holder) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.drop(h.Name)
	ctx, cancel := context.WithCancel(p.ctx)
	m := &member{Holder: h, pool: p, cancel: cancel, allowance: Allowance{Pull: true}}
	p.members[h.Name] = m
	p.wg.Go(func() { m.run(ctx) })
}

// Remove takes a holder out, if it is there. What it was asked for is asked of others. It doesn't wait.
func (p *Pool) Remove(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(name)
}

// drop removes a holder. The caller holds mu.
func (p *Pool) drop(name string) {
	if m := p.members[name]; m != nil {
		m.cancel()
		delete(p.members, name)
		p.unlink(m.link)
	}
}

// Close removes all holders, makes every Fetch end with ErrClosed and waits until all streams are closed. It may be called more than once.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	for name := range p.members {
		p.drop(name)
	}
	p.notify()
	p.mu.Unlock()
	p.cancel()
	p.wg.Wait()
}

// HolderInfo says how it goes with a holder.
type HolderInfo struct {
	Name      string
	Connected bool
	// Pulled says that it may be pulled from.
	Pulled bool
	// Position that it answers from, the round trip to it and its rate in bytes per second, if it is Connected.
	Position  Position
	RoundTrip time.Duration
	Rate      float64
	// Fetched bytes came from it.
	Fetched int64
	// Err is why it isn't Connected, or wasn't the last time.
	Err error
}

// Holders says how it goes with the holders, by name.
func (p *Pool) Holders() []HolderInfo {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []HolderInfo
	for _, m := range p.members {
		i := HolderInfo{Name: m.Name, Fetched: m.fetched, Err: m.err, Pulled: m.allowance.Pull}
		if l := m.link; l != nil {
			i.Connected, i.Position, i.RoundTrip, i.Rate = true, l.at, l.pace.base(), l.rate
		}
		out = append(out, i)
	}
	slices.SortFunc(out, func(a, b HolderInfo) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// joined says that l can be asked.
func (p *Pool) joined(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.members[l.m.Name] != l.m {
		return // removed meanwhile
	}
	l.m.link, l.m.err = l, nil
	p.links = append(p.links, l)
	p.turn()
	p.log.Info("A holder of stale blocks is there", "device", l.m.Name, "term", l.at.Term, "barrier", l.at.Barrier, "rtt", l.pace.base())
	p.notify()
}

// left says that l can't be asked any more.
func (p *Pool) left(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unlink(l)
}

// unlink takes a link out, if it is there. The caller holds mu.
func (p *Pool) unlink(l *link) {
	if i := slices.Index(p.links, l); i >= 0 {
		p.links = slices.Delete(p.links, i, i+1)
		l.m.link = nil
		p.turn()
		p.notify()
	}
}

// troubled notes why a holder can't be asked.
func (p *Pool) troubled(m *member, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m.err == nil {
		p.log.Warn("A holder of stale blocks can't be asked", "device", m.Name, "err", err)
	}
	m.err = err
}

func (p *Pool) fetchedFrom(m *member) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return m.fetched
}

// booked says that l is asked for nothing but an answer.
func (p *Pool) booked(l *link, stream int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.book(time.Now(), stream, 0, false)
}

// answered says that what l was asked on one of its streams has ended.
func (p *Pool) answered(l *link, stream int, w *want, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	var took time.Duration
	if err == nil {
		took = max(1, now.Sub(w.asked))
		l.m.fetched += int64(w.n)
	}
	l.end(now, stream, int64(w.n), w.sudden, took)
	p.notify()
}
