package vmdisk

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"tagalong.org/tagalong/vmdisk/blockset"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// A hand-off with a third device that was away: nobody copies more than what changed.
func TestHandOffCarriesSets(t *testing.T) {
	d, r, f, a := pair(t, 4<<20, quiet(vfs.NewMem()))
	third := newReplica(t, 4<<20, quiet(vfs.NewMem()))
	ta, err := third.Apply()
	must(t, err)
	tf, err := d.Attach("third", ta.State())
	must(t, err)
	pump(t, tf, ta)
	tf.Close()
	must(t, ta.Close())
	must(t, d.WriteAt(blockOf(4), 40*Block, true))
	if _, err := d.ExportDirty(); !errors.Is(err, ErrNotFenced) {
		t.Fatal(err)
	}
	must(t, d.Fence())
	pump(t, f, a)
	pos, err := d.Drain(t.Context(), "r")
	must(t, err)
	blob, err := d.ExportDirty()
	must(t, err)
	must(t, d.Give(1))
	must(t, a.Close())
	if r.Position() != pos {
		t.Fatalf("drained to %s, at %s", pos, r.Position())
	}
	must(t, r.ImportDirty(blob, "r"))
	must(t, r.Activate(2))
	must(t, r.SetClean("owner", pos))
	must(t, r.WriteAt(blockOf(5), 50*Block, true))
	if err := r.SetClean("owner", pos); !errors.Is(err, ErrTooLate) {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		d    *Store
		want int64
	}{"owner": {d, Block}, "third": {third, 2 * Block}} {
		a, err := c.d.Apply()
		must(t, err)
		f, err := r.Attach(name, a.State())
		must(t, err)
		if g := f.Progress(); g.Remaining != c.want {
			t.Fatalf("%s lacks %d bytes, want %d", name, g.Remaining, c.want)
		}
		pump(t, f, a)
		if !bytes.Equal(content(t, c.d), content(t, r)) {
			t.Fatalf("%s differs", name)
		}
		must(t, a.Close())
	}
}

func TestImportRefusals(t *testing.T) {
	d, r, f, a := pair(t, 1<<20, quiet(vfs.NewMem()))
	must(t, d.Fence())
	blob, err := d.ExportDirty()
	must(t, err)
	if err := d.ImportDirty(blob, "d"); !errors.Is(err, ErrActive) {
		t.Fatal(err)
	}
	must(t, d.Unfence())
	must(t, d.WriteAt(blockOf(1), 0, true))
	pump(t, f, a)
	must(t, a.Close())
	if err := r.ImportDirty(blob, "r"); !errors.Is(err, ErrOldPosition) {
		t.Fatal(err)
	}
	for i := range blob {
		bad := bytes.Clone(blob)
		bad[i] ^= 4
		if err := r.ImportDirty(bad, "r"); err == nil || errors.Is(err, ErrOldPosition) {
			t.Fatalf("flip of byte %d: %v", i, err)
		}
	}
}

// A set of a peer from an earlier ownership must not count in a later one.
func TestOldSetsDontCount(t *testing.T) {
	d, r, f, a := pair(t, 1<<20, quiet(vfs.NewMem()))
	must(t, d.Fence())
	pump(t, f, a)
	pos, err := d.Drain(t.Context(), "r")
	must(t, err)
	must(t, d.Give(1))
	must(t, a.Close())
	must(t, r.Activate(2))
	must(t, r.SetClean("owner", pos))
	must(t, r.WriteAt(blockOf(1), 0, true))
	da, err := d.Apply()
	must(t, err)
	of, err := r.Attach("owner", da.State())
	must(t, err)
	pump(t, of, da)
	must(t, r.Fence())
	must(t, r.Give(2))
	must(t, da.Close())
	must(t, d.Activate(3)) // without what r exported
	a, err = r.Apply()
	must(t, err)
	f, err = d.Attach("r", a.State())
	must(t, err)
	if g := f.Progress(); g.Remaining != 1<<20 {
		t.Fatalf("%+v", g)
	}
	pump(t, f, a)
	must(t, a.Close())
}

func TestDamagedSetMeansEverything(t *testing.T) {
	m := vfs.NewMem()
	d, _, _, _ := pair(t, 1<<20, quiet(m))
	must(t, d.Close())
	b := file(t, m, dirtyName("r"))
	b[len(b)/2] ^= 1
	replaceFile(t, m, dirtyName("r"), b)
	d = reopen(t, quiet(m))
	if p := d.Peers(); len(p) != 0 {
		t.Fatalf("%+v", p)
	}
}

func FuzzImport(f *testing.F) {
	m := vfs.NewMem()
	d, err := Create("", ID{1}, 1<<20, quiet(m))
	if err != nil {
		f.Fatal(err)
	}
	if err := d.SetClean("peer", Position{}); err != nil {
		f.Fatal(err)
	}
	blob, err := d.ExportDirty()
	if err != nil {
		f.Fatal(err)
	}
	if err := d.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(blob[setHeader : len(blob)-32])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, ends, sets, err := parseExport(b, 256, exportFormat.newest())
		if err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatal(err)
		}
		if len(ends) > maxEnds || len(sets) > maxSets {
			t.Fatal("too much")
		}
	})
}

func TestImportRaw(t *testing.T) {
	path := filepath.Join(t.TempDir(), "guest.raw")
	want := make([]byte, 3<<20)
	copy(want[1<<20+100:], "hello")
	copy(want[2<<20:], bytes.Repeat([]byte{9}, 10000))
	must(t, os.WriteFile(path, want[:3<<20-1000], 0o600))
	m := vfs.NewMem()
	d := newDisk(t, 4<<20, quiet(m))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.ImportRaw(ctx, path, nil); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := d.Activate(1); !errors.Is(err, ErrIncomplete) {
		t.Fatalf("half an import can be used: %v", err)
	}
	d = reopen(t, quiet(m.Crash(vfs.LoseUnsynced, 0)))
	var done, total int64
	must(t, d.ImportRaw(t.Context(), path, func(d, t int64) { done, total = d, t }))
	if done != total || total != 3<<20-1000 {
		t.Fatal(done, total)
	}
	if !bytes.Equal(content(t, d)[:3<<20], want) || !isZero(content(t, d)[3<<20:]) {
		t.Fatal("differs")
	}
	if i := d.Info(); i.Allocated > 64<<10 {
		t.Fatalf("%d bytes allocated", i.Allocated)
	}
	must(t, d.Activate(1))
	if err := d.ImportRaw(t.Context(), path, nil); !errors.Is(err, ErrNotFresh) {
		t.Fatal(err)
	}
	r := newReplica(t, 4<<20, quiet(vfs.NewMem()))
	if err := r.ImportRaw(t.Context(), path, nil); !errors.Is(err, ErrNotFresh) {
		t.Fatal(err)
	}
	small := newDisk(t, 1<<20, quiet(vfs.NewMem()))
	if err := small.ImportRaw(t.Context(), path, nil); !errors.Is(err, ErrRange) {
		t.Fatal(err)
	}
}

// A hole and written zeros have the same hash; one changed byte has another.
func TestHash(t *testing.T) {
	d, e := newDisk(t, 5<<19, quiet(vfs.NewMem())), newDisk(t, 5<<19, quiet(vfs.NewMem()))
	must(t, d.Activate(1))
	must(t, e.Activate(1))
	must(t, d.WriteAt([]byte("x"), 1<<20, false))
	must(t, e.WriteAt([]byte("xy"), 1<<20, false))
	must(t, e.Zero(1<<20+1, 1000, false, false))
	if _, err := d.Hash(t.Context(), nil); !errors.Is(err, ErrActive) {
		t.Fatal(err)
	}
	must(t, d.Fence())
	must(t, e.Fence())
	var last int64
	a, err := d.Hash(t.Context(), func(done, _ int64) { last = done })
	must(t, err)
	b, err := e.Hash(t.Context(), nil)
	must(t, err)
	if a != b || last != 5<<19 {
		t.Fatal("hashes differ")
	}
	must(t, e.Unfence())
	must(t, e.WriteAt([]byte{1}, 5<<19-1, false))
	must(t, e.Fence())
	if b, err = e.Hash(t.Context(), nil); err != nil || a == b {
		t.Fatal("hashes agree", err)
	}
}

// A very scattered set is widened before it is too big to travel; it still has every block.
func TestExportIsBounded(t *testing.T) {
	o := quiet(nil)
	o.FS = vfs.OS(t.TempDir())
	d := newDisk(t, 4096*blockset.ChunkBlocks*Block, o)
	must(t, d.SetClean("p", Position{}))
	must(t, d.SetClean("q", Position{}))
	todo := d.peers["p"].todo
	for c := range int64(4096) {
		for i := range int64(1100) {
			todo.Add(c*blockset.ChunkBlocks+i*3, c*blockset.ChunkBlocks+i*3+1)
		}
	}
	d.peers["q"].todo.Add(5, 7)
	blob, err := d.ExportDirty()
	must(t, err)
	if len(blob) > exportGoal+4096 {
		t.Fatalf("%d bytes", len(blob))
	}
	must(t, d.ImportDirty(blob, "self"))
	got := d.peers["p"].todo
	if blockset.UnionCount(got, todo, blockset.New(blockset.Most)) != got.Count() || got.Count() >= d.blocks() {
		t.Fatalf("%d blocks of %d", got.Count(), todo.Count())
	}
	if q := d.peers["q"].todo; q.Count() != 2 {
		t.Fatalf("the other set has %d blocks", q.Count())
	}
}

// A coarse set has all that the fine one has, and nothing outside of its regions.
func TestCoarse(t *testing.T) {
	const grain = regionSize / Block
	m := blockset.New(3*grain - 5)
	m.Add(7, 9)
	m.Add(3*grain-6, 3*grain-5)
	c := m.Coarse(grain)
	if c.Count() != 2*grain-5 || !c.Has(0) || !c.Has(grain-1) || c.Has(grain) || !c.Has(2*grain) {
		t.Fatalf("%d blocks", c.Count())
	}
}

// A disk whose process dies between draining and giving its term away is where it was drained once somebody says so: else nobody's
// history would have it.
func TestGiveAtTheDrainedPosition(t *testing.T) {
	mem := vfs.NewMem()
	d, _, f, a := pair(t, 4<<20, quiet(mem))
	must(t, d.WriteAt(blockOf(4), 40*Block, true))
	must(t, d.Fence())
	pump(t, f, a)
	pos, err := d.Drain(t.Context(), "r")
	must(t, err)
	mem = mem.Crash(vfs.LoseUnsynced, 1)
	_ = d.Close()
	d, err = Open("", quiet(mem))
	must(t, err)
	if got := d.Position(); got.Compare(pos) <= 0 {
		t.Fatalf("at %s after the crash, was drained at %s", got, pos)
	}
	must(t, d.GiveAt(1, pos))
	if got := d.Position(); got != pos {
		t.Fatalf("at %s, was drained at %s", got, pos)
	}
	must(t, d.Close())
	d, err = Open("", quiet(mem))
	must(t, err)
	if i := d.Info(); i.Position != pos || i.Given != 1 {
		t.Fatalf("at %s, gave %d, after another restart", i.Position, i.Given)
	}
	// It has given the term away: now its position is what it received.
	must(t, d.GiveAt(1, Position{1, 1}))
	if got := d.Position(); got != pos {
		t.Fatalf("at %s, was at %s", got, pos)
	}
	must(t, d.Close())
}

// What was sealed is found at the same position by whoever opens the disk, however it ended; what was written after that isn't.
func TestSealedPositionStays(t *testing.T) {
	for _, loss := range []vfs.Loss{vfs.LoseNothing, vfs.LoseUnsynced} {
		mem := vfs.NewMem()
		d := newDisk(t, 4<<20, quiet(mem))
		must(t, d.Activate(1))
		must(t, d.WriteAt(blockOf(4), 40*Block, false))
		if err := d.Seal(); !errors.Is(err, ErrNotFenced) {
			t.Fatal(err)
		}
		must(t, d.Fence())
		must(t, d.Seal())
		pos := d.Position()
		mem = mem.Crash(loss, 1)
		_ = d.Close()
		d, err := Open("", quiet(mem))
		must(t, err)
		if got := d.Position(); got != pos {
			t.Fatalf("at %s, was sealed at %s", got, pos)
		}
		must(t, d.Activate(1))
		must(t, d.Fence())
		must(t, d.Seal())
		must(t, d.Unfence())
		must(t, d.WriteAt(blockOf(5), 40*Block, false))
		mem = mem.Crash(vfs.LoseNothing, 1)
		_ = d.Close()
		d, err = Open("", quiet(mem))
		must(t, err)
		if got := d.Position(); got.Compare(pos) <= 0 {
			t.Fatalf("at %s, though it was written after %s", got, pos)
		}
		must(t, d.Close())
	}
}
