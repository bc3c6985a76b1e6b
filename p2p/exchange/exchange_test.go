package exchange_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tagalong.org/tagalong/p2p/exchange"
	"tagalong.org/tagalong/p2p/wire"
	"tagalong.org/tagalong/p2p/wire/wiretest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func sign(r *exchange.Record) []byte {
	h := sha256.Sum256(fmt.Appendf(nil, "%s %d %s %x", r.Key, r.Version, r.Writer, r.Value))
	return h[:]
}

func record(key string, version uint64, value string) exchange.Record {
	r := exchange.Record{Key: key, Version: version, Writer: "w", Value: []byte(value)}
	r.Sig = sign(&r)
	return r
}

// store is a directory in memory. A record "chain/N" needs "chain/N-1".
type store struct {
	mu      sync.Mutex
	records map[string]exchange.Record
	watch   map[chan struct{}]bool
	applied atomic.Int64 // calls of Apply
	ban     string       // key that is rejected
	fault   error        // set when a promise to the store was broken
	shelf   shelf
}

func newStore() *store {
	return &store{records: map[string]exchange.Record{}, watch: map[chan struct{}]bool{}, shelf: newShelf()}
}

func (s *store) Digest() map[string]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := map[string]uint64{}
	for k, r := range s.records {
		d[k] = r.Version
	}
	return d
}

func (s *store) Get(keys []string) (out []exchange.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		if r, ok := s.records[k]; ok {
			out = append(out, r)
		}
	}
	return out
}

var errRejected = errors.New("rejected")

func (s *store) Apply(_ string, r exchange.Record) error {
	s.applied.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(r.Value) > exchange.MaxValue || r.Key == "" {
		s.fault = fmt.Errorf("a record of %d bytes under %q got through", len(r.Value), r.Key)
	}
	if !bytes.Equal(r.Sig, sign(&r)) || r.Key == s.ban {
		return errRejected
	}
	var n int
	if _, err := fmt.Sscanf(r.Key, "chain/%d", &n); err == nil && n > 0 {
		if _, ok := s.records[fmt.Sprintf("chain/%d", n-1)]; !ok {
			return errRejected
		}
	}
	if s.records[r.Key].Version < r.Version {
		s.records[r.Key] = r
		s.wake()
	}
	return nil
}

func (s *store) wake() {
	for c := range s.watch {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

func (s *store) put(r exchange.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records[r.Key] = r
	s.wake()
}

func (s *store) setBan(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ban = key
	s.wake()
}

func (s *store) Changed() (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watch[c] = true
	return c, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watch, c)
	}
}

// until waits until ok, looking again at every change of the stores.
func until(t *testing.T, what string, ok func() bool, stores ...*store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	any := make(chan struct{}, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for _, s := range stores {
		c, stop := s.Changed()
		defer stop()
		wg.Go(func() {
			for {
				select {
				case <-c:
					select {
					case any <- struct{}{}:
					default:
					}
				case <-ctx.Done():
					return
				}
			}
		})
	}
	for !ok() {
		select {
		case <-any:
		case <-ctx.Done():
			t.Fatalf("%s: it did not come to that", what)
		}
	}
}

func equal(stores ...*store) func() bool {
	return func() bool {
		for _, s := range stores[1:] {
			if !maps.Equal(s.Digest(), stores[0].Digest()) {
				return false
			}
		}
		return true
	}
}

// serve joins two stores until the returned function is called, which returns
// what both ends returned.
func serve(t *testing.T, a, b wire.Stream, x, y *store, log *slog.Logger) func() [2]error {
	ctx, cancel := context.WithCancel(t.Context())
	var errs [2]error
	var wg sync.WaitGroup
	wg.Go(func() { errs[0] = exchange.Serve(ctx, a, "y", x, log) })
	wg.Go(func() { errs[1] = exchange.Serve(ctx, b, "x", y, log) })
	return func() [2]error {
		cancel()
		wg.Wait()
		return errs
	}
}

func TestStoresBecomeEqual(t *testing.T) {
	for name, pair := range wiretest.Kinds {
		t.Run(name, func(t *testing.T) {
			x, y := newStore(), newStore()
			x.put(record("only/x", 3, "x"))
			y.put(record("only/y", 4, "y"))
			x.put(record("both", 1, "old"))
			y.put(record("both", 2, "new"))
			a, b := pair(t)
			stop := serve(t, a, b, x, y, nil)
			until(t, "first exchange", equal(x, y), x, y)
			if r := x.Get([]string{"both"})[0]; string(r.Value) != "new" {
				t.Errorf("the older version won: %+v", r)
			}
			x.put(record("later", 1, "l"))
			until(t, "push", equal(x, y), x, y)
			y.put(record("later", 2, "m"))
			until(t, "push back", equal(x, y), x, y)
			for i, err := range stop() {
				if !errors.Is(err, context.Canceled) {
					t.Errorf("end %d: %v", i, err)
				}
			}
			// Each record crossed once and none came back to its sender.
			if n, m := x.applied.Load(), y.applied.Load(); n != 3 || m != 2 {
				t.Errorf("%d and %d records were offered, want 3 and 2", n, m)
			}
		})
	}
}

// Many records, some large, both ways at once over a stream without a buffer:
// digests and records come in pieces.
func TestManyAndLargeRecords(t *testing.T) {
	x, y := newStore(), newStore()
	pad := strings.Repeat("k", 200)
	for i := range 3000 {
		x.put(record(fmt.Sprintf("x/%s/%d", pad, i), 1, "v"))
		y.put(record(fmt.Sprintf("y/<%s>/%d", pad, i), 1, "v"))
	}
	for i := range 5 {
		x.put(record(fmt.Sprintf("large/%d", i), 1, strings.Repeat("L", exchange.MaxValue)))
	}
	a, b := wiretest.Pipe(t)
	stop := serve(t, a, b, x, y, nil)
	until(t, "exchange", equal(x, y), x, y)
	stop()
}

func TestConvergesThroughUpdatesAndCuts(t *testing.T) {
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 1))
		x, y := newStore(), newStore()
		version := uint64(0)
		chain := 0
		update := func() {
			version++
			s := []*store{x, y}[r.IntN(2)]
			if r.IntN(4) == 0 {
				// The chain grows at one device only, as a VM's does.
				x.put(record(fmt.Sprintf("chain/%d", chain), 1, "t"))
				chain++
				return
			}
			s.put(record(fmt.Sprintf("k/%d", r.IntN(20)), version, fmt.Sprint(version)))
		}
		for range 4 {
			a, b := wiretest.TCP(t)
			stop := serve(t, a, b, x, y, nil)
			for range r.IntN(60) {
				update()
			}
			if r.IntN(2) == 0 {
				_ = a.Reset()
			}
			stop()
			for range r.IntN(20) {
				update()
			}
		}
		a, b := wiretest.TCP(t)
		stop := serve(t, a, b, x, y, nil)
		until(t, fmt.Sprintf("seed %d", seed), equal(x, y), x, y)
		stop()
	}
}

func TestRecordsTravelOn(t *testing.T) {
	x, y, z := newStore(), newStore(), newStore()
	a, b := wiretest.TCP(t)
	c, d := wiretest.TCP(t)
	stop1, stop2 := serve(t, a, b, x, y, nil), serve(t, c, d, y, z, nil)
	x.put(record("k", 1, "v"))
	until(t, "over two hops", equal(x, y, z), x, y, z)
	stop1()
	stop2()
}

// lines counts log lines.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), s)
}

func TestRejectedRecordIsTriedAgainAndLoggedOnce(t *testing.T) {
	x, y := newStore(), newStore()
	var log lines
	y.ban = "a/banned"
	x.put(record("a/banned", 1, "b"))
	x.put(record("z/fine", 1, "f"))
	a, b := wiretest.TCP(t)
	stop := serve(t, a, b, x, y, slog.New(slog.NewTextHandler(&log, nil)))
	defer stop()
	until(t, "the other record", func() bool { return len(y.Digest()) == 1 }, y)
	x.put(record("z/fine", 2, "g"))
	until(t, "a later record", func() bool { return y.Digest()["z/fine"] == 2 }, y)
	y.setBan("")
	until(t, "the record, once it may", equal(x, y), x, y)
	if n := log.count("Record rejected"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, log.b.String())
	}
}

// A chain that arrives in the wrong order is accepted whole, without a word in
// the log, however the store's map is ordered.
func TestChainIsAcceptedInOrder(t *testing.T) {
	x, y := newStore(), newStore()
	var log lines
	for i := range 300 {
		x.put(record(fmt.Sprintf("chain/%d", i), 1, "t"))
	}
	a, b := wiretest.TCP(t)
	stop := serve(t, a, b, x, y, slog.New(slog.NewTextHandler(&log, nil)))
	until(t, "chain", equal(x, y), x, y)
	stop()
	if n := log.count("rejected"); n != 0 || y.applied.Load() != 300 {
		t.Errorf("%d rejections logged, %d records offered", n, y.applied.Load())
	}
}

func TestOrderlyEnd(t *testing.T) {
	a, b := wiretest.TCP(t)
	end := make(chan error, 1)
	go func() { end <- exchange.Serve(t.Context(), a, "y", newStore(), nil) }()
	if _, err := wire.NewConn(b).Greet(t.Context(), greeting); err != nil {
		t.Fatal(err)
	}
	if err := b.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := <-end; err != nil {
		t.Errorf("orderly end: %v", err)
	}
}

var greeting = wire.Greeting{Protocol: exchange.Protocol, Version: 1, Oldest: 1}

func TestProtocolViolations(t *testing.T) {
	big := record("k", 1, strings.Repeat("L", exchange.MaxValue+1))
	type m = map[string]any
	for name, msgs := range map[string][]m{
		"two digests":   {{"type": "digest"}, {"type": "digest"}},
		"empty key":     {{"type": "digest", "versions": m{"": 1}}},
		"long key":      {{"type": "digest", "versions": m{strings.Repeat("k", 257): 1}}},
		"large record":  {{"type": "records", "records": []exchange.Record{big}}},
		"version 0":     {{"type": "records", "records": []exchange.Record{record("k", 0, "v")}}},
		"keyless":       {{"type": "records", "records": []exchange.Record{record("", 1, "v")}}},
		"not a message": nil,
	} {
		a, b := wiretest.TCP(t)
		s := newStore()
		end := make(chan error, 1)
		go func() { end <- exchange.Serve(t.Context(), a, "y", s, nil) }()
		c := wire.NewConn(b)
		if _, err := c.Greet(t.Context(), greeting); err != nil {
			t.Fatal(err)
		}
		want := exchange.ErrProtocol
		if msgs == nil {
			want = wire.ErrMalformed
			_ = c.Send(t.Context(), []int{1})
		}
		for _, msg := range msgs {
			if err := c.Send(t.Context(), msg); err != nil {
				t.Fatal(err)
			}
		}
		if err := <-end; !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
		if n := s.applied.Load(); n != 0 {
			t.Errorf("%s: %d records reached the store", name, n)
		}
	}
}

func TestTooManyKeys(t *testing.T) {
	a, b := wiretest.TCP(t)
	end := make(chan error, 1)
	go func() { end <- exchange.Serve(t.Context(), a, "y", newStore(), nil) }()
	c := wire.NewConn(b)
	if _, err := c.Greet(t.Context(), greeting); err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		versions := map[string]uint64{}
		for j := range 10_000 {
			versions[fmt.Sprint(i, "/", j)] = 1
		}
		if i > exchange.MaxKeys/10_000+100 {
			t.Fatal("keys without end were taken")
		}
		if err := c.Send(t.Context(), map[string]any{"type": "digest", "versions": versions, "more": true}); err != nil {
			break
		}
	}
	if err := <-end; !errors.Is(err, exchange.ErrTooMany) {
		t.Errorf("%v, want ErrTooMany", err)
	}
}

func FuzzServe(f *testing.F) {
	frame := func(msgs ...string) []byte {
		var b bytes.Buffer
		for _, m := range msgs {
			if err := wire.WriteFrame(&b, []byte(m)); err != nil {
				f.Fatal(err)
			}
		}
		return b.Bytes()
	}
	f.Add(frame(`{"type":"digest","versions":{"a":1}}`, `{"type":"records","records":[{"key":"b","version":1,"writer":"w","value":"AA==","sig":"AA=="}]}`))
	f.Add(frame(`{"type":"digest","versions":{"a":18446744073709551615},"more":true}`, `{"type":"news"}`))
	f.Add(frame(`{"type":"records","records":[{"key":"b","version":0}]}`))
	f.Add(frame(`[]`))
	lacked := hashOf([]byte("lacked"))
	f.Add(frame(`{"type":"digest"}`, `{"type":"chunks","hashes":["`+lacked+`"],"sizes":[6]}`, "lacked"))
	f.Add(frame(`{"type":"want","hashes":["`+lacked+`","b"]}`, `{"type":"have","hashes":["`+lacked+`"]}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		hello := frame(`{"protocol":"` + exchange.Protocol + `","version":2,"oldest":1}`)
		s := newStore()
		s.put(record("a", 1, lacked))
		_ = exchange.Serve(t.Context(), wiretest.Input{Reader: bytes.NewReader(append(hello, in...))}, "y", s, nil)
		if s.fault != nil {
			t.Fatal(s.fault)
		}
		if len(s.Digest()) != 1 {
			t.Fatal("a forged record was stored")
		}
	})
}
