package handoff_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"tagalong.org/tagalong/p2p/handoff"
	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/p2p/wire"
	"tagalong.org/tagalong/p2p/wire/wiretest"
)

func someSets(n int) handoff.Sets {
	return handoff.Sets{VM: "v", Attempt: "a", Position: replica.Position{Term: 3, Barrier: 9}, Sets: bytes.Repeat([]byte("sets "), n)}
}

func TestSetsArrive(t *testing.T) {
	for name, pair := range wiretest.Kinds {
		t.Run(name, func(t *testing.T) {
			sa, sb := pair(t)
			sent := make(chan error, 1)
			x, steps := someSets(100_000), 0
			kept := false
			go func() {
				err := handoff.SendSets(t.Context(), sa, x, func() { steps++ })
				if err == nil && !kept {
					err = errors.New("it was answered before it was kept")
				}
				sent <- err
			}()
			err := handoff.ReceiveSets(t.Context(), sb, func(h handoff.Sets) error {
				if h.VM != x.VM || h.Attempt != x.Attempt || h.Position != x.Position {
					t.Errorf("asked about %+v", h)
				}
				return nil
			}, nil, func(got handoff.Sets) error {
				if !bytes.Equal(got.Sets, x.Sets) {
					t.Error("other sets arrived")
				}
				kept = true
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			if err := soon(t, sent, "the answer"); err != nil || steps < 5 {
				t.Errorf("sent in %d steps: %v", steps, err)
			}
		})
	}
}

func TestSetsThatArentKept(t *testing.T) {
	no := errors.New("no room")
	yes := func(handoff.Sets) error { return nil }
	refuse := func(handoff.Sets) error { return no }
	for name, c := range map[string]struct{ may, keep func(handoff.Sets) error }{"may not": {refuse, yes}, "can't": {yes, refuse}} {
		sa, sb := wiretest.TCP(t)
		sent := make(chan error, 1)
		go func() { sent <- handoff.SendSets(t.Context(), sa, someSets(1), nil) }()
		if err := handoff.ReceiveSets(t.Context(), sb, c.may, nil, c.keep); !errors.Is(err, no) {
			t.Errorf("%s: the taker: %v", name, err)
		}
		if err := soon(t, sent, name); !errors.Is(err, handoff.ErrNotKept) || !strings.Contains(err.Error(), "no room") {
			t.Errorf("%s: the giver: %v", name, err)
		}
	}
}

func TestSetsThatMakeNoSense(t *testing.T) {
	large := someSets(1)
	large.Sets = make([]byte, handoff.MaxDirty+1)
	nameless := someSets(1)
	nameless.Attempt = ""
	none := someSets(0)
	for name, c := range map[string]struct {
		handoff.Sets
		want error
	}{"too large": {large, wire.ErrTooLarge}, "nameless": {nameless, handoff.ErrHeader}, "nothing": {none, handoff.ErrHeader}} {
		sa, _ := wiretest.TCP(t)
		if err := handoff.SendSets(t.Context(), sa, c.Sets, nil); !errors.Is(err, c.want) {
			t.Errorf("%s: sent: %v", name, err)
		}
	}
	keep := func(handoff.Sets) error {
		t.Error("nonsense was kept")
		return nil
	}
	may := func(handoff.Sets) error { return nil }
	head := `{"version":1,"vm":"v","attempt":"a","position":{"term":1,"barrier":1},"length":4,"blake3":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}`
	for name, c := range map[string]struct {
		header, rest string
		want         error
	}{
		"another content":    {head, "1234", handoff.ErrMalformed},
		"another version":    {strings.Replace(head, `"version":1`, `"version":2`, 1), "1234", handoff.ErrHeader},
		"too long":           {strings.Replace(head, `"length":4`, `"length":100000000`, 1), "1234", handoff.ErrHeader},
		"negative":           {strings.Replace(head, `"length":4`, `"length":-4`, 1), "1234", handoff.ErrHeader},
		"no position":        {strings.Replace(head, `"term":1`, `"term":0`, 1), "1234", handoff.ErrHeader},
		"no JSON":            {"{", "", wire.ErrMalformed},
		"it ends in between": {head, "12", nil},
	} {
		sa, sb := wiretest.TCP(t)
		if err := errors.Join(wire.WriteFrame(sa, []byte(c.header))); err != nil {
			t.Fatal(err)
		}
		if _, err := sa.Write([]byte(c.rest)); err != nil {
			t.Fatal(err)
		}
		if err := sa.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		err := handoff.ReceiveSets(t.Context(), sb, may, nil, keep)
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whoever gives up is free at once, on either side.
func TestSetsEndWithTheContext(t *testing.T) {
	sa, sb := wiretest.TCP(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- handoff.SendSets(ctx, sa, someSets(1), nil) }()
	reached := make(chan struct{})
	go func() {
		ended <- handoff.ReceiveSets(ctx, sb, func(handoff.Sets) error { return nil }, nil, func(handoff.Sets) error {
			close(reached)
			<-ctx.Done()
			return ctx.Err()
		})
	}()
	soon(t, reached, "the sets")
	cancel()
	for range 2 {
		if err := soon(t, ended, "the end"); err == nil {
			t.Error("it ended well")
		}
	}
}
