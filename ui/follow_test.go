package ui

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tagalong.org/tagalong/app/api"
)

var errNoEngine = &api.Error{Code: api.CodeNoEngine, Sentence: "No engine."}

// heard collects what a follower tells.
type heard struct {
	mu  sync.Mutex
	all []news
	at  []time.Time
}

func (h *heard) tell(n news) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all, h.at = append(h.all, n), append(h.at, time.Now())
}

func (h *heard) last() news {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.all) == 0 {
		return news{}
	}
	return h.all[len(h.all)-1]
}

func (h *heard) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.all)
}

// followed runs test beside a follower, in fake time.
func followed(t *testing.T, engine *fakeEngine, start func() error, test func(*testing.T, *follower, *heard)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		h := &heard{}
		f := newFollower(engine, start, slog.New(slog.DiscardHandler), h.tell)
		done := make(chan struct{})
		go func() { f.Run(ctx); close(done) }()
		defer func() {
			cancel()
			<-done
		}()
		synctest.Wait()
		test(t, f, h)
	})
}

// pass lets fake time go by, and everything happen that is due by then.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestFollowEvents(t *testing.T) {
	engine := newFakeEngine(sample(testNow))
	followed(t, engine, nil, func(t *testing.T, f *follower, h *heard) {
		if n := h.last(); n.Link != linkUp || n.Status.Seq != 1 {
			t.Fatalf("first: %+v", n)
		}
		// Ever so many events are two readings a second at most, and the last state isn't missed.
		start := time.Now()
		for range 100 {
			engine.say(func(*api.Status) {})
			pass(20 * time.Millisecond)
		}
		pass(minGap)
		if n := h.count(); n < 4 || n > 7 {
			t.Errorf("%d readings in %v", n, time.Since(start))
		}
		if n := h.last(); n.Status.Seq != 101 {
			t.Errorf("last: %+v", n.Status.Seq)
		}
		for i := 1; i < len(h.at); i++ {
			if d := h.at[i].Sub(h.at[i-1]); d < minGap {
				t.Errorf("readings %v apart", d)
			}
		}
	})
}

func TestFollowPace(t *testing.T) {
	engine := newFakeEngine(sample(testNow))
	followed(t, engine, nil, func(t *testing.T, f *follower, h *heard) {
		before := h.count()
		pass(time.Minute + time.Second)
		if n := h.count() - before; n != int(time.Minute/idleGap) {
			t.Errorf("%d readings in an idle minute", n)
		}
		engine.say(func(st *api.Status) { st.VMs[0].Switch = switching() })
		pass(minGap)
		before = h.count()
		pass(10*time.Second + time.Millisecond)
		if n := h.count() - before; n != int(10*time.Second/busyGap) {
			t.Errorf("%d readings in 10 busy seconds", n)
		}
	})
}

func TestFollowLostAndFound(t *testing.T) {
	engine := newFakeEngine(sample(testNow))
	var starts atomic.Int32
	followed(t, engine, func() error { starts.Add(1); return nil }, func(t *testing.T, f *follower, h *heard) {
		engine.fail(errNoEngine)
		pass(minGap)
		if n := h.last(); n.Link != linkLost || n.Err.Code != api.CodeNoEngine {
			t.Fatalf("%+v", n)
		}
		pass(time.Hour)
		if starts.Load() != 0 {
			t.Error("an engine that was stopped came back by itself")
		}
		engine.fail(nil)
		pass(maxPause)
		if n := h.last(); n.Link != linkUp {
			t.Fatalf("%+v", n)
		}
	})
}

func TestFollowStarts(t *testing.T) {
	engine := newFakeEngine(sample(testNow))
	engine.fail(errNoEngine)
	start := func() error {
		time.AfterFunc(3*time.Second, func() { engine.fail(nil) })
		return nil
	}
	followed(t, engine, start, func(t *testing.T, f *follower, h *heard) {
		if n := h.last(); n.Link != linkStarting {
			t.Fatalf("%+v", n)
		}
		pass(3*time.Second + startGap)
		if n := h.last(); n.Link != linkUp {
			t.Fatalf("%+v", n)
		}
	})
}

func TestFollowStartFails(t *testing.T) {
	engine := newFakeEngine(sample(testNow))
	engine.fail(errNoEngine)
	var starts atomic.Int32
	var works atomic.Bool
	start := func() error {
		starts.Add(1)
		if works.Load() {
			return nil
		}
		return errors.New("no such file")
	}
	followed(t, engine, start, func(t *testing.T, f *follower, h *heard) {
		if n := h.last(); n.Link != linkNone || n.Err.Cause != "no such file" {
			t.Fatalf("%+v", n)
		}
		pass(time.Hour)
		if n := starts.Load(); n != 1 {
			t.Errorf("%d starts without a wish", n)
		}
		works.Store(true)
		f.StartEngine()
		pass(startGap)
		if n := h.last(); n.Link != linkStarting || starts.Load() != 2 {
			t.Fatalf("%+v after %d starts", n, starts.Load())
		}
		pass(startTime)
		if n := h.last(); n.Link != linkNone || n.Err.Sentence != "The engine was started but doesn't answer." {
			t.Fatalf("%+v", n)
		}
	})
}

// cutter is an engine that cuts off every watch at once.
type cutter struct {
	*fakeEngine
	watches int
}

func (c *cutter) Watch(context.Context, uint64) (<-chan api.Event, error) {
	c.watches++
	ch := make(chan api.Event)
	close(ch)
	return ch, nil
}

func TestFollowCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		c := &cutter{fakeEngine: newFakeEngine(sample(testNow))}
		h := &heard{}
		newFollower(c, nil, slog.New(slog.DiscardHandler), h.tell).Run(ctx)
		if c.watches < 10 || c.watches > 21 {
			t.Errorf("%d watches in 10 s", c.watches)
		}
		if n := h.last(); n.Link != linkUp {
			t.Errorf("%+v", n)
		}
	})
}
