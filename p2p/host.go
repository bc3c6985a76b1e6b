package p2p

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	libyamux "github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"

	"tagalong.org/tagalong/p2p/discovery"
)

var (
	// ErrOptions: Options lack something or contradict themselves.
	ErrOptions = errors.New("p2p: invalid options")
	// ErrListen: none of the addresses to listen on could be used, for example because the port is taken.
	ErrListen = errors.New("p2p: can't listen")
	// ErrClosed: the host was closed.
	ErrClosed = errors.New("p2p: host is closed")
	// ErrServing: Serve is running already.
	ErrServing = errors.New("p2p: already serving")
	// ErrNotPaired: the device isn't a member of the fleet.
	ErrNotPaired = errors.New("p2p: not a paired device")
	// ErrNotConnected: the device is a member, but can't be reached now.
	ErrNotConnected = errors.New("p2p: device is not connected")
	// ErrConnLost: the connection under a stream ended.
	ErrConnLost = errors.New("p2p: connection lost")
	// ErrProtocol: the other device doesn't speak this protocol.
	ErrProtocol = errors.New("p2p: protocol not supported by the other device")
	// ErrNoDiscovery: discovery is switched off.
	ErrNoDiscovery = errors.New("p2p: discovery is switched off")
	// ErrID: not the canonical text of an Ed25519 peer ID.
	ErrID = errors.New("p2p: invalid device id")
	// ErrSignature: the signature doesn't belong to this message and device.
	ErrSignature = errors.New("p2p: wrong signature")
	// ErrReserved: the message could be mistaken for part of the transport's own handshake.
	ErrReserved = errors.New("p2p: message begins with reserved words")
	// ErrTooLarge: the message exceeds the limit.
	ErrTooLarge = errors.New("p2p: message too large")
	// ErrKeyFile: the key file is damaged or isn't one.
	ErrKeyFile = errors.New("p2p: not a valid key file")
	// ErrKeyVersion: the key file was written by a newer version.
	ErrKeyVersion = errors.New("p2p: unknown version of the key file")
	// ErrKeyExposed: others than the owner can read or change the key file.
	ErrKeyExposed = errors.New("p2p: key file is open to other users")
)

// Members is a list of devices: of those that are allowed, or of those to say farewell to. Both methods are called from many goroutines, must not block and must not call the Host.
type Members interface {
	Allowed(id string) bool
	List() []string
}

// AddressBook keeps the last known addresses (multiaddrs) of devices across restarts. Its methods are called from many
// goroutines and must neither block for long nor call the Host.
type AddressBook interface {
	Load(id string) []string
	Save(id string, addrs []string)
}

// Options configure a Host.
type Options struct {
	KeyFile    string                 // identity; created with mode 0600 if missing
	Listen     []string               // multiaddrs such as "/ip4/0.0.0.0/tcp/0"; at least one, TCP only
	Members    Members                // required
	Farewells  Members                // devices that may use FarewellProtocol only; nil: none
	Addresses  AddressBook            // nil: addresses are forgotten at exit
	Log        *slog.Logger           // nil: silent
	Version    string                 // told to members
	Discovery  bool                   // advertise and browse on the local network
	Interfaces func(name string) bool // which network interfaces take part; nil: all but virtual bridges
}

// Host is this device on the network. Its methods may be called from any goroutine.
type Host struct {
	opt   Options
	log   *slog.Logger
	key   crypto.PrivKey
	id    peer.ID
	gate  *gater
	h     host.Host
	addrs *addrBook
	disco *discovery.Service // nil without discovery
	links linkCache
	start time.Time

	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	network atomic.Pointer[network.Network] // set once New has built the host

	mu       sync.Mutex
	closed   bool
	serving  bool
	conns    map[network.Conn]*conn
	peers    map[peer.ID]*member
	keepers  map[peer.ID]*keeper
	watchers map[chan struct{}]struct{}
	allow    chan struct{}  // 1-buffered: the allow-list changed
	wg       sync.WaitGroup // handlers, heartbeats, closers
	done     chan struct{}  // closed when Close has finished
}

// New makes a host that listens but refuses every connection until Serve runs, so that the handlers can be registered
// first. Close it when done, whether Serve ran or not.
func New(opt Options) (*Host, error) {
	if opt.KeyFile == "" || opt.Members == nil || len(opt.Listen) == 0 {
		return nil, fmt.Errorf("new host: %w", ErrOptions)
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Interfaces == nil {
		opt.Interfaces = physical
	}
	listen, err := parseListen(opt.Listen)
	if err != nil {
		return nil, fmt.Errorf("new host: %w", err)
	}
	key, err := loadOrCreateKey(opt.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("new host: %w", err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("new host: %w", err)
	}
	h := &Host{
		opt: opt, log: opt.Log, key: key, id: id,
		gate:     &gater{members: opt.Members, farewells: opt.Farewells},
		links:    linkCache{use: opt.Interfaces},
		start:    time.Now(),
		conns:    make(map[network.Conn]*conn),
		peers:    make(map[peer.ID]*member),
		keepers:  make(map[peer.ID]*keeper),
		watchers: make(map[chan struct{}]struct{}),
		allow:    make(chan struct{}, 1),
		done:     make(chan struct{}),
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	if err := h.build(listen); err != nil {
		h.cancel()
		return nil, fmt.Errorf("new host: %w", err)
	}
	return h, nil
}

// build makes the libp2p host and listens.
func (h *Host) build(listen []ma.Multiaddr) error {
	limits, err := newLimits()
	if err != nil {
		return err
	}
	conns, err := connmgr.NewConnManager(maxPeerConns*2, maxConns/2)
	if err != nil {
		return errors.Join(err, limits.Close())
	}
	if h.addrs, err = newAddrBook(h.gate); err != nil {
		return errors.Join(err, conns.Close(), limits.Close())
	}
	h.h, err = libp2p.New(
		libp2p.Identity(h.key),
		libp2p.Peerstore(h.addrs),
		libp2p.NoListenAddrs,
		// Without port reuse two devices that dial each other at once can't meet in one half-open connection.
		libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport(), tcp.WithConnectionTimeout(dialTimeout)),
		libp2p.Security(libp2ptls.ID, newTLS),
		libp2p.Muxer(libyamux.ID, newMuxer()),
		libp2p.ConnectionGater(h.gate),
		libp2p.ResourceManager(limits),
		libp2p.ConnectionManager(conns),
		libp2p.AddrsFactory(h.advertised),
		libp2p.DisableRelay(),
		libp2p.DisableMetrics(),
		libp2p.DisableIdentifyAddressDiscovery(),
		libp2p.ForceReachabilityPrivate(),
		libp2p.Ping(false),
		libp2p.UserAgent("tagalong"),
		libp2p.ProtocolVersion("tagalong/"+h.opt.Version),
		libp2p.SwarmOpts(swarm.WithDialRanker(swarm.NoDelayDialRanker)),
		libp2p.WithDialTimeout(dialTimeout),
	)
	if err != nil {
		return errors.Join(err, conns.Close(), limits.Close(), h.addrs.Close())
	}
	h.h.Network().Notify(&network.NotifyBundle{ConnectedF: h.connected, DisconnectedF: h.disconnected})
	h.h.SetStreamHandler(beatProtocol, h.onBeat)
	if err := h.h.Network().Listen(listen...); err != nil {
		return errors.Join(fmt.Errorf("%w: %w", ErrListen, err), h.h.Close())
	}
	net := h.h.Network()
	h.network.Store(&net)
	if h.opt.Discovery {
		h.disco, err = discovery.New(discovery.Config{
			ID:      h.ID(),
			Port:    h.Port(),
			Links:   h.advertisedLinks,
			Members: h.wanted,
			Wanted:  h.someoneMissing,
			Seen:    h.seen,
			Log:     h.log,
		})
		if err != nil {
			return errors.Join(err, h.h.Close())
		}
	}
	return nil
}

// ID returns this device's peer ID.
func (h *Host) ID() string { return h.id.String() }

// Port returns the first TCP port that the host listens on.
func (h *Host) Port() int {
	for _, a := range h.h.Network().ListenAddresses() {
		if s, err := a.ValueForProtocol(ma.P_TCP); err == nil {
			if n, err := strconv.Atoi(s); err == nil {
				return n
			}
		}
	}
	return 0
}

// Close ends all connections and waits for the stream handlers to return. It may be called more than once.
func (h *Host) Close() error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		<-h.done
		return nil
	}
	h.closed = true
	h.mu.Unlock()
	defer close(h.done)
	h.gate.open.Store(false)
	h.cancel()
	err := h.h.Close()
	h.wg.Wait()
	if err != nil {
		return fmt.Errorf("close host: %w", err)
	}
	return nil
}

// spawn runs fn in a goroutine that Close waits for. It reports false, and doesn't run fn, once the host is closed.
func (h *Host) spawn(fn func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.wg.Go(fn)
	return true
}

// now is the time on the monotonic clock that all liveness decisions use.
func (h *Host) now() time.Duration { return time.Since(h.start) }
