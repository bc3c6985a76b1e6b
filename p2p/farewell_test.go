package p2p

import (
	"context"
	"errors"
	"io"
	"testing"
)

// connectLimited waits until from has a connection to the other, whatever it is good for.
func connectLimited(t *testing.T, from *device, id string) {
	t.Helper()
	news, cancel := from.Watch()
	defer cancel()
	for !from.Connected(id) {
		receive(t, news, "no connection for a farewell")
	}
}

// fareWell says a word over the farewell protocol and waits for the same word.
func fareWell(t *testing.T, from *device, to string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := from.Open(ctx, to, FarewellProtocol)
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := s.Write([]byte("bye")); err != nil {
		return err
	}
	if err := s.CloseWrite(); err != nil {
		return err
	}
	got, err := io.ReadAll(s)
	if err == nil && string(got) != "bye" {
		t.Errorf("the farewell came back as %q", got)
	}
	return err
}

// removed is a device that was removed by the other and doesn't know yet.
func removed(t *testing.T) (remover, gone *device) {
	t.Helper()
	remover, gone = newDevice(t), newDevice(t)
	remover.farewells.set(gone.ID())
	gone.members.set(remover.ID())
	gone.book.Save(remover.ID(), remover.Addrs())
	for _, d := range []*device{remover, gone} {
		d.Handle(FarewellProtocol, echo)
	}
	return remover, gone
}

func TestARemovedDeviceReachesTheFarewellOnly(t *testing.T) {
	a, b := removed(t)
	a.Handle("/test/echo/1", func(context.Context, Stream) { t.Error("a removed device reached a protocol") })
	b.Handle("/test/echo/1", func(context.Context, Stream) { t.Error("a removed device was asked for a protocol") })
	a.serve(t)
	b.serve(t)
	connectLimited(t, a, b.ID())
	connectLimited(t, b, a.ID())
	if err := fareWell(t, a, b.ID()); err != nil {
		t.Errorf("from the remover: %v", err)
	}
	if err := fareWell(t, b, a.ID()); err != nil {
		t.Errorf("from the removed: %v", err)
	}
	if _, err := a.Open(t.Context(), b.ID(), "/test/echo/1"); !errors.Is(err, ErrNotPaired) {
		t.Errorf("another protocol to a removed device: %v", err)
	}
	// Of the removed device's own will, past its own check.
	s, err := b.Open(patiently(t), a.ID(), "/test/echo/1")
	if err == nil {
		if _, err := s.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("another protocol of a removed device: %v", err)
		}
		_ = s.Close()
	}
	for _, p := range a.Peers() {
		t.Errorf("%s is shown as a member", p.ID)
	}
}

// What a device may do changes with its standing, and nothing of before lives on.
func TestAConnectionIsGoodForOneStanding(t *testing.T) {
	a, b := newDevice(t), newDevice(t)
	pair(a, b)
	for _, d := range []*device{a, b} {
		d.Handle("/test/echo/1", echo)
		d.Handle(FarewellProtocol, echo)
		d.serve(t)
	}
	await(t, a, b.ID(), true)
	await(t, b, a.ID(), true)
	s, err := b.Open(patiently(t), a.ID(), "/test/echo/1")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := fareWell(t, b, a.ID()); err != nil {
		t.Errorf("between members: %v", err)
	}
	a.members.set()
	a.farewells.set(b.ID())
	a.AllowChanged()
	if _, err := a.Open(t.Context(), b.ID(), "/test/echo/1"); !errors.Is(err, ErrNotPaired) {
		t.Errorf("to a removed device: %v", err)
	}
	if _, err := s.Read(make([]byte, 1)); err == nil {
		t.Error("a stream of before lives on")
	}
	connectLimited(t, a, b.ID())
	if err := fareWell(t, a, b.ID()); err != nil {
		t.Errorf("to a removed device: %v", err)
	}
	// It comes back into the fleet.
	a.members.set(b.ID())
	a.farewells.set()
	a.AllowChanged()
	await(t, a, b.ID(), true)
	await(t, b, a.ID(), true)
	// The connection of before may be the one that b still knows: then its end is news.
	news, stop := b.Watch()
	defer stop()
	for {
		s, err := b.Open(patiently(t), a.ID(), "/test/echo/1")
		if err == nil {
			_ = s.Close()
			break
		}
		receive(t, news, "back in the fleet, but not let in")
	}
	// And out for good.
	a.members.set()
	a.AllowChanged()
	if a.Connected(b.ID()) {
		t.Error("a device without any standing is still connected")
	}
	if err := fareWell(t, a, b.ID()); !errors.Is(err, ErrNotPaired) {
		t.Errorf("a farewell to a stranger: %v", err)
	}
}
