package gauge_test

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"tagalong.org/tagalong/p2p/gauge"
	"tagalong.org/tagalong/p2p/handoff"
	"tagalong.org/tagalong/p2p/wire"
	"tagalong.org/tagalong/p2p/wire/wiretest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var vm = strings.Repeat("0a", 16)

func TestSendAndTake(t *testing.T) {
	for name, pair := range wiretest.Kinds {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t)
			took := make(chan error, 1)
			go func() { took <- gauge.Take(t.Context(), b) }()
			rate, err := gauge.Send(t.Context(), a, vm)
			if err != nil || rate < 1<<10 {
				t.Errorf("%d bytes a second, %v", rate, err)
			}
			if err := <-took; err != nil {
				t.Error(err)
			}
		})
	}
}

// slow is a stream of which the other end gets so many bytes a second.
type slow struct {
	wire.Stream
	rate int
}

func (s slow) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p[:min(len(p), s.rate/100)])
	time.Sleep(time.Duration(n) * time.Second / time.Duration(s.rate))
	return n, err
}

// In fake time: what a way carries is about what is said of it, and it is known in about the time that is said.
func TestASlowWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const carries = 875_000
		a, b := wiretest.Pipe(t)
		took := make(chan error, 1)
		go func() { took <- gauge.Take(t.Context(), slow{b, carries}) }()
		began := time.Now()
		rate, err := gauge.Send(t.Context(), a, vm)
		if err != nil || rate < carries/2 || rate > carries*2 {
			t.Errorf("%d bytes a second, %v", rate, err)
		}
		if took := time.Since(began); took > 2*gauge.Lasts {
			t.Errorf("it took %v", took)
		}
		if err := <-took; err != nil {
			t.Error(err)
		}
	})
}

// Who says nothing, or what is something else, holds nobody up.
func TestNobodyTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := wiretest.Pipe(t)
		if _, err := gauge.Send(t.Context(), a, vm); err == nil {
			t.Error("what nobody takes is measured")
		}
		_ = b.Reset()
		a, b = wiretest.Pipe(t)
		if err := gauge.Take(t.Context(), b); err == nil {
			t.Error("a silent peer is heard")
		}
		_ = a.Reset()
	})
	a, b := wiretest.Pipe(t)
	took := make(chan error, 1)
	go func() { took <- gauge.Take(t.Context(), b) }()
	m, err := handoff.OpenMemory(t.Context(), a, handoff.MemHeader{Version: handoff.MemoryFramed, VM: vm, Attempt: "a hand-off"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-took; !errors.Is(err, gauge.ErrProtocol) {
		t.Errorf("a guest's memory was taken: %v", err)
	}
	_ = m.Reset()
}

// Nobody takes in more than a measure has.
func TestTooMuch(t *testing.T) {
	a, b := wiretest.Pipe(t)
	took := make(chan error, 1)
	go func() { took <- gauge.Take(t.Context(), b) }()
	m, err := handoff.OpenMemory(t.Context(), a, handoff.MemHeader{Version: handoff.MemoryFramed, VM: vm, Attempt: "gauge"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Reset()
	dense := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(dense)
	for range 100 {
		if _, err = m.Write(dense); err != nil {
			break
		}
	}
	if err == nil {
		t.Error("a hundred MiB were taken")
	}
	if err := <-took; !errors.Is(err, gauge.ErrProtocol) {
		t.Error(err)
	}
}
