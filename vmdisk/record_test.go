package vmdisk

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// wantRecorded has the disk say how much is recorded, and a scrub agree.
func wantRecorded(t *testing.T, d *Store, want int64) {
	t.Helper()
	if got := d.Info().Recorded; got != want {
		t.Fatalf("%d bytes are said to be recorded, not %d", got, want)
	}
	if res := scrub(t, d, false); res.Verified != want || len(res.Damaged) > 0 {
		t.Fatalf("found %+v, recorded are %d", res, want)
	}
}

// The life of a hash that nobody asked for; what is counted survives everything.
func TestRecord(t *testing.T) {
	const size, unit = 5*regionSize + 3*Block, int64(hashUnit)
	m := vfs.NewMem()
	d := newDisk(t, size, quiet(m))
	must(t, d.Activate(1))
	fill := func(off, n int64, with byte) {
		t.Helper()
		must(t, d.WriteAt(bytes.Repeat([]byte{with}, int(n)), off, false))
	}
	record := func() { t.Helper(); must(t, d.Record(t.Context())) }
	record()
	wantRecorded(t, d, 0)
	fill(0, unit, 1)
	fill(regionSize+unit, 2*unit, 2)
	fill(5*regionSize, 3*Block, 3) // the last unit is a short one
	must(t, d.Zero(2*regionSize, unit, false, false))
	record()
	wantRecorded(t, d, 0) // all of it is in the activity log
	must(t, d.save())
	record()
	wantRecorded(t, d, 3*unit+3*Block)
	record()
	wantRecorded(t, d, 3*unit+3*Block)
	fill(regionSize, Block, 4)
	must(t, d.save())
	wantRecorded(t, d, unit+3*Block)
	record()
	wantRecorded(t, d, 4*unit+3*Block)
	must(t, d.Close())
	d = reopen(t, quiet(m))
	record()
	wantRecorded(t, d, 4*unit+3*Block)

	// What isn't as it was recorded isn't recorded again.
	must(t, d.Close())
	flip(t, m, baseName, 5)
	d = reopen(t, quiet(m))
	record()
	if res := scrub(t, d, false); len(res.Damaged) != 1 || d.Info().Recorded != 4*unit+3*Block {
		t.Fatalf("found %+v, recorded %d", res, d.Info().Recorded)
	}
	must(t, d.hashes.reset())
	if got := d.Info().Recorded; got != 0 {
		t.Fatalf("%d bytes of nothing are recorded", got)
	}
}

// An import begins anew, whatever was there when the disk was looked through before.
func TestRecordWhatWasImported(t *testing.T) {
	d := newDisk(t, 2*regionSize, quiet(vfs.NewMem()))
	must(t, d.Record(t.Context()))
	raw := filepath.Join(t.TempDir(), "raw")
	must(t, os.WriteFile(raw, bytes.Repeat([]byte{1}, regionSize+5), 0o600))
	must(t, d.ImportRaw(t.Context(), raw, nil))
	must(t, d.Record(t.Context()))
	wantRecorded(t, d, regionSize+hashUnit)
}

// tally is a Pace that counts.
type tally struct{ n atomic.Int64 }

func (c *tally) Wait(ctx context.Context, n int64) error {
	c.n.Add(n)
	return ctx.Err()
}

// The disk records by itself what has been quiet, reads nothing twice for that, and nothing that is being written.
func TestRecordByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const hot = 2
		read := new(tally)
		o := Options{FS: vfs.NewMem(), Record: read}
		d, err := Create("", ID{1}, 4*regionSize, o)
		must(t, err)
		must(t, d.Activate(1))
		must(t, d.WriteAt(bytes.Repeat([]byte{1}, 3*regionSize), 0, false))
		for range 60 { // 20 min
			must(t, d.WriteAt(blockOf(9), hot*regionSize, false))
			time.Sleep(20 * time.Second)
		}
		wantRecorded(t, d, 2*regionSize)
		if got := read.n.Load(); got < 2*regionSize || got > 2*regionSize+slotSize*100 {
			t.Errorf("%d bytes were read", got)
		}
		// Now and then isn't quiet either: it would be hashed again and again.
		before := read.n.Load()
		for range 20 {
			must(t, d.WriteAt(blockOf(8), hot*regionSize, false))
			time.Sleep(2 * time.Minute)
		}
		if got := read.n.Load() - before; got > slotSize*100 {
			t.Errorf("%d bytes were read of a region that is written every two minutes", got)
		}
		time.Sleep(3 * recordEvery)
		wantRecorded(t, d, 3*regionSize)
		must(t, d.Close())
	})
}

// A disk is closed at once, also while its recording waits for a guest.
func TestRecordingEndsWithTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, err := Create("", ID{1}, regionSize, Options{FS: vfs.NewMem(), Record: stuck{}})
		must(t, err)
		must(t, d.Activate(1))
		must(t, d.WriteAt(blockOf(1), 0, true))
		time.Sleep(time.Hour)
		began := time.Now()
		must(t, d.Close())
		if took := time.Since(began); took > 0 {
			t.Errorf("it took %s", took)
		}
	})
}

// stuck is a Pace under which nothing goes on.
type stuck struct{}

func (stuck) Wait(ctx context.Context, _ int64) error {
	<-ctx.Done()
	return ctx.Err()
}

// A replica whose epochs come in drops records too: between two epochs at once, else at the next barrier.
func TestRecordReplica(t *testing.T) {
	o := quiet(vfs.NewMem())
	o.EpochLogBytes = 64 << 20
	r := newDisk(t, 3*regionSize, o)
	a, err := r.Apply()
	must(t, err)
	write := func(off int64, with byte, n uint64) {
		t.Helper()
		must(t, a.Write(off, blockOf(with)))
		must(t, a.Barrier(Position{1, n}))
	}
	write(0, 1, 1)
	wantScrub(t, scrub(t, r, true), 0, 0, hashUnit, 0)
	must(t, r.Record(t.Context()))
	wantRecorded(t, r, hashUnit)

	must(t, a.Write(regionSize, blockOf(2)))
	must(t, a.Barrier(Position{1, 2}))
	must(t, a.Write(2*regionSize, blockOf(3)))
	must(t, r.Record(t.Context()))
	wantRecorded(t, r, hashUnit)
	if r.Position() != (Position{1, 2}) {
		t.Fatalf("it is at %s in the middle of an epoch", r.Position())
	}
	must(t, a.Barrier(Position{1, 3}))
	if r.epochs.size != epochsHeader {
		t.Fatalf("the epoch log has %d bytes still", r.epochs.size)
	}
	must(t, r.Record(t.Context()))
	wantRecorded(t, r, 3*hashUnit)
	for x, want := range []byte{1, 2, 3} {
		p := make([]byte, Block)
		must(t, r.ReadAt(p, int64(x)*regionSize))
		if p[0] != want {
			t.Errorf("region %d has %d", x, p[0])
		}
	}
	write(0, 4, 4)
	write(0, 5, 5)
	before := r.Info().Recorded
	must(t, a.Close())
	if got := r.Info().Recorded; got != before-hashUnit {
		t.Errorf("%d bytes are recorded after %d", got, before)
	}
	must(t, r.Record(t.Context()))
	wantRecorded(t, r, 3*hashUnit)
}

// What the drive can't read isn't read again and again; what has no room for its hashes is tried again.
func TestRecordTroubles(t *testing.T) {
	m := vfs.NewMem()
	fsys := &badFS{FS: m, name: baseName}
	o := quiet(m)
	o.FS = fsys
	d := newDisk(t, 3*regionSize, o)
	must(t, d.Activate(1))
	must(t, d.WriteAt(bytes.Repeat([]byte{1}, 3*regionSize), 0, true))
	must(t, d.save())
	m.FailAt(1, syscall.ENOSPC, true)
	if err := d.Record(t.Context()); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("without room: %v", err)
	}
	m.FailAt(0, nil, false)
	fsys.bad(syscall.EIO, nil, nil)
	fsys.from, fsys.to = regionSize, regionSize+1
	must(t, d.Record(t.Context()))
	if got := d.Info(); got.Recorded != 2*regionSize || got.NeedsCheck == "" {
		t.Errorf("%d bytes are recorded, needs checking: %q", got.Recorded, got.NeedsCheck)
	}
	if at := d.hashes.due(0); int64(at) < regionsOf(d.Size()) {
		t.Errorf("region %d is due still", at)
	}
	r := newReplica(t, Block, quiet(vfs.NewMem()))
	if err := r.Record(t.Context()); !errors.Is(err, ErrIncomplete) {
		t.Errorf("of half a replica: %v", err)
	}
	must(t, d.Close())
	if err := d.Record(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("of a closed disk: %v", err)
	}
}

// BenchmarkRecord says what a MiB costs that is recorded, all from memory: reading, hashing and the file of hashes.
func BenchmarkRecord(b *testing.B) {
	d := benchDisk(b, "alone")
	if err := d.Save(); err != nil {
		b.Fatal(err)
	}
	if err := d.Save(); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(benchDiskSize)
	for b.Loop() {
		if err := d.hashes.reset(); err != nil {
			b.Fatal(err)
		}
		if err := d.Record(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	if got := d.Info().Recorded; got != benchDiskSize {
		b.Fatalf("%d bytes are recorded", got)
	}
}
