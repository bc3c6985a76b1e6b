package p2p

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// kept is the memory that a device keeps for what another one may send.
func kept(t *testing.T, d *device, id string) (n int64) {
	t.Helper()
	of, err := peer.Decode(id)
	if err != nil {
		t.Fatal(err)
	}
	err = d.h.Network().ResourceManager().ViewPeer(of, func(s network.PeerScope) error {
		n = s.Stat().Memory
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// As soon as something was read, as much as a window may be sent to somebody who reads no more; that memory is reserved, and there is an end to it.
func TestStreamWindow(t *testing.T) {
	a, b := newDevice(t), newDevice(t)
	pair(a, b)
	rest := make(chan struct{})
	a.Handle("/test/echo/1", echo)
	a.Handle("/test/rest/1", func(_ context.Context, s Stream) {
		if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
			return
		}
		_, _ = s.Write([]byte{1})
		<-rest
	})
	a.serve(t)
	b.serve(t)
	defer close(rest)
	await(t, b, a.ID(), true)
	var open []Stream
	for {
		s, err := b.Open(patiently(t), a.ID(), "/test/rest/1")
		if err == nil {
			if err = s.SetDeadline(time.Now().Add(patience)); err == nil {
				_, err = s.Write([]byte{1})
			}
			if err == nil {
				_, err = io.ReadFull(s, make([]byte, 1))
			}
		}
		if err != nil && errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if err != nil {
			break // no more
		}
		open = append(open, s)
		if len(open) == 1 {
			const most = firstWindow - 4096 // opening it took some
			if n, err := s.Write(make([]byte, most)); err != nil {
				t.Fatalf("%d bytes were sent of a window of %d: %v", n, firstWindow, err)
			}
		}
	}
	if most := maxPeerMemory / firstWindow; len(open) > most || len(open) < most/2 {
		t.Errorf("%d streams were opened at once, windows of %d bytes and %d bytes for them all", len(open), firstWindow, maxPeerMemory)
	}
	all := kept(t, a, b.ID())
	if all < int64(len(open))*firstWindow {
		t.Errorf("%d bytes are reserved for %d windows of %d", all, len(open), firstWindow)
	}
	for _, s := range open {
		_ = s.Reset()
	}
	for kept(t, a, b.ID()) > all/2 {
		time.Sleep(time.Millisecond)
	}
	say(t, b, a.ID(), "and on it goes")
}
