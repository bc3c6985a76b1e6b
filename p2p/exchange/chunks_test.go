package exchange_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tagalong.org/tagalong/p2p/exchange"
	"tagalong.org/tagalong/p2p/wire"
	"tagalong.org/tagalong/p2p/wire/wiretest"
)

// shelf is where a store keeps its chunks. Records "set/…" name them: hashes, parted by spaces. Guarded by store.mu.
type shelf struct {
	chunks map[string][]byte
	claims map[string]string
	puts   map[string]int // how often a chunk came
	full   error          // what PutChunks returns
}

func newShelf() shelf {
	return shelf{chunks: map[string][]byte{}, claims: map[string]string{}, puts: map[string]int{}}
}

func hashOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

func (s *store) missing() (list []string) {
	for k, r := range s.records {
		if strings.HasPrefix(k, "set/") {
			for _, h := range strings.Fields(string(r.Value)) {
				if s.shelf.chunks[h] == nil {
					list = append(list, h)
				}
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func (s *store) Wants(peer string, max int, skip func(string) bool) (list []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.missing() {
		if s.shelf.claims[h] == "" && len(list) < max && !skip(h) {
			s.shelf.claims[h] = peer
			list = append(list, h)
		}
	}
	return list
}

func (s *store) Unwant(peer string, hashes []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range hashes {
		if s.shelf.claims[h] == peer {
			delete(s.shelf.claims, h)
			s.wake()
		}
	}
}

func (s *store) Has(h string) bool {
	_, ok := s.Chunk(h)
	return ok
}

func (s *store) Chunk(h string) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.shelf.chunks[h]
	return b, ok
}

func (s *store) PutChunks(_ string, list []exchange.Chunk) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range list {
		s.shelf.puts[c.Hash]++
	}
	for _, c := range list {
		if hashOf(c.Data) != c.Hash {
			return fmt.Errorf("wrong hash: %w", exchange.ErrProtocol)
		}
		if len(c.Data) > exchange.MaxChunk {
			s.fault = fmt.Errorf("a chunk of %d bytes got through", len(c.Data))
		}
		if s.shelf.full != nil {
			return s.shelf.full
		}
		s.shelf.chunks[c.Hash] = bytes.Clone(c.Data)
		delete(s.shelf.claims, c.Hash)
	}
	s.wake()
	return nil
}

// whole says that the store lacks no chunk.
func whole(stores ...*store) func() bool {
	return func() bool {
		for _, s := range stores {
			s.mu.Lock()
			n := len(s.missing())
			s.mu.Unlock()
			if n > 0 {
				return false
			}
		}
		return equal(stores...)()
	}
}

// putSet gives the store a record that names n chunks, and the chunks. It returns their hashes.
func putSet(s *store, name string, n int, size func(i int) int) (hashes []string) {
	r := rand.NewChaCha8([32]byte{byte(n), name[0]})
	s.mu.Lock()
	for i := range n {
		b := make([]byte, size(i))
		_, _ = r.Read(b)
		s.shelf.chunks[hashOf(b)] = b
		hashes = append(hashes, hashOf(b))
	}
	s.mu.Unlock()
	s.put(record("set/"+name, 1, strings.Join(hashes, " ")))
	return hashes
}

func small(i int) int { return 1 + i*37%5000 }

func TestChunksFollowTheirRecords(t *testing.T) {
	for name, pair := range wiretest.Kinds {
		t.Run(name, func(t *testing.T) {
			x, y := newStore(), newStore()
			putSet(x, "x", 700, small)
			putSet(y, "y", 300, small)
			putSet(x, "large", 20, func(int) int { return exchange.MaxChunk })
			a, b := pair(t)
			stop := serve(t, a, b, x, y, nil)
			until(t, "chunks", whole(x, y), x, y)
			putSet(x, "z", 5, small)
			until(t, "later chunks", whole(x, y), x, y)
			stop()
			for _, s := range []*store{x, y} {
				for h, n := range s.shelf.puts {
					if n != 1 {
						t.Errorf("chunk %s came %d times", h, n)
					}
				}
				if len(s.shelf.claims) != 0 {
					t.Errorf("%d claims are left", len(s.shelf.claims))
				}
			}
		})
	}
}

// A device in the middle passes on what it gets, also to one that asked before it had it; with two sources, each chunk crosses once.
func TestChunksTravelOn(t *testing.T) {
	x, y, z := newStore(), newStore(), newStore()
	a, b := wiretest.TCP(t)
	c, d := wiretest.TCP(t)
	stop2 := serveAs(t, c, d, y, z, "y", "z")
	putSet(x, "x", 500, small)
	y.put(x.Get([]string{"set/x"})[0]) // the record is there before its chunks
	until(t, "the record", equal(x, y, z), x, y, z)
	stop1 := serveAs(t, a, b, x, y, "x", "y")
	until(t, "chunks over two hops", whole(x, y, z), x, y, z)
	e, f := wiretest.TCP(t)
	stop3 := serveAs(t, e, f, x, z, "x", "z")
	putSet(x, "both", 900, small)
	until(t, "chunks from two sides", whole(x, y, z), x, y, z)
	stop1()
	stop2()
	stop3()
	for h, n := range z.shelf.puts {
		if n != 1 {
			t.Errorf("chunk %s came %d times", h, n)
		}
	}
}

// serveAs joins two stores that know each other by these names.
func serveAs(t *testing.T, a, b wire.Stream, x, y *store, nameX, nameY string) func() {
	end := make(chan error, 2)
	go func() { end <- exchange.Serve(t.Context(), a, nameY, x, nil) }()
	go func() { end <- exchange.Serve(t.Context(), b, nameX, y, nil) }()
	return func() {
		_, _ = a.Reset(), b.Reset()
		<-end
		<-end
	}
}

// What came before the stream was lost doesn't come again, and what was asked for then is asked for again.
func TestChunksResume(t *testing.T) {
	x, y := newStore(), newStore()
	putSet(x, "x", 600, func(int) int { return 20_000 })
	for round := 1; !whole(x, y)(); round++ {
		a, b := wiretest.TCP(t)
		stop := serve(t, a, b, x, y, nil)
		before := len(y.missingNow())
		until(t, "some chunks", func() bool { n := len(y.missingNow()); return n < before || n == 0 && whole(x, y)() }, y)
		_, _ = a.Reset(), b.Reset()
		stop()
		if len(y.shelf.claims) != 0 {
			t.Fatalf("%d claims are left", len(y.shelf.claims))
		}
		if round > 1000 {
			t.Fatal("it never ends")
		}
	}
	for h, n := range y.shelf.puts {
		if n != 1 {
			t.Errorf("chunk %s came %d times", h, n)
		}
	}
}

func (s *store) missingNow() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.missing()
}

// What can't be stored is not asked for again and again.
func TestChunksThatCannotBeStored(t *testing.T) {
	x, y := newStore(), newStore()
	var log lines
	y.shelf.full = errors.New("no space")
	hashes := putSet(x, "x", 30, small)
	a, b := wiretest.TCP(t)
	stop := serve(t, a, b, x, y, slog.New(slog.NewTextHandler(&log, nil)))
	until(t, "the record", equal(x, y), x, y)
	until(t, "the chunks", func() bool {
		y.mu.Lock()
		defer y.mu.Unlock()
		return len(y.shelf.claims) == 0 && y.shelf.puts[hashes[0]] > 0
	}, y)
	for i := range uint64(30) {
		x.put(record("k", 1+i, "v"))
		until(t, "another record", equal(x, y), x, y)
	}
	stop()
	for h, n := range y.shelf.puts {
		if n > 1 {
			t.Errorf("chunk %s was asked for %d times", h, n)
		}
	}
	if log.count("can't be stored") == 0 {
		t.Error("not a word in the log")
	}
}

// A peer that promises and doesn't deliver keeps nobody from asking others.
func TestChunksOfASilentPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, y := newStore(), newStore()
		putSet(x, "x", 100, small)
		y.put(x.Get([]string{"set/x"})[0])
		a, b := wiretest.Pipe(t)
		end := make(chan error, 1)
		go func() { end <- exchange.Serve(t.Context(), a, "silent", y, nil) }()
		c := wire.NewConn(b)
		if _, err := c.Greet(t.Context(), greeting2); err != nil {
			t.Fatal(err)
		}
		go func() { // it reads everything, and says that it has everything
			for {
				var m map[string]any
				if c.Recv(t.Context(), &m) != nil {
					return
				}
			}
		}()
		if err := c.Send(t.Context(), map[string]any{"type": "digest"}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(y.shelf.claims) == 0 {
			t.Fatal("nothing was asked for")
		}
		e, f := wiretest.Pipe(t)
		stop := serveAs(t, e, f, x, y, "x", "y")
		for waited := 0; !whole(x, y)(); waited++ {
			if waited > 300 {
				t.Fatal("nobody else was asked")
			}
			time.Sleep(time.Second)
		}
		stop()
		_ = b.Reset()
		<-end
	})
}

var greeting2 = wire.Greeting{Protocol: exchange.Protocol, Version: 2, Oldest: 1}

// An older peer gets records and is asked for nothing.
func TestPeerWithoutChunks(t *testing.T) {
	y := newStore()
	y.put(record("set/x", 1, hashOf([]byte("nobody has it"))))
	a, b := wiretest.TCP(t)
	end := make(chan error, 1)
	go func() { end <- exchange.Serve(t.Context(), a, "old", y, nil) }()
	c := wire.NewConn(b)
	if v, err := c.Greet(t.Context(), greeting); err != nil || v != 1 {
		t.Fatal(v, err)
	}
	r := record("k", 1, "v")
	for _, m := range []any{map[string]any{"type": "digest"}, map[string]any{"type": "records", "records": []exchange.Record{r}}} {
		if err := c.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the old peer's record", func() bool { return y.Digest()["k"] == 1 }, y)
	if err := b.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	for {
		var m struct{ Type string }
		if err := c.Recv(t.Context(), &m); err != nil {
			break
		}
		if m.Type != "digest" && m.Type != "records" {
			t.Errorf("the old peer was sent %q", m.Type)
		}
	}
	if err := <-end; err != nil {
		t.Error(err)
	}
}

func TestHostileChunks(t *testing.T) {
	type m = map[string]any
	good := []byte("good")
	other := hashOf([]byte("nobody asked for it"))
	several := func(n int, h string) []string { return slices.Repeat([]string{h}, n) }
	for name, c := range map[string]struct {
		msg  m
		blob []byte
		want error
	}{
		"not asked for":  {m{"type": "chunks", "hashes": []string{other}, "sizes": []int{19}}, []byte("nobody asked for it"), exchange.ErrProtocol},
		"wrong content":  {m{"type": "chunks", "hashes": []string{hashOf(good)}, "sizes": []int{4}}, []byte("evil"), exchange.ErrProtocol},
		"too large":      {m{"type": "chunks", "hashes": []string{hashOf(good)}, "sizes": []int{exchange.MaxChunk + 1}}, nil, exchange.ErrProtocol},
		"negative":       {m{"type": "chunks", "hashes": []string{hashOf(good)}, "sizes": []int{-1}}, nil, exchange.ErrProtocol},
		"twice":          {m{"type": "chunks", "hashes": several(2, hashOf(good)), "sizes": []int{4, 4}}, nil, exchange.ErrProtocol},
		"no sizes":       {m{"type": "chunks", "hashes": []string{hashOf(good)}}, nil, exchange.ErrProtocol},
		"nothing":        {m{"type": "chunks"}, nil, exchange.ErrProtocol},
		"wants at once":  {m{"type": "want", "hashes": several(1000, other)}, nil, exchange.ErrProtocol},
		"empty want":     {m{"type": "want", "hashes": []string{""}}, nil, exchange.ErrProtocol},
		"long want":      {m{"type": "want", "hashes": []string{strings.Repeat("a", exchange.MaxHash+1)}}, nil, exchange.ErrProtocol},
		"short pieces":   {m{"type": "chunks", "hashes": []string{hashOf(good)}, "sizes": []int{4}}, []byte("go"), wire.ErrMalformed},
		"wants for ever": {nil, nil, exchange.ErrProtocol},
	} {
		y := newStore()
		y.put(record("set/x", 1, hashOf(good)))
		putSet(y, "own", 1, small)
		own := strings.Fields(string(y.Get([]string{"set/own"})[0].Value))
		a, b := wiretest.TCP(t)
		end := make(chan error, 1)
		go func() { end <- exchange.Serve(t.Context(), a, "evil", y, nil) }()
		conn := wire.NewConn(b)
		if _, err := conn.Greet(t.Context(), greeting2); err != nil {
			t.Fatal(err)
		}
		if err := conn.Send(t.Context(), m{"type": "digest"}); err != nil {
			t.Fatal(err)
		}
		for { // until it asks for what it lacks
			var got struct{ Type string }
			if err := conn.Recv(t.Context(), &got); err != nil {
				t.Fatal(err)
			}
			if got.Type == "want" {
				break
			}
		}
		if c.msg != nil {
			// Who has read enough hangs up: that the rest can't be sent any more is no failure.
			_ = conn.SendWithBlob(t.Context(), c.msg, c.blob)
		} else {
			for range 100 {
				if conn.Send(t.Context(), m{"type": "want", "hashes": own}) != nil {
					break
				}
				var head m
				if _, err := conn.RecvWithBlob(t.Context(), &head, func() (int, error) {
					return int(head["sizes"].([]any)[0].(float64)), nil
				}); err != nil {
					break
				}
			}
		}
		if err := <-end; !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if y.Has(hashOf(good)) || y.Has(other) || y.fault != nil || len(y.shelf.claims) != 0 {
			t.Errorf("%s: it was stored, or claims are left: %v", name, y.fault)
		}
		_ = b.Reset()
	}
}

// TestAChunkComesAndGoes: a peer may want the same chunk as often as records that name it come and go, for as long as the stream lasts.
func TestAChunkComesAndGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, y := newStore(), newStore()
		hash := putSet(x, "x", 1, small)[0]
		a, b := wiretest.Pipe(t)
		stop := serveAs(t, a, b, x, y, "x", "y")
		for version := uint64(2); version < 30; version++ {
			time.Sleep(3 * time.Minute)
			synctest.Wait()
			if !y.Has(hash) {
				t.Fatalf("it didn't come for version %d", version-1)
			}
			y.mu.Lock()
			delete(y.shelf.chunks, hash) // nothing named it for a while
			y.mu.Unlock()
			x.put(record("set/x", version, hash))
		}
		stop()
	})
}
