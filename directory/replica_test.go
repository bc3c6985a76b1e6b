package directory

import (
	"errors"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// runs is a stale set.
type runs [][2]uint64

func (r runs) Runs() iter.Seq2[uint64, uint64] {
	return func(yield func(uint64, uint64) bool) {
		for _, x := range r {
			if !yield(x[0], x[1]) {
				return
			}
		}
	}
}

// random is a set of about n of blocks blocks.
func random(seed uint64, blocks, n uint64) runs {
	r := rand.New(rand.NewPCG(seed, 7))
	var out runs
	for at := uint64(0); at < blocks; {
		at += 1 + r.Uint64N(2*blocks/n)
		if l := min(1+r.Uint64N(3), blocks-min(at, blocks)); l > 0 {
			out = append(out, [2]uint64{at, l})
			at += l
		}
	}
	return out
}

func (r runs) count() (n uint64) {
	for _, x := range r {
		n += x[1]
	}
	return n
}

// createBig makes a VM with a disk of that many blocks.
func createBig(t fataler, d *Directory, vm string, blocks uint64) {
	t.Helper()
	c, err := d.NewCreated(vm)
	must(t, err)
	must(t, d.AppendTransfer(c))
	must(t, d.PutVM(VM{ID: vm, Name: "Work", DiskBytes: int64(blocks) * blockBytes}))
}

// setOf reads a stale set, which must be there.
func setOf(t fataler, d *Directory, vm, device string) runs {
	t.Helper()
	seq, err := d.StaleSet(vm, device)
	must(t, err)
	var out runs
	for first, n := range seq {
		out = append(out, [2]uint64{first, n})
	}
	return out
}

// fetch carries chunks from a to b, at most n, as package exchange does.
func fetch(t fataler, from, to *Directory, n int) (fetched int) {
	t.Helper()
	for fetched < n {
		ids := to.Wants(from.opt.Self, min(n-fetched, 16), func(ChunkID) bool { return false })
		var list []Chunk
		for _, id := range ids {
			if code, ok := from.Chunk(id); ok {
				list = append(list, Chunk{id, code})
			}
		}
		must(t, to.PutChunks(from.opt.Self, list))
		to.Unwant(from.opt.Self, ids)
		if fetched += len(list); len(list) == 0 {
			return fetched
		}
	}
	return fetched
}

const many = 1 << 30 // chunks

func chunksIn(s *memory) map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := map[string]bool{}
	for k := range s.m {
		if strings.HasPrefix(k, ChunkPrefix) {
			found[k] = true
		}
	}
	return found
}

// wellIndexed holds the index against the store and the records.
func wellIndexed(t *testing.T, d *Directory, s *memory) {
	t.Helper()
	var bytes int64
	missing := 0
	named := map[ChunkID]int32{}
	for _, h := range d.replicas {
		if !h.dropped {
			for _, id := range h.ids {
				named[id]++
			}
		}
	}
	stored := chunksIn(s)
	for id, c := range d.chunks.state {
		bytes += int64(c.size)
		if c.size == 0 {
			missing++
		} else if !stored[chunkKey(id, int(c.size))] {
			t.Errorf("chunk %s is not in the store", id)
		}
		if c.named != named[id] {
			t.Errorf("chunk %s is named %d times, by count %d", id, named[id], c.named)
		}
		delete(named, id)
	}
	if len(named) > 0 || bytes != d.chunks.bytes || missing != d.chunks.missing {
		t.Errorf("%d chunks unknown, %d bytes for %d, %d missing for %d", len(named), d.chunks.bytes, bytes, d.chunks.missing, missing)
	}
}

func TestStaleSetsTravelAndLast(t *testing.T) {
	const blocks = 5*minSpan + 77
	for name, set := range map[string]runs{
		"empty":      {},
		"one":        {{3, 1}},
		"everything": {{0, blocks}},
		"the end":    {{blocks - 1, 1}},
		"across":     {{minSpan - 5, 2 * minSpan}, {4*minSpan - 1, 1}, {4*minSpan + 1, 1}},
		"scattered":  random(1, blocks, blocks/10),
	} {
		sa, sb := &memory{m: map[string][]byte{}}, &memory{m: map[string][]byte{}}
		a, b, c := open(t, sa, "a", "b", "c"), open(t, sb, "b", "a", "c"), fresh(t, "c", "a", "b")
		createBig(t, a, "v", blocks)
		info := ReplicaInfo{
			Position: Position{1, 3}, Of: Position{1, 9}, Complete: true, Certain: true,
			At: time.Unix(5, 0).UTC(), Heard: time.Unix(4, 0).UTC(), Sync: `{"v":7,"new":["thing"]}`,
		}
		must(t, a.PutReplica("v", id("b"), info, set))
		info.StaleBlocks = set.count()
		meet(t, a, b)
		if len(set) > 0 {
			if _, err := b.StaleSet("v", id("b")); !errors.Is(err, ErrNotFound) {
				t.Fatalf("%s: a set without its chunks: %v", name, err)
			}
		}
		fetch(t, a, b, many)
		meet(t, b, c) // c never met a
		fetch(t, b, c, many)
		b = open(t, sb, "b") // as after a restart
		for _, d := range []*Directory{a, b, c} {
			if got := d.Replicas("v")[id("b")]; got != info {
				t.Errorf("%s: %+v, want %+v", name, got, info)
			}
			if got := setOf(t, d, "v", id("b")); !slices.Equal(got, set) {
				t.Errorf("%s: the set of %d runs came as %d runs", name, len(set), len(got))
			}
		}
		wellIndexed(t, a, sa)
		wellIndexed(t, b, sb)
		if !maps.Equal(chunksIn(sa), chunksIn(sb)) {
			t.Errorf("%s: the chunks differ", name)
		}
	}
}

// Only what changed is stored and sent anew.
func TestOnlyChangedChunksTravel(t *testing.T) {
	const blocks = 64 * minSpan
	a, b := fresh(t, "a", "b"), fresh(t, "b", "a")
	createBig(t, a, "v", blocks)
	set := runs{}
	for i := range uint64(64) {
		set = append(set, [2]uint64{i*minSpan + i, 1 + i})
	}
	must(t, a.PutReplica("v", id("b"), ReplicaInfo{}, set))
	meet(t, a, b)
	if n := fetch(t, a, b, many); n != 64 {
		t.Errorf("%d chunks at first", n)
	}
	written := a.ChunkStats().Written
	must(t, a.PutReplica("v", id("b"), ReplicaInfo{}, set))
	if n := a.ChunkStats().Written - written; n != 0 {
		t.Errorf("%d bytes were stored anew", n)
	}
	set[7][1]++
	must(t, a.PutReplica("v", id("b"), ReplicaInfo{}, set))
	meet(t, a, b)
	if n := fetch(t, a, b, many); n != 1 {
		t.Errorf("%d chunks after a change of one", n)
	}
	if !slices.Equal(setOf(t, b, "v", id("b")), set) {
		t.Error("the set came otherwise")
	}
	if n := len(a.chunks.idle); n != 1 {
		t.Errorf("%d chunks wait for their end", n)
	}
}

func TestPutReplicaRefuses(t *testing.T) {
	a := fresh(t, "a", "b")
	createBig(t, a, "v", 1000)
	wantErr(t, a.PutReplica("w", id("b"), ReplicaInfo{}, nil), ErrNotFound)
	wantErr(t, a.PutReplica("v", id("nobody"), ReplicaInfo{}, nil), ErrUnknownDevice)
	for name, set := range map[string]runs{
		"too long": {{0, 1001}}, "too far": {{1000, 1}}, "no order": {{5, 1}, {3, 1}}, "overlap": {{5, 5}, {9, 1}}, "nothing": {{5, 0}},
		"around": {{5, ^uint64(0)}},
	} {
		if err := a.PutReplica("v", id("b"), ReplicaInfo{}, set); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	big := ReplicaInfo{Sync: Carried(`"` + strings.Repeat("x", maxSync) + `"`)}
	wantErr(t, a.PutReplica("v", id("b"), big, nil), ErrInvalid)
	wantErr(t, a.PutReplica("v", id("b"), ReplicaInfo{Sync: `{`}, nil), ErrInvalid)
	must(t, a.PutReplica("v", id("b"), ReplicaInfo{StaleBlocks: 12}, nil))
	must(t, a.SetCertain("v", Position{})) // signs anew what it finds
	if _, err := a.StaleSet("v", id("b")); !errors.Is(err, ErrNotFound) || a.Replicas("v")[id("b")].StaleBlocks != 12 {
		t.Errorf("a number without a set: %v, %v", err, a.Replicas("v"))
	}
	_, err := a.Give("v", 2, id("b"), "t", Position{1, 3}, KindSwitch)
	must(t, err)
	wantErr(t, a.PutReplica("v", id("b"), ReplicaInfo{}, nil), ErrNotOwner)
	if len(a.Replicas("v")) != 0 {
		t.Error("the owner is its own replica")
	}
}

// TestCertainOrNot: a word that something is certain failed half-way, and is durable. It is taken back before the guest writes, though this
// directory doesn't know it.
func TestCertainOrNot(t *testing.T) {
	store := &memory{m: map[string][]byte{}}
	a := open(t, store, "a", "b")
	createBig(t, a, "v", 1000)
	at := Position{1, 3}
	must(t, a.PutReplica("v", id("b"), ReplicaInfo{Of: at, Position: at, Complete: true}, runs{}))
	store.fail = func() (bool, error) { return true, errors.New("half-way") }
	wantErr(t, a.SetCertain("v", at), ErrUnsure)
	store.fail = nil
	must(t, a.SetCertain("v", Position{}))
	must(t, a.Close())
	if r := open(t, store, "a", "b").Replicas("v")[id("b")]; r.Certain {
		t.Fatal("after a restart it is certain what a replica lacks, and the guest writes")
	}
}
