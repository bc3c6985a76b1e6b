package custody_test

import (
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"tagalong.org/tagalong/app/custody"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/vmdisk"
)

var errTrouble = errors.New("a passing trouble")

// memory is a directory's store, of which a commit may fail half-way.
type memory struct {
	mu      sync.Mutex
	entries map[string][]byte
	fails   bool
}

func (s *memory) Commit(entries map[string][]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails {
		return errTrouble
	}
	for k, v := range entries {
		if v == nil {
			delete(s.entries, k)
		} else {
			s.entries[k] = v
		}
	}
	return nil
}

func (s *memory) Load(fn func(key string, value []byte) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range slices.Sorted(maps.Keys(s.entries)) {
		if err := fn(k, slices.Clone(s.entries[k])); err != nil {
			return err
		}
	}
	return nil
}

func (s *memory) Get(key string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.entries[key]; ok {
		return slices.Clone(v), nil
	}
	return nil, directory.ErrNotFound
}

func (s *memory) Close() error { return nil }

func (s *memory) fail(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fails = on
}

// TestATakeoverInDoubt: nobody knows whether a takeover was written, and before it is tried again the history has moved, to another takeover. It is
// written all the same, under the term that it has: it may be durable. Else the machine would try for ever, and hear of nothing.
func TestATakeoverInDoubt(t *testing.T) {
	store := &memory{entries: map[string][]byte{}}
	a, d := open(t, "a", "b"), open(t, "d", "a")
	b := openIn(t, "b", "a", store)
	aID, _ := key("a")
	bID, _ := key("b")
	dID, _ := key("d")
	for _, dir := range []*directory.Directory{a, b} {
		must(t, dir.AddMember(directory.Member{ID: dID, Name: "d"}))
	}
	created, err := a.NewCreated(vmID)
	must(t, err)
	must(t, a.AppendTransfer(created))
	meet(a, b, aID)
	meet(a, d, aID)

	pos := baton.Position{Term: 1, Barrier: 5}
	c := custody.Custody{VM: vmID, Self: bID, Dir: b, Disk: replicaAt(t, vmdisk.NewID(), vmdisk.Position(pos)), Log: slog.New(slog.DiscardHandler)}
	term, err := b.NextForced(directory.KindTakeover, vmID, created.Hash(), nil, directory.Position(pos))
	must(t, err)
	m := baton.NewReplica(baton.Config{})
	acts, err := m.Step(baton.Event{Kind: baton.EvTakeOver, Peer: aID, Term: term, Position: pos})
	must(t, err)
	write := func() error {
		t.Helper()
		i := slices.IndexFunc(acts, func(a baton.Action) bool { return a.Kind == baton.ActPersistTakeover })
		if i < 0 {
			t.Fatalf("in %s it does %v", m.State(), acts)
		}
		return c.TookOver(acts[i].Term, acts[i].Position, acts[i].State)
	}
	store.fail(true)
	if err := write(); err == nil || errors.Is(err, custody.ErrNotWritten) {
		t.Fatalf("it is certain: %v", err)
	}
	drive(t, m, baton.Event{Kind: baton.EvPersistFailed, Term: term})
	store.fail(false)

	other, err := d.TakeOver(vmID, created.Hash(), directory.Position{Term: 1, Barrier: 7})
	must(t, err)
	meet(d, b, dID)
	if heads := b.Heads(vmID); len(heads) != 1 || heads[0].Hash() != other.Hash() {
		t.Fatalf("heads %v", heads)
	}
	acts, err = m.Step(baton.Event{Kind: baton.EvTick, Now: time.Now()})
	must(t, err)
	must(t, write())
	drive(t, m, baton.Event{Kind: baton.EvPersisted, Term: term})
	if got, ok := b.Transfer(vmID, term); !ok || got.Kind != directory.KindTakeover || got.To != bID || m.State() != baton.Owned {
		t.Fatalf("it is %s, by %+v", m.State(), got.Transfer)
	}
	if heads := b.Heads(vmID); len(heads) != 2 {
		t.Fatalf("the person isn't told: %v", heads)
	}
}
