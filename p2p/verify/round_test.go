package verify_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"
	"time"

	"tagalong.org/tagalong/p2p/verify"
)

// places are leaves at all kinds of borders.
var places = []int64{0, 1, 63, 64, 4095, 4096, lastLeaf - 1, lastLeaf}

func (f *fleet) fill() {
	for _, l := range places {
		f.write(l, byte(l+1))
	}
	f.write(200, 7)
	f.settle()
}

func TestEqualDisksAreEqual(t *testing.T) {
	f := newFleet(t, "a", "b")
	f.fill()
	// Zeros that are written are what a hole is.
	f.put(300, 0)
	f.disk.record(0)
	r := f.mustRound()
	if !r.Clean() || len(r.Findings) != 0 || r.Read != diskSize || r.AsRecorded != leaf {
		t.Errorf("%+v", r)
	}
	for name, c := range r.Copies {
		if c.Equal != diskSize || c.Busy != 0 || c.Err != nil {
			t.Errorf("%s: %+v", name, c)
		}
	}
	if n := f.copies["a"].reads; n != int64(len(places)+1) {
		t.Errorf("the replica read %d leaves", n)
	}
}

// TestWhoseCopyIsRight damages the owner's leaf, the copy's, or neither but differently, with all kinds of records, alone and beside a third.
func TestWhoseCopyIsRight(t *testing.T) {
	const (
		none = iota // no record
		good        // recorded before the damage
		late        // recorded after it
	)
	type want struct {
		here, copy verify.Outcome
	}
	for _, c := range []struct {
		ownerRots, copyRots bool
		owner, copy         int
		third               bool
		want                want
	}{
		// A copy's damage.
		{copyRots: true, want: want{"", verify.Undecided}},
		{copyRots: true, copy: good, want: want{"", verify.Repaired}},
		{copyRots: true, owner: good, want: want{"", verify.Repaired}},
		{copyRots: true, owner: good, copy: good, want: want{"", verify.Repaired}},
		{copyRots: true, owner: good, copy: late, want: want{"", verify.Undecided}},
		{copyRots: true, copy: late, want: want{"", verify.Better}},
		{copyRots: true, third: true, want: want{"", verify.Repaired}},
		{copyRots: true, copy: good, third: true, want: want{"", verify.Repaired}},
		{copyRots: true, owner: good, copy: late, third: true, want: want{"", verify.Repaired}},
		{copyRots: true, copy: late, third: true, want: want{"", verify.Better}},
		// The owner's.
		{ownerRots: true, want: want{"", verify.Undecided}},
		{ownerRots: true, owner: good, want: want{verify.Repaired, ""}},
		{ownerRots: true, owner: good, copy: good, want: want{verify.Repaired, ""}},
		{ownerRots: true, copy: good, want: want{"", verify.Better}},
		{ownerRots: true, owner: late, want: want{"", verify.Repaired}}, // the record lies: nobody can know
		{ownerRots: true, owner: late, copy: good, want: want{"", verify.Undecided}},
		{ownerRots: true, third: true, want: want{"", verify.Undecided}},
		{ownerRots: true, owner: good, third: true, want: want{verify.Repaired, ""}},
		{ownerRots: true, owner: late, copy: good, third: true, want: want{"", verify.Undecided}},
		// Both.
		{ownerRots: true, copyRots: true, owner: good, want: want{verify.Damaged, verify.Withheld}},
		{ownerRots: true, copyRots: true, owner: good, copy: good, want: want{verify.Damaged, verify.Withheld}},
		{ownerRots: true, copyRots: true, owner: good, third: true, want: want{verify.Repaired, verify.Undecided}},
	} {
		for _, l := range []int64{1, lastLeaf} {
			t.Run(fmt.Sprintf("%+v/%d", c, l), func(t *testing.T) {
				f := newFleet(t, "a")
				if c.third {
					f = newFleet(t, "a", "c")
				}
				f.fill()
				a := f.copies["a"].disk
				f.recordIf(c.owner == good, f.disk, l)
				f.recordIf(c.copy == good, a, l)
				right := f.get(l)
				if c.ownerRots {
					f.rot(l)
				}
				if c.copyRots {
					a.rot(l)
					if c.ownerRots {
						a.leaves[l][0] ^= 1 // another damage
					}
				}
				f.recordIf(c.owner == late, f.disk, l)
				f.recordIf(c.copy == late, a, l)
				was, theirs := f.get(l), a.get(l)
				r := f.mustRound()
				if len(r.Findings) != 1 {
					t.Fatalf("%+v", r.Findings)
				}
				got := r.Findings[0]
				if got.Off != l*leaf || got.Len != sizeOf(l) || got.Here != c.want.here {
					t.Errorf("%+v", got)
				}
				w := c.want.copy
				if c.want.here == verify.Repaired && c.copyRots {
					w = verify.Repaired // the owner's record decides then
				}
				if got.Copies["a"] != w {
					t.Errorf("the copy: %q, want %q", got.Copies["a"], w)
				}
				f.settle()
				switch {
				case c.want.here == verify.Repaired:
					if !bytes.Equal(f.get(l), right) || !bytes.Equal(a.get(l), right) {
						t.Error("what was repaired isn't right")
					}
				case !bytes.Equal(f.get(l), was):
					t.Error("the owner's disk was changed")
				case w == verify.Repaired && !bytes.Equal(a.get(l), was):
					t.Error("the copy wasn't repaired")
				case w != verify.Repaired && !bytes.Equal(a.get(l), theirs):
					t.Error("the copy was changed")
				}
				if clean := w != verify.Undecided && w != verify.Better && c.want.here != verify.Damaged; r.Clean() != clean {
					t.Errorf("clean: %v", r.Clean())
				}
				e := int64(diskSize)
				if !r.Clean() {
					e -= sizeOf(l)
				}
				if r.Copies["a"].Equal != e {
					t.Errorf("equal %d, want %d", r.Copies["a"].Equal, e)
				}
				if r := f.mustRound(); len(r.Findings) > 0 == (w != verify.Undecided && w != verify.Better && c.want.here != verify.Damaged) {
					t.Errorf("the second round: %+v", r.Findings)
				}
			})
		}
	}
}

func (f *fleet) recordIf(when bool, d *disk, l int64) {
	if when {
		d.record(l)
	}
}

// The person may decide for what the guest sees.
func TestOverwrite(t *testing.T) {
	f := newFleet(t, "a")
	f.fill()
	f.copies["a"].rot(64)
	f.copies["a"].rot(0)
	f.copies["a"].record(0)
	r, err := f.round(func(o *verify.Options) { o.Overwrite = true })
	if err != nil || !r.Clean() || len(r.Findings) != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	if r := f.mustRound(); len(r.Findings) != 0 {
		t.Errorf("%+v", r.Findings)
	}
}

// What a drive doesn't give is repaired on either side.
func TestUnreadableLeaves(t *testing.T) {
	f := newFleet(t, "a")
	f.fill()
	f.copies["a"].broken[4095] = true
	f.disk.record(64)
	f.broken[64] = true
	f.broken[200] = true // without a record
	r := f.mustRound()
	want := []verify.Finding{
		{Off: 64 * leaf, Len: leaf, Here: verify.Repaired, Copies: map[string]verify.Outcome{}},
		{Off: 200 * leaf, Len: leaf, Here: verify.Damaged, Copies: map[string]verify.Outcome{"a": verify.Withheld}},
		{Off: 4095 * leaf, Len: leaf, Copies: map[string]verify.Outcome{"a": verify.Repaired}},
	}
	if !reflect.DeepEqual(r.Findings, want) {
		t.Errorf("%+v", r.Findings)
	}
	if r.Clean() || f.mends != 1 || f.resends["a"] != 1 {
		t.Errorf("%d mends, %d resends", f.mends, f.resends["a"])
	}
}

// A copy that was made of the owner's damage is repaired when the owner is, from a third.
func TestDamageThatWasCopied(t *testing.T) {
	f := newFleet(t, "a", "c")
	f.fill()
	f.disk.record(63)
	f.rot(63)
	f.copies["a"].rot(63)
	r := f.mustRound()
	if len(r.Findings) != 1 || r.Findings[0].Here != verify.Repaired || r.Findings[0].Copies["a"] != verify.Repaired || len(r.Findings[0].Copies) != 1 {
		t.Errorf("%+v", r.Findings)
	}
	if !bytes.Equal(f.copies["a"].get(63), filled(63, 64)) {
		t.Error("the copy isn't right")
	}
}

// A copy that doesn't keep what it is sent is told of, and sent to once.
func TestACopyThatKeepsNothing(t *testing.T) {
	f := newFleet(t, "a")
	f.fill()
	f.disk.record(1)
	f.copies["a"].rot(1)
	f.copies["a"].deaf = true
	r := f.mustRound()
	if r.Clean() || len(r.Findings) != 1 || r.Findings[0].Copies["a"] != verify.Stuck || f.resends["a"] != 1 || r.Copies["a"].Equal != diskSize-leaf {
		t.Errorf("%+v, %d", r, f.resends["a"])
	}
}

// Of what the guest writes all the time nothing is reported, and what it doesn't write isn't missed.
func TestWhatIsBeingWrittenIsNoDamage(t *testing.T) {
	f := newFleet(t, "a", "b")
	f.fill()
	f.disk.record(4096)
	f.copies["a"].rot(4096)
	for _, x := range f.copies {
		x.put(5, 9) // so that it is compared
	}
	n := byte(0)
	// The hot leaf is written each time just before it is asked whether it was.
	f.wrote = func(off int64) {
		if off == 5*leaf {
			n++
			f.write(5, n)
		}
	}
	r := f.mustRound()
	if len(r.Findings) != 1 || r.Findings[0].Off != 4096*leaf || r.Findings[0].Copies["a"] != verify.Repaired {
		t.Errorf("%+v", r.Findings)
	}
	for name, c := range r.Copies {
		if c.Busy != leaf || c.Equal != diskSize-leaf {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

// TestAnyDamageIsFoundUnderWrites damages at random while a guest writes at random: all damage in leaves that it doesn't write is repaired, and
// nothing else is ever told.
func TestAnyDamageIsFoundUnderWrites(t *testing.T) {
	for seed := uint64(0); seed < 3; seed++ {
		r := rand.New(rand.NewPCG(seed, 1))
		f := newFleet(t, "a", "b")
		for l := int64(0); l < 400; l++ {
			f.write(l, byte(1+l))
		}
		f.settle()
		damaged := map[int64]string{}
		for range 20 {
			l, name := 200+r.Int64N(200), []string{"a", "b", "here"}[r.IntN(3)]
			if damaged[l] != "" {
				continue
			}
			damaged[l] = name
			f.disk.record(l)
			if name == "here" {
				f.rot(l)
			} else {
				f.copies[name].rot(l)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, 2))
			for ctx.Err() == nil {
				time.Sleep(100 * time.Microsecond) // the machine is needed for the comparison, too
				f.write(r.Int64N(200), byte(r.Uint32()))
				f.fm.Lock()
				for _, x := range f.copies {
					x.pull(r.IntN(3))
				}
				f.fm.Unlock()
			}
		})
		res, err := f.round(nil)
		cancel()
		wg.Wait()
		if err != nil || !res.Clean() {
			t.Fatalf("seed %d: %+v, %v", seed, res, err)
		}
		found := int64(0)
		for _, x := range res.Findings {
			for l := x.Off / leaf; l < (x.Off+x.Len)/leaf; l++ {
				found++
				if name := damaged[l]; name == "here" != (x.Here == verify.Repaired) || name != "here" && (len(x.Copies) != 1 || x.Copies[name] != verify.Repaired) {
					t.Errorf("seed %d: leaf %d of %q: %+v", seed, l, name, x)
				}
			}
		}
		if found != int64(len(damaged)) {
			t.Errorf("seed %d: %d of %d found", seed, found, len(damaged))
		}
		f.settle()
		for l := int64(0); l < 400; l++ {
			for name, x := range f.copies {
				if !bytes.Equal(x.get(l), f.get(l)) {
					t.Fatalf("seed %d: leaf %d of %s differs", seed, l, name)
				}
			}
			if l >= 200 && !bytes.Equal(f.get(l), filled(l, byte(1+l))) {
				t.Fatalf("seed %d: leaf %d isn't what it was", seed, l)
			}
		}
	}
}

// liar is a copy that lies about two regions, and about each of its leaves that it is asked for.
type liar struct {
	verify.Copy
	record verify.Record
}

func (x liar) Span(ctx context.Context, i int64) (verify.Sum, error) {
	_, err := x.Copy.Span(ctx, i)
	return verify.Sum{1, byte(i)}, err
}

func (x liar) Regions(ctx context.Context, i int64) ([]verify.Sum, error) {
	sums, err := x.Copy.Regions(ctx, i)
	if err == nil {
		sums[1] = verify.Sum{2}
	}
	return sums, err
}

func (x liar) Leaves(context.Context, int64) ([]verify.Sum, error) {
	return make([]verify.Sum, 2), nil
}

func (x liar) Leaf(context.Context, int64) (verify.LeafState, error) {
	return verify.LeafState{Record: x.record, Sum: verify.Sum{3}}, nil
}

// However a copy lies, the owner's disk and the other copies stay as they are.
func TestALyingCopyHarmsItselfOnly(t *testing.T) {
	for record := verify.NoRecord; record <= verify.NotAsRecorded; record++ {
		f := newFleet(t, "a", "liar")
		f.fill()
		f.disk.record(64)
		before := map[int64][]byte{}
		for _, l := range places {
			before[l] = f.get(l)
		}
		r, err := f.round(func(o *verify.Options) {
			o.Copies["liar"] = liar{o.Copies["liar"], record}
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range r.Findings {
			if x.Here != "" || len(x.Copies) != 1 || x.Copies["liar"] == "" {
				t.Fatalf("%+v", x)
			}
		}
		if len(r.Findings) < 2 || f.resends["a"] != 0 || f.mends != 0 || r.Copies["a"].Equal != diskSize || r.Copies["liar"].Equal < 0 {
			t.Errorf("%d resends, %d mends, %+v", f.resends["a"], f.mends, r.Copies["liar"])
		}
		for l, p := range before {
			if !bytes.Equal(f.get(l), p) || !bytes.Equal(f.copies["a"].get(l), p) {
				t.Errorf("leaf %d was changed", l)
			}
		}
	}
}

// A copy that fails, or of which nothing is known any more, drops out; the others and the disk itself are gone through.
func TestACopyDropsOut(t *testing.T) {
	f := newFleet(t, "a", "b", "c")
	f.fill()
	f.disk.record(4096)
	for _, x := range f.copies {
		x.rot(4096)
	}
	f.copies["b"].fail = errors.New("its disk was closed")
	f.copies["c"].unknown = true
	r := f.mustRound()
	if c := r.Copies["b"]; !errors.Is(c.Err, verify.ErrReplica) || c.Until != 0 || c.Equal != 0 {
		t.Errorf("%+v", c)
	}
	if c := r.Copies["c"]; !errors.Is(c.Err, verify.ErrDetached) || c.Until != verify.SpanSize || c.Equal != verify.SpanSize {
		t.Errorf("%+v", c)
	}
	if c := r.Copies["a"]; c.Err != nil || c.Equal != diskSize || r.Read != diskSize || !r.Clean() || len(r.Findings) != 1 {
		t.Errorf("%+v, %+v", c, r)
	}
}

// A round that was cut short goes on where it was.
func TestARoundGoesOn(t *testing.T) {
	f := newFleet(t, "a")
	f.fill()
	stop := errors.New("stop")
	at := int64(0)
	r, err := f.round(func(o *verify.Options) {
		o.Next = func(off int64, _ *verify.Result) error { at = off; return stop }
	})
	if !errors.Is(err, stop) || at != verify.SpanSize || r.Read != verify.SpanSize {
		t.Fatalf("%v, %d, %+v", err, at, r)
	}
	reads := f.reads
	r, err = f.round(func(o *verify.Options) {
		o.From = at
		o.Next = func(off int64, _ *verify.Result) error { at = off; return nil }
	})
	if err != nil || at != diskSize || r.Read != diskSize-verify.SpanSize || f.reads != reads+3 {
		t.Errorf("%v, %d, %+v, %d reads", err, at, r, f.reads-reads)
	}
}

// The end of its context ends a round, whatever it waits for, with the context's cause.
func TestARoundIsCancelled(t *testing.T) {
	cause := errors.New("enough")
	f := newFleet(t, "a")
	f.fill()
	f.copies["a"].rot(1)
	ctx, cancel := context.WithCancelCause(t.Context())
	f.wrote = func(int64) { cancel(cause) }
	key := verify.Key{1}
	s := open(t, key, f.copies["a"])
	r, err := verify.Round(ctx, verify.Options{Disk: f, Size: diskSize, Key: key, Copies: map[string]verify.Copy{"a": s}, Next: func(int64, *verify.Result) error { return ctx.Err() }})
	if !errors.Is(err, cause) || r.Copies["a"].Err != nil {
		t.Errorf("%v, %+v", err, r.Copies["a"])
	}
	if len(f.looks) != 0 {
		t.Error("a look is left")
	}
}

func TestManyFindingsAreBounded(t *testing.T) {
	f := newFleet(t, "a")
	for l := int64(0); l < 2*verify.MaxFindings+10; l += 2 {
		f.copies["a"].put(l, 3)
	}
	r := f.mustRound()
	if len(r.Findings) != verify.MaxFindings || r.MoreFindings != 5*leaf || r.Clean() {
		t.Errorf("%d findings, %d more", len(r.Findings), r.MoreFindings)
	}
}
