package discovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

var (
	// ErrConfig: a Config lacks something that New needs.
	ErrConfig = errors.New("discovery: incomplete configuration")
	// ErrNothingFound: the context of FindPairing ended before an open pairing door was seen.
	ErrNothingFound = errors.New("discovery: no device with an open pairing window was found")
)

const (
	serviceType = "_tagalong._tcp"
	domain      = "local"
)

// Config says what to advertise and whom to look for. The functions are called from Serve's goroutines and must not block.
type Config struct {
	ID      string                                             // this device
	Port    int                                                // where its host listens, 1-65535
	Links   func() ([]Link, error)                             // interfaces and addresses that take part, read every 2 s
	Members func() []string                                    // the devices whose tags are recognised
	Wanted  func() bool                                        // whether browsing is urgent; nil means always
	Seen    func(id string, addrs []netip.AddrPort, news bool) // a member was seen; news: it wasn't there before, or moved
	Log     *slog.Logger                                       // nil: silent
	Now     func() time.Time                                   // nil: time.Now
}

// Found is an open pairing door that was seen on the network.
type Found struct {
	Addrs []netip.AddrPort // where the door is, at least one
	Seen  time.Time
}

// Service advertises and browses while Serve runs. Its methods may be called from any goroutine.
type Service struct {
	cfg  Config
	tags tagTable // guarded by mu

	mu       sync.Mutex
	pair     int
	cache    cache
	finding  int                  // FindPairing calls under way
	own      map[string]time.Time // our own instance names and when they were last used
	ownSeen  bool                 // our registration was heard since it was made
	deaf     int                  // rounds since then in which it wasn't
	watchers map[chan struct{}]struct{}

	registrar chan struct{} // 1-buffered: look at the registration now
	browser   chan struct{} // 1-buffered: browse now
}

// New checks cfg. Nothing happens on the network before Serve.
func New(cfg Config) (*Service, error) {
	if cfg.ID == "" || cfg.Port < 1 || cfg.Port > 65535 || cfg.Links == nil || cfg.Members == nil || cfg.Seen == nil {
		return nil, fmt.Errorf("new: %w", ErrConfig)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Wanted == nil {
		cfg.Wanted = func() bool { return true }
	}
	return &Service{
		cfg:       cfg,
		own:       make(map[string]time.Time),
		watchers:  make(map[chan struct{}]struct{}),
		registrar: make(chan struct{}, 1),
		browser:   make(chan struct{}, 1),
	}, nil
}

// Serve advertises and browses until ctx ends, and returns its error. Trouble with the network is retried, not returned.
func (s *Service) Serve(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.register(ctx) })
	g.Go(func() error { return s.browse(ctx) })
	return g.Wait()
}

// SetPairPort says where the pairing door is; 0 means that it is closed. It is advertised at once.
func (s *Service) SetPairPort(port int) {
	s.mu.Lock()
	s.pair = port
	s.mu.Unlock()
	wake(s.registrar)
}

// Kick asks for a browsing round soon, because somebody is missing.
func (s *Service) Kick() { wake(s.browser) }

// FindPairing waits until an open pairing door of another device is known and returns all that are. If ctx ends
// first, the error is ErrNothingFound.
func (s *Service) FindPairing(ctx context.Context) ([]Found, error) {
	news := make(chan struct{}, 1)
	s.mu.Lock()
	s.finding++
	s.watchers[news] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.finding--
		delete(s.watchers, news)
		s.mu.Unlock()
	}()
	s.Kick()
	for {
		s.mu.Lock()
		found := s.cache.doors(s.cfg.Now())
		s.mu.Unlock()
		if len(found) > 0 {
			return found, nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return nil, fmt.Errorf("find pairing: %w", ErrNothingFound)
		}
	}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
