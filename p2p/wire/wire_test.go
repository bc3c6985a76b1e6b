package wire_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"tagalong.org/tagalong/p2p/wire"
	"tagalong.org/tagalong/p2p/wire/wiretest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type note struct {
	Text string `json:"text"`
	Blob int    `json:"blob,omitempty"`
}

func TestFramesSurviveInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		msgs := rapid.SliceOf(rapid.SliceOfN(rapid.Byte(), 0, 300)).Draw(t, "messages")
		var b bytes.Buffer
		for _, m := range msgs {
			if err := wire.WriteFrame(&b, m); err != nil {
				t.Fatal(err)
			}
		}
		var buf []byte
		for i, m := range msgs {
			got, err := wire.ReadFrame(&b, 300, buf)
			if err != nil || !bytes.Equal(got, m) {
				t.Fatalf("frame %d: got %x, %v; want %x", i, got, err, m)
			}
			buf = got
		}
		if _, err := wire.ReadFrame(&b, 300, buf); err != io.EOF {
			t.Fatalf("after the last frame: %v, want io.EOF", err)
		}
	})
}

func TestFrameLimits(t *testing.T) {
	if err := wire.WriteFrame(io.Discard, make([]byte, wire.MaxMessage+1)); !errors.Is(err, wire.ErrTooLarge) {
		t.Errorf("write of too large a frame: %v", err)
	}
	huge := binary.BigEndian.AppendUint32(nil, 1<<31)
	allocs := testing.AllocsPerRun(10, func() {
		if _, err := wire.ReadFrame(bytes.NewReader(huge), wire.MaxMessage, nil); !errors.Is(err, wire.ErrTooLarge) {
			t.Errorf("read of too large a frame: %v", err)
		}
	})
	if allocs > 20 {
		t.Errorf("refusing a frame took %v allocations", allocs)
	}
	if _, err := wire.ReadFrame(strings.NewReader("\x00\x00\x00\x05ab"), 10, nil); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut within a frame: %v", err)
	}
	if _, err := wire.ReadFrame(strings.NewReader("\x00\x00"), 10, nil); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut within a header: %v", err)
	}
	if _, err := wire.ReadFrame(strings.NewReader("\x00\x00\x00\x05"), 10, nil); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut after a header: %v", err)
	}
}

func TestConnExchanges(t *testing.T) {
	for name, pair := range wiretest.Kinds {
		t.Run(name, func(t *testing.T) {
			sa, sb := pair(t)
			a, b := wire.NewConn(sa), wire.NewConn(sb)
			ctx := t.Context()
			blob := bytes.Repeat([]byte("0123456789abcdef"), wire.MaxMessage/16*2+7)
			sent := make(chan error, 1)
			go func() {
				sent <- errors.Join(
					a.Send(ctx, note{Text: "one"}),
					a.SendWithBlob(ctx, note{Text: "two", Blob: len(blob)}, blob),
					a.SendWithBlob(ctx, note{Text: "three"}, nil),
					sa.CloseWrite())
			}()
			var n note
			if err := b.Recv(ctx, &n); err != nil || n.Text != "one" {
				t.Fatalf("first: %+v, %v", n, err)
			}
			got, err := b.RecvWithBlob(ctx, &n, func() (int, error) { return n.Blob, nil })
			if err != nil || n.Text != "two" || !bytes.Equal(got, blob) {
				t.Fatalf("second: %q with %d bytes, %v", n.Text, len(got), err)
			}
			n = note{}
			if got, err := b.RecvWithBlob(ctx, &n, func() (int, error) { return n.Blob, nil }); err != nil || len(got) != 0 || n.Text != "three" {
				t.Fatalf("third: %+v, %d bytes, %v", n, len(got), err)
			}
			if err := b.Recv(ctx, &n); err != io.EOF {
				t.Fatalf("after the last: %v, want io.EOF", err)
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestCancelBetweenMessagesKeepsTheConn(t *testing.T) {
	for name, pair := range wiretest.Kinds {
		t.Run(name, func(t *testing.T) {
			sa, sb := pair(t)
			a, b := wire.NewConn(sa), wire.NewConn(sb)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
			defer cancel()
			var n note
			if err := b.Recv(ctx, &n); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("cancelled: %v", err)
			}
			go func() { _ = a.Send(t.Context(), note{Text: "later"}) }()
			if err := b.Recv(t.Context(), &n); err != nil || n.Text != "later" {
				t.Fatalf("after a cancelled call: %+v, %v", n, err)
			}
		})
	}
}

func TestCancelWithinAMessageBreaksTheConn(t *testing.T) {
	sa, sb := wiretest.Pipe(t)
	b := wire.NewConn(sb)
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan error, 1)
	go func() {
		var n note
		got <- b.Recv(ctx, &n)
	}()
	// The pipe has no buffer: once Write returns, the reader has the bytes.
	if _, err := sa.Write([]byte{0, 0, 0, 9, '{'}); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-got; !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled: %v", err)
	}
	var n note
	if err := b.Recv(t.Context(), &n); !errors.Is(err, wire.ErrBroken) {
		t.Fatalf("after that: %v, want ErrBroken", err)
	}
}

func TestSendIsCancelledAndBreaksTheConn(t *testing.T) {
	// In real time the context may have ended before the first byte, and then nothing is broken.
	synctest.Test(t, func(t *testing.T) {
		sa, _ := wiretest.Pipe(t)
		a := wire.NewConn(sa)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		defer cancel()
		if err := a.Send(ctx, note{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("nobody reads: %v", err)
		}
		if err := a.Send(t.Context(), note{}); !errors.Is(err, wire.ErrBroken) {
			t.Fatalf("after that: %v, want ErrBroken", err)
		}
	})
}

func TestRefusedMessageKeepsTheConn(t *testing.T) {
	sa, sb := wiretest.TCP(t)
	a, b := wire.NewConn(sa), wire.NewConn(sb)
	if err := a.Send(t.Context(), note{Text: strings.Repeat("x", wire.MaxMessage)}); !errors.Is(err, wire.ErrTooLarge) {
		t.Fatalf("too large: %v", err)
	}
	if err := a.Send(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	if err := a.Send(t.Context(), note{Text: "fine"}); err != nil {
		t.Fatal(err)
	}
	var n note
	if err := b.Recv(t.Context(), &n); !errors.Is(err, wire.ErrMalformed) {
		t.Fatalf("a number for a note: %v", err)
	}
	if err := b.Recv(t.Context(), &n); err != nil || n.Text != "fine" {
		t.Fatalf("the next: %+v, %v", n, err)
	}
}

func TestBlobOfTheWrongLengthIsRefused(t *testing.T) {
	for name, frames := range map[string][]string{
		"short piece": {`{"blob":5}`, "abcd"},
		"long piece":  {`{"blob":5}`, "abcdef"},
		"negative":    {`{"blob":-1}`},
		"cut":         {`{"blob":5}`},
	} {
		var in bytes.Buffer
		for _, f := range frames {
			if err := wire.WriteFrame(&in, []byte(f)); err != nil {
				t.Fatal(err)
			}
		}
		c := wire.NewConn(wiretest.Input{Reader: &in})
		var n note
		if _, err := c.RecvWithBlob(t.Context(), &n, func() (int, error) { return n.Blob, nil }); err == nil || err == io.EOF {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGreet(t *testing.T) {
	mine := wire.Greeting{Protocol: "p", Version: 3, Oldest: 2}
	for _, c := range []struct {
		theirs wire.Greeting
		want   int
	}{
		{wire.Greeting{Protocol: "p", Version: 3, Oldest: 1}, 3},
		{wire.Greeting{Protocol: "p", Version: 9, Oldest: 3}, 3},
		{wire.Greeting{Protocol: "p", Version: 2, Oldest: 2}, 2},
		{wire.Greeting{Protocol: "p", Version: 1, Oldest: 1}, 0},
		{wire.Greeting{Protocol: "p", Version: 9, Oldest: 4}, 0},
		{wire.Greeting{Protocol: "q", Version: 3, Oldest: 1}, 0},
	} {
		sa, sb := wiretest.Pipe(t)
		other := make(chan int, 1)
		go func() {
			v, _ := wire.NewConn(sb).Greet(t.Context(), c.theirs)
			other <- v
		}()
		v, err := wire.NewConn(sa).Greet(t.Context(), mine)
		if w := <-other; v != c.want || w != c.want || (err == nil) != (c.want != 0) {
			t.Errorf("with %+v: %d and %d, %v; want %d", c.theirs, v, w, err, c.want)
		}
		if c.want == 0 && !errors.Is(err, wire.ErrVersion) {
			t.Errorf("with %+v: %v, want ErrVersion", c.theirs, err)
		}
	}
}

func TestGreetGivesUpOnASilentPeer(t *testing.T) {
	sa, _ := wiretest.Pipe(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	if _, err := wire.NewConn(sa).Greet(ctx, wire.Greeting{Protocol: "p", Version: 1}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("silent peer: %v", err)
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte{}, 16)
	f.Add([]byte("\x00\x00\x00\x03abc"), 16)
	f.Add([]byte("\xff\xff\xff\xffabc"), 16)
	f.Add([]byte("\x00\x00\x00\x03ab"), -1)
	f.Fuzz(func(t *testing.T, in []byte, limit int) {
		limit = min(limit, wire.MaxMessage)
		r := bytes.NewReader(in)
		for {
			p, err := wire.ReadFrame(r, limit, nil)
			if err != nil {
				return
			}
			if len(p) > limit {
				t.Fatalf("a frame of %d bytes passed a limit of %d", len(p), limit)
			}
		}
	})
}

func FuzzConn(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x0a{\"blob\":2}\x00\x00\x00\x02ab"))
	f.Add([]byte("\x00\x00\x00\x02{}\x00\x00\x00\x01["))
	f.Fuzz(func(t *testing.T, in []byte) {
		c := wire.NewConn(wiretest.Input{Reader: bytes.NewReader(in)})
		for range 100 {
			var n note
			blob, err := c.RecvWithBlob(t.Context(), &n, func() (int, error) { return n.Blob, nil })
			if err != nil && !errors.Is(err, wire.ErrMalformed) {
				return
			}
			if err == nil && len(blob) != n.Blob {
				t.Fatalf("blob of %d bytes, %d announced", len(blob), n.Blob)
			}
		}
	})
}
