package verify_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"tagalong.org/tagalong/p2p/verify"
	"tagalong.org/tagalong/p2p/wire/wiretest"
)

// lacking is what a copy doesn't have yet of a leaf.
type lacking struct {
	leaf   int64
	blocks verify.Mask
}

// pinned is a follower's disk as it is now; tests don't move it meanwhile.
type pinned struct {
	*disk
	at verify.Position
}

func (p pinned) Position() verify.Position { return p.at }
func (p pinned) Close() error              { return nil }

func (x *follower) Pin(context.Context) (verify.Pinned, error) {
	if x.pins != nil {
		x.pins()
	}
	return pinned{x.disk, x.Position()}, nil
}

func (x *follower) Patch(p verify.Patch) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	was := filled(p.Leaf, 0)
	copy(was, x.leaves[p.Leaf])
	is := bytes.Clone(was)
	for k := 0; k < len(is)/4096; k++ {
		if p.Without>>k&1 == 0 {
			copy(is[k*4096:(k+1)*4096], p.Content[k*4096:])
		}
	}
	want, ok := x.recorded[p.Leaf]
	switch {
	case p.At != x.position:
		return fmt.Errorf("at %v: %w", x.position, verify.ErrKept)
	case ok && hash(was) == want && hash(is) != want && !x.broken[p.Leaf] && !p.Doubted:
		return fmt.Errorf("as recorded: %w", verify.ErrKept)
	case ok && hash(is) != want:
		delete(x.recorded, p.Leaf)
	}
	x.patched++
	if !x.deaf {
		x.leaves[p.Leaf] = is
		delete(x.broken, p.Leaf)
	}
	return nil
}

// lag is where a follower stood.
type lag struct {
	at    verify.Position
	lacks map[int64]verify.Mask
}

func (l lag) Position() verify.Position            { return l.at }
func (l lag) Lacks(leaf int64) verify.Mask         { return l.lacks[leaf] }
func (l lag) Close()                               {}
func (f *fleet) Heard(n string, _ verify.Position) { f.copies[n].heard() }

func (f *fleet) Lag(name string) (verify.Lag, error) {
	f.fm.Lock()
	defer f.fm.Unlock()
	x := f.copies[name]
	switch {
	case x.unknown:
		return nil, fmt.Errorf("%s: %w", name, verify.ErrDetached)
	case !x.detached:
		return nil, nil
	}
	l := lag{x.Position(), map[int64]verify.Mask{}}
	if x.told != nil {
		l.at = *x.told
	}
	for _, q := range x.lacks {
		l.lacks[q.leaf] |= q.blocks
	}
	return l, nil
}

// heard says that the owner knows where the follower is.
func (x *follower) heard() {
	if !x.stubborn {
		x.told = nil
	}
}

// writeBlocks is the guest's, of single blocks.
func (f *fleet) writeBlocks(l int64, which verify.Mask, c byte) {
	f.fm.Lock()
	defer f.fm.Unlock()
	set := func(d *disk) {
		d.mu.Lock()
		defer d.mu.Unlock()
		p := filled(l, 0)
		copy(p, d.leaves[l])
		for k := range len(p) / 4096 {
			if which>>k&1 == 1 {
				copy(p[k*4096:], bytes.Repeat([]byte{c}, 4096))
			}
		}
		d.leaves[l] = p
		delete(d.recorded, l)
	}
	set(f.disk)
	for k := range f.looks {
		k.written[l] = true
	}
	for _, x := range f.copies {
		x.queue = append(x.queue, func() { set(x.disk) })
		x.lacks = append(x.lacks, lacking{l, which})
		x.seq++
		x.last[l] = x.seq
	}
}

// far is a fleet whose copy "a" stands still, some blocks behind, and "c", if there is one, keeps up.
func far(t *testing.T, others ...string) (f *fleet, a *follower) {
	f = newFleet(t, append(others, "a")...)
	f.fill()
	a = f.copies["a"]
	a.detached = true
	f.writeBlocks(1, 0b1010, 'n')
	f.write(4096, 'n')
	f.writeBlocks(lastLeaf, 0b100, 'n')
	for _, name := range others {
		f.copies[name].pull(3)
	}
	return f, a
}

const farBehind = 2*4096 + leaf + 4096

// What a copy lacks where it stands is no damage, and nothing moves it.
func TestACopyThatStandsIsCompared(t *testing.T) {
	f, a := far(t)
	before := a.get(1)
	r := f.mustRound()
	if c := r.Copies["a"]; len(r.Findings) > 0 || !c.Through(diskSize) || c.Behind != farBehind || c.Equal != diskSize-farBehind || c.Busy != 0 {
		t.Errorf("%+v, %+v", r.Findings, c)
	}
	if len(a.queue) != 3 || !bytes.Equal(a.get(1), before) || a.patched != 0 {
		t.Error("the copy was moved")
	}
}

// Damage in it is found, also beside a block that it lacks, and repaired there and then, if the owner's side is proven to be right.
func TestACopyThatStandsIsRepaired(t *testing.T) {
	for _, l := range []int64{0, 1, 4095, lastLeaf} {
		for how, c := range map[string]struct {
			owner, copy, third, deaf bool
			want                     verify.Outcome
		}{
			"nobody knows":       {want: verify.Undecided},
			"the owner's record": {owner: true, want: verify.Repaired},
			"the copy's record":  {copy: true, want: verify.Repaired},
			"a third":            {third: true, want: verify.Repaired},
			"a bad drive":        {owner: true, deaf: true, want: verify.Stuck},
		} {
			t.Run(fmt.Sprintf("%s/%d", how, l), func(t *testing.T) {
				var others []string
				if c.third {
					others = []string{"c"}
				}
				f, a := far(t, others...)
				f.recordIf(c.owner, f.disk, l)
				f.recordIf(c.copy, a.disk, l)
				a.deaf = c.deaf
				was := a.get(l)
				// A byte of a block that the copy has.
				a.leaves[l] = bytes.Clone(was)
				a.leaves[l][100] ^= 1
				bad := a.get(l)
				r := f.mustRound()
				if len(r.Findings) != 1 || r.Findings[0].Off != l*leaf || r.Findings[0].Copies["a"] != c.want || r.Findings[0].Here != "" || len(r.Findings[0].Copies) != 1 {
					t.Fatalf("%+v", r.Findings)
				}
				want := was
				if c.want != verify.Repaired {
					want = bad
				}
				if !bytes.Equal(a.get(l), want) {
					t.Error("the copy isn't what it should be")
				}
				if r.Clean() != (c.want == verify.Repaired) || r.Copies["a"].Through(diskSize) != r.Clean() {
					t.Errorf("%+v", r.Copies["a"])
				}
				// What it lacks comes later, as always.
				a.pull(len(a.queue))
				if c.want == verify.Repaired && !bytes.Equal(a.get(l), f.get(l)) {
					t.Error("it doesn't become what the owner's disk is")
				}
			})
		}
	}
}

// A copy's good block is never replaced by a bad one, and the owner gets back from it what it has lost.
func TestACopyThatStandsIsRight(t *testing.T) {
	for _, recorded := range []bool{false, true} {
		f, a := far(t)
		f.recordIf(recorded, f.disk, 64)
		a.record(64)
		right := f.get(64)
		f.rot(64)
		r := f.mustRound()
		want := verify.Finding{Off: 64 * leaf, Len: leaf, Copies: map[string]verify.Outcome{"a": verify.Better}}
		if recorded {
			want.Here, want.Copies = verify.Repaired, map[string]verify.Outcome{}
		}
		if len(r.Findings) != 1 || fmt.Sprint(r.Findings[0]) != fmt.Sprint(want) {
			t.Errorf("recorded %v: %+v", recorded, r.Findings)
		}
		if !bytes.Equal(a.get(64), right) || bytes.Equal(f.get(64), right) != recorded {
			t.Errorf("recorded %v: changed wrongly", recorded)
		}
	}
}

// The copy's own record has the last word, whatever the owner has seen before it sent.
func TestAPatchRespectsTheCopysRecord(t *testing.T) {
	f, a := far(t)
	f.disk.record(64)
	a.rot(64)
	n := 0
	a.pins = func() {
		if n++; n == 1 {
			return // the owner sees damage without a record
		}
		a.record(64)
	}
	a.pins()
	bad := a.get(64)
	r := f.mustRound()
	if len(r.Findings) != 1 || r.Clean() || !bytes.Equal(a.get(64), bad) {
		t.Errorf("%+v", r.Findings)
	}
}

// A push that comes in between: nothing is reported that isn't damage, and the comparison goes on where the copy is then.
func TestACopyMovesMeanwhile(t *testing.T) {
	for _, knows := range []bool{true, false} {
		f, a := far(t)
		f.disk.record(64)
		a.rot(64)
		stood := a.Position()
		moved := false
		a.pins = func() {
			if !moved {
				moved = true
				f.fm.Lock()
				a.pull(3)
				f.fm.Unlock()
				a.told = &stood
			}
		}
		if !knows {
			a.pins, a.told = nil, &stood
			a.pull(3)
			a.stubborn = true
		}
		r := f.mustRound()
		c := r.Copies["a"]
		switch {
		case knows && (len(r.Findings) != 1 || r.Findings[0].Copies["a"] != verify.Repaired || !c.Through(diskSize)):
			t.Errorf("%+v, %+v", r.Findings, c)
		case !knows && (len(r.Findings) != 0 || c.Busy == 0):
			t.Errorf("where the copy is isn't known: %+v, %+v", r.Findings, c)
		}
	}
}

// Two copies at different places, each behind in its own way, and a guest that writes all the while: what isn't damaged isn't reported, what is is found.
func TestCopiesThatStandWhileTheGuestWrites(t *testing.T) {
	for seed := range uint64(20) {
		f := newFleet(t, "a", "b", "c")
		f.fill()
		r := rand.New(rand.NewPCG(seed, 1))
		f.copies["a"].detached, f.copies["b"].detached = true, true
		write := func() {
			f.writeBlocks(places[r.IntN(len(places))], verify.Mask(1<<r.IntN(3)), byte(r.Uint32()))
		}
		for range 10 {
			write()
			f.fm.Lock()
			f.copies["b"].pull(r.IntN(2))
			f.fm.Unlock()
		}
		f.wrote = func(int64) {
			if r.IntN(4) == 0 {
				write()
			}
		}
		f.copies["a"].rot(200)
		f.copies["b"].rot(200)
		f.copies["b"].leaves[200][1] ^= 8
		f.disk.record(200)
		f.copies["c"].rot(300) // zeros elsewhere
		f.disk.record(300)
		got := f.mustRound()
		want := []verify.Finding{
			{Off: 200 * leaf, Len: leaf, Copies: map[string]verify.Outcome{"a": verify.Repaired, "b": verify.Repaired}},
			{Off: 300 * leaf, Len: leaf, Copies: map[string]verify.Outcome{"c": verify.Repaired}},
		}
		if fmt.Sprint(got.Findings) != fmt.Sprint(want) {
			t.Errorf("seed %d: %+v", seed, got.Findings)
		}
		for name, c := range got.Copies {
			if !c.Through(diskSize) {
				t.Errorf("seed %d: %s: %+v", seed, name, c)
			}
		}
		f.settle()
		for _, l := range append([]int64{200, 300}, places...) {
			for name, x := range f.copies {
				if !bytes.Equal(x.get(l), f.get(l)) {
					t.Errorf("seed %d: %s differs in leaf %d", seed, name, l)
				}
			}
		}
	}
}

// Nothing is known of a copy, or its program is too old: it is left out, and the round goes on.
func TestACopyThatCantBeComparedStanding(t *testing.T) {
	f, a := far(t, "c")
	a.unknown = true
	a.rot(64)
	r := f.mustRound()
	if r.Copies["a"].Err == nil || !r.Copies["c"].Through(diskSize) {
		t.Errorf("%+v", r.Copies["a"])
	}
	f, a = far(t)
	r, err := f.round(func(o *verify.Options) {
		c, b := wiretest.Pipe(t)
		served := make(chan error, 1)
		go func() {
			served <- verify.Serve(t.Context(), b, func(h verify.Hello) (verify.Replica, verify.State, error) {
				if h.Version != 1 {
					t.Error("another version")
				}
				return a, verify.State{Complete: true}, nil
			})
		}()
		h := hello(o.Key)
		h.Version = 1
		s, _, err := verify.Open(t.Context(), c, h)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close(); <-served })
		o.Copies["a"] = s
	})
	if err != nil || r.Copies["a"].Err == nil {
		t.Errorf("%+v, %v", r.Copies["a"], err)
	}
}
