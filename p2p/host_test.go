package p2p

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
)

func TestPairedDevicesTalk(t *testing.T) {
	a, b := newDevice(t), newDevice(t)
	pair(a, b)
	a.Handle("/test/echo/1", echo)
	b.Handle("/test/echo/1", echo)
	a.serve(t)
	b.serve(t)
	await(t, a, b.ID(), true)
	st := await(t, b, a.ID(), true)
	if st.RTT <= 0 || st.Addr == "" || time.Since(st.LastSeen) > patience {
		t.Errorf("status lacks something: %+v", st)
	}
	say(t, a, b.ID(), "hello")
	say(t, b, a.ID(), "good evening")
	in, out := b.Traffic(a.ID())
	if in < 17 || out < 17 {
		t.Errorf("traffic %d in, %d out; want at least 17", in, out)
	}
	if _, err := a.Open(patiently(t), b.ID(), "/test/none/1"); !errors.Is(err, ErrProtocol) {
		t.Errorf("open of an unknown protocol: %v, want ErrProtocol", err)
	}
	// a was dialled, so it must have learned b's listening address from b itself.
	identified(t, a, b)
	if got := a.book.Load(b.ID()); !slices.Equal(got, b.Addrs()) {
		t.Errorf("saved addresses %v, want %v", got, b.Addrs())
	}
}

func TestOpenErrors(t *testing.T) {
	a, b := newDevice(t), newDevice(t)
	a.members.set(b.ID())
	if _, err := a.Open(t.Context(), b.ID(), "/x"); !errors.Is(err, ErrNotConnected) {
		t.Errorf("member that isn't there: %v", err)
	}
	if _, err := b.Open(t.Context(), a.ID(), "/x"); !errors.Is(err, ErrNotPaired) {
		t.Errorf("stranger: %v", err)
	}
	if _, err := b.Open(t.Context(), "nonsense", "/x"); !errors.Is(err, ErrID) {
		t.Errorf("nonsense: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Open(t.Context(), b.ID(), "/x"); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if err := a.Serve(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("serve when closed: %v", err)
	}
}

// stranger is a bare libp2p host without any manners.
func stranger(t *testing.T) interface {
	Connect(context.Context, peer.AddrInfo) error
	Network() network.Network
	NewStream(context.Context, peer.ID, ...protocol.ID) (network.Stream, error)
	ID() peer.ID
} {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay(), libp2p.DisableMetrics())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

func TestStrangerGetsNoStream(t *testing.T) {
	a := newDevice(t)
	handled := make(chan struct{}, 1)
	a.Handle("/test/echo/1", func(context.Context, Stream) { handled <- struct{}{} })
	a.serve(t)
	s := stranger(t)
	closed := make(chan struct{}, 1)
	s.Network().Notify(&network.NotifyBundle{DisconnectedF: func(network.Network, network.Conn) { wake(closed) }})
	addr, err := ma.NewMultiaddr(a.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	// In TLS 1.3 the client is done before the server has seen who it is, so Connect itself may seem to work.
	if err := s.Connect(ctx, peer.AddrInfo{ID: a.id, Addrs: []ma.Multiaddr{addr}}); err == nil {
		for _, p := range []protocol.ID{"/test/echo/1", beatProtocol, "/ipfs/id/1.0.0"} {
			ns, err := s.NewStream(network.WithNoDial(ctx, "test"), a.id, p)
			if err != nil {
				continue
			}
			_, _ = ns.Write([]byte("let me in"))
			if n, err := ns.Read(make([]byte, 1)); err == nil {
				t.Errorf("stranger read %d bytes on %s", n, p)
			}
		}
		receive(t, closed, "the stranger is still connected")
	}
	select {
	case <-handled:
		t.Error("a handler ran for a stranger")
	default:
	}
	if n := len(a.h.Network().Peers()); n != 0 {
		t.Errorf("%d peers, want none", n)
	}
}

func TestOneSidedPairingNeverConnects(t *testing.T) {
	a, b := newDevice(t), newDevice(t)
	for _, d := range []*device{a, b} {
		d.Handle("/test/echo/1", func(context.Context, Stream) { t.Error("a handler ran") })
	}
	// b believes in a, a doesn't know b.
	b.members.set(a.ID())
	b.book.Save(a.ID(), a.Addrs())
	refused := make(chan struct{}, 64)
	b.h.Network().Notify(&network.NotifyBundle{DisconnectedF: func(network.Network, network.Conn) { wake(refused) }})
	a.serve(t)
	b.serve(t)
	for range 3 {
		receive(t, refused, "b doesn't dial")
		if p := b.Peers()[0]; p.Connected {
			t.Fatal("b takes a refused connection for a connected device")
		}
	}
	if err := a.connectPast(b); err == nil {
		t.Error("a dialled a device that isn't its member")
	}
	// Once a accepts, everything works without a restart.
	a.Handle("/test/echo/1", echo)
	a.members.set(b.ID())
	a.AllowChanged()
	await(t, b, a.ID(), true)
	say(t, b, a.ID(), "now")
}

// connectPast tries to reach d past the keeper.
func (h *device) connectPast(d *device) error {
	addr, err := ma.NewMultiaddr(d.Addrs()[0])
	if err != nil {
		return err
	}
	return h.h.Connect(h.ctx, peer.AddrInfo{ID: d.id, Addrs: []ma.Multiaddr{addr}})
}

func TestRemovalClosesAtOnce(t *testing.T) {
	a, b := newDevice(t), newDevice(t)
	pair(a, b)
	started, ended := make(chan struct{}), make(chan error, 1)
	a.Handle("/test/hold/1", func(ctx context.Context, s Stream) {
		close(started)
		_, err := s.Read(make([]byte, 1))
		<-ctx.Done()
		ended <- err
	})
	a.serve(t)
	b.serve(t)
	await(t, b, a.ID(), true)
	s, err := b.Open(patiently(t), a.ID(), "/test/hold/1")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	receive(t, started, "the handler doesn't start")
	identified(t, a, b) // what it takes in later, it would keep for a while
	a.members.set()
	a.AllowChanged()
	if n := len(a.h.Network().Conns()); n != 0 {
		t.Errorf("%d connections after AllowChanged", n)
	}
	if err := receive(t, ended, "the handler doesn't end"); !errors.Is(err, ErrConnLost) {
		t.Errorf("the handler's read: %v, want ErrConnLost", err)
	}
	if got := a.h.Peerstore().Addrs(b.id); len(got) != 0 {
		t.Errorf("the address of a removed device is still there: %v", got)
	}
	if _, err := a.Open(t.Context(), b.ID(), "/x"); !errors.Is(err, ErrNotPaired) {
		t.Errorf("open after removal: %v", err)
	}
	await(t, b, a.ID(), false)
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, ErrConnLost) {
		t.Errorf("the other end's read: %v, want ErrConnLost", err)
	}
}

func TestReconnectsAfterTheConnectionBroke(t *testing.T) {
	a, b := newDevice(t), newDevice(t)
	pair(a, b)
	a.Handle("/test/echo/1", echo)
	a.serve(t)
	b.serve(t)
	for range 3 {
		await(t, b, a.ID(), true)
		say(t, b, a.ID(), "there?")
		c := b.best(a.id)
		if c == nil {
			t.Fatal("the connection was lost by itself")
		}
		if err := c.c.Close(); err != nil {
			t.Fatal(err)
		}
		receive(t, c.ctx.Done(), "the connection isn't forgotten")
	}
	await(t, b, a.ID(), true)
}

func TestRestartedDeviceComesBack(t *testing.T) {
	a, b := newDevice(t), newDevice(t)
	pair(a, b)
	a.serve(t)
	b.serve(t)
	await(t, b, a.ID(), true)
	a.opt.Listen = a.Addrs()
	a.stop()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, b, a.ID(), false)
	id := a.ID()
	a.open(t)
	if a.ID() != id {
		t.Fatalf("identity changed from %s to %s", id, a.ID())
	}
	a.Handle("/test/echo/1", echo)
	a.serve(t)
	await(t, b, a.ID(), true)
	say(t, b, a.ID(), "welcome back")
}

func TestCloseWaitsForHandlers(t *testing.T) {
	a, b := newDevice(t), newDevice(t)
	pair(a, b)
	started := make(chan struct{})
	var returned bool
	a.Handle("/test/hold/1", func(ctx context.Context, s Stream) {
		close(started)
		_, _ = io.Copy(io.Discard, s)
		<-ctx.Done()
		returned = true
	})
	a.serve(t)
	b.serve(t)
	await(t, b, a.ID(), true)
	s, err := b.Open(patiently(t), a.ID(), "/test/hold/1")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	receive(t, started, "the handler doesn't start")
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if !returned {
		t.Error("Close returned before the handler")
	}
	if err := a.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestOpenObeysItsContext(t *testing.T) {
	a, b := newDevice(t), newDevice(t)
	pair(a, b)
	a.serve(t)
	b.serve(t)
	await(t, b, a.ID(), true)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Open(ctx, a.ID(), "/test/echo/1"); !errors.Is(err, context.Canceled) {
		t.Errorf("open with an ended context: %v", err)
	}
}

func TestListenRefusals(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := strings.Cut(l.Addr().String(), ":")
	opt := Options{KeyFile: t.TempDir() + "/key", Members: &list{}, Listen: []string{"/ip4/127.0.0.1/tcp/" + port}}
	if _, err := New(opt); !errors.Is(err, ErrListen) {
		t.Errorf("taken port: %v, want ErrListen", err)
	}
	for _, bad := range []string{"", "/ip4/1.2.3.4/udp/1/quic-v1", "/dns4/example.org/tcp/1", "/ip4/127.0.0.1"} {
		opt.Listen = []string{bad}
		if _, err := New(opt); !errors.Is(err, ErrOptions) {
			t.Errorf("listen on %q: %v, want ErrOptions", bad, err)
		}
	}
	if _, err := New(Options{}); !errors.Is(err, ErrOptions) {
		t.Errorf("empty options: %v", err)
	}
}

func TestDoorsAreWhereTheHostIsReached(t *testing.T) {
	d := newDevice(t, func(o *Options) {
		o.Listen = []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0"}
	})
	if doors := d.Doors(4711); len(d.Addrs()) != 2 || !slices.Equal(doors, []string{"127.0.0.1:4711"}) {
		t.Errorf("the doors are %v, the host is at %v", doors, d.Addrs())
	}
}
