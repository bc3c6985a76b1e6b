package push_test

import (
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"tagalong.org/tagalong/p2p/push"
)

// A receiver that may take only so much a second holds the sender to that: little is on its way that it hasn't taken, and nobody takes it for gone.
func TestTheReceiversPaceIsKept(t *testing.T) {
	for name, c := range map[string]struct {
		rate float64
		n    int64
		trip time.Duration
	}{
		"slow":      {2e4, 4 * mib, 40 * time.Millisecond},
		"very slow": {80, mib / 2, 40 * time.Millisecond},
		"faster":    {1e6, 32 * mib, 40 * time.Millisecond},
		"far":       {2e5, 8 * mib, 300 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, w := written(64*mib, c.n/block)(rand.New(rand.NewPCG(8, 8)))
				a, b := newLink(100e6, c.trip)
				limit := &pace{rate: c.rate, free: time.Now()}
				began := time.Now()
				done, most := make(chan error, 1), int64(0)
				var st [2]push.Stats
				limit.taken = func(n int64) { most = max(most, st[0].Sent.Load()-n) }
				go func() {
					done <- push.Receive(t.Context(), b, func(push.Hello) (push.Replica, push.State, error) {
						return push.Replica{Sink: d, Pace: limit}, d.state(), nil
					}, &st[1])
				}()
				err := push.Send(t.Context(), a, hello(8*64*mib, at(2)), func(push.State, iter.Seq2[int64, int64]) (push.Work, error) { return w, nil }, push.Options{Stats: &st[0]})
				if err != nil {
					t.Fatal(err)
				}
				if err := <-done; err != nil {
					t.Fatal(err)
				}
				d.equals(t, w.Source.(*source).content, at(2))
				if rate := float64(a.out.bytes) / time.Since(began).Seconds(); rate > 1.05*c.rate || rate < 0.9*c.rate {
					t.Errorf("%.0f bytes a second instead of %.0f", rate, c.rate)
				}
				t.Logf("at most %d bytes waited for the pace", most)
				if bound := max(int64(3*c.rate*(c.trip+paceSlack).Seconds()), 160<<10); most > bound {
					t.Errorf("%d bytes waited for the pace, more than %d", most, bound)
				}
			})
		})
	}
}

// paceSlack is how late the sender hears what was taken.
const paceSlack = 200 * time.Millisecond

// Who waits for the pace stops at once when the push is called off.
func TestACallOffDuringThePace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, w := written(64*mib, 4*mib/block)(rand.New(rand.NewPCG(9, 9)))
		a, b := newLink(100e6, 40*time.Millisecond)
		off := errors.New("called off")
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- push.Receive(ctx, b, func(push.Hello) (push.Replica, push.State, error) {
				return push.Replica{Sink: d, Pace: &pace{rate: 1, free: time.Now()}}, d.state(), nil
			}, nil)
		}()
		sent := make(chan error, 1)
		go func() {
			sent <- push.Send(t.Context(), a, hello(8*64*mib, at(2)), func(push.State, iter.Seq2[int64, int64]) (push.Work, error) { return w, nil }, push.Options{})
		}()
		time.Sleep(10 * time.Second)
		began := time.Now()
		cancel(off)
		if err := <-done; !errors.Is(err, off) {
			t.Errorf("the receiver: %v", err)
		}
		if err := <-sent; err == nil {
			t.Error("the sender says that all is well")
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v", took)
		}
	})
}
