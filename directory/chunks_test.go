package directory

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func forgeReplica(name string, v replica, n uint64) Record {
	value, _ := encodeValue(v)
	return forge(name, Record{Key: replicaKey(v.VM, v.Device), Version: v.Term<<32 | n, Writer: id(name), Value: value})
}

func noSkip(ChunkID) bool { return false }

// TestHostileReplicas: a member that lies of stale sets gets nothing stored, and a strike where nobody honest can have said that.
func TestHostileReplicas(t *testing.T) {
	const blocks = 3*minSpan + 10
	a, b := fresh(t, "a", "b", "evil"), fresh(t, "b", "a", "evil")
	createBig(t, a, "v", blocks)
	must(t, a.PutReplica("v", id("evil"), ReplicaInfo{}, random(1, blocks, 100)))
	meet(t, a, b)
	fetch(t, a, b, many)
	before := shared(b)
	head := b.Chain("v")[0].Hash()
	good := replica{VM: "v", Device: id("b"), Term: 1, Head: head, Span: minSpan, Present: []byte{1}, Hashes: make([]byte, 16), ReplicaInfo: ReplicaInfo{StaleBlocks: 1}}
	with := func(fn func(*replica)) Record {
		v := good
		fn(&v)
		return forgeReplica("a", v, 1000)
	}
	for name, c := range map[string]struct {
		r      Record
		want   error
		strike bool
	}{
		"more than the disk":   {with(func(v *replica) { v.StaleBlocks = blocks + 1 }), ErrLie, true},
		"just a number":        {with(func(v *replica) { v.StaleBlocks, v.Span, v.Present, v.Hashes = blocks+1, 0, nil, nil }), ErrLie, true},
		"more than any disk":   {with(func(v *replica) { v.StaleBlocks = maxBlocks + 1 }), ErrInvalid, true},
		"a chunk too far":      {with(func(v *replica) { v.Present = []byte{16} }), ErrLie, true},
		"too many chunks":      {with(func(v *replica) { v.Present = []byte{1, 0} }), ErrLie, true},
		"far too many chunks":  {with(func(v *replica) { v.Present = make([]byte, maxChunks/8+1) }), ErrInvalid, true},
		"another span":         {with(func(v *replica) { v.Span *= 2 }), ErrLie, true},
		"no span":              {with(func(v *replica) { v.Span++ }), ErrInvalid, true},
		"hashes without place": {with(func(v *replica) { v.Present = []byte{0} }), ErrInvalid, true},
		"half a hash":          {with(func(v *replica) { v.Hashes = make([]byte, 8) }), ErrInvalid, true},
		"chunks without span":  {with(func(v *replica) { v.Span = 0 }), ErrInvalid, true},
		"wrong term":           {with(func(v *replica) { v.Term = 0 }), ErrInvalid, true},
		"strange device":       {with(func(v *replica) { v.Device = "a/b" }), ErrInvalid, true},
		"of a stranger":        {with(func(v *replica) { v.Device = id("stranger") }), ErrUnknownDevice, false},
		"a later term":         {with(func(v *replica) { v.Term = 2 }), ErrGap, false},
		"an unknown VM":        {with(func(v *replica) { v.VM = "w" }), ErrGap, false},
		"another head":         {with(func(v *replica) { v.Head = Hash{} }), ErrFork, false},
		"not the owner":        {forgeReplica("evil", good, 1000), ErrNotOwner, true},
	} {
		from := c.r.Writer
		strikes := b.Strikes()[from]
		if err := b.Apply(from, c.r); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if got := b.Strikes()[from] - strikes; (got > 0) != c.strike {
			t.Errorf("%s: %d strikes", name, got)
		}
		if errors.Is(c.want, ErrLie) { // who hands it on may know the disk as it was
			strikes := b.Strikes()[id("evil")]
			if err := b.Apply(id("evil"), c.r); !errors.Is(err, ErrGap) || b.Strikes()[id("evil")] != strikes {
				t.Errorf("%s: handed on, %v, %v", name, err, b.Strikes())
			}
		}
		if !maps.Equal(shared(b), before) || b.chunks.missing != 0 {
			t.Fatalf("%s was stored", name)
		}
	}
	must(t, b.Apply(id("evil"), with(func(*replica) {}))) // the same, without a lie
	if b.chunks.missing != 1 {
		t.Error("the honest one wasn't stored")
	}
}

// TestHostileChunkContents: chunks that nobody asked for, or that are none.
func TestHostileChunkContents(t *testing.T) {
	a, s := fresh(t, "a", "b"), &memory{m: map[string][]byte{}}
	b := open(t, s, "b", "a")
	createBig(t, a, "v", 2*minSpan)
	must(t, a.PutReplica("v", id("b"), ReplicaInfo{}, runs{{5, 1}, {9, 3}}))
	meet(t, a, b)
	want := b.Wants(id("a"), 10, noSkip)
	if len(want) != 1 || len(b.Wants(id("c"), 10, noSkip)) != 0 {
		t.Fatalf("%d are wanted, or twice", len(want))
	}
	code, _ := a.Chunk(want[0])
	other := encodeChunk(nil, bitmap{7}, 64)
	wantErr(t, b.PutChunks(id("a"), []Chunk{{want[0], other}}), ErrLie)
	wantErr(t, b.PutChunks(id("a"), []Chunk{{want[0], make([]byte, MaxChunk+1)}}), ErrInvalid)
	wantErr(t, b.PutChunks(id("a"), make([]Chunk, maxPutChunks+1)), ErrInvalid)
	wantErr(t, b.PutChunks(id("stranger"), []Chunk{{want[0], code}}), ErrUnknownDevice)
	must(t, b.PutChunks(id("a"), []Chunk{{chunkID(other), other}})) // nobody wants it (any more)
	if n := len(chunksIn(s)); n != 0 {
		t.Errorf("%d chunks were stored", n)
	}
	b.Unwant(id("c"), want) // it isn't c's
	if len(b.Wants(id("c"), 10, noSkip)) != 0 {
		t.Error("another one's claim was given up")
	}
	must(t, b.PutChunks(id("a"), []Chunk{{want[0], code}, {want[0], code}}))
	if len(chunksIn(s)) != 1 || len(b.chunks.claims) != 0 {
		t.Error("the honest one wasn't stored")
	}

	// A record names what is no chunk, and a chunk of another disk. Both were made up by who signed it.
	junk := []byte("this is no chunk")
	r := a.replicas[replicaKey("v", id("b"))].replica
	for what, code := range map[string][]byte{"junk": junk, "another span": other} {
		name := chunkID(code)
		r.Present, r.Hashes = []byte{1}, name[:]
		r.StaleBlocks++ // so that the record changes
		must(t, b.Apply(id("a"), forgeReplica("a", r, 1000+r.StaleBlocks)))
		list := b.Wants(id("a"), 10, noSkip)
		if len(list) != 1 || list[0] != name {
			t.Fatalf("%s isn't wanted", what)
		}
		must(t, b.PutChunks(id("a"), []Chunk{{name, code}}))
		b.Unwant(id("a"), list)
		if n := b.Wants(id("a"), 10, noSkip); len(n) != 0 {
			t.Errorf("%s is wanted again", what)
		}
		if _, err := b.StaleSet("v", id("b")); err == nil {
			t.Errorf("%s is a set", what)
		} else if what != "junk" && !errors.Is(err, ErrLie) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if chunksIn(s)[chunkKey(chunkID(junk), len(junk))] {
		t.Error("junk was stored")
	}
}

// A wrong sum of blocks is found when the set is asked for.
func TestLyingSum(t *testing.T) {
	a := fresh(t, "a", "b")
	createBig(t, a, "v", 2*minSpan)
	must(t, a.PutReplica("v", id("b"), ReplicaInfo{}, runs{{5, 1}, {9, 3}}))
	r := a.replicas[replicaKey("v", id("b"))].replica
	code := a.replicas[replicaKey("v", id("b"))].ids[0]
	r.Hashes, r.StaleBlocks = code[:], 3
	must(t, a.Apply(id("b"), forgeReplica("a", r, 1000)))
	_, err := a.StaleSet("v", id("b"))
	wantErr(t, err, ErrLie)
}

// Chunks that nothing names any more go, but not before those who got the older record can have had them.
func TestOldChunksGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &memory{m: map[string][]byte{}}
		a := open(t, s, "a", "b", "c")
		createBig(t, a, "v", 4*minSpan)
		put := func(first uint64) { must(t, a.PutReplica("v", id("b"), ReplicaInfo{}, runs{{first, 1}})) }
		put(1)
		put(2)
		if n := len(chunksIn(s)); n != 2 {
			t.Fatalf("%d chunks: the old one went at once", n)
		}
		time.Sleep(idleGrace)
		put(1) // named again
		if n := len(chunksIn(s)); n != 2 {
			t.Errorf("%d chunks: the new one went at once", n)
		}
		put(3)
		time.Sleep(idleGrace)
		put(4)
		if n := len(chunksIn(s)); n != 2 { // 4, and 3, which has only just become useless
			t.Errorf("%d chunks, the older ones are still there", n)
		}
		wellIndexed(t, a, s)

		// What a crash left is collected by the next one; if that fails half-way, it isn't there any more.
		s.m[chunkKey(ChunkID{9}, 5)] = []byte("left!")
		a = open(t, s, "a")
		commits := 0
		s.fail = func() (bool, error) {
			if commits++; commits == 2 {
				return true, errors.New("trouble")
			}
			return false, nil
		}
		put(4)
		put(3)
		setOf(t, a, "v", id("b"))
		put(4)
		if n := len(chunksIn(s)); n != 2 {
			t.Errorf("%d chunks after a restart", n)
		}
		wellIndexed(t, a, s)

		b := fresh(t, "b", "a", "c")
		meet(t, a, b)
		must(t, a.RemoveVM("v"))
		if keys := a.Digest(); keys[replicaKey("v", id("b"))] != 0 || len(a.Replicas("v")) != 0 {
			t.Error("the replicas of a removed VM are told")
		}
		meet(t, a, b)
		if !maps.Equal(a.Digest(), b.Digest()) || len(b.Wants(id("a"), 1, noSkip)) != 0 {
			t.Error("chunks of a removed VM are wanted")
		}
		createBig(t, a, "w", minSpan)
		must(t, a.PutReplica("w", id("b"), ReplicaInfo{}, nil))
		time.Sleep(idleGrace)
		must(t, a.PutReplica("w", id("b"), ReplicaInfo{}, nil))
		if n := len(chunksIn(s)); n != 0 || s.m[replicaKey("v", id("b"))] != nil {
			t.Errorf("%d chunks of a removed VM, or its records", n)
		}
		wellIndexed(t, a, s)
	})
}

// All sets together take no more than the limit: of the writer who has most, the oldest gives way.
func TestChunkBudget(t *testing.T) {
	const blocks = 8 * minSpan
	sa, sb := &memory{m: map[string][]byte{}}, &memory{m: map[string][]byte{}}
	a, b, c := open(t, sa, "a", "b", "c"), open(t, sb, "b", "a", "c"), fresh(t, "c", "a", "b")
	createBig(t, a, "v", blocks)
	createBig(t, a, "w", blocks)
	createBig(t, c, "small", blocks)
	set := func(seed uint64) runs { return random(seed, blocks, 4000) }
	must(t, a.PutReplica("v", id("b"), ReplicaInfo{}, set(1)))
	one := a.ChunkStats().Bytes
	meet(t, a, b)
	must(t, a.PutReplica("w", id("b"), ReplicaInfo{}, set(2)))
	meet(t, a, b)
	must(t, c.PutReplica("small", id("b"), ReplicaInfo{}, random(9, blocks, 40)))
	meet(t, c, b)
	fetch(t, c, b, many)
	b.chunks.limit = one * 5 / 2
	for i := range uint64(4) {
		must(t, a.PutReplica("v", id("c"), ReplicaInfo{}, set(10+i)))
		meet(t, a, b)
		fetch(t, a, b, many)
		if n := b.ChunkStats().Bytes; n > b.chunks.limit {
			t.Fatalf("%d bytes, the limit is %d", n, b.chunks.limit)
		}
		if !slices.Equal(setOf(t, b, "v", id("c")), set(10+i)) {
			t.Fatal("the newest set isn't here")
		}
	}
	if _, err := b.StaleSet("v", id("b")); !errors.Is(err, ErrNotFound) {
		t.Errorf("the oldest set is still there: %v", err)
	}
	setOf(t, b, "small", id("b")) // of a writer that has little
	if len(b.Wants(id("a"), 10, noSkip)) != 0 {
		t.Error("what gave way is wanted again")
	}
	wellIndexed(t, b, sb)
	// A set that can't be stored at all can still be counted.
	a.chunks.limit = one / 2
	wantErr(t, a.PutReplica("v", id("b"), ReplicaInfo{}, set(3)), ErrFull)
	must(t, a.PutReplica("v", id("b"), ReplicaInfo{StaleBlocks: 5}, nil))
	wellIndexed(t, a, sa)
}

// A chunk that the disk has damaged is fetched again.
func TestDamagedChunk(t *testing.T) {
	s := &memory{m: map[string][]byte{}}
	a, b := fresh(t, "a", "b"), open(t, s, "b", "a")
	createBig(t, a, "v", minSpan)
	must(t, a.PutReplica("v", id("b"), ReplicaInfo{}, runs{{5, 1}}))
	meet(t, a, b)
	fetch(t, a, b, many)
	for k := range chunksIn(s) {
		s.m[k][2] ^= 1
	}
	if _, err := b.StaleSet("v", id("b")); !errors.Is(err, ErrNotFound) {
		t.Fatalf("a damaged set: %v", err)
	}
	if n := fetch(t, a, b, many); n != 1 {
		t.Errorf("%d chunks were fetched", n)
	}
	setOf(t, b, "v", id("b"))
}

// Sets come and go while commits fail, in part done all the same, and devices restart: a set that can be read is the one that was told,
// and after the troubles all devices have all of them.
func TestStaleSetsThroughTroubles(t *testing.T) {
	const blocks = 2*minSpan + 100
	names := []string{"a", "b", "c"}
	rapid.Check(t, func(t *rapid.T) {
		dirs, stores := map[string]*Directory{}, map[string]*memory{}
		trouble := 0
		for _, n := range names {
			stores[n] = &memory{m: map[string][]byte{}, fail: func() (bool, error) {
				if trouble--; trouble == 0 {
					return rapid.Bool().Draw(t, "done"), errors.New("trouble")
				}
				return false, nil
			}}
			dirs[n] = open(t, stores[n], n, names...)
		}
		createBig(t, dirs["a"], "v", blocks)
		told := map[uint64]runs{} // by barrier of Of
		n := uint64(0)
		name := rapid.SampledFrom(names)
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				n++
				set := random(rapid.Uint64Range(1, 4).Draw(t, "set"), blocks, 10)
				told[n] = set
				trouble = rapid.IntRange(0, 6).Draw(t, "trouble")
				err := dirs["a"].PutReplica("v", id("b"), ReplicaInfo{Of: Position{1, n}}, set)
				trouble = 0
				if err != nil && !errors.Is(err, ErrUnsure) {
					t.Fatal(err)
				}
			},
			"meet": func(t *rapid.T) { send(dirs[name.Draw(t, "from")], dirs[name.Draw(t, "to")]) },
			"fetch": func(t *rapid.T) {
				from, to := dirs[name.Draw(t, "from")], dirs[name.Draw(t, "to")]
				ids := to.Wants(from.opt.Self, rapid.IntRange(1, 4).Draw(t, "most"), noSkip)
				var list []Chunk
				for _, i := range ids {
					if code, ok := from.Chunk(i); ok {
						list = append(list, Chunk{i, code})
					}
				}
				trouble = rapid.IntRange(0, 3).Draw(t, "trouble")
				_ = to.PutChunks(from.opt.Self, list)
				trouble = 0
				to.Unwant(from.opt.Self, ids)
			},
			"restart": func(t *rapid.T) { n := name.Draw(t, "who"); dirs[n] = open(t, stores[n], n) },
			"read": func(t *rapid.T) {
				d := dirs[name.Draw(t, "who")]
				seq, err := d.StaleSet("v", id("b"))
				if err != nil {
					t.Skip("not here")
				}
				var got runs
				for a, b := range seq {
					got = append(got, [2]uint64{a, b})
				}
				if of := d.Replicas("v")[id("b")].Of; !slices.Equal(got, told[of.Barrier]) {
					t.Fatalf("the set of %d is another one", of.Barrier)
				}
			},
		})
		// What the owner's trouble has lost, it writes again.
		n++
		told[n] = random(2, blocks, 10)
		must(t, dirs["a"].PutReplica("v", id("b"), ReplicaInfo{Of: Position{1, n}}, told[n]))
		for i, y := range names {
			x := names[max(0, i-1)] // c has it from b
			send(dirs[x], dirs[y])
			fetch(t, dirs[x], dirs[y], many)
			if !slices.Equal(setOf(t, dirs[y], "v", id("b")), told[n]) || dirs[y].Replicas("v")[id("b")].Of.Barrier != n {
				t.Fatalf("%s hasn't the newest set", y)
			}
		}
	})
}

// Everything at once, and the end in between.
func TestStaleSetsAtOnce(t *testing.T) {
	const blocks = 4 * minSpan
	a, err := Open(opts("a", t.TempDir()))
	must(t, err)
	b := fresh(t, "b", "a")
	must(t, a.AddMember(Member{ID: id("b"), Name: "b", PairedAt: time.Unix(1, 0).UTC()}))
	createBig(t, a, "v", blocks)
	other := encodeChunk(nil, bitmap{7}, 64)
	var wg sync.WaitGroup
	for part, do := range []func(i uint64) error{
		func(i uint64) error { return a.PutReplica("v", id("b"), ReplicaInfo{}, random(i, blocks, 500)) },
		func(i uint64) error {
			set, err := a.StaleSet("v", id("b"))
			if err == nil {
				for range set {
				}
			}
			return err
		},
		func(i uint64) error { send(a, b); fetch(t, a, b, 10); return nil },
		func(i uint64) error { return a.SetCertain("v", Position{1, i % 2}) },
		func(i uint64) (err error) {
			for range 50 {
				err = errors.Join(err, a.PutChunks(id("b"), []Chunk{{chunkID(other), other}})) // which nobody asked for
			}
			return err
		},
	} {
		wg.Go(func() {
			for i := range uint64(60) {
				if err := do(i); err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrClosed) {
					t.Errorf("part %d: %v", part, err)
				}
			}
		})
	}
	wg.Go(func() {
		for a.ChunkStats().Written < 20_000 {
			time.Sleep(time.Millisecond)
		}
		must(t, a.Close())
	})
	wg.Wait()
}

func TestCertain(t *testing.T) {
	a, b := fresh(t, "a", "b", "c"), fresh(t, "b", "a", "c")
	createBig(t, a, "v", minSpan)
	at := Position{1, 7}
	must(t, a.PutReplica("v", id("b"), ReplicaInfo{Of: at}, runs{{5, 1}}))
	certain := func(want bool) {
		t.Helper()
		meet(t, a, b)
		fetch(t, a, b, many)
		for _, d := range []*Directory{a, b} {
			if d.Replicas("v")[id("b")].Certain != want || !slices.Equal(setOf(t, d, "v", id("b")), runs{{5, 1}}) {
				t.Fatalf("%+v", d.Replicas("v"))
			}
		}
	}
	must(t, a.SetCertain("v", at))
	certain(true)
	version := a.Digest()[replicaKey("v", id("b"))]
	must(t, a.SetCertain("v", at))
	if a.Digest()[replicaKey("v", id("b"))] != version {
		t.Error("written though it was so already")
	}
	must(t, a.SetCertain("v", Position{1, 8}))
	certain(false)
	must(t, a.SetCertain("v", at))
	certain(true)
	must(t, a.SetCertain("v", Position{}))
	certain(false)
	must(t, a.SetCertain("v", at))
	_, err := a.Give("v", 2, id("c"), "t", at, KindSwitch)
	must(t, err)
	certain(false) // the next owner may have written since
}

func TestChunkKeys(t *testing.T) {
	idOf := chunkID([]byte("x"))
	if got, n, err := parseChunkKey(chunkKey(idOf, 77)); err != nil || got != idOf || n != 77 {
		t.Fatal(got, n, err)
	}
	for _, k := range []string{"chunk/", "chunk/xx/5", chunkKey(idOf, 0), chunkKey(idOf, MaxChunk+1), chunkKey(idOf, 5) + " ", chunkKey(idOf, 5) + "/"} {
		if _, _, err := parseChunkKey(k); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%q: %v", k, err)
		}
	}
	if _, err := ParseChunkID(string(bytes.ToUpper([]byte(idOf.String())))); err == nil {
		t.Error("one ID has two names")
	}
}

// FuzzReplica sends any record of a replica, signed by the owner: nothing but what fits the disk is stored.
func FuzzReplica(f *testing.F) {
	a := fresh(f, "a", "b")
	createBig(f, a, "v", 2*minSpan)
	must(f, a.PutReplica("v", id("b"), ReplicaInfo{}, runs{{5, 1}}))
	records := a.Get(sortedStrings(a.Digest()))
	f.Add(string(a.records[replicaKey("v", id("b"))].Value), uint64(5))
	f.Add(`{"schema":1,"body":{}}`, uint64(1))
	f.Fuzz(func(t *testing.T, value string, n uint64) {
		s := &memory{m: map[string][]byte{}}
		d := open(t, s, "b", "a")
		for _, r := range records {
			must(t, d.Apply(id("a"), r))
		}
		_ = d.Apply(id("a"), forge("a", Record{Key: replicaKey("v", id("b")), Version: 1<<32 | n&(1<<32-1), Writer: id("a"), Value: []byte(value)}))
		for _, h := range d.replicas {
			if len(h.ids) > 2 || h.StaleBlocks > 2*minSpan || len(h.slots()) != len(h.ids) {
				t.Fatalf("stored %+v", h)
			}
		}
		again := open(t, s, "b")
		if !maps.Equal(shared(again), shared(d)) {
			t.Fatal("what was stored loads otherwise")
		}
	})
}

// The bits of a record's Present say which chunks are there.
func TestSlots(t *testing.T) {
	var present [2]byte
	binary.LittleEndian.PutUint16(present[:], 1|1<<7|1<<8|1<<15)
	h := heldReplica{replica: replica{Present: present[:]}, ids: make([]ChunkID, 4)}
	if got := h.slots(); !slices.Equal(got, []int{0, 7, 8, 15}) {
		t.Error(got)
	}
}
