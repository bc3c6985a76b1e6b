package told_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"tagalong.org/tagalong/p2p/told"
	"tagalong.org/tagalong/p2p/wire"
	"tagalong.org/tagalong/p2p/wire/wiretest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type store struct {
	mu       sync.Mutex
	versions map[string]uint64
	asked    chan struct{} // closed at the first look
	once     sync.Once
	changed  chan struct{}
}

func newStore() *store {
	return &store{versions: map[string]uint64{}, asked: make(chan struct{}), changed: make(chan struct{}, 1)}
}

func (s *store) Holds(key string, version uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.once.Do(func() { close(s.asked) })
	return version > 0 && s.versions[key] >= version
}

func (s *store) put(key string, version uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.versions[key] = version
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *store) Changed() (<-chan struct{}, func()) { return s.changed, func() {} }

func TestTheAnswerWaitsForTheRecords(t *testing.T) {
	for name, pair := range wiretest.Kinds {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t)
			s := newStore()
			s.put("device/x", 6)
			s.put("vm/y", 2)
			answered := make(chan error, 1)
			go func() { answered <- told.Answer(t.Context(), b, s) }()
			asked := make(chan error, 1)
			go func() { asked <- told.Ask(t.Context(), a, map[string]uint64{"device/x": 7, "vm/y": 1}) }()
			<-s.asked
			select {
			case err := <-asked:
				t.Fatalf("answered before the record was there: %v", err)
			default:
			}
			s.put("device/x", 7)
			if err := <-asked; err != nil {
				t.Error(err)
			}
			if err := <-answered; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestNobodyWaitsForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := wiretest.Pipe(t)
		go func() { _ = told.Answer(t.Context(), b, newStore()) }()
		if err := told.Ask(t.Context(), a, map[string]uint64{"device/x": 7}); !errors.Is(err, told.ErrNotHeld) {
			t.Error(err)
		}
	})
	a, _ := wiretest.TCP(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := told.Ask(ctx, a, nil); err == nil {
		t.Error("nobody answered, and that was enough")
	}
}

func TestQuestionsAreBounded(t *testing.T) {
	many := map[string]uint64{}
	for i := range 1025 {
		many[fmt.Sprint(i)] = 1
	}
	for _, versions := range []map[string]uint64{many, {strings.Repeat("k", 257): 1}} {
		a, b := wiretest.TCP(t)
		answered := make(chan error, 1)
		go func() { answered <- told.Answer(t.Context(), b, newStore()) }()
		c := wire.NewConn(a)
		if _, err := c.Greet(t.Context(), wire.Greeting{Protocol: told.Protocol, Version: 1, Oldest: 1}); err != nil {
			t.Fatal(err)
		}
		if err := c.Send(t.Context(), map[string]any{"versions": versions}); err != nil {
			t.Fatal(err)
		}
		if err := <-answered; !errors.Is(err, told.ErrProtocol) {
			t.Error(err)
		}
	}
}

// FuzzAnswer asks anything: it is answered, or against the protocol.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"versions":{"device/x":6,"vm/y":2}}`), uint64(6))
	f.Add([]byte(`{"versions":{"device/x":18446744073709551615}}`), uint64(1))
	f.Add([]byte(`{"versions":null}`), uint64(0))
	f.Fuzz(func(t *testing.T, question []byte, version uint64) {
		s := newStore()
		s.put("device/x", version)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { // what isn't held won't come
			<-s.asked
			cancel()
		}()
		_ = told.Answer(ctx, wiretest.Input{Reader: frames(t, question[:min(len(question), wire.MaxMessage)])}, s)
		s.once.Do(func() { close(s.asked) })
		cancel()
	})
}

// FuzzAsk gets any answer: only a plain yes is one.
func FuzzAsk(f *testing.F) {
	f.Add([]byte(`{"held":true}`))
	f.Add([]byte(`{"held":false}`))
	f.Add([]byte(`{"held":"yes"}`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		answer = answer[:min(len(answer), wire.MaxMessage)]
		err := told.Ask(t.Context(), wiretest.Input{Reader: frames(t, answer)}, map[string]uint64{"vm/y": 1})
		var a struct{ Held bool }
		if held := json.Unmarshal(answer, &a) == nil && a.Held; held != (err == nil) {
			t.Fatalf("%q: %v", answer, err)
		}
	})
}

// frames is what a peer sends: its greeting, and a message.
func frames(t *testing.T, message []byte) io.Reader {
	t.Helper()
	var b bytes.Buffer
	for _, m := range [][]byte{[]byte(`{"protocol":"` + told.Protocol + `","version":1,"oldest":1}`), message} {
		if err := wire.WriteFrame(&b, m); err != nil {
			t.Fatal(err)
		}
	}
	return &b
}
