package push_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tagalong.org/tagalong/p2p/push"
	"tagalong.org/tagalong/p2p/wire"
)

// lane is one direction of a link with a rate and a delay, in the fake time of a bubble. What waits for the link waits in a queue without end, as in a
// router that has too much memory.
type lane struct {
	rate  float64 // bytes a second
	delay time.Duration

	mu       sync.Mutex
	changed  chan struct{}
	chunks   []chunk
	busy     time.Time
	closed   bool
	reset    bool
	deadline time.Time
	bytes    int64
	queued   time.Duration // over all writes
	writes   int
}

type chunk struct {
	p  []byte
	at time.Time
}

func newLane(rate float64, delay time.Duration) *lane {
	return &lane{rate: rate, delay: delay, changed: make(chan struct{}), busy: time.Now()}
}

func (l *lane) change(do func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	do()
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *lane) write(p []byte) (n int, err error) {
	l.change(func() {
		if l.reset || l.closed {
			err = errCut
			return
		}
		now := time.Now()
		if l.busy.Before(now) {
			l.busy = now
		}
		l.queued += l.busy.Sub(now)
		l.writes++
		l.bytes += int64(len(p))
		l.busy = l.busy.Add(time.Duration(float64(len(p)) / l.rate * 1e9))
		l.chunks = append(l.chunks, chunk{append([]byte(nil), p...), l.busy.Add(l.delay)})
		n = len(p)
	})
	return n, err
}

func (l *lane) read(p []byte) (int, error) {
	for {
		l.mu.Lock()
		now, wait := time.Now(), time.Duration(1<<62)
		switch {
		case l.reset:
			l.mu.Unlock()
			return 0, errCut
		case len(l.chunks) > 0 && !l.chunks[0].at.After(now):
			n := copy(p, l.chunks[0].p)
			if l.chunks[0].p = l.chunks[0].p[n:]; len(l.chunks[0].p) == 0 {
				l.chunks = l.chunks[1:]
			}
			l.mu.Unlock()
			return n, nil
		case !l.deadline.IsZero() && !l.deadline.After(now):
			l.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		case len(l.chunks) > 0:
			wait = l.chunks[0].at.Sub(now)
		case l.closed:
			l.mu.Unlock()
			return 0, io.EOF
		}
		if !l.deadline.IsZero() {
			wait = min(wait, l.deadline.Sub(now))
		}
		changed := l.changed
		l.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

type end struct{ in, out *lane }

func (e end) Read(p []byte) (int, error)  { return e.in.read(p) }
func (e end) Write(p []byte) (int, error) { return e.out.write(p) }
func (e end) CloseWrite() error           { e.out.change(func() { e.out.closed = true }); return nil }
func (e end) Close() error                { return e.CloseWrite() }
func (e end) Reset() error {
	for _, l := range []*lane{e.in, e.out} {
		l.change(func() { l.reset = true })
	}
	return nil
}
func (e end) SetDeadline(t time.Time) error      { return e.SetReadDeadline(t) }
func (e end) SetWriteDeadline(t time.Time) error { return nil }
func (e end) SetReadDeadline(t time.Time) error {
	e.in.change(func() { e.in.deadline = t })
	return nil
}

// newLink is a link of so many bytes a second in either direction, with a round trip.
func newLink(rate float64, trip time.Duration) (a, b end) {
	up, down := newLane(rate, trip/2), newLane(rate, trip/2)
	return end{down, up}, end{up, down}
}

const sevenMbit = 7e6 / 8

// The link is kept full while there is work, and hardly anything waits in front of it: so a demand fetch meanwhile isn't slow.
func TestALinkIsKeptFull(t *testing.T) {
	const size = 64 * mib
	for name, c := range map[string]struct {
		rate float64
		trip time.Duration
		work func(r *rand.Rand) (*replicaDisk, push.Work)
	}{
		"content": {sevenMbit, 40 * time.Millisecond, written(size, 20*mib/block)},
		"drive":   {sevenMbit, 40 * time.Millisecond, slowly(written(size, 20*mib/block))},
		"far":     {sevenMbit, 200 * time.Millisecond, written(size, 32*mib/block)},
		"near":    {1e6, 2 * time.Millisecond, written(size, 20*mib/block)},
		"fast":    {6e6, 40 * time.Millisecond, written(8*size, 40*mib/block)},
		"asked":   {sevenMbit / 40, 40 * time.Millisecond, guessed(size/4, 100)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, w := c.work(rand.New(rand.NewPCG(5, 5)))
				a, b := newLink(c.rate, c.trip)
				began := time.Now()
				if sent, received := pushed(t, a, b, hello(size*8, at(2)), w, d, nil, nil); sent != nil || received != nil {
					t.Fatal(sent, received)
				}
				took := time.Since(began)
				d.equals(t, w.Source.(*source).content, at(2))
				use := float64(a.out.bytes) / c.rate / took.Seconds()
				queued := a.out.queued / time.Duration(a.out.writes)
				t.Logf("use %.4f, %d bytes in %v, in front of the link %v", use, a.out.bytes, took, queued)
				if use < 0.95 {
					t.Errorf("the link was used to %.4f", use)
				}
				if c.trip == 40*time.Millisecond && c.rate == sevenMbit {
					// A block takes its trip and its own time when nothing else is under way.
					idle := c.trip + time.Duration(float64(block)/c.rate*1e9)
					if slow := float64(idle+queued) / float64(idle); slow > 1.6 {
						t.Errorf("a block that is wanted now takes %.2f times as long", slow)
					}
				}
			})
		})
	}
}

// written is a push of n scattered blocks.
func written(size, n int64) func(r *rand.Rand) (*replicaDisk, push.Work) {
	return func(r *rand.Rand) (*replicaDisk, push.Work) {
		old := newContent(8*64*mib, nil)
		cut := old.clone()
		lacks := scatter(r, size/block, n)
		for _, x := range lacks {
			cut.here[x] = noise(uint64(x))
		}
		return newReplica(old, at(1)), push.Work{Source: &source{content: cut, lacks: lacks}, Exact: true}
	}
}

// slowly is a push to a drive that takes its time to make something durable.
func slowly(of func(r *rand.Rand) (*replicaDisk, push.Work)) func(r *rand.Rand) (*replicaDisk, push.Work) {
	return func(r *rand.Rand) (*replicaDisk, push.Work) {
		d, w := of(r)
		d.slow = 150 * time.Millisecond
		return d, w
	}
}

// guessed is a push of a disk of which n blocks differ, and nobody knows which.
func guessed(size, n int64) func(r *rand.Rand) (*replicaDisk, push.Work) {
	return func(r *rand.Rand) (*replicaDisk, push.Work) {
		old := newContent(8*64*mib, nil)
		for x := range size / block {
			old.here[x] = noise(uint64(x))
		}
		cut := old.clone()
		for _, x := range scatter(r, size/block, n) {
			cut.here[x] = noise(uint64(x) + 1<<40)
		}
		return newReplica(old, at(1)), push.Work{Source: &source{content: cut}}
	}
}

// pace is a rate limit.
type pace struct {
	rate  float64
	free  time.Time
	sum   int64
	taken func(sum int64) // may be nil
}

func (p *pace) Wait(ctx context.Context, n int64) error {
	if wait := time.Until(p.free); wait > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
	p.free = time.Now().Add(time.Duration(float64(n) / p.rate * 1e9))
	if p.sum += n; p.taken != nil {
		p.taken(p.sum)
	}
	return nil
}

func TestThePaceIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, w := written(64*mib, 4*mib/block)(rand.New(rand.NewPCG(6, 6)))
		a, b := newLink(100e6, 40*time.Millisecond)
		done := make(chan error, 1)
		go func() {
			done <- push.Receive(t.Context(), b, func(push.Hello) (push.Replica, push.State, error) { return push.Replica{Sink: d}, d.state(), nil }, nil)
		}()
		began := time.Now()
		err := push.Send(t.Context(), a, hello(8*64*mib, at(2)), func(push.State, iter.Seq2[int64, int64]) (push.Work, error) { return w, nil }, push.Options{Pace: &pace{rate: 1e4, free: began}})
		if err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if rate := float64(a.out.bytes) / time.Since(began).Seconds(); rate > 1.05e4 || rate < 0.9e4 {
			t.Errorf("%.0f bytes a second instead of 10000", rate)
		}
	})
}

// The line is cut, and the receiver's power: at most a second's worth, or 1 MiB, comes twice.
func TestLittleComesTwiceAfterAPowerCut(t *testing.T) {
	for _, rate := range []float64{sevenMbit, 3e6} {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(7, 7))
			n := int64(rate*10) / block
			d, w := written(8*64*mib, n)(r)
			lacks := w.Source.(*source).lacks
			a, b := newLink(rate, 40*time.Millisecond)
			go func() {
				time.Sleep(7300 * time.Millisecond)
				d.mu.Lock()
				d.failAt = 1 // the power is off
				d.mu.Unlock()
			}()
			sent, received := pushed(t, a, b, hello(8*64*mib, at(2)), w, d, nil, nil)
			if sent == nil || !errors.Is(received, errDisk) {
				t.Fatal(sent, received)
			}
			came, src := d.written, w.Source.(*source)
			for _, x := range lacks {
				if src.done[x*block/push.Region] && !bytes.Equal(d.stable[x], src.block(x)) {
					t.Fatalf("block %d counts as done, and isn't durable", x)
				}
			}
			if len(src.done) == 0 {
				t.Error("nothing was done in seven seconds")
			}
			d.crash(rand.New(rand.NewPCG(1<<63, 1))) // some is torn, some is lost
			a, b = newLink(rate, 40*time.Millisecond)
			var st [2]push.Stats
			if sent, received := pushed(t, a, b, hello(8*64*mib, at(2)), push.Work{Source: &source{content: w.Source.(*source).content, lacks: lacks}, Exact: true}, d, nil, &st); sent != nil || received != nil {
				t.Fatal(sent, received)
			}
			d.equals(t, w.Source.(*source).content, at(2))
			twice := came + st[0].Content.Load() - int64(len(lacks))*block
			if limit := max(mib, int64(rate)) + 2*push.MaxBatch; twice > limit {
				t.Errorf("%d bytes came twice at %.0f bytes a second", twice, rate)
			}
			if came < int64(5*rate) {
				t.Errorf("only %d bytes had come", came)
			}
		})
	}
}

// A receiver that says nothing any more is given up.
func TestASilentReceiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, w := written(64*mib, mib/block)(rand.New(rand.NewPCG(8, 8)))
		a, b := newLink(1e6, 40*time.Millisecond)
		go func() {
			h := make([]byte, 4096)
			_, _ = b.Read(h)
			_ = wire.WriteJSON(b, d.state())
			_, _ = b.Write([]byte{0x80, 0, 0})
		}()
		began := time.Now()
		err := push.Send(t.Context(), a, hello(8*64*mib, at(2)), func(push.State, iter.Seq2[int64, int64]) (push.Work, error) { return w, nil }, push.Options{})
		if err == nil || time.Since(began) > 5*time.Minute {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}
