package handoff_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tagalong.org/tagalong/p2p/handoff"
	"tagalong.org/tagalong/p2p/wire"
	"tagalong.org/tagalong/p2p/wire/wiretest"
)

// piped starts a Pipe and returns its far ends, the taker's side second.
func piped(t *testing.T, ctx context.Context, pair func(testing.TB) (wire.Stream, wire.Stream), gate *handoff.Gate, count func(int)) (giver, taker wire.Stream, end <-chan error) {
	t.Helper()
	giver, a := pair(t)
	taker, b := pair(t)
	c := make(chan error, 1)
	go func() { c <- handoff.Pipe(ctx, a, b, gate, count) }()
	return giver, taker, c
}

func soon[T any](t *testing.T, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(2 * time.Minute):
		t.Fatalf("%s: nothing came", what)
	}
	return v
}

func TestPipeCopiesBothWays(t *testing.T) {
	for name, pair := range wiretest.Kinds {
		t.Run(name, func(t *testing.T) {
			gate := handoff.NewGate(nil)
			gate.Open()
			var counted atomic.Int64
			giver, taker, end := piped(t, t.Context(), pair, gate, func(n int) { counted.Add(int64(n)) })
			memory := make([]byte, 3_000_001)
			for i := range memory {
				memory[i] = byte(i * 7)
			}
			back := bytes.Repeat([]byte("ack"), 10_000)
			var wg sync.WaitGroup
			wg.Go(func() {
				_, err := giver.Write(memory)
				if err := errors.Join(err, giver.CloseWrite()); err != nil {
					t.Errorf("giver writes: %v", err)
				}
			})
			answered := make(chan struct{})
			wg.Go(func() {
				defer close(answered)
				_, err := taker.Write(back)
				if err != nil {
					t.Errorf("taker writes: %v", err)
				}
			})
			wg.Go(func() {
				got, err := io.ReadAll(taker)
				if err != nil || !bytes.Equal(got, memory) {
					t.Errorf("the taker read %d bytes, %v", len(got), err)
				}
				// Only now does the taker end its direction: the half-close
				// before must not have ended both.
				<-answered
				if err := taker.CloseWrite(); err != nil {
					t.Errorf("taker ends: %v", err)
				}
			})
			wg.Go(func() {
				got, err := io.ReadAll(giver)
				if err != nil || !bytes.Equal(got, back) {
					t.Errorf("the giver read %d bytes, %v", len(got), err)
				}
			})
			wg.Wait()
			if err := soon(t, end, "end of the pipe"); err != nil {
				t.Error(err)
			}
			if counted.Load() != int64(len(memory)) {
				t.Errorf("counted %d bytes of %d", counted.Load(), len(memory))
			}
		})
	}
}

func TestGateHoldsAndTrickles(t *testing.T) {
	gate := handoff.NewGate(nil)
	pieces := make(chan int, 1000)
	giver, taker, end := piped(t, t.Context(), wiretest.Pipe, gate, func(n int) { pieces <- n })
	wrote := make(chan error, 1)
	go func() {
		_, err := giver.Write(make([]byte, 100_000))
		wrote <- err
	}()
	// The return path works while the gate is parked, and by the time it has
	// been around, a leaking gate would have let something through.
	around := func() {
		go func() { _, _ = taker.Write([]byte("x")) }()
		if _, err := io.ReadFull(giver, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if n := len(pieces); n != 0 {
			t.Fatalf("%d pieces passed a parked gate", n)
		}
	}
	around()
	for _, n := range []int{1, 1000, 7} {
		gate.Allow(int64(n))
		if _, err := io.ReadFull(taker, make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		for left := n; left > 0; {
			left -= soon(t, pieces, "count")
			if left < 0 {
				t.Fatalf("%d bytes more than allowed passed", -left)
			}
		}
		around()
	}
	gate.Allow(-5)
	around()
	gate.Release()
	if gate.Park() {
		t.Error("a released gate was parked")
	}
	if _, err := io.ReadFull(taker, make([]byte, 100_000-1008)); err != nil {
		t.Fatal(err)
	}
	if err := soon(t, wrote, "giver's write"); err != nil {
		t.Error(err)
	}
	if err := errors.Join(giver.CloseWrite(), taker.CloseWrite()); err != nil {
		t.Error(err)
	}
	if err := soon(t, end, "end of the pipe"); err != nil {
		t.Error(err)
	}
}

// However the gate is worked, every byte arrives once and in order, and none
// is held after the release.
func TestGateUnderFire(t *testing.T) {
	for seed := range uint64(10) {
		gate := handoff.NewGate(nil)
		giver, taker, end := piped(t, t.Context(), wiretest.TCP, gate, nil)
		memory := make([]byte, 2_000_000)
		for i := range memory {
			memory[i] = byte(i >> 3)
		}
		go func() {
			_, _ = giver.Write(memory)
			_ = giver.CloseWrite()
		}()
		var wg sync.WaitGroup
		for g := range uint64(3) {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(seed, g))
				for range 300 {
					switch r.IntN(4) {
					case 0:
						gate.Open()
					case 1:
						gate.Allow(r.Int64N(50_000))
					case 2:
						gate.Allow(1 << 62)
					default:
						gate.Park()
					}
				}
			})
		}
		go func() {
			wg.Wait()
			gate.Park()
			gate.Release()
		}()
		got, err := io.ReadAll(taker)
		if err != nil || !bytes.Equal(got, memory) {
			t.Fatalf("seed %d: the taker read %d bytes, %v", seed, len(got), err)
		}
		_ = taker.CloseWrite()
		if err := soon(t, end, "end of the pipe"); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		wg.Wait()
	}
}

func TestPipeEndsWhenCancelled(t *testing.T) {
	for name, pair := range wiretest.Kinds {
		for _, open := range []bool{false, true} {
			ctx, cancel := context.WithCancel(t.Context())
			gate := handoff.NewGate(nil)
			if open {
				gate.Open()
			}
			giver, taker, end := piped(t, ctx, pair, gate, nil)
			cancel()
			if err := soon(t, end, name); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", name, err)
			}
			for _, s := range []wire.Stream{giver, taker} {
				if _, err := s.Read(make([]byte, 1)); err == nil || err == io.EOF {
					t.Errorf("%s: an end read %v, want an error", name, err)
				}
			}
		}
	}
}

func TestPipeEndsWhenOneSideBreaks(t *testing.T) {
	for name, pair := range wiretest.Kinds {
		for i := range 2 {
			gate := handoff.NewGate(nil)
			gate.Open()
			giver, taker, end := piped(t, t.Context(), pair, gate, nil)
			broken, other := giver, taker
			if i == 1 {
				broken, other = taker, giver
			}
			if err := broken.Reset(); err != nil {
				t.Fatal(err)
			}
			if err := soon(t, end, name); err == nil {
				t.Errorf("%s: a broken side counts as an end", name)
			}
			if _, err := other.Read(make([]byte, 1)); err == nil || err == io.EOF {
				t.Errorf("%s: the other side read %v, want an error", name, err)
			}
		}
	}
}

// A parked pipe must notice that the taker is gone.
func TestParkedPipeEndsWhenTheTakerBreaks(t *testing.T) {
	_, taker, end := piped(t, t.Context(), wiretest.TCP, handoff.NewGate(nil), nil)
	if err := taker.Reset(); err != nil {
		t.Fatal(err)
	}
	if err := soon(t, end, "end of the pipe"); err == nil {
		t.Error("a broken taker counts as an end")
	}
}

func TestGateSpent(t *testing.T) {
	g := handoff.NewGate(nil)
	g.Spent(t.Context()) // nothing was allowed
	g.Allow(10)
	ctx, cancel := context.WithCancel(t.Context())
	waiting := make(chan struct{})
	go func() {
		defer close(waiting)
		g.Spent(ctx)
	}()
	a, inner := net.Pipe()
	outer, b := net.Pipe()
	piped := make(chan error, 1)
	go func() { piped <- handoff.Pipe(ctx, inner, outer, g, nil) }()
	go func() { _, _ = a.Write(make([]byte, 20)) }()
	if _, err := io.ReadFull(b, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	<-waiting // the ten bytes have passed, the other ten are held
	cancel()
	<-piped
	a.Close()
	b.Close()
}
