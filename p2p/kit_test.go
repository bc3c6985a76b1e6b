package p2p

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// list is an allow-list that tests can change.
type list struct {
	mu  sync.Mutex
	ids []string
}

func (l *list) Allowed(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Contains(l.ids, id)
}

func (l *list) List() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.ids)
}

func (l *list) set(ids ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ids = ids
}

// book is an address book in memory.
type book struct {
	mu    sync.Mutex
	addrs map[string][]string
}

func (b *book) Load(id string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.addrs[id])
}

func (b *book) Save(id string, addrs []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.addrs == nil {
		b.addrs = make(map[string][]string)
	}
	b.addrs[id] = slices.Clone(addrs)
}

// device is a host with its surroundings.
type device struct {
	*Host
	members   *list
	farewells *list
	book      *book
	opt       Options
	stop      func() // ends Serve and waits
}

func newDevice(t *testing.T, change ...func(*Options)) *device {
	t.Helper()
	d := &device{members: &list{}, farewells: &list{}, book: &book{}}
	d.opt = Options{
		KeyFile:   filepath.Join(t.TempDir(), "key"),
		Listen:    []string{"/ip4/127.0.0.1/tcp/0"},
		Members:   d.members,
		Farewells: d.farewells,
		Addresses: d.book,
		Version:   "test",
	}
	if testing.Verbose() {
		d.opt.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	for _, c := range change {
		c(&d.opt)
	}
	d.open(t)
	return d
}

// open makes the host, again after a restart.
func (d *device) open(t *testing.T) {
	t.Helper()
	h, err := New(d.opt)
	for limit := time.Now().Add(patience); errors.Is(err, ErrListen) && time.Now().Before(limit); h, err = New(d.opt) {
		time.Sleep(10 * time.Millisecond) // the port of before may be somebody else's for a moment
	}
	if err != nil {
		t.Fatal(err)
	}
	d.Host = h
	t.Cleanup(func() { _ = h.Close() })
}

func (d *device) serve(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	h := d.Host
	go func() { done <- h.Serve(ctx) }()
	d.stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(d.stop)
}

// pair makes a and b members of each other; b learns where a is.
func pair(a, b *device) {
	a.members.set(append(a.members.List(), b.ID())...)
	b.members.set(append(b.members.List(), a.ID())...)
	b.book.Save(a.ID(), a.Addrs())
}

// patience bounds every wait in the tests; only a defect makes them wait so long.
const patience = 2 * time.Minute

// await waits until a device sees another one connected, or not.
func await(t *testing.T, d *device, id string, connected bool) PeerStatus {
	t.Helper()
	news, cancel := d.Watch()
	defer cancel()
	limit := time.After(patience)
	for {
		for _, p := range d.Peers() {
			if p.ID == id && p.Connected == connected {
				return p
			}
		}
		select {
		case <-news:
		case <-limit:
			t.Fatalf("device %s still waits for connected=%v of %s; peers: %+v", d.ID(), connected, id, d.Peers())
		}
	}
}

// patiently is a context for a call that may take as long as any wait.
func patiently(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// identified waits until d has noted where o says that it listens.
func identified(t *testing.T, d, o *device) {
	t.Helper()
	for limit := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		noted := d.book.Load(o.ID())
		if !slices.ContainsFunc(o.Addrs(), func(a string) bool { return !slices.Contains(noted, a) }) {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("device %s knows only %v of %s", d.ID(), noted, o.ID())
		}
	}
}

func echo(_ context.Context, s Stream) { _, _ = io.Copy(s, s); _ = s.CloseWrite() }

// say sends a line over a new stream and checks that it is echoed.
func say(t *testing.T, from *device, to, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := from.Open(ctx, to, "/test/echo/1")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Peer() != to {
		t.Fatalf("stream to %s, want %s", s.Peer(), to)
	}
	if _, err := s.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(s)
	if err != nil || string(got) != text {
		t.Fatalf("echo %q, %v; want %q", got, err, text)
	}
}

func receive[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("timeout: %s", what)
		panic("unreachable")
	}
}
