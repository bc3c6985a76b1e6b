package records

import (
	"errors"
	"io"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// disk is a file that forgets in a crash what was not synced: by the sector, in
// any choice.
type disk struct {
	data    []byte         // what reads see
	synced  []byte         // what a crash leaves
	written map[int64]bool // blocks not synced
	failing error
}

const sector = 512

func newDisk(slots int) *disk {
	return &disk{data: make([]byte, slots*Size), synced: make([]byte, slots*Size), written: make(map[int64]bool)}
}

func (d *disk) ReadAt(b []byte, off int64) (int, error) {
	n := copy(b, d.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (d *disk) WriteAt(b []byte, off int64) (int, error) {
	if d.failing != nil {
		return 0, d.failing
	}
	d.written[off] = true
	return copy(d.data[off:], b), nil
}

func (d *disk) Sync() error {
	if d.failing != nil {
		return d.failing
	}
	for off := range d.written {
		copy(d.synced[off:off+Size], d.data[off:])
	}
	clear(d.written)
	return nil
}

// crash keeps each unsynced sector or not, as keep says.
func (d *disk) crash(keep func() bool) {
	for _, off := range slices.Sorted(maps.Keys(d.written)) {
		for i := off; i < off+Size; i += sector {
			if !keep() {
				copy(d.data[i:i+sector], d.synced[i:])
			}
		}
		copy(d.synced[off:off+Size], d.data[off:])
	}
	clear(d.written)
}

const (
	testFiles   = 4
	testPerFile = minSlots / testFiles
)

func newDisks() []*disk {
	ds := make([]*disk, testFiles)
	for i := range ds {
		ds[i] = newDisk(testPerFile)
	}
	return ds
}

func openRing(t rapid.TB, ds []*disk, run uint64) (*Ring, Report) {
	t.Helper()
	files := make([]File, len(ds))
	for i, d := range ds {
		files[i] = d
	}
	r, err := Open(files, testPerFile, run)
	if err != nil {
		t.Fatal(err)
	}
	p, err := r.Recover()
	if err != nil {
		t.Fatal(err)
	}
	return r, p
}

func noDrop() error { return nil }

func write(t rapid.TB, r *Ring, n int) {
	t.Helper()
	for range n {
		if _, err := r.Append(1); err != nil {
			t.Fatal(err)
		}
	}
}

func verify(t rapid.TB, r *Ring) Report {
	t.Helper()
	p, err := r.Verify(noDrop)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Whatever a crash keeps of what wasn't synced, nothing synced is missing, and
// nothing is reported as lost or bad.
func TestCrashesLoseNothingThatWasSynced(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ds := newDisks()
		durable := uint64(0)
		for run := range uint64(rapid.IntRange(1, 5).Draw(t, "runs")) {
			r, p := openRing(t, ds, run+1)
			if !p.OK() {
				t.Fatalf("run %d: %+v", run, p)
			}
			if p.Last < durable {
				t.Fatalf("run %d: last is %d, %d was durable", run, p.Last, durable)
			}
			for range rapid.IntRange(0, 6).Draw(t, "syncs") {
				write(t, r, rapid.IntRange(0, MaxUnsynced+10).Draw(t, "records"))
				if rapid.Bool().Draw(t, "sync") {
					if _, err := r.Sync(); err != nil {
						t.Fatal(err)
					}
				}
			}
			durable = r.Durable()
			if rapid.Bool().Draw(t, "verify") {
				if p := verify(t, r); !p.OK() {
					t.Fatalf("run %d: verify: %+v", run, p)
				}
				durable = r.Durable()
			}
			bits := rapid.Uint64().Draw(t, "kept") | 1
			for _, d := range ds {
				d.crash(func() bool { bits = next(bits); return bits>>60 < 8 })
			}
		}
	})
}

// A disk that forgets a synced record is found out at the next start.
func TestRecoverFindsALostRecord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ds := newDisks()
		r, _ := openRing(t, ds, 1)
		n := rapid.IntRange(10, minSlots+50).Draw(t, "records")
		write(t, r, n)
		if _, err := r.Sync(); err != nil {
			t.Fatal(err)
		}
		write(t, r, 1) // carries the number to the disk
		// The newest of those that no unfinished write may have replaced.
		low := max(1, n+2*MaxUnsynced-minSlots+1)
		gone := uint64(rapid.IntRange(low, n).Draw(t, "gone"))
		slot := r.slotOf(gone)
		clear(ds[slot/testPerFile].data[slot%testPerFile*Size:][:Size])
		if _, p := openRing(t, ds, 2); p.Lost != 1 {
			t.Fatalf("record %d of %d gone: %+v", gone, n, p)
		}
	})
}

func TestRecoverFindsDamage(t *testing.T) {
	ds := newDisks()
	r, _ := openRing(t, ds, 1)
	write(t, r, 30)
	if _, err := r.Sync(); err != nil {
		t.Fatal(err)
	}
	write(t, r, 1)
	slot := r.slotOf(20)
	ds[slot/testPerFile].data[slot%testPerFile*Size+900] ^= 1
	if _, p := openRing(t, ds, 2); p.Bad != 1 || p.Lost != 1 || p.First == "" {
		t.Fatalf("one damaged record: %+v", p)
	}
}

func TestVerifyComparesWithMemory(t *testing.T) {
	for _, c := range []struct {
		name      string
		change    func(ds []*disk, r *Ring)
		lost, bad int
	}{
		{"nothing", func([]*disk, *Ring) {}, 0, 0},
		{"a record disappeared", func(ds []*disk, r *Ring) { clear(block(ds, r, 50)) }, 1, 0},
		{"an older record came back", func(ds []*disk, r *Ring) {
			Record{Seq: 50, Run: 1}.Encode(block(ds, r, 50+minSlots))
		}, 1, 0},
		{"a record is of another run", func(ds []*disk, r *Ring) {
			Record{Seq: 50 + minSlots, Run: 9}.Encode(block(ds, r, 50))
		}, 0, 1},
		{"a byte changed", func(ds []*disk, r *Ring) { block(ds, r, 50)[77] ^= 4 }, 0, 1},
		{"memory is older than the disk", func(_ []*disk, r *Ring) {
			r.shadow[r.slotOf(50)] = Record{Seq: 50, Run: 1}
		}, 0, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			ds := newDisks()
			r, _ := openRing(t, ds, 1)
			write(t, r, minSlots+60)
			c.change(ds, r)
			if p := verify(t, r); p.Lost != c.lost || p.Bad != c.bad {
				t.Errorf("found %+v, want lost %d and bad %d", p, c.lost, c.bad)
			}
		})
	}
}

// block is the slot of record seq on its disk.
func block(ds []*disk, r *Ring, seq uint64) []byte {
	slot := r.slotOf(seq)
	return ds[slot/testPerFile].data[slot%testPerFile*Size:][:Size]
}

func TestAppendSyncsInTime(t *testing.T) {
	r, _ := openRing(t, newDisks(), 1)
	write(t, r, MaxUnsynced+1)
	if got := r.Last() - r.Durable(); got > MaxUnsynced {
		t.Errorf("%d records are unsynced, at most %d may be", got, MaxUnsynced)
	}
}

func TestErrorsReachTheCaller(t *testing.T) {
	ds := newDisks()
	r, _ := openRing(t, ds, 1)
	boom := errors.New("boom")
	for _, d := range ds {
		d.failing = boom
	}
	if _, err := r.Append(1); !errors.Is(err, boom) {
		t.Errorf("Append: %v", err)
	}
	if _, err := r.Verify(noDrop); !errors.Is(err, boom) {
		t.Errorf("Verify: %v", err)
	}
	for _, d := range ds {
		d.failing = nil
	}
	write(t, r, 1)
	if p := verify(t, r); !p.OK() || p.Last != 1 {
		t.Errorf("after the error: %+v", p)
	}
	if _, err := r.Verify(func() error { return boom }); !errors.Is(err, boom) {
		t.Errorf("Verify without dropping caches: %v", err)
	}
}

func TestOpenRefusesBadGeometry(t *testing.T) {
	f := File(newDisk(1))
	for _, c := range []struct{ files, perFile int }{{0, 1}, {1, 0}, {1, -1}, {1, minSlots - 1}, {2, maxSlots}, {1, 1 << 62}} {
		files := make([]File, c.files)
		for i := range files {
			files[i] = f
		}
		if _, err := Open(files, c.perFile, 1); !errors.Is(err, ErrGeometry) {
			t.Errorf("%d files with %d slots: %v", c.files, c.perFile, err)
		}
	}
}
