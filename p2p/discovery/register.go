package discovery

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net"
	"time"

	"github.com/grandcat/zeroconf"
)

const (
	// pollInterval is how often the interfaces are looked at.
	pollInterval = 2 * time.Second
	// damping keeps a flapping interface from making us register over and over.
	damping = 5 * time.Second
	// deafRounds is after how many browsing rounds in which we don't hear ourselves the registration is made anew:
	// zeroconf's receiver doesn't recover from some network losses.
	deafRounds = 3
	// ownNames bounds how many of our former instance names are remembered.
	ownNames = 64
)

// registration is everything that, when it changes, calls for a new registration.
type registration struct {
	links string
	tag   string
	pair  int
}

// register keeps the advertisement up to date until ctx ends.
func (s *Service) register(ctx context.Context) error {
	var server *zeroconf.Server
	var current registration
	var since time.Time
	defer func() {
		if server != nil {
			server.Shutdown()
		}
	}()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		links, err := s.cfg.Links()
		if err != nil {
			s.cfg.Log.Debug("Interfaces can't be listed", "err", err)
		}
		links = multicast(links)
		s.mu.Lock()
		want := registration{links: signature(links), tag: Tag(s.cfg.ID, s.cfg.Now()), pair: s.pair}
		deaf := s.deaf >= deafRounds
		s.mu.Unlock()

		urgent := want.pair != current.pair || server == nil
		due := want != current || (deaf && server != nil)
		if due && (urgent || time.Since(since) >= damping) {
			if server != nil {
				server.Shutdown()
				server = nil
			}
			since = time.Now()
			if len(links) == 0 {
				current = want
			} else if server, err = s.announce(links, want); err != nil {
				// Left unequal to current: the next tick tries again.
				current = registration{pair: want.pair}
				s.cfg.Log.Debug("Discovery can't register", "err", err)
			} else {
				current = want
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.registrar:
		case <-tick.C:
		}
	}
}

// announce registers under fresh random names: a name that changes can't be followed, and can't clash with the host's own.
func (s *Service) announce(links []Link, want registration) (*zeroconf.Server, error) {
	instance, host := randomName(), randomName()
	var ifaces []net.Interface
	var ips []string
	for _, l := range links {
		ifaces = append(ifaces, l.Interface)
		for _, a := range l.Addrs {
			if dialable(a) && len(ips) < maxAddrs {
				ips = append(ips, a.String())
			}
		}
	}
	s.mu.Lock()
	s.remember(instance)
	s.ownSeen, s.deaf = false, 0
	s.mu.Unlock()
	return zeroconf.RegisterProxy(instance, serviceType, domain, s.cfg.Port, host, ips, text(want.tag, want.pair), ifaces)
}

// remember notes one of our own instance names, so that we don't find ourselves. The caller holds s.mu.
func (s *Service) remember(instance string) {
	if len(s.own) >= ownNames {
		var oldest string
		for name, at := range s.own {
			if oldest == "" || at.Before(s.own[oldest]) {
				oldest = name
			}
		}
		delete(s.own, oldest)
	}
	s.own[instance] = s.cfg.Now()
}

func randomName() string {
	var b [8]byte
	// Read never fails (crypto/rand documents it).
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
