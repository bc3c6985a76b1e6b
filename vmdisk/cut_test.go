package vmdisk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"tagalong.org/tagalong/vmdisk/blockset"
	"tagalong.org/tagalong/vmdisk/vfs"
)

func newCut(t *testing.T, d *Store) *Cut {
	t.Helper()
	c, err := d.Cut(t.Context())
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	return c
}

// whatCut is all that the cut reads as.
func whatCut(t *testing.T, c *Cut) []byte {
	t.Helper()
	b := make([]byte, c.Size())
	must(t, c.ReadAt(b, 0))
	return b
}

// scratchFiles are the cuts' files in a directory.
func scratchFiles(t *testing.T, fsys vfs.FS) (names []string) {
	t.Helper()
	all, err := fsys.List()
	must(t, err)
	for _, n := range all {
		if strings.HasPrefix(n, "cut-") {
			names = append(names, n)
		}
	}
	return names
}

// held is a cut with what it must be, and which bytes were released.
type held struct {
	c        *Cut
	want     []byte
	released []bool // by block
}

// check reads a random part of it and looks at its extents.
func (h *held) check(t *testing.T, r *rand.Rand) {
	t.Helper()
	size := int64(len(h.want))
	off := r.Int64N(size)
	n := 1 + r.Int64N(min(size-off, 40*Block))
	gone := slices.Contains(h.released[off/Block:(off+n+Block-1)/Block], true)
	p := make([]byte, n)
	if err := h.c.ReadAt(p, off); gone != errors.Is(err, ErrReleased) || err != nil && !gone {
		t.Fatalf("read of %d at %d (released: %v): %v", n, off, gone, err)
	}
	if !gone && !bytes.Equal(p, h.want[off:off+n]) {
		for i := range p {
			if p[i] != h.want[off+int64(i)] {
				t.Fatalf("%s: block %d is not what it was", h.c.Position(), (off+int64(i))/Block)
			}
		}
	}
	es, err := h.c.Extents(off, n)
	if h.released[off/Block] {
		if !errors.Is(err, ErrReleased) {
			t.Fatalf("extents of what was released: %v", err)
		}
		return
	}
	if err != nil || len(es) == 0 {
		t.Fatalf("extents: %v, %v", es, err)
	}
	end := off
	for _, e := range es {
		if e.Len <= 0 || e.Hole && !isZero(h.want[end:end+e.Len]) {
			t.Fatalf("extent %+v at %d isn't so", e, end)
		}
		end += e.Len
	}
	if end > off+n || !gone && end != off+n || slices.Contains(h.released[off/Block:(end+Block-1)/Block], true) {
		t.Fatalf("extents to %d of %d at %d", end, n, off)
	}
}

func (h *held) release(r *rand.Rand) {
	size := int64(len(h.want))
	off := r.Int64N(size)
	n := r.Int64N(min(size-off, 60*Block) + 1)
	h.c.Release(off, n)
	for b := (off + Block - 1) / Block; b < (off+n)/Block; b++ {
		h.released[b] = true
	}
}

// changeAny makes one random change of the disk, and of what it must be.
func changeAny(t *testing.T, d *Store, now []byte, r *rand.Rand) {
	t.Helper()
	size := int64(len(now))
	off := r.Int64N(size)
	n := 1 + r.Int64N(min(size-off, 50*Block))
	if r.IntN(2) == 0 {
		off, n = off/Block*Block, Block
	}
	p := make([]byte, n)
	switch r.IntN(6) {
	case 0:
		must(t, d.Trim(off, n, false))
	case 1:
		must(t, d.Zero(off, n, r.IntN(2) == 0, false))
	default:
		x := r.Uint32()
		for i := range p {
			p[i] = byte(x >> (i % 4 * 8))
		}
		must(t, d.WriteAt(p, off, r.IntN(20) == 0))
	}
	copy(now[off:], p)
}

// TestCuts opens, reads, releases and closes several cuts at random while the disk is written: each is the disk at its position.
func TestCuts(t *testing.T) {
	for seed := range uint64(3) {
		r := rand.New(rand.NewPCG(seed, 11))
		m := vfs.NewMem()
		size := int64(160+r.IntN(40)) * Block
		d := newDisk(t, size, quiet(m))
		must(t, d.Activate(1))
		now := make([]byte, size)
		var open []*held
		at := map[Position][]byte{}
		for range 500 {
			switch x := r.IntN(20); {
			case x == 0 && len(open) < 4:
				c, err := d.Cut(t.Context())
				must(t, err)
				if i := d.Info(); i.Unflushed || i.Position != c.Position() {
					t.Fatalf("cut at %s of a disk at %+v", c.Position(), i)
				}
				if old, ok := at[c.Position()]; ok && !bytes.Equal(old, now) {
					t.Fatal("one position, two contents")
				}
				at[c.Position()] = bytes.Clone(now)
				open = append(open, &held{c, bytes.Clone(now), make([]bool, size/Block)})
			case x == 1 && len(open) > 0:
				i := r.IntN(len(open))
				must(t, open[i].c.Close())
				if err := open[i].c.ReadAt(make([]byte, 1), 0); !errors.Is(err, ErrClosed) {
					t.Fatalf("read of a closed cut: %v", err)
				}
				open = slices.Delete(open, i, i+1)
			case x == 2 && len(open) > 0:
				open[r.IntN(len(open))].release(r)
			case x < 8 && len(open) > 0:
				open[r.IntN(len(open))].check(t, r)
			default:
				changeAny(t, d, now, r)
			}
		}
		for _, h := range open {
			for range 20 {
				h.check(t, r)
			}
			must(t, h.c.Close())
		}
		if !bytes.Equal(content(t, d), now) {
			t.Fatal("the disk itself is wrong")
		}
		if d.cuts.open.Load() != nil || d.cuts.mem.used != 0 || d.cuts.mem.pieces != nil || len(scratchFiles(t, m)) != 0 {
			t.Fatalf("left: %d blocks, files %v", d.cuts.mem.used, scratchFiles(t, m))
		}
		must(t, d.Close())
	}
}

// TestCutIsAPrefix: every writer writes its first block before its second, so no cut may have the second without the
// first, nor a part of a write; and a cut reads the same again later, while they go on.
func TestCutIsAPrefix(t *testing.T) {
	const writers, span = 4, 8 * Block
	d := newDisk(t, writers*span, quiet(vfs.NewMem()))
	must(t, d.Activate(1))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range int64(writers) {
		wg.Go(func() {
			for i := uint64(1); ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				p := bytes.Repeat(binary.LittleEndian.AppendUint64(nil, i), 2*Block/8)
				for _, at := range []int64{0, 4 * Block} {
					if err := d.WriteAt(p, w*span+at, false); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	for range 40 {
		c := newCut(t, d)
		first := whatCut(t, c)
		for w := range int64(writers) {
			word := func(at int64) uint64 { return binary.LittleEndian.Uint64(first[w*span+at:]) }
			if a, b := word(0), word(4*Block); a != b && a != b+1 {
				t.Fatalf("writer %d: %d, then %d", w, a, b)
			}
			if word(0) != word(2*Block-8) || word(4*Block) != word(6*Block-8) {
				t.Fatal("half a write")
			}
		}
		for range 3 {
			if !bytes.Equal(whatCut(t, c), first) {
				t.Fatalf("the cut at %s changed", c.Position())
			}
		}
		must(t, c.Close())
	}
	close(stop)
	wg.Wait()
}

// Readers, writers and those who release work at once; every cut is what the disk was.
func TestCutsWhileWriting(t *testing.T) {
	const size = 2 << 20
	o := quiet(vfs.NewMem())
	o.cutMemory = 512 << 10
	d := newDisk(t, size, o)
	must(t, d.Activate(1))
	var shadow sync.RWMutex // held for writing to know what the disk is
	now := make([]byte, size)
	stop := make(chan struct{})
	var writers sync.WaitGroup
	const part = size / 4
	for w := range int64(4) {
		writers.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 12))
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				off := w*part + r.Int64N(part-3*Block)
				p := bytes.Repeat([]byte{byte(r.IntN(4))}, 1+r.IntN(3*Block))
				shadow.RLock()
				if err := d.WriteAt(p, off, false); err != nil {
					t.Error(err)
				}
				copy(now[off:], p)
				shadow.RUnlock()
			}
		})
	}
	var readers sync.WaitGroup
	for k := range uint64(3) {
		readers.Go(func() {
			r := rand.New(rand.NewPCG(k, 13))
			for range 4 {
				shadow.Lock()
				c, err := d.Cut(t.Context())
				want := bytes.Clone(now)
				shadow.Unlock()
				if err != nil {
					t.Error(err)
					return
				}
				h := held{c, want, make([]bool, size/Block)}
				for range 60 {
					h.check(t, r)
					if r.IntN(4) == 0 {
						h.release(r)
					}
				}
				must(t, c.Close())
			}
		})
	}
	readers.Wait()
	close(stop)
	writers.Wait()
}

// A cut of a replica stays what it is when epochs are applied, the replica becomes active and writes, and gives its
// term away.
func TestCutOfReplica(t *testing.T) {
	d, r, f, a := pair(t, 64*Block, quiet(vfs.NewMem()))
	if _, err := newReplica(t, 64*Block, quiet(vfs.NewMem())).Cut(t.Context()); !errors.Is(err, ErrIncomplete) {
		t.Fatalf("cut of a replica that isn't whole: %v", err)
	}
	now := make([]byte, 64*Block)
	rnd := rand.New(rand.NewPCG(1, 14))
	var open []*held
	take := func() {
		t.Helper()
		c := newCut(t, r)
		if c.Position() != r.Position() {
			t.Fatalf("cut at %s of a replica at %s", c.Position(), r.Position())
		}
		open = append(open, &held{c, bytes.Clone(now), make([]bool, 64)})
	}
	check := func() {
		t.Helper()
		for _, h := range open {
			if !bytes.Equal(whatCut(t, h.c), h.want) {
				t.Fatalf("the cut at %s isn't what it was", h.c.Position())
			}
		}
	}
	for range 6 {
		for range 10 {
			changeAny(t, d, now, rnd)
		}
		check() // what has no barrier yet isn't applied
		must(t, d.Flush())
		pump(t, f, a)
		if !bytes.Equal(content(t, r), now) {
			t.Fatal("the replica is behind")
		}
		take()
		check()
	}
	must(t, a.Close())
	must(t, r.Activate(2))
	take()
	for range 20 {
		changeAny(t, r, now, rnd)
	}
	check()
	take()
	must(t, r.Fence())
	take()
	must(t, r.Give(2))
	take()
	check()
	must(t, r.Close())
	for _, h := range open {
		if err := h.c.ReadAt(make([]byte, 1), 0); !errors.Is(err, ErrClosed) {
			t.Fatalf("the disk is closed, the cut says %v", err)
		}
		must(t, h.c.Close())
	}
	if _, err := r.Cut(t.Context()); !errors.Is(err, ErrClosed) {
		t.Fatalf("cut of a closed disk: %v", err)
	}
}

// What was a hole takes neither memory nor space, and what is released gives both back.
func TestCutSpace(t *testing.T) {
	const size = 1 << 40
	m := vfs.NewMem()
	d := newDisk(t, size, quiet(m))
	must(t, d.Activate(1))
	data := bytes.Repeat([]byte{7}, 1<<20)
	must(t, d.WriteAt(data, 1<<30, false))
	must(t, d.WriteAt(data, 900<<30, false))
	c := newCut(t, d)
	must(t, d.WriteAt(data, 2<<30, false))
	must(t, d.Trim(0, 1<<30, false))
	must(t, d.Trim(3<<30, 4<<30, false))
	if d.cuts.mem.used != 0 || len(scratchFiles(t, m)) != 0 {
		t.Fatal("holes are kept as data")
	}
	must(t, d.Trim(1<<30, 1<<30, false))
	must(t, d.WriteAt(data[:Block], 900<<30, false))
	if got, limit := d.cuts.mem.used, int(d.o.cutMemory/Block); got != limit {
		t.Fatalf("%d blocks in memory of at most %d", got, limit)
	}
	names := scratchFiles(t, m)
	if len(names) != 1 {
		t.Fatalf("scratch files: %v", names)
	}
	f, err := m.Open(names[0])
	must(t, err)
	allocated := func() int64 { n, err := f.Allocated(); must(t, err); return n }
	if got := allocated(); got != 1<<20+Block-d.o.cutMemory {
		t.Fatalf("scratch file takes %d", got)
	}
	es, err := c.Extents(0, size)
	must(t, err)
	if want := []Extent{{1 << 30, true}, {1 << 20, false}, {899<<30 - 1<<20, true}, {1 << 20, false}, {size - 900<<30 - 1<<20, true}}; !slices.Equal(es, want) {
		t.Fatalf("extents %v", es)
	}
	c.Release(1<<30, 1<<20)
	if got := allocated(); got != Block || d.cuts.mem.used != 0 {
		t.Fatalf("after the release the file takes %d, and %d blocks are in memory", got, d.cuts.mem.used)
	}
	// Only what is wanted is kept.
	w := blockset.New(blockset.Most)
	w.Add(900<<30/Block, 900<<30/Block+3)
	c.Want(w)
	p := make([]byte, 3*Block)
	must(t, c.ReadAt(p, 900<<30))
	if !bytes.Equal(p, data[:3*Block]) {
		t.Fatal("what is wanted is wrong")
	}
	if err := c.ReadAt(p, 900<<30+Block); !errors.Is(err, ErrReleased) {
		t.Fatalf("read beyond: %v", err)
	}
	must(t, d.WriteAt(make([]byte, 1<<20), 900<<30, false))
	if d.cuts.mem.used != 2 {
		t.Fatalf("%d blocks in memory", d.cuts.mem.used)
	}
}

// A crash leaves scratch files, and opening the disk removes them.
func TestCrashWithCut(t *testing.T) {
	m := vfs.NewMem()
	d := newDisk(t, 1<<20, quiet(m))
	must(t, d.Activate(1))
	must(t, d.WriteAt(bytes.Repeat([]byte{1}, 1<<20), 0, true))
	newCut(t, d)
	must(t, d.WriteAt(bytes.Repeat([]byte{2}, 1<<20), 0, true))
	if len(scratchFiles(t, m)) != 1 {
		t.Fatal("no scratch file")
	}
	m = m.Crash(vfs.LoseNothing, 0)
	if len(scratchFiles(t, m)) != 1 {
		t.Fatal("the crash took it")
	}
	d = reopen(t, quiet(m))
	if n := scratchFiles(t, m); len(n) != 0 {
		t.Fatalf("left: %v", n)
	}
	must(t, d.Activate(1))
	c := newCut(t, d)
	if !bytes.Equal(whatCut(t, c), bytes.Repeat([]byte{2}, 1<<20)) {
		t.Fatal("differs")
	}
}

// A disk that waits for blocks has no cuts, and loses those that it had.
func TestCutAndStale(t *testing.T) {
	d := newDisk(t, 1<<20, quiet(vfs.NewMem()))
	c := newCut(t, d)
	s := blockset.New(blockset.Most)
	s.Add(0, 1)
	must(t, d.SetStale(s.AppendTo(nil), Position{3, 7}))
	if err := c.ReadAt(make([]byte, 1), 0); !errors.Is(err, ErrCutLost) || !errors.Is(err, ErrHydrating) {
		t.Fatalf("a cut of a disk that isn't whole any more: %v", err)
	}
	if _, err := d.Cut(t.Context()); !errors.Is(err, ErrHydrating) {
		t.Fatalf("cut of a disk that isn't whole: %v", err)
	}
}
