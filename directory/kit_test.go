package directory

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("TAGALONG_TEST_WRITE"); dir != "" {
		os.Exit(writeForever(dir))
	}
	goleak.VerifyTestMain(m,
		// glog, which Badger uses through ristretto, never stops its own.
		goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"))
}

var quiet = slog.New(slog.DiscardHandler)

// memory is a store in memory that can fail.
type memory struct {
	mu sync.Mutex // of m, while the directory is open
	m  map[string][]byte
	// fail is called before a commit; done tells whether it is stored all the same.
	fail func() (done bool, err error)
}

func (s *memory) Commit(entries map[string][]byte) error {
	if s.fail != nil {
		if done, err := s.fail(); err != nil {
			if done {
				s.put(entries)
			}
			return err
		}
	}
	s.put(entries)
	return nil
}

func (s *memory) put(entries map[string][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, v := range entries {
		if v == nil {
			delete(s.m, k)
		} else {
			s.m[k] = v
		}
	}
}

func (s *memory) Get(key string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.m[key]
	if !ok {
		return nil, ErrNotFound
	}
	return slices.Clone(v), nil
}

func (s *memory) Load(fn func(string, []byte) error) error {
	for _, k := range sortedKeys(s.m) {
		if err := fn(k, slices.Clone(s.m[k])); err != nil {
			return err
		}
	}
	return nil
}

func (s *memory) Close() error { return nil }

// keys are those that key has made, by name: making one again for each look at an ID was a tenth of all time.
var keys sync.Map

// key returns the device of a name: its ID and its key.
func key(name string) (string, ed25519.PrivateKey) {
	k, ok := keys.Load(name)
	if !ok {
		seed := sha256.Sum256([]byte(name))
		k, _ = keys.LoadOrStore(name, ed25519.NewKeyFromSeed(seed[:]))
	}
	private := k.(ed25519.PrivateKey)
	return hex.EncodeToString(private.Public().(ed25519.PublicKey)), private
}

func verify(id string, msg, sig []byte) error {
	b, err := hex.DecodeString(id)
	if err != nil || len(b) != ed25519.PublicKeySize || !ed25519.Verify(b, msg, sig) {
		return errors.New("wrong signature")
	}
	return nil
}

func id(name string) string {
	s, _ := key(name)
	return s
}

func opts(name, dir string) Options {
	self, k := key(name)
	return Options{
		Dir:    dir,
		Self:   self,
		Sign:   func(msg []byte) ([]byte, error) { return ed25519.Sign(k, msg), nil },
		Verify: verify,
		Log:    quiet,
	}
}

type fataler interface {
	Helper()
	Fatalf(string, ...any)
}

// open returns a directory in memory, in one fleet with the others.
func open(t fataler, s *memory, name string, others ...string) *Directory {
	t.Helper()
	d, err := newDirectory(opts(name, "unused"))
	if err != nil {
		t.Fatalf("options: %v", err)
	}
	if err := d.load(s); err != nil {
		t.Fatalf("load: %v", err)
	}
	for _, o := range others {
		if o == name {
			continue
		}
		must(t, d.AddMember(Member{ID: id(o), Name: o, PairedAt: time.Unix(1, 0).UTC()}))
	}
	return d
}

func fresh(t fataler, name string, others ...string) *Directory {
	t.Helper()
	return open(t, &memory{m: map[string][]byte{}}, name, others...)
}

func must(t fataler, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v", err)
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
}

// create makes a VM and its record.
func create(t fataler, d *Directory, vm string) {
	t.Helper()
	c, err := d.NewCreated(vm)
	must(t, err)
	must(t, d.AppendTransfer(c))
	must(t, d.PutVM(VM{ID: vm, Name: "Work", DiskBytes: 1 << 30}))
}

// meet lets a and b exchange until neither accepts anything more, as package
// exchange does: what is newer, rejected ones again as long as any is accepted.
func meet(t fataler, a, b *Directory) {
	t.Helper()
	for range 100 {
		one, two := send(a, b), send(b, a)
		if !one && !two {
			return
		}
	}
	t.Fatalf("the exchange never ends")
}

func send(from, to *Directory) bool {
	have := to.Digest()
	var keys []string
	for k, v := range from.Digest() {
		if v > have[k] {
			keys = append(keys, k)
		}
	}
	before := to.Digest()
	// In any order, but in the same one for the same keys.
	slices.Sort(keys)
	r := rand.New(rand.NewPCG(uint64(len(keys)), uint64(len(have))))
	r.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	for rest := from.Get(keys); len(rest) > 0; {
		var rejected []Record
		for _, r := range rest {
			if to.Apply(from.opt.Self, r) != nil {
				rejected = append(rejected, r) // that may be over in the next round
			}
		}
		if len(rejected) == len(rest) {
			break
		}
		rest = rejected
	}
	return !maps.Equal(before, to.Digest())
}

// shared returns what d and e must agree on.
func shared(d *Directory) map[string]string {
	m := map[string]string{}
	for k, r := range d.records {
		m[k] = string(r.Value) + string(r.Sig)
	}
	return m
}

func short(s string) string { return strings.TrimSpace(s[:min(len(s), 12)]) }
