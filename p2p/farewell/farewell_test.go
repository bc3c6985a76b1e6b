package farewell_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tagalong.org/tagalong/p2p/farewell"
	"tagalong.org/tagalong/p2p/wire"
	"tagalong.org/tagalong/p2p/wire/wiretest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type heard struct {
	noted bool
	err   error
}

func hear(ctx context.Context, s wire.Stream, judge func([]byte) (func(context.Context) ([]byte, error), error)) chan heard {
	c := make(chan heard, 1)
	go func() {
		noted, err := farewell.Hear(ctx, s, judge)
		c <- heard{noted, err}
	}()
	return c
}

func TestTheOneWhoLeftHearsOfItAndDoesIt(t *testing.T) {
	for name, pair := range wiretest.Kinds {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t)
			var steps []string
			h := hear(t.Context(), b, func(record []byte) (func(context.Context) ([]byte, error), error) {
				steps = append(steps, "judged "+string(record))
				return func(context.Context) ([]byte, error) { steps = append(steps, "wiped"); return []byte(`{"k":"v"}`), nil }, nil
			})
			err := farewell.Tell(t.Context(), a, []byte(`{"key":"k"}`), func(word []byte) error {
				if string(word) != `{"k":"v"}` {
					t.Errorf("its word came as %s", word)
				}
				steps = append(steps, "noted")
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if got := <-h; got.err != nil || !got.noted {
				t.Errorf("%+v", got)
			}
			if got := strings.Join(steps, ", "); got != `judged {"key":"k"}, wiped, noted` {
				t.Error(got)
			}
		})
	}
}

func TestARefusalIsTold(t *testing.T) {
	a, b := wiretest.TCP(t)
	why := errors.New("not a genuine record " + strings.Repeat("x", 1000))
	h := hear(t.Context(), b, func([]byte) (func(context.Context) ([]byte, error), error) { return nil, why })
	err := farewell.Tell(t.Context(), a, []byte(`{}`), func([]byte) error { t.Error("noted what was refused"); return nil })
	if !errors.Is(err, farewell.ErrRefused) || !strings.Contains(err.Error(), "not a genuine record") {
		t.Error(err)
	}
	if got := <-h; !errors.Is(got.err, why) || got.noted {
		t.Errorf("%+v", got)
	}
}

// Neither end takes for done what it wasn't told is done.
func TestHalfAFarewellIsNone(t *testing.T) {
	a, b := wiretest.TCP(t)
	ctx, cancel := context.WithCancel(t.Context())
	h := hear(ctx, b, func([]byte) (func(context.Context) ([]byte, error), error) {
		return func(ctx context.Context) ([]byte, error) { cancel(); return nil, context.Cause(ctx) }, nil
	})
	if err := farewell.Tell(t.Context(), a, []byte(`{}`), func([]byte) error { t.Error("noted"); return nil }); err == nil {
		t.Error("told although the other end failed")
	}
	if got := <-h; got.err == nil || got.noted {
		t.Errorf("%+v", got)
	}
	a, b = wiretest.TCP(t)
	h = hear(t.Context(), b, func([]byte) (func(context.Context) ([]byte, error), error) {
		return func(context.Context) ([]byte, error) { return nil, nil }, nil
	})
	full := errors.New("the disk is full")
	if err := farewell.Tell(t.Context(), a, []byte(`{}`), func([]byte) error { return full }); !errors.Is(err, full) {
		t.Error(err)
	}
	if got := <-h; got.noted {
		t.Error("the listener believes that it is noted")
	}
}

func TestNonsenseIsRefused(t *testing.T) {
	greeting := wire.Greeting{Protocol: farewell.Protocol, Version: 1, Oldest: 1}
	for name, msg := range map[string]any{"nothing": map[string]any{}, "another message": map[string]any{"noted": true}, "a number": 7} {
		a, b := wiretest.TCP(t)
		h := hear(t.Context(), b, func([]byte) (func(context.Context) ([]byte, error), error) {
			t.Error("judged")
			return nil, errors.New("no")
		})
		c := wire.NewConn(a)
		if _, err := c.Greet(t.Context(), greeting); err != nil {
			t.Fatal(err)
		}
		if err := c.Send(t.Context(), msg); err != nil {
			t.Fatal(err)
		}
		if got := <-h; !errors.Is(got.err, farewell.ErrProtocol) && !errors.Is(got.err, wire.ErrMalformed) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	// A listener that never says that it heard.
	a, b := wiretest.TCP(t)
	go func() {
		c := wire.NewConn(b)
		_, _ = c.Greet(t.Context(), greeting)
		_ = c.Send(t.Context(), map[string]any{"wiped": true})
	}()
	if err := farewell.Tell(t.Context(), a, []byte(`{}`), func([]byte) error { t.Error("noted"); return nil }); !errors.Is(err, farewell.ErrProtocol) {
		t.Error(err)
	}
}

func FuzzHear(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x02{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, _ = farewell.Hear(ctx, wiretest.Input{Reader: strings.NewReader(string(b))}, func(record []byte) (func(context.Context) ([]byte, error), error) {
			if len(record) == 0 {
				t.Error("an empty record")
			}
			return func(context.Context) ([]byte, error) { return nil, nil }, nil
		})
	})
}

// FuzzTell gets any answers: only a plain "done" is noted.
func FuzzTell(f *testing.F) {
	f.Add([]byte(`{"heard":true}`), []byte(`{"heard":true,"done":true,"record":{"k":1}}`))
	f.Add([]byte(`{"refused":"no"}`), []byte(`{}`))
	f.Add([]byte(`{"heard":true}`), []byte(`{"heard":true}`))
	f.Add([]byte(`{"done":true}`), []byte(`null`))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		var b bytes.Buffer
		for _, m := range [][]byte{[]byte(`{"protocol":"` + farewell.Protocol + `","version":1,"oldest":1}`), one, two} {
			if wire.WriteFrame(&b, m) != nil {
				return
			}
		}
		noted := false
		err := farewell.Tell(t.Context(), wiretest.Input{Reader: &b}, []byte(`{}`), func([]byte) error { noted = true; return nil })
		if noted != (err == nil) {
			t.Fatalf("%q %q: noted %v, %v", one, two, noted, err)
		}
	})
}
