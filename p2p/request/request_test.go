package request_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"tagalong.org/tagalong/p2p/request"
	"tagalong.org/tagalong/p2p/wire"
	"tagalong.org/tagalong/p2p/wire/wiretest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func rename() request.Request {
	return request.Request{VM: strings.Repeat("0a", 16), Change: json.RawMessage(`{"name":"Office"}`)}
}

func TestAskAndHear(t *testing.T) {
	for name, pair := range wiretest.Kinds {
		t.Run(name, func(t *testing.T) {
			for _, refuse := range []error{nil, errors.New("not now")} {
				a, b := pair(t)
				var got request.Request
				var heard error
				var wg sync.WaitGroup
				wg.Go(func() {
					heard = request.Hear(t.Context(), b, func(_ context.Context, r request.Request) (json.RawMessage, error) {
						got = r
						return json.RawMessage(`"busy"`), refuse
					})
				})
				why, err := request.Ask(t.Context(), a, rename())
				wg.Wait()
				if got.VM != rename().VM || string(got.Change) != string(rename().Change) {
					t.Errorf("heard %+v", got)
				}
				if refuse == nil && (err != nil || heard != nil || why != nil) {
					t.Errorf("%v, %v, %s", err, heard, why)
				}
				if refuse != nil && (!errors.Is(err, request.ErrRefused) || !errors.Is(heard, refuse) || string(why) != `"busy"`) {
					t.Errorf("%v, %v, %s", err, heard, why)
				}
			}
		})
	}
}

// Who asks for something is told it, and learns nothing from a refusal.
func TestAskFor(t *testing.T) {
	for _, refuse := range []error{nil, errors.New("not now")} {
		a, b := wiretest.Pipe(t)
		var wg sync.WaitGroup
		wg.Go(func() {
			_ = request.Hear(t.Context(), b, func(context.Context, request.Request) (json.RawMessage, error) {
				return json.RawMessage(`{"rate":7}`), refuse
			})
		})
		r := rename()
		r.What = "how fast"
		says, err := request.AskFor(t.Context(), a, r)
		wg.Wait()
		if refuse == nil && (err != nil || string(says) != `{"rate":7}`) {
			t.Errorf("%s, %v", says, err)
		}
		if refuse != nil && (says != nil || !errors.Is(err, request.ErrRefused)) {
			t.Errorf("%s, %v", says, err)
		}
	}
}

// hear has Hear take one message, as it is.
func hear(t *testing.T, message []byte) (done bool, err error) {
	a, b := wiretest.Pipe(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		c := wire.NewConn(a)
		_, _ = c.Greet(context.Background(), wire.Greeting{Protocol: request.Protocol, Version: 1, Oldest: 1})
		_ = c.Send(context.Background(), json.RawMessage(message))
		_ = a.Close()
	})
	err = request.Hear(context.Background(), b, func(_ context.Context, r request.Request) (json.RawMessage, error) {
		done = true
		if len(r.VM) != 32 || len(r.Change) == 0 || len(r.Change) > request.MaxChange {
			t.Errorf("passed on: %+v", r)
		}
		return nil, nil
	})
	wg.Wait()
	return done, err
}

func TestNonsenseIsRefused(t *testing.T) {
	for _, change := range []func(*request.Request){
		func(r *request.Request) { r.VM = "" },
		func(r *request.Request) { r.VM = strings.Repeat("../../..", 4) },
		func(r *request.Request) { r.Change = nil },
		func(r *request.Request) {
			r.Change = json.RawMessage(`"` + strings.Repeat("x", request.MaxChange) + `"`)
		},
	} {
		r := rename()
		change(&r)
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if r.Change == nil {
			b = []byte(`{"vm":"` + r.VM + `"}`)
		}
		if done, err := hear(t, b); done || !errors.Is(err, request.ErrProtocol) {
			t.Errorf("%.60s: %v, %v", b, done, err)
		}
	}
}

// TestALongReasonIsLeftOut: who refused is believed without it.
func TestALongReasonIsLeftOut(t *testing.T) {
	a, b := wiretest.Pipe(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = request.Hear(t.Context(), b, func(context.Context, request.Request) (json.RawMessage, error) {
			return json.RawMessage(`"` + strings.Repeat("x", request.MaxChange) + `"`), errors.New("no")
		})
	})
	why, err := request.Ask(t.Context(), a, rename())
	wg.Wait()
	if why != nil || !errors.Is(err, request.ErrRefused) {
		t.Errorf("%s, %v", why, err)
	}
}

// FuzzHear tells anything: it makes sense, or nobody sees it.
func FuzzHear(f *testing.F) {
	b, _ := json.Marshal(rename())
	f.Add(b)
	f.Add([]byte(`{"vm":1}`))
	f.Fuzz(func(t *testing.T, message []byte) {
		if json.Valid(message) {
			_, _ = hear(t, message)
		}
	})
}
