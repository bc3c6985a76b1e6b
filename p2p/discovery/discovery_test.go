package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/grandcat/zeroconf"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 5, 1, 12, 30, 0, 0, time.UTC)

func TestTagsRotateAndDiffer(t *testing.T) {
	tag := Tag("device", noon)
	if len(tag) != 32 {
		t.Errorf("tag %q has %d digits, want 32", tag, len(tag))
	}
	if Tag("device", noon.Add(29*time.Minute)) != tag {
		t.Error("tag changes within the hour")
	}
	if Tag("device", noon.Add(time.Hour)) == tag {
		t.Error("tag doesn't change with the hour")
	}
	if Tag("other", noon) == tag {
		t.Error("two devices have the same tag")
	}
	if Tag("device", noon.In(time.FixedZone("", 7200))) != tag {
		t.Error("tag depends on the time zone")
	}
	// Part of the protocol: devices of all versions must agree.
	if want := "d4fe9379edef81465d6ebb86ff732ab8"; tag != want {
		t.Errorf("tag %s, want %s", tag, want)
	}
}

func TestTagTableAllowsAnHourOfSkew(t *testing.T) {
	var table tagTable
	for _, skew := range []time.Duration{-time.Hour, 0, time.Hour} {
		if id := table.at(noon, []string{"a", "b"})[Tag("b", noon.Add(skew))]; id != "b" {
			t.Errorf("skew %v: %q", skew, id)
		}
	}
	if _, ok := table.at(noon, []string{"a", "b"})[Tag("b", noon.Add(2*time.Hour))]; ok {
		t.Error("a tag two hours off is accepted")
	}
	if _, ok := table.at(noon, []string{"a"})[Tag("b", noon)]; ok {
		t.Error("a removed member is still recognised")
	}
	if id := table.at(noon.Add(5*time.Hour), []string{"a"})[Tag("a", noon.Add(5*time.Hour))]; id != "a" {
		t.Error("the table doesn't follow the clock")
	}
}

func ips(s ...string) []net.IP {
	var out []net.IP
	for _, a := range s {
		out = append(out, net.ParseIP(a))
	}
	return out
}

func TestParse(t *testing.T) {
	tag := Tag("x", noon)
	good := text(tag, 4242)
	r, ok := parse("name", 7, good, ips("10.0.0.1", "127.0.0.1", "0.0.0.0", "224.0.0.1", "10.0.0.1"), ips("fe80::1", "fd00::1", "::1"))
	if !ok || r.tag != tag || r.port != 7 || r.pair != 4242 {
		t.Errorf("parsed %+v, %v", r, ok)
	}
	if want := []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}; !slices.Equal(r.addrs, want) {
		t.Errorf("addresses %v, want %v", r.addrs, want)
	}
	if r, ok := parse("name", 7, text(tag, 0), ips("10.0.0.1"), nil); !ok || r.pair != 0 {
		t.Errorf("without pairing: %+v, %v", r, ok)
	}
	one := ips("10.0.0.1")
	for name, ok := range map[string]bool{
		"no name":      second(parse("", 7, good, one, nil)),
		"long name":    second(parse(strings.Repeat("x", 64), 7, good, one, nil)),
		"no port":      second(parse("name", 0, good, one, nil)),
		"big port":     second(parse("name", 65536, good, one, nil)),
		"no version":   second(parse("name", 7, []string{"tag=" + tag}, one, nil)),
		"new version":  second(parse("name", 7, []string{"v=2", "tag=" + tag}, one, nil)),
		"no tag":       second(parse("name", 7, []string{"v=1"}, one, nil)),
		"short tag":    second(parse("name", 7, []string{"v=1", "tag=abc"}, one, nil)),
		"bad pair":     second(parse("name", 7, []string{"v=1", "tag=" + tag, "pair=70000"}, one, nil)),
		"no address":   second(parse("name", 7, good, nil, nil)),
		"bad address":  second(parse("name", 7, good, []net.IP{{1, 2, 3}}, nil)),
		"many strings": second(parse("name", 7, append(make([]string, maxTexts), good...), one, nil)),
	} {
		if ok {
			t.Errorf("%s: accepted", name)
		}
	}
}

func second(_ record, ok bool) bool { return ok }

func FuzzParse(f *testing.F) {
	f.Add("name", 7, "v=1", "tag="+Tag("x", noon), "pair=1", []byte{10, 0, 0, 1})
	f.Add("", -1, "=", "tag", "pair=-1", []byte{})
	f.Add("a", 65535, "v=1=1", "pair=99999999999999999999", "\x00", make([]byte, 16))
	f.Fuzz(func(t *testing.T, name string, port int, a, b, c string, ip []byte) {
		r, ok := parse(name, port, []string{a, b, c}, []net.IP{ip}, []net.IP{ip})
		if !ok {
			return
		}
		if len(r.addrs) == 0 || len(r.addrs) > maxAddrs || int(r.port) != port || len(r.tag) != 32 {
			t.Errorf("accepted %+v", r)
		}
	})
}

func TestCacheIsBoundedAndForgets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c cache
		now := noon
		last := make(map[place]time.Time)
		for range rapid.IntRange(1, 2*maxEntries).Draw(t, "n") {
			now = now.Add(time.Duration(rapid.IntRange(0, 2000).Draw(t, "ms")) * time.Millisecond)
			n := rapid.IntRange(0, 1023).Draw(t, "who")
			r := record{instance: "i", port: 1, pair: uint16(n % 2), addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)})}}
			c.put(now, r)
			last[place{r.addrs[0], 1}] = now
			if len(c.entries) > maxEntries {
				t.Fatalf("%d entries", len(c.entries))
			}
			if _, ok := c.entries[place{r.addrs[0], 1}]; !ok {
				t.Fatal("what was just put is gone")
			}
		}
		for _, f := range c.doors(now) {
			if now.Sub(f.Seen) > entryLife || f.Addrs[0].Port() != 1 {
				t.Fatalf("door %+v", f)
			}
		}
		for p, e := range c.entries {
			if !e.seen.Equal(last[p]) {
				t.Fatal("an entry has a wrong time")
			}
		}
	})
}

func TestCacheNews(t *testing.T) {
	var c cache
	r := record{instance: "one", port: 1, addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}
	if !c.put(noon, r) {
		t.Error("first sighting is no news")
	}
	if c.put(noon.Add(time.Second), r) {
		t.Error("second sighting is news")
	}
	r.pair = 7
	if !c.put(noon, r) {
		t.Error("an opened door is no news")
	}
	r.instance = "two"
	if !c.put(noon, r) || len(c.entries) != 1 {
		t.Errorf("a new registration must be news and replace the old one; %d entries", len(c.entries))
	}
	if !c.put(noon.Add(entryLife+time.Second+1), r) {
		t.Error("a sighting after expiry is no news")
	}
}

func TestSignatureIgnoresOrder(t *testing.T) {
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	one := Link{Interface: net.Interface{Index: 1}, Addrs: []netip.Addr{a, b}}
	same := Link{Interface: net.Interface{Index: 1}, Addrs: []netip.Addr{b, a}}
	two := Link{Interface: net.Interface{Index: 2}, Addrs: []netip.Addr{a}}
	if signature([]Link{one, two}) != signature([]Link{two, same}) {
		t.Error("order matters")
	}
	if signature([]Link{one}) == signature([]Link{one, two}) || signature([]Link{two}) == signature([]Link{{Interface: two.Interface, Addrs: []netip.Addr{b}}}) {
		t.Error("a change doesn't show")
	}
}

func config() Config {
	return Config{
		ID: "me", Port: 1,
		Links:   func() ([]Link, error) { return nil, nil },
		Members: func() []string { return []string{"me", "friend"} },
		Seen:    func(string, []netip.AddrPort, bool) {},
		Now:     func() time.Time { return noon },
	}
}

func advert(instance, id string, pair int, addr string) *zeroconf.ServiceEntry {
	e := zeroconf.NewServiceEntry(instance, serviceType, domain)
	e.Port, e.Text, e.AddrIPv4 = 9, text(Tag(id, noon), pair), ips(addr)
	return e
}

func TestHeardTellsOnlyOfMembers(t *testing.T) {
	var seen []string
	cfg := config()
	cfg.Seen = func(id string, addrs []netip.AddrPort, news bool) { seen = append(seen, fmt.Sprint(id, addrs, news)) }
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.heard(advert("i1", "friend", 0, "10.0.0.1"))
	s.heard(advert("i1", "friend", 0, "10.0.0.1"))
	s.heard(advert("i2", "stranger", 0, "10.0.0.2"))
	s.heard(advert("i3", "me", 0, "10.0.0.3"))
	if want := []string{"friend[10.0.0.1:9] true", "friend[10.0.0.1:9] false"}; !slices.Equal(seen, want) {
		t.Errorf("seen %q, want %q", seen, want)
	}
}

func TestFindPairing(t *testing.T) {
	s, err := New(config())
	if err != nil {
		t.Fatal(err)
	}
	s.remember("mine")
	s.heard(advert("mine", "me", 5, "10.0.0.9"))
	s.heard(advert("closed", "stranger", 0, "10.0.0.8"))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if found, err := s.FindPairing(ended); !errors.Is(err, ErrNothingFound) || len(found) != 0 {
		t.Errorf("found %v, %v; want ErrNothingFound", found, err)
	}
	type result struct {
		found []Found
		err   error
	}
	done := make(chan result)
	go func() {
		found, err := s.FindPairing(t.Context())
		done <- result{found, err}
	}()
	s.heard(advert("open", "stranger", 5, "10.0.0.7"))
	r := <-done
	if r.err != nil || len(r.found) != 1 || r.found[0].Addrs[0].String() != "10.0.0.7:5" {
		t.Errorf("found %+v, %v", r.found, r.err)
	}
}

func TestOwnNamesAreBounded(t *testing.T) {
	now := noon
	cfg := config()
	cfg.Now = func() time.Time { now = now.Add(time.Second); return now }
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 * ownNames {
		s.remember(fmt.Sprint(i))
	}
	if _, ok := s.own[fmt.Sprint(3*ownNames-1)]; len(s.own) != ownNames || !ok {
		t.Errorf("%d names, newest kept: %v", len(s.own), ok)
	}
}

func TestServeWithoutNetworkEnds(t *testing.T) {
	s, err := New(config())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Serve(ctx) }()
	s.SetPairPort(1)
	s.Kick()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Serve: %v", err)
	}
}

func TestNewRefusesIncompleteConfigs(t *testing.T) {
	for i, spoil := range []func(*Config){
		func(c *Config) { c.ID = "" },
		func(c *Config) { c.Port = 0 },
		func(c *Config) { c.Port = 65536 },
		func(c *Config) { c.Links = nil },
		func(c *Config) { c.Members = nil },
		func(c *Config) { c.Seen = nil },
	} {
		cfg := config()
		spoil(&cfg)
		if _, err := New(cfg); !errors.Is(err, ErrConfig) {
			t.Errorf("config %d: %v", i, err)
		}
	}
}
