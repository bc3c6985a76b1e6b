package fetch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
)

// The streams of a link.
const (
	behind = 0 // background
	ahead  = 1 // demand
)

// Lacks says what a holder lacks of the disk at the position of the Pool's Hello: whether it lacks the block at off, and up to which byte that is
// so for all blocks. It must neither block nor call the Pool. nil: it lacks nothing.
type Lacks func(off int64) (lacks bool, end int64)

// Holder is a device that may have what is stale.
type Holder struct {
	// Name names it among the Pool's.
	Name string
	// Dial opens a stream to it. It is called, for two streams at a time, until the holder is removed: again when they ended, and after a
	// pause when it failed. It may wait for as long as it likes, until ctx ends; the stream must outlive ctx.
	Dial func(ctx context.Context) (Stream, error)
	// Judge says what a holder with that state lacks, or why it can't be asked. nil: a holder at exactly the Hello's position is asked
	// for everything, no other for anything.
	Judge func(State) (Lacks, error)
}

// member is a holder in a Pool.
type member struct {
	Holder
	pool   *Pool
	cancel context.CancelFunc
	// Under pool.mu:
	link      *link
	fetched   int64
	err       error
	allowance Allowance
}

// link is the two streams to a holder, both answered from the same position.
type link struct {
	m     *member
	at    Position
	lacks Lacks
	x     [2]*session

	estimate // under pool.mu
}

// run keeps links to the holder until ctx ends.
func (m *member) run(ctx context.Context) {
	for pause := firstPause; ctx.Err() == nil; {
		before := m.pool.fetchedFrom(m)
		l, err := m.connect(ctx)
		if err == nil {
			err = m.live(ctx, l)
		}
		if ctx.Err() != nil {
			return
		}
		if m.pool.fetchedFrom(m) > before {
			pause = firstPause
		}
		m.pool.troubled(m, err)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

// connect opens both streams.
func (m *member) connect(ctx context.Context) (*link, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l := &link{m: m}
	l.pace.window = firstWindow
	var states [2]State
	var greeted [2]time.Duration
	var wg sync.WaitGroup
	for i := range l.x {
		wg.Go(func() {
			s, err := m.Dial(ctx)
			if err == nil {
				began := time.Now()
				l.x[i], states[i], err = greet(ctx, s, m.pool.hello)
				greeted[i] = time.Since(began)
			}
			if err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	err := context.Cause(ctx)
	if err == nil && states[behind].Position != states[ahead].Position {
		err = ErrOver // between the two; next time then
	}
	if err == nil {
		l.pace.sample(time.Now(), min(greeted[behind], greeted[ahead]))
		l.at = states[ahead].Position
		l.lacks, err = m.judge(states[ahead])
	}
	if err != nil {
		for _, x := range l.x {
			if x != nil {
				_ = x.s.Reset()
			}
		}
		return nil, fmt.Errorf("connect to a holder: %w", err)
	}
	return l, nil
}

func (m *member) judge(st State) (Lacks, error) {
	if m.Judge != nil {
		return m.Judge(st)
	}
	if st.Position != m.pool.hello.At {
		return nil, fmt.Errorf("the holder is at %d/%d: %w", st.Position.Term, st.Position.Barrier, ErrNotHere)
	}
	return nil, nil
}

// live serves the Pool with l until one of its streams ends.
func (m *member) live(ctx context.Context, l *link) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for i, x := range l.x {
		x.answered = func(w *want, err error) { m.pool.answered(l, i, w, err) }
		wg.Go(func() { cancel(x.run(ctx)) })
	}
	// The greeting said how long the way is at most; the round trip alone is known as soon as this is answered.
	m.pool.booked(l, ahead)
	w := l.x[ahead].ask(0, nil, false)
	m.pool.joined(l)
	if err := <-w.done; err != nil {
		cancel(err)
	}
	<-ctx.Done()
	m.pool.left(l)
	wg.Wait()
	err := context.Cause(ctx)
	if errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("ask a holder: %w", err)
}
