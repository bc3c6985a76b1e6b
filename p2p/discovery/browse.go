package discovery

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/grandcat/zeroconf"
)

const (
	// A round asks once and then listens; the jitter keeps devices from asking in step.
	roundTime   = 4 * time.Second
	roundJitter = time.Second
	// idlePause lies between two rounds when nobody is missing.
	idlePause = 30 * time.Second
	// entryBuffer decouples zeroconf's receiver from us.
	entryBuffer = 256
)

// browse runs rounds until ctx ends.
func (s *Service) browse(ctx context.Context) error {
	for ctx.Err() == nil {
		links, err := s.cfg.Links()
		if err != nil {
			s.cfg.Log.Debug("Interfaces can't be listed", "err", err)
		}
		links = multicast(links)
		pause := pollInterval
		if len(links) > 0 {
			pause = 0
			if !s.round(ctx, links) {
				pause = pollInterval
			} else if !s.urgent() {
				pause = idlePause
			}
		}
		if pause == 0 {
			continue
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-s.browser:
		case <-ctx.Done():
		}
		t.Stop()
	}
	return ctx.Err()
}

func (s *Service) urgent() bool {
	s.mu.Lock()
	finding := s.finding > 0
	s.mu.Unlock()
	return finding || s.cfg.Wanted()
}

// round browses once on every address family and reports whether any could be used. Each family has a resolver of its
// own, because a resolver for both fails, and leaks a socket, when one of them is missing.
func (s *Service) round(ctx context.Context, links []Link) bool {
	ctx, cancel := context.WithTimeout(ctx, roundTime+rand.N(roundJitter))
	defer cancel()
	var wg sync.WaitGroup
	started := false
	for _, v4 := range []bool{true, false} {
		ifaces := family(links, v4)
		if len(ifaces) == 0 {
			continue
		}
		entries, err := listen(ctx, ifaces, v4)
		if err != nil {
			s.cfg.Log.Debug("Discovery can't browse", "ipv4", v4, "err", err)
			continue
		}
		started = true
		wg.Go(func() {
			// The channel is closed by zeroconf after ctx has ended; until then it must be emptied, or its receiver hangs.
			for e := range entries {
				s.heard(e)
			}
		})
	}
	wg.Wait()
	if started {
		s.mu.Lock()
		if s.ownSeen {
			s.ownSeen, s.deaf = false, 0
		} else {
			s.deaf++
		}
		s.mu.Unlock()
	}
	return started
}

// listen starts one resolver. The channel it returns is closed after ctx has ended.
func listen(ctx context.Context, ifaces []net.Interface, v4 bool) (<-chan *zeroconf.ServiceEntry, error) {
	traffic := zeroconf.IPType(zeroconf.IPv6)
	if v4 {
		traffic = zeroconf.IPv4
	}
	resolver, err := zeroconf.NewResolver(zeroconf.SelectIPTraffic(traffic), zeroconf.SelectIfaces(ifaces))
	if err != nil {
		return nil, err
	}
	entries := make(chan *zeroconf.ServiceEntry, entryBuffer)
	if err := resolver.Browse(ctx, serviceType, domain, entries); err != nil {
		// Browse has ended its receiver, which closes the channel.
		for range entries {
			continue
		}
		return nil, err
	}
	return entries, nil
}

// heard takes in one advertisement.
func (s *Service) heard(e *zeroconf.ServiceEntry) {
	r, ok := parse(e.Instance, e.Port, e.Text, e.AddrIPv4, e.AddrIPv6)
	if !ok {
		return
	}
	now, members := s.cfg.Now(), s.cfg.Members()
	s.mu.Lock()
	if _, mine := s.own[r.instance]; mine {
		s.ownSeen = true
		s.mu.Unlock()
		return
	}
	news := s.cache.put(now, r)
	id, member := s.tags.at(now, members)[r.tag]
	if news {
		for w := range s.watchers {
			wake(w)
		}
	}
	s.mu.Unlock()
	if member && id != s.cfg.ID {
		s.cfg.Seen(id, r.at(r.port), news)
	}
}
