package discovery

import (
	"net/netip"
	"slices"
	"time"
)

const (
	// entryLife is how long a sighting counts; several browsing rounds fit in.
	entryLife = 30 * time.Second
	// maxEntries bounds the cache, whoever shouts on the link.
	maxEntries = 256
)

// place names where a device listens. A device that registers anew keeps its place, so its old entry is replaced.
type place struct {
	addr netip.Addr
	port uint16
}

type entry struct {
	record
	seen time.Time
}

// cache remembers advertisements. It is not safe for concurrent use.
type cache struct {
	entries map[place]entry
}

// put stores r and reports whether it is news: a new place, a new registration, or other addresses.
func (c *cache) put(now time.Time, r record) bool {
	if c.entries == nil {
		c.entries = make(map[place]entry)
	}
	c.expire(now)
	key := place{slices.MinFunc(r.addrs, netip.Addr.Compare), r.port}
	old, known := c.entries[key]
	if !known && len(c.entries) >= maxEntries {
		c.evict()
	}
	c.entries[key] = entry{r, now}
	return !known || old.instance != r.instance || old.pair != r.pair || !slices.Equal(old.addrs, r.addrs)
}

func (c *cache) expire(now time.Time) {
	for k, e := range c.entries {
		if now.Sub(e.seen) > entryLife {
			delete(c.entries, k)
		}
	}
}

// evict drops the entry that was seen longest ago.
func (c *cache) evict() {
	var oldest place
	var at time.Time
	for k, e := range c.entries {
		if at.IsZero() || e.seen.Before(at) {
			oldest, at = k, e.seen
		}
	}
	delete(c.entries, oldest)
}

// doors returns the open pairing doors, newest sighting first.
func (c *cache) doors(now time.Time) []Found {
	c.expire(now)
	var out []Found
	for _, e := range c.entries {
		if e.pair > 0 {
			out = append(out, Found{Addrs: e.at(e.pair), Seen: e.seen})
		}
	}
	slices.SortFunc(out, func(a, b Found) int {
		if n := b.Seen.Compare(a.Seen); n != 0 {
			return n
		}
		return a.Addrs[0].Compare(b.Addrs[0])
	})
	return out
}
