package mend_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/zeebo/blake3"
	"go.uber.org/goleak"

	"tagalong.org/tagalong/p2p/mend"
	"tagalong.org/tagalong/p2p/wire"
	"tagalong.org/tagalong/p2p/wire/wiretest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// piece names content.
func piece(b []byte) mend.Piece {
	sum := blake3.Sum256(b)
	return mend.Piece{VM: "v", Off: 8192, Len: len(b), Sum: [16]byte(sum[:16])}
}

func TestAskGetsWhatItNamed(t *testing.T) {
	right := bytes.Repeat([]byte("x"), mend.MaxPiece)
	for what, c := range map[string]struct {
		has  []byte
		fail error
		want error
	}{
		"it is there":          {has: right},
		"it differs":           {has: bytes.Repeat([]byte("y"), len(right)), want: mend.ErrNotHere},
		"it may not be told":   {fail: errors.New("no"), want: mend.ErrNotHere},
		"it is there in parts": {has: right[:100], want: mend.ErrNotHere},
	} {
		for kind, pair := range wiretest.Kinds {
			t.Run(what+" "+kind, func(t *testing.T) {
				a, b := pair(t)
				answered := make(chan error, 1)
				go func() {
					answered <- mend.Answer(t.Context(), b, func(vm string, p []byte, off int64) error {
						if vm != "v" || off != 8192 {
							t.Errorf("asked for %s at %d", vm, off)
						}
						copy(p, c.has)
						return c.fail
					})
				}()
				got, err := mend.Ask(t.Context(), a, piece(right))
				if !errors.Is(err, c.want) || c.want == nil && !bytes.Equal(got, right) {
					t.Errorf("%d bytes, %v", len(got), err)
				}
				if err := <-answered; err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestNonsenseIsRefused(t *testing.T) {
	for _, q := range []map[string]any{{"len": mend.MaxPiece + 1}, {"len": 0}, {"len": -1}, {"len": 1, "off": -1}, {"len": 1, "vm": string(make([]byte, 65))}} {
		a, b := wiretest.TCP(t)
		answered := make(chan error, 1)
		go func() {
			answered <- mend.Answer(t.Context(), b, func(string, []byte, int64) error { t.Error("the disk was read"); return nil })
		}()
		c := wire.NewConn(a)
		if _, err := c.Greet(t.Context(), wire.Greeting{Protocol: mend.Protocol, Version: 1, Oldest: 1}); err != nil {
			t.Fatal(err)
		}
		if err := c.Send(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		if err := <-answered; !errors.Is(err, mend.ErrProtocol) {
			t.Errorf("%v: %v", q, err)
		}
	}
	// And a replica that answers with something else.
	a, b := wiretest.TCP(t)
	go func() {
		c := wire.NewConn(b)
		var q mend.Piece
		if _, err := c.Greet(t.Context(), wire.Greeting{Protocol: mend.Protocol, Version: 1, Oldest: 1}); err == nil && c.Recv(t.Context(), &q) == nil {
			_ = c.Send(t.Context(), map[string]any{"data": []byte("lies")})
		}
	}()
	if _, err := mend.Ask(t.Context(), a, piece([]byte("true"))); !errors.Is(err, mend.ErrProtocol) {
		t.Error(err)
	}
}
