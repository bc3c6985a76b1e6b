package reached_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"tagalong.org/tagalong/p2p/reached"
	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/p2p/wire"
	"tagalong.org/tagalong/p2p/wire/wiretest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func report() reached.Report {
	return reached.Report{Target: replica.Target{VM: "work", Disk: replica.ID{1}, Size: 4096, Term: 3}, Position: replica.Position{Term: 2, Barrier: 7}}
}

func TestTellAndHear(t *testing.T) {
	busy := errors.New("not now")
	for name, pair := range wiretest.Kinds {
		t.Run(name, func(t *testing.T) {
			for _, refuse := range []error{nil, busy} {
				a, b := pair(t)
				var got reached.Report
				var heard error
				var wg sync.WaitGroup
				wg.Go(func() {
					heard = reached.Hear(t.Context(), b, func(r reached.Report) error { got = r; return refuse })
				})
				err := reached.Tell(t.Context(), a, report())
				wg.Wait()
				if got != report() {
					t.Errorf("heard %+v", got)
				}
				if refuse == nil && (err != nil || heard != nil) {
					t.Errorf("%v, %v", err, heard)
				}
				if refuse != nil && (!errors.Is(err, reached.ErrNotNoted) || !errors.Is(heard, busy)) {
					t.Errorf("%v, %v", err, heard)
				}
			}
		})
	}
}

// hear has Hear take one message, as it is.
func hear(t *testing.T, message []byte) (noted bool, err error) {
	a, b := wiretest.Pipe(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		c := wire.NewConn(a)
		_, _ = c.Greet(context.Background(), wire.Greeting{Protocol: reached.Protocol, Version: 1, Oldest: 1})
		_ = c.Send(context.Background(), json.RawMessage(message))
		_ = a.Close()
	})
	err = reached.Hear(context.Background(), b, func(r reached.Report) error {
		noted = true
		if r.Check(errors.New("nonsense")) != nil || r.Position.Term > r.Term {
			t.Errorf("passed on: %+v", r)
		}
		return nil
	})
	wg.Wait()
	return noted, err
}

// TestNoReplica: that there is none any more is a report like others.
func TestNoReplica(t *testing.T) {
	r := report()
	r.Position = replica.Position{}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if noted, _ := hear(t, b); !noted {
		t.Error("it isn't heard")
	}
}

func TestNonsenseIsRefused(t *testing.T) {
	for _, change := range []func(*reached.Report){
		func(r *reached.Report) { r.Size = 5 },
		func(r *reached.Report) { r.Term = 0 },
		func(r *reached.Report) { r.VM = "" },
		func(r *reached.Report) { r.Disk = replica.ID{} },
		func(r *reached.Report) { r.Position.Term = 4 },
	} {
		r := report()
		change(&r)
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if noted, err := hear(t, b); noted || !errors.Is(err, reached.ErrProtocol) {
			t.Errorf("%s: %v, %v", b, noted, err)
		}
	}
}

// FuzzHear tells anything: it makes sense, or nobody sees it.
func FuzzHear(f *testing.F) {
	b, _ := json.Marshal(report())
	f.Add(b)
	f.Add([]byte(`{"term":1}`))
	f.Fuzz(func(t *testing.T, message []byte) {
		if json.Valid(message) {
			_, _ = hear(t, message)
		}
	})
}
