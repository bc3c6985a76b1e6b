package vmdisk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"tagalong.org/tagalong/vmdisk/vfs"
)

const (
	seedBlocks = 3000 // nearly three regions
	seedSize   = seedBlocks * Block
)

// seeded is an owner under term 3 whose disk is full, and a new replica that holds that too, but for the blocks in seedDiffer.
type seeded struct {
	t      *testing.T
	om, rm *vfs.Mem
	o, r   *Store
}

var seedDiffer = []int64{0, 7, 8, 1023, 1024, 2999}

func newSeeded(t *testing.T) *seeded {
	t.Helper()
	k := &seeded{t: t, om: vfs.NewMem(), rm: vfs.NewMem()}
	k.o = newDisk(t, seedSize, quiet(k.om))
	must(t, k.o.Activate(3))
	must(t, k.o.WriteAt(seedContent(), 0, true))
	k.r = newReplica(t, seedSize, quiet(k.rm))
	k.seed(k.r)
	return k
}

func seedContent() []byte {
	p := make([]byte, seedSize)
	r := rand.NewChaCha8([32]byte{5})
	_, _ = r.Read(p)
	clear(p[500*Block : 600*Block])
	return p
}

func (k *seeded) seed(r *Store) {
	k.t.Helper()
	p := seedContent()
	for _, x := range seedDiffer {
		p[x*Block+100]++
	}
	s, err := r.Seed()
	must(k.t, err)
	must(k.t, s.WriteAt(p, 0, false))
	must(k.t, s.Flush())
	must(k.t, s.Close())
}

// compare compares all of what the replica offers.
func (k *seeded) compare() *Comparison {
	k.t.Helper()
	if !k.o.WorthComparing("r", k.r.ReplicaState()) {
		k.t.Fatal("not worth comparing")
	}
	off, err := k.r.Offer()
	must(k.t, err)
	c, err := k.o.Compare("r", off.State())
	must(k.t, err)
	must(k.t, compareAll(c, off))
	must(k.t, off.Close())
	return c
}

// sent moves what the replica lacks, and says how many bytes that were, and whether it is whole now.
func (k *seeded) sent() (data int64, whole bool) {
	k.t.Helper()
	a, err := k.r.Apply()
	must(k.t, err)
	f, err := k.o.Attach("r", a.State())
	must(k.t, err)
	for {
		op, err := f.poll()
		must(k.t, err)
		if op == nil {
			break
		}
		if op.Kind == OpWrite || op.Kind == OpZero {
			data += op.Len
		}
		ack, err := feedTo(a, op)
		must(k.t, err)
		f.Acked(ack)
	}
	f.Close()
	must(k.t, a.Close())
	return data, k.r.ReplicaState().Complete
}

func (k *seeded) equal() {
	k.t.Helper()
	if !bytes.Equal(content(k.t, k.o), content(k.t, k.r)) {
		k.t.Fatal("the replica isn't the disk")
	}
	if k.r.Position() != k.o.Position() {
		k.t.Fatalf("equal, but at %s and %s", k.r.Position(), k.o.Position())
	}
}

// Only what differs is sent to a seeded replica; before that it is no replica to anybody.
func TestSeedSendsWhatDiffers(t *testing.T) {
	k := newSeeded(t)
	st := k.r.ReplicaState()
	if st.Complete || st.Position.Term != 0 {
		t.Fatalf("seeded, it says %+v", st)
	}
	for what, err := range map[string]error{
		"Activate": k.r.Activate(9), "ReadAt": k.r.ReadAt(make([]byte, 1), 0), "WriteAt": k.r.WriteAt(make([]byte, Block), 0, false),
	} {
		if err == nil {
			t.Errorf("%s of what is seeded works", what)
		}
	}
	if _, err := k.r.Cut(t.Context()); !errors.Is(err, ErrIncomplete) {
		t.Errorf("a cut of what is seeded: %v", err)
	}
	c := k.compare()
	must(t, c.Finish())
	if got := lacks(k.o, "r"); fmt.Sprint(got) != fmt.Sprint(seedDiffer) {
		t.Fatalf("differ: %v", got)
	}
	must(t, k.o.WriteAt(blockOf(1), 40*Block, true)) // after the comparison
	if data, whole := k.sent(); data != int64(len(seedDiffer)+1)*Block || !whole {
		t.Fatalf("%d bytes were sent, whole: %v", data, whole)
	}
	k.equal()
	if _, err := k.r.Seed(); !errors.Is(err, ErrComplete) {
		t.Errorf("a whole replica is seeded: %v", err)
	}
	if _, err := k.r.Offer(); !errors.Is(err, ErrComplete) {
		t.Errorf("a whole replica is offered: %v", err)
	}
}

// What the guest writes while it is compared differs.
func TestSeedComparedWhileWritten(t *testing.T) {
	k := newSeeded(t)
	off, err := k.r.Offer()
	must(t, err)
	c, err := k.o.Compare("r", off.State())
	must(t, err)
	must(t, k.o.WriteAt(blockOf(9), 1500*Block, false))
	must(t, c.Equal(1400*Block, 200*Block))
	must(t, compareAll(c, off))
	must(t, k.o.WriteAt(blockOf(8), 1600*Block, false))
	must(t, c.Finish())
	must(t, off.Close())
	if data, whole := k.sent(); data != int64(len(seedDiffer)+2)*Block || !whole {
		t.Fatalf("%d bytes were sent, whole: %v", data, whole)
	}
	k.equal()
}

// A comparison that is cut short goes on with what is left as long as both programs live, and holds for what was offered only.
func TestSeedComparisonGoesOn(t *testing.T) {
	k := newSeeded(t)
	off, err := k.r.Offer()
	must(t, err)
	c, err := k.o.Compare("r", off.State())
	must(t, err)
	must(t, c.Equal(1100*Block, 1000*Block))
	c.Close()
	must(t, off.Close())
	// Whoever attaches now goes on from nothing, and nothing is lost by that.
	f, err := k.o.Attach("stranger", k.r.ReplicaState())
	must(t, err)
	f.Close()
	again, err := k.r.Offer()
	must(t, err)
	if again.State() != off.State() {
		t.Fatalf("the offer has another name: %+v, %+v", off.State(), again.State())
	}
	c, err = k.o.Compare("r", again.State())
	must(t, err)
	if n := c.Remaining(); n != seedSize-1000*Block {
		t.Errorf("%d bytes remain", n)
	}
	c.Close()
	must(t, again.Close())
	// Without having been finished, it counts for nothing once something is written.
	k.seed(k.r)
	if off, err = k.r.Offer(); err != nil || off.State() == again.State() {
		t.Fatalf("seeded again, the offer has the old name: %v", err)
	}
	c, err = k.o.Compare("r", off.State())
	must(t, err)
	if n := c.Remaining(); n != seedSize {
		t.Errorf("%d bytes remain of another offer", n)
	}
	c.Close()
	must(t, off.Close())
	if data, whole := k.sent(); data != seedSize || !whole {
		t.Errorf("%d bytes were sent without a whole comparison, whole: %v", data, whole)
	}
	k.equal()
}

// What an owner found out is worth nothing once another one has written.
func TestSeedForgetsOtherOwners(t *testing.T) {
	k := newSeeded(t)
	must(t, k.compare().Finish())
	// Another owner of another history, under a later term, begins to write and is gone.
	em := vfs.NewMem()
	other := newDisk(t, seedSize, quiet(em))
	must(t, other.Activate(4))
	must(t, other.WriteAt(bytes.Repeat(blockOf(0x44), seedBlocks), 0, true))
	off, err := k.r.Offer()
	must(t, err)
	c, err := other.Compare("r", off.State())
	must(t, err)
	must(t, c.Equal(0, 100*Block)) // it lies
	must(t, c.Finish())
	must(t, off.Close())
	a, err := k.r.Apply()
	must(t, err)
	f, err := other.Attach("r", a.State())
	must(t, err)
	for range 4 {
		op, err := f.poll()
		must(t, err)
		_, err = feedTo(a, op)
		must(t, err)
	}
	f.Close()
	must(t, a.Close())
	if !k.o.WorthComparing("r", k.r.ReplicaState()) {
		t.Fatal("the first owner goes on where the other has written")
	}
	must(t, k.compare().Finish())
	if _, whole := k.sent(); !whole {
		t.Fatal("not whole")
	}
	k.equal()
}

// What was offered can't be written under its name, whoever says so.
func TestOfferedIsNotWritten(t *testing.T) {
	k := newSeeded(t)
	off, err := k.r.Offer()
	must(t, err)
	if _, err := k.r.Apply(); !errors.Is(err, ErrApplying) {
		t.Fatalf("it is written while it is offered: %v", err)
	}
	if _, err := k.r.Seed(); !errors.Is(err, ErrApplying) {
		t.Fatalf("it is seeded while it is offered: %v", err)
	}
	must(t, off.Close())
	for what, do := range map[string]func(a *Applier) error{
		"write":      func(a *Applier) error { return a.Write(0, blockOf(1)) },
		"zero":       func(a *Applier) error { return a.Zero(0, Block) },
		"checkpoint": func(a *Applier) error { return a.Checkpoint(Position{3, 9}) },
		"barrier":    func(a *Applier) error { return a.Barrier(Position{3, 9}) },
	} {
		a, err := k.r.Apply()
		must(t, err)
		if err := do(a); !errors.Is(err, ErrNoCopy) {
			t.Errorf("%s: %v", what, err)
		}
		must(t, a.Close())
	}
	a, err := k.r.Apply()
	must(t, err)
	must(t, a.Begin(off.State().Copy)) // a name is no proof either
	must(t, a.Close())
	if now := k.r.ReplicaState(); now.Position == restMark {
		t.Errorf("a copy was begun, and it still says %+v", now)
	}
}

// The replica of an owner that turns out to have an old whole one instead of what it had seeded isn't taken for that.
func TestSeedReplacedByAnOldReplica(t *testing.T) {
	for _, begun := range []bool{false, true} {
		t.Run(fmt.Sprint(begun), func(t *testing.T) {
			k := newSeeded(t)
			oldMem := vfs.NewMem()
			old := newReplica(t, seedSize, quiet(oldMem))
			connect(t, k.o, old, "r")()
			must(t, k.o.WriteAt(bytes.Repeat(blockOf(0x77), 400), 2000*Block, true))
			must(t, k.o.Forget("r"))
			k.seedNow()
			must(t, k.compare().Finish())
			if begun {
				f, err := k.o.Attach("r", k.r.ReplicaState())
				must(t, err)
				op, err := f.poll()
				must(t, err)
				op.Release()
				f.Close()
			}
			k.r = old
			if !k.o.WorthComparing("r", k.r.ReplicaState()) {
				t.Error("the old replica isn't worth comparing")
			}
			k.sent()
			k.equal()
		})
	}
}

// seedNow seeds the replica with all that the disk has now.
func (k *seeded) seedNow() {
	k.t.Helper()
	s, err := k.r.Seed()
	must(k.t, err)
	must(k.t, s.WriteAt(content(k.t, k.o), 0, true))
	must(k.t, s.Close())
}

// The owner may die at any moment between two of these steps: nothing is lost, and what was found out once it was finished isn't either.
func TestSeedOwnerRestarts(t *testing.T) {
	k := newSeeded(t)
	restart := func() {
		t.Helper()
		must(t, k.o.Close())
		k.o = reopen(t, quiet(k.om))
		must(t, k.o.Activate(3))
	}
	off, err := k.r.Offer()
	must(t, err)
	c, err := k.o.Compare("r", off.State())
	must(t, err)
	must(t, c.Equal(1100*Block, 1000*Block))
	restart()
	must(t, off.Close())
	if !k.o.WorthComparing("r", k.r.ReplicaState()) || len(lacks(k.o, "r")) != seedBlocks {
		t.Fatal("half a comparison counts after a restart")
	}
	must(t, k.compare().Finish())
	restart()
	if k.o.WorthComparing("r", k.r.ReplicaState()) {
		t.Fatal("a finished comparison is forgotten")
	}
	if data, whole := k.sent(); data != int64(len(seedDiffer))*Block || !whole {
		t.Fatalf("%d bytes were sent, whole: %v", data, whole)
	}
	k.equal()
}

// An unfinished first copy that the next owner knows nothing of is compared as well.
func TestFirstCopyOfAnotherOwnerIsCompared(t *testing.T) {
	k := newSeeded(t)
	rm := vfs.NewMem()
	k.r = newReplica(t, seedSize, quiet(rm))
	if k.o.WorthComparing("r", k.r.ReplicaState()) {
		t.Fatal("an empty replica is compared")
	}
	if _, err := k.r.Offer(); !errors.Is(err, ErrNoCopy) {
		t.Fatalf("an empty replica is offered: %v", err)
	}
	a, err := k.r.Apply()
	must(t, err)
	f, err := k.o.Attach("r", a.State())
	must(t, err)
	for n := int64(0); n < seedSize/2; {
		op, err := f.poll()
		must(t, err)
		n += op.Len
		ack, err := feedTo(a, op)
		must(t, err)
		f.Acked(ack)
	}
	f.Close()
	must(t, a.Close())
	if k.o.WorthComparing("r", k.r.ReplicaState()) {
		t.Fatal("one that it knows is compared")
	}
	must(t, k.o.Forget("r")) // as the next owner, who took over by force
	must(t, k.compare().Finish())
	if data, whole := k.sent(); data > seedSize*2/3 || !whole {
		t.Fatalf("%d bytes were sent, whole: %v", data, whole)
	}
	k.equal()
}

// A Seeding takes anything anywhere, as a disk does.
func TestSeedingIsADisk(t *testing.T) {
	k := newSeeded(t)
	s, err := k.r.Seed()
	must(t, err)
	defer func() { _ = s.Close() }()
	want := make([]byte, seedSize)
	must(t, s.ReadAt(want, 0))
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		off := r.Int64N(seedSize)
		n := min(seedSize-off, 1+r.Int64N(3<<20)>>r.Int64N(20))
		if r.IntN(3) == 0 {
			clear(want[off : off+n])
			must(t, s.Zero(off, n, true, false))
			continue
		}
		p := make([]byte, n)
		for i := range p {
			p[i] = byte(r.Uint32())
		}
		copy(want[off:], p)
		must(t, s.WriteAt(p, off, false))
	}
	got := make([]byte, seedSize)
	must(t, s.ReadAt(got, 0))
	if !bytes.Equal(got, want) {
		t.Fatal("it reads as something else")
	}
	for off := int64(0); off < seedSize; {
		ext, err := s.Extents(off, seedSize-off)
		must(t, err)
		for _, e := range ext {
			if e.Hole && !isZero(want[off:off+e.Len]) {
				t.Fatalf("a hole of %d at %d has content", e.Len, off)
			}
			off += e.Len
		}
	}
	for _, bad := range [][2]int64{{-1, 1}, {seedSize, 1}, {0, seedSize + 1}, {1 << 62, 1 << 62}} {
		if err := s.Zero(bad[0], bad[1], true, false); !errors.Is(err, ErrRange) {
			t.Errorf("zeros %v: %v", bad, err)
		}
	}
	if err := s.WriteAt(make([]byte, 2), seedSize-1, false); !errors.Is(err, ErrRange) {
		t.Errorf("a write past the end: %v", err)
	}
	must(t, k.r.Close())
	if err := s.WriteAt(make([]byte, 1), 0, false); !errors.Is(err, ErrClosed) {
		t.Errorf("a write into a closed disk: %v", err)
	}
	if err := s.ReadAt(make([]byte, 1), 0); !errors.Is(err, ErrClosed) {
		t.Errorf("a read of a closed disk: %v", err)
	}
	if _, err := k.r.Seed(); !errors.Is(err, ErrClosed) {
		t.Errorf("a closed disk is seeded: %v", err)
	}
	if _, err := k.o.Seed(); !errors.Is(err, ErrActive) {
		t.Errorf("an owner's disk is seeded: %v", err)
	}
	if _, err := k.o.Scrub(context.Background(), ScrubOptions{}); err != nil {
		t.Error(err)
	}
}
