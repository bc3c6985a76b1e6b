package vmdisk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// flip changes one byte of a file, behind the disk's back.
func flip(t *testing.T, m *vfs.Mem, name string, off int64) {
	t.Helper()
	f, err := m.Open(name)
	must(t, err)
	var b [1]byte
	must(t, readFull(f, b[:], off))
	b[0] ^= 0x40
	_, err = f.WriteAt(b[:], off)
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
}

func scrub(t *testing.T, d *Store, record bool) Scrub {
	t.Helper()
	res, err := d.Scrub(t.Context(), ScrubOptions{Record: record})
	must(t, err)
	return res
}

func wantScrub(t *testing.T, got Scrub, verified, unverified, busy, recorded int64) {
	t.Helper()
	if len(got.Damaged) > 0 || got.Torn > 0 || got.Verified != verified || got.Unverified != unverified || got.Busy != busy || got.Recorded != recorded {
		t.Fatalf("found %+v, want %d verified, %d unverified, %d busy, %d recorded", got, verified, unverified, busy, recorded)
	}
}

// The life of a hash: nothing, recorded, doubtful when its region is written, forgotten, recorded again.
func TestScrub(t *testing.T) {
	const size, unit = 5*regionSize + 3*Block, int64(hashUnit)
	m := vfs.NewMem()
	d := newDisk(t, size, quiet(m))
	must(t, d.Activate(1))
	fill := func(off, n int64, with byte) {
		t.Helper()
		must(t, d.WriteAt(bytes.Repeat([]byte{with}, int(n)), off, false))
	}
	wantScrub(t, scrub(t, d, true), 0, 0, 0, 0)
	fill(0, unit, 1)
	fill(regionSize+unit, 2*unit, 2)
	fill(5*regionSize, 3*Block, 3) // the last unit is a short one
	wantScrub(t, scrub(t, d, true), 0, 0, 3*unit+3*Block, 0)
	must(t, d.save())
	wantScrub(t, scrub(t, d, false), 0, 3*unit+3*Block, 0, 0)
	wantScrub(t, scrub(t, d, true), 0, 3*unit+3*Block, 0, 3*unit+3*Block)
	wantScrub(t, scrub(t, d, true), 3*unit+3*Block, 0, 0, 0)

	fill(regionSize, Block, 4)
	wantScrub(t, scrub(t, d, true), unit+3*Block, 0, 3*unit, 0)
	must(t, d.save())
	wantScrub(t, scrub(t, d, true), unit+3*Block, 3*unit, 0, 3*unit)
	must(t, d.Close())
	d = reopen(t, quiet(m))
	wantScrub(t, scrub(t, d, false), 4*unit+3*Block, 0, 0, 0)

	flip(t, m, baseName, regionSize+2*unit+77)
	flip(t, m, baseName, regionSize+3*unit-1)
	flip(t, m, baseName, 5*regionSize+3*Block-1)
	flip(t, m, baseName, unit+5) // in a hole of a region with data
	f, err := m.Open(baseName)
	must(t, err)
	must(t, f.Punch(regionSize, Block)) // data lost to a hole
	res := scrub(t, d, true)
	want := "[{65536 65536 <nil>} {4194304 65536 <nil>} {4325376 65536 <nil>} {20971520 12288 <nil>}]"
	if fmt.Sprint(res.Damaged) != want || res.Verified != 2*unit || res.Recorded != 0 {
		t.Fatalf("found %+v", res)
	}
	if again := scrub(t, d, true); fmt.Sprint(again.Damaged) != want {
		t.Fatal("damage was recorded as if it were well")
	}
}

// What can't be read is told, with the rest, and marks the disk.
func TestScrubUnreadable(t *testing.T) {
	m := vfs.NewMem()
	fsys := &badFS{FS: m, name: baseName}
	o := quiet(m)
	o.FS = fsys
	d := newDisk(t, 2*regionSize, o)
	must(t, d.Activate(1))
	must(t, d.WriteAt(bytes.Repeat([]byte{1}, 4*hashUnit), regionSize-2*hashUnit, true))
	must(t, d.save())
	fsys.bad(syscall.EIO, nil, nil)
	fsys.from, fsys.to = regionSize, regionSize+1
	if res := scrub(t, d, true); res.Recorded != 2*hashUnit || len(res.Damaged) != 1 {
		t.Fatalf("found %+v", res)
	}
	fsys.bad(nil, nil, nil)
	wantScrub(t, scrub(t, d, true), 2*hashUnit, 2*hashUnit, 0, 2*hashUnit)
	fsys.bad(syscall.EIO, nil, nil)
	fsys.from, fsys.to = regionSize, regionSize+1
	res := scrub(t, d, true)
	if len(res.Damaged) != 1 || res.Damaged[0].Off != regionSize || res.Damaged[0].Len != hashUnit || !errors.Is(res.Damaged[0].Err, syscall.EIO) {
		t.Fatalf("found %+v", res)
	}
	if res.Verified != 3*hashUnit || d.Info().NeedsCheck == "" {
		t.Fatalf("found %+v, needs checking: %q", res, d.Info().NeedsCheck)
	}
}

// counter is a Throttle.
type counter struct {
	n     int64
	after int64
	stop  context.CancelFunc
}

func (c *counter) Wait(ctx context.Context, n int64) error {
	if c.n += n; c.n > c.after {
		c.stop()
	}
	return ctx.Err()
}

func TestScrubStops(t *testing.T) {
	d := newDisk(t, 4*regionSize, quiet(vfs.NewMem()))
	must(t, d.Activate(1))
	must(t, d.WriteAt(bytes.Repeat([]byte{1}, 2*regionSize), 0, true))
	must(t, d.save())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := &counter{after: regionSize + hashUnit, stop: cancel}
	var last int64
	res, err := d.Scrub(ctx, ScrubOptions{Record: true, Throttle: c, Progress: func(done, total int64) {
		if done <= last || total != d.Size() {
			t.Errorf("progress %d after %d, of %d", done, last, total)
		}
		last = done
	}})
	if !errors.Is(err, context.Canceled) || last != regionSize || res.Recorded != regionSize {
		t.Fatalf("%v at %d, found %+v", err, last, res)
	}
	res = scrub(t, d, false)
	wantScrub(t, res, regionSize, regionSize, 0, 0)
	must(t, d.Close())
	if _, err := d.Scrub(t.Context(), ScrubOptions{}); !errors.Is(err, ErrClosed) {
		t.Fatalf("closed: %v", err)
	}
	r := newReplica(t, Block, quiet(vfs.NewMem()))
	if _, err := r.Scrub(t.Context(), ScrubOptions{}); !errors.Is(err, ErrIncomplete) {
		t.Fatalf("incomplete: %v", err)
	}
}

// A terabyte with little in it is scrubbed without walking through it.
func TestScrubSparse(t *testing.T) {
	d := newDisk(t, MaxSize, quiet(vfs.NewMem()))
	must(t, d.Activate(1))
	for _, off := range []int64{0, MaxSize / 2, MaxSize - Block} {
		must(t, d.WriteAt(bytes.Repeat([]byte{1}, Block), off, false))
	}
	must(t, d.save())
	steps := 0
	for range 2 {
		_, err := d.Scrub(t.Context(), ScrubOptions{Record: true, Progress: func(int64, int64) { steps++ }})
		must(t, err)
	}
	// A page of the file of hashes has the slots of some regions that have none.
	if steps > 60 {
		t.Fatalf("%d steps", steps)
	}
	if res := scrub(t, d, false); res.Verified < 3*Block || res.Unverified+res.Busy > 0 {
		t.Fatalf("found %+v", res)
	}
}

// No room for hashes is no failure.
func TestScrubWithoutRoom(t *testing.T) {
	m := vfs.NewMem()
	d := newDisk(t, regionSize, quiet(m))
	must(t, d.Activate(1))
	must(t, d.WriteAt(bytes.Repeat([]byte{1}, Block), 0, true))
	must(t, d.save())
	m.FailAt(1, syscall.ENOSPC, true)
	res := scrub(t, d, true)
	if !errors.Is(res.Unrecorded, syscall.ENOSPC) || res.Recorded != 0 || res.Unverified != hashUnit {
		t.Fatalf("found %+v", res)
	}
	m.FailAt(0, nil, false)
	if res := scrub(t, d, true); res.Recorded != hashUnit {
		t.Fatalf("found %+v", res)
	}
}

// However the file of hashes is damaged, it is never believed; a newer one is refused.
func TestDamagedHashes(t *testing.T) {
	m := vfs.NewMem()
	d := newDisk(t, 2*regionSize, quiet(m))
	must(t, d.Activate(1))
	must(t, d.WriteAt(bytes.Repeat([]byte{1}, 2*hashUnit), regionSize-hashUnit, true))
	must(t, d.Close())
	d = reopen(t, quiet(m))
	scrub(t, d, true)
	must(t, d.Close())
	b := file(t, m, hashesName)
	for i := 0; i < len(b); i += 7 {
		if i > 110 && i < hashesHeader {
			i = hashesHeader // there is nothing in between
		}
		m := m.After(vfs.LoseNothing, 0)
		flip(t, m, hashesName, int64(i))
		d, err := Open("", quiet(m))
		if i >= 8 && i < 12 && errors.Is(err, ErrVersion) {
			continue
		}
		must(t, err)
		res := scrub(t, d, true)
		if len(res.Damaged) > 0 || res.Verified+res.Unverified != 2*hashUnit || res.Recorded != res.Unverified {
			t.Fatalf("byte %d: found %+v", i, res)
		}
		if i >= slotHeader && i < 72 || i >= hashesHeader+slotHeader {
			if res.Unverified == 0 {
				t.Fatalf("byte %d: believed: %+v", i, res)
			}
		}
		if res = scrub(t, d, false); res.Verified != 2*hashUnit {
			t.Fatalf("byte %d: not made good: %+v", i, res)
		}
		must(t, d.Close())
	}
	swapped := bytes.Clone(b)
	copy(swapped[slotAt(0):], b[slotAt(1):slotAt(2)])
	copy(swapped[slotAt(1):], b[slotAt(0):slotAt(1)])
	replaceFile(t, m, hashesName, swapped)
	d = reopen(t, quiet(m))
	if res := scrub(t, d, false); res.Verified != 0 || res.Torn != 2 {
		t.Fatalf("slots in the wrong places: found %+v", res)
	}
	must(t, d.Close())
	b[8]++
	replaceFile(t, m, hashesName, b)
	if _, err := Open("", quiet(m)); !errors.Is(err, ErrVersion) {
		t.Fatalf("newer: %v", err)
	}
}

// meddler does something when the second unit of a region is about to be read.
type meddler struct {
	n  int
	do func()
}

func (m *meddler) Wait(context.Context, int64) error {
	if m.n++; m.n == 2 {
		m.do()
	}
	return nil
}

// What changes while a region is read is neither compared nor recorded, even if all traces of the change are gone by then.
func TestScrubNotices(t *testing.T) {
	content := bytes.Repeat([]byte{1}, regionSize)
	d := newDisk(t, regionSize, quiet(vfs.NewMem()))
	must(t, d.Activate(1))
	must(t, d.WriteAt(content, 0, true))
	must(t, d.save())
	for range 2 {
		res, err := d.Scrub(t.Context(), ScrubOptions{Record: true, Throttle: &meddler{do: func() {
			must(t, d.WriteAt(content[:Block], 0, true))
			must(t, d.save())
		}}})
		must(t, err)
		wantScrub(t, res, 0, 0, regionSize, 0)
		content[0]++
	}
	wantScrub(t, scrub(t, d, true), 0, regionSize, 0, regionSize)

	o := quiet(vfs.NewMem())
	o.EpochLogBytes = 64 << 20
	r := newDisk(t, regionSize, o)
	a, err := r.Apply()
	must(t, err)
	must(t, a.Write(0, content[:MaxOp]))
	must(t, a.Barrier(Position{1, 1}))
	wantScrub(t, scrub(t, r, true), 0, 0, MaxOp, 0)
	must(t, a.Close())
	a, err = r.Apply()
	must(t, err)
	res, err := r.Scrub(t.Context(), ScrubOptions{Record: true, Throttle: &meddler{do: func() {
		must(t, a.Write(0, content[:Block]))
		must(t, a.Barrier(Position{1, 2}))
		must(t, r.settle())
	}}})
	must(t, err)
	wantScrub(t, res, 0, 0, MaxOp, 0)
	wantScrub(t, scrub(t, r, true), 0, MaxOp, 0, MaxOp)
	wantScrub(t, scrub(t, r, true), MaxOp, 0, 0, 0)
}

// life does random things to an owner or a replica and may crash in between; no scrub may ever find damage.
func TestScrubNeverErrs(t *testing.T) {
	for _, replica := range []bool{false, true} {
		verified := int64(0)
		for seed := range uint64(50) {
			verified += scrubbedLife(t, replica, seed)
		}
		if verified == 0 {
			t.Error("nothing was ever compared")
		}
	}
}

func scrubbedLife(t *testing.T, replica bool, seed uint64) (verified int64) {
	t.Helper()
	const size = 4 * regionSize
	rnd := rand.New(rand.NewPCG(seed, 77))
	m := vfs.NewMem()
	o := quiet(m)
	d, err := Create("", ID{1}, size, o)
	must(t, err)
	var a *Applier
	term, barrier := uint64(1), uint64(0)
	begin := func() {
		if replica {
			a, err = d.Apply()
			must(t, err)
			barrier = d.Position().Barrier
		} else {
			must(t, d.Activate(term))
		}
	}
	begin()
	for range 60 {
		off := rnd.Int64N(size/Block-8) * Block
		p := bytes.Repeat([]byte{byte(rnd.IntN(255) + 1)}, Block*(1+rnd.IntN(8)))
		switch op := rnd.IntN(14); {
		case op < 4 && replica:
			must(t, a.Write(off, p))
		case op < 4:
			must(t, d.WriteAt(p, off, rnd.IntN(4) == 0))
		case op == 4 && replica:
			must(t, a.Zero(off, int64(len(p))))
		case op == 4:
			must(t, d.Trim(off, int64(len(p)), false))
		case op < 7 && replica:
			barrier++
			must(t, a.Barrier(Position{1, barrier}))
		case op < 7:
			must(t, d.Flush())
		case op < 9 && replica:
			must(t, a.Close())
			begin()
		case op < 9:
			must(t, d.save())
		case op == 9 && !replica:
			must(t, d.Fence())
			must(t, d.Give(term))
			term++
			if rnd.IntN(2) == 0 {
				sets, err := d.ExportDirty()
				must(t, err)
				must(t, d.ImportDirty(sets, "self"))
			}
			must(t, d.Activate(term))
		case op < 12:
			if rnd.IntN(2) == 0 {
				must(t, d.Record(t.Context()))
			}
			res := scrub(t, d, rnd.IntN(3) > 0)
			if len(res.Damaged) > 0 {
				t.Fatalf("seed %d: found %+v", seed, res)
			}
			verified += res.Verified
		default:
			if rnd.IntN(3) == 0 {
				must(t, d.Close())
				m = m.After(vfs.LoseNothing, 0)
			} else {
				old := d
				m = m.Crash([]vfs.Loss{vfs.LoseNothing, vfs.LoseUnsynced, vfs.LoseSome}[rnd.IntN(3)], rnd.Uint64())
				_ = old.Close()
			}
			d, err = Open("", quiet(m))
			must(t, err)
			if res := scrub(t, d, rnd.IntN(3) == 0); len(res.Damaged) > 0 {
				t.Fatalf("seed %d, after a crash: found %+v", seed, res)
			}
			begin()
		}
	}
	_ = d.Close()
	return verified
}

// Scrubbing while the guest writes and the house is kept neither sees damage nor records what it didn't see whole.
func TestScrubWhileWriting(t *testing.T) {
	const size = 4 * regionSize
	m := vfs.NewMem()
	d := newDisk(t, size, quiet(m))
	must(t, d.Activate(1))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for w := range uint64(2) {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(w, 5))
			for ctx.Err() == nil {
				if err := d.WriteAt(bytes.Repeat([]byte{byte(rnd.IntN(256))}, Block), rnd.Int64N(size/Block)*Block, false); err != nil {
					t.Error(err)
					return
				}
				if rnd.IntN(8) == 0 {
					if err := d.save(); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	var all Scrub
	wg.Go(func() {
		for ctx.Err() == nil {
			if err := d.Record(t.Context()); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for i := 0; i < 40 || all.Busy == 0; i++ {
		res := scrub(t, d, true)
		if len(res.Damaged) > 0 {
			t.Fatalf("found %+v", res)
		}
		all.Busy, all.Recorded = all.Busy+res.Busy, all.Recorded+res.Recorded
	}
	cancel()
	wg.Wait()
	must(t, d.save())
	must(t, d.save())
	if res := scrub(t, d, true); len(res.Damaged) > 0 || res.Busy > 0 {
		t.Fatalf("found %+v", res)
	}
}
