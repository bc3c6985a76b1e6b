package vmdisk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	"tagalong.org/tagalong/vmdisk/vfs"
)

func TestResizeRefuses(t *testing.T) {
	d := newDisk(t, 3<<20+5*Block, quiet(vfs.NewMem()))
	for bytes, want := range map[int64]error{
		0: ErrShrink, 3 << 20: ErrShrink, 3<<20 + 6*Block: ErrRange, MaxSize + GrowUnit: ErrRange, 3<<20 + 5*Block: nil,
	} {
		if err := d.Resize(bytes); !errors.Is(err, want) {
			t.Errorf("to %d: %v", bytes, err)
		}
	}
	must(t, d.Reach(Block))
	if err := d.Reach(MaxSize + Block); !errors.Is(err, ErrRange) {
		t.Error(err)
	}
	if d.Size() != 3<<20+5*Block {
		t.Errorf("%d bytes", d.Size())
	}
	must(t, d.Close())
	if err := d.Resize(4 << 20); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// On real files: no space is taken, what was there stays, and it is as large when it is opened again.
func TestResizeOnFiles(t *testing.T) {
	dir := t.TempDir()
	d, err := Create(dir, ID{1}, 1<<20, Options{BarrierEvery: -1})
	must(t, err)
	must(t, d.Activate(1))
	must(t, d.WriteAt(blockOf(1), 1<<20-Block, true))
	before := d.Info()
	must(t, d.Resize(64<<30))
	if i := d.Info(); i.Position != before.Position || i.Unflushed || i.Allocated > before.Allocated+64<<10 || i.Size != 64<<30 {
		t.Errorf("grown: %+v, before: %+v", i, before)
	}
	must(t, d.WriteAt(blockOf(2), 64<<30-Block, true))
	if err := d.WriteAt(blockOf(2), 64<<30, true); !errors.Is(err, ErrRange) {
		t.Error(err)
	}
	es, err := d.Extents(0, d.Size())
	must(t, err)
	if len(es) != 4 || !es[0].Hole || es[1].Hole || !es[2].Hole || es[2].Len != 64<<30-1<<20-Block || es[3] != (Extent{Block, false}) {
		t.Errorf("extents %+v", es)
	}
	r, err := d.Check(t.Context(), CheckOptions{})
	must(t, err)
	if !r.OK() {
		t.Error(told(r))
	}
	must(t, d.Close())
	r, err = Check(t.Context(), dir, CheckOptions{})
	must(t, err)
	if !r.OK() || r.Size != 64<<30 {
		t.Error(told(r))
	}
	d, err = Open(dir, Options{BarrierEvery: -1})
	must(t, err)
	got := make([]byte, Block)
	for off, b := range map[int64]byte{1<<20 - Block: 1, 1 << 20: 0, 64<<30 - Block: 2} {
		must(t, d.ReadAt(got, off))
		if !bytes.Equal(got, blockOf(b)) {
			t.Errorf("at %d: %d", off, got[0])
		}
	}
	must(t, d.Close())
}

// A failure at any call leaves the disk as it was, or as it was to be, and usable; or it says that it must be opened again.
func TestResizeFails(t *testing.T) {
	const size = 4<<20 + 3*Block
	for _, how := range []error{syscall.ENOSPC, syscall.EFBIG, syscall.EIO} {
		for n := 1; ; n++ {
			m := vfs.NewMem()
			d := newDisk(t, size, quiet(m))
			must(t, d.Activate(1))
			must(t, d.WriteAt(blockOf(1), size-Block, true))
			must(t, d.Save())
			must(t, d.Record(t.Context()))
			m.FailAt(n, how, false)
			err := d.Resize(8 << 20)
			calls := m.Calls()
			m.FailAt(0, nil, false)
			if err == nil && calls < n {
				break
			}
			if err == nil && d.Size() == 8<<20 {
				must(t, d.Close()) // only what was recorded is lost
				continue
			}
			name := fmt.Sprintf("%v at call %d", how, n)
			if !errors.Is(err, how) {
				t.Errorf("%s: %v", name, err)
			}
			if d.Size() != size {
				t.Errorf("%s: %d bytes", name, d.Size())
			}
			werr := d.WriteAt(blockOf(2), size-2*Block, true)
			if werr != nil && !errors.Is(werr, ErrFailed) {
				t.Errorf("%s: written: %v", name, werr)
			}
			if werr == nil && !errors.Is(err, ErrFailed) {
				must(t, d.Resize(8<<20)) // nothing is in its way
			}
			_ = d.Close() // it may have failed
			d = reopen(t, quiet(m))
			if d.Size() != size && d.Size() != 8<<20 {
				t.Errorf("%s: %d bytes afterwards", name, d.Size())
			}
			must(t, d.Activate(1))
			must(t, d.Resize(9<<20))
			got := make([]byte, 2*Block)
			must(t, d.ReadAt(got, size-Block))
			if !bytes.Equal(got[:Block], blockOf(1)) || !isZero(got[Block:]) {
				t.Errorf("%s: the content differs", name)
			}
			must(t, d.Close())
			if r := checked(t, m, CheckOptions{}); !r.OK() {
				t.Errorf("%s: %s", name, told(r))
			}
			if s := reopen(t, quiet(m)); s != nil {
				res, err := s.Scrub(t.Context(), ScrubOptions{})
				must(t, err)
				if len(res.Damaged) > 0 {
					t.Errorf("%s: %+v", name, res)
				}
				must(t, s.Close())
			}
		}
	}
}

// What is fed and compared ends, and goes on when both have grown; cuts stay what they are.
func TestResizeEndsFeeds(t *testing.T) {
	o := quiet(vfs.NewMem())
	d, r := newDisk(t, 2<<20, o), newReplica(t, 2<<20, quiet(vfs.NewMem()))
	must(t, d.Activate(1))
	must(t, d.WriteAt(blockOf(1), 2<<20-Block, true))
	a, err := r.Apply()
	must(t, err)
	f, err := d.Attach("r", a.State())
	must(t, err)
	pump(t, f, a)
	cut, err := d.Cut(t.Context())
	must(t, err)
	must(t, d.Resize(3<<20))
	if _, err := f.poll(); !errors.Is(err, ErrClosed) {
		t.Errorf("the feed goes on: %v", err)
	}
	if _, err := d.Attach("r", a.State()); !errors.Is(err, ErrSize) {
		t.Errorf("a smaller replica: %v", err)
	}
	if lag, ok := d.Lag("r"); !ok || len(lag.parts) > 0 {
		t.Error("the replica lacks what nobody wrote")
	}
	must(t, d.WriteAt(blockOf(2), 3<<20-Block, false))
	must(t, d.WriteAt(blockOf(3), 2<<20-Block, false))
	if cut.Size() != 2<<20 || !errors.Is(cut.ReadAt(make([]byte, Block), 2<<20), ErrRange) {
		t.Errorf("the cut has %d bytes", cut.Size())
	}
	got := make([]byte, Block)
	must(t, cut.ReadAt(got, 2<<20-Block))
	if !bytes.Equal(got, blockOf(1)) {
		t.Error("the cut has changed")
	}
	must(t, cut.Close())
	must(t, r.Reach(d.Size())) // with its applier
	f, err = d.Attach("r", a.State())
	must(t, err)
	must(t, d.Flush())
	pump(t, f, a)
	if !bytes.Equal(content(t, d), content(t, r)) || r.Position() != d.Position() {
		t.Error("the replica differs")
	}
	f.Close()
	must(t, a.Close())
}

// The side of a fork that was given up had grown and written there; the other goes on, perhaps grows later or had grown less. What is beyond its end is zeros
// afterwards on both.
func TestForkedLoserIsLarger(t *testing.T) {
	for _, how := range []string{"never", "before", "guessed and reopened", "after comparing", "after comparing and reopened"} {
		t.Run(how, func(t *testing.T) {
			k := newFork(t)
			const grown = 2 << 20
			must(t, k.a.Resize(grown))
			must(t, k.a.Activate(5))
			must(t, k.a.WriteAt(blockOf(0xa3), grown-Block, true))
			must(t, k.a.WriteAt(blockOf(0xa4), forkSize, true))
			must(t, k.a.Fence())
			must(t, k.a.Give(5))
			again := func() {
				must(t, k.b.Close())
				k.b = reopen(t, behindOptions(k.bm))
				must(t, k.b.Activate(forkTerm))
			}
			grow := func() { must(t, k.b.Resize(grown)) }
			ra, err := k.a.Apply()
			must(t, err)
			switch how {
			case "before":
				grow()
			case "guessed and reopened":
				must(t, k.b.Lost("a"))
				grow()
				again()
			}
			c, err := k.b.Compare("a", ra.State())
			must(t, err)
			must(t, compareAll(c, k.a))
			must(t, c.Finish())
			switch how {
			case "after comparing":
				grow()
			case "after comparing and reopened":
				grow()
				again()
			}
			f, err := k.b.Attach("a", ra.State())
			must(t, err)
			ra.Within(k.b.Size())
			must(t, k.b.Flush())
			pump(t, f, ra)
			f.Close()
			must(t, ra.Close())
			grow()
			if !bytes.Equal(content(t, k.a), content(t, k.b)) {
				t.Error("they differ")
			}
		})
	}
}

// A disk that isn't whole grows: what is stale stays so, what is new isn't, and going back brings the old content at the new size.
func TestResizeWhileHydrating(t *testing.T) {
	for _, back := range []bool{false, true} {
		l := newLagging(t, 3)
		must(t, l.d.SetStale(l.stale.AppendTo(nil), l.at))
		must(t, l.d.Activate(2))
		must(t, l.d.Resize(hydraSize+2<<20))
		must(t, l.d.WriteAt(blockOf(7), hydraSize+1<<20, true))
		got := make([]byte, Block)
		must(t, l.d.ReadAt(got, hydraSize)) // nobody is asked
		if !isZero(got) || l.d.Info().Stale != l.stale.Count()*Block {
			t.Error("what is new isn't zeros, or stale")
		}
		must(t, l.d.Close())
		l.d = reopen(t, hydraOptions(l.mem))
		want := append(bytes.Clone(l.newest), make([]byte, 2<<20)...)
		if back {
			_, err := l.d.Rollback()
			must(t, err)
			copy(want, l.old)
		} else {
			must(t, l.d.Activate(2))
			must(t, l.d.Resize(hydraSize+3<<20))
			want = append(want, make([]byte, 1<<20)...)
			copy(want[hydraSize+1<<20:], blockOf(7))
			must(t, l.d.Hydrate(t.Context(), l.src))
			for more := true; more; {
				var err error
				more, err = l.d.mergeBottom(t.Context())
				must(t, err)
			}
		}
		if !bytes.Equal(content(t, l.d), want) {
			t.Errorf("the content differs, gone back: %v", back)
		}
	}
}

// What was exported of a larger disk makes a smaller one grow; what a smaller one exported is of a part of a larger one.
func TestExportOfAnotherSize(t *testing.T) {
	d, r := newDisk(t, 1<<20, quiet(vfs.NewMem())), newReplica(t, 1<<20, quiet(vfs.NewMem()))
	must(t, d.Activate(1))
	must(t, d.WriteAt(blockOf(1), 0, true))
	connect(t, d, r, "r")()
	must(t, d.Resize(4<<20))
	must(t, d.WriteAt(blockOf(2), 4<<20-Block, true))
	must(t, d.Lost("s")) // who has nothing
	must(t, d.Fence())
	b, err := d.ExportDirty()
	must(t, err)
	set, at, err := r.StaleIn(b, "r")
	must(t, err)
	if r.Size() != 4<<20 {
		t.Fatalf("it has %d bytes", r.Size())
	}
	must(t, r.SetStale(set, at))
	must(t, r.Resize(5<<20))
	must(t, r.ImportDirty(b, "r"))
	if got := r.Info().Stale; got != Block {
		t.Errorf("%d bytes are stale", got)
	}
	if r.peers["s"].todo.Count() != 5<<20/Block {
		t.Errorf("who has nothing lacks %d blocks", r.peers["s"].todo.Count())
	}
}

// A disk of the version before, with an unmerged layer and peers, grows.
func TestOldDiskGrows(t *testing.T) {
	dir := oldDisk(t, "v1/owner")
	d, err := Open(dir, Options{BarrierEvery: -1, SaveEvery: -1})
	must(t, err)
	must(t, d.Activate(1))
	must(t, d.Resize(16<<20))
	for _, p := range d.peers {
		if !p.guessed || p.todo.Count() < 32 {
			t.Errorf("%s lacks %d blocks", p.name, p.todo.Count())
		}
	}
	want := append(firstLight(), make([]byte, 16<<20-len(firstLight()))...)
	if !bytes.Equal(content(t, d), want) {
		t.Error("the content differs")
	}
	must(t, d.Close())
	if n, err := os.Stat(dir + "/" + baseName); err != nil || n.Size() != 16<<20 {
		t.Error(n, err)
	}
}
