package vmdisk

import (
	"bytes"
	"errors"
	"testing"

	"github.com/zeebo/blake3"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// What a peer that nothing feeds lacks is told exactly, and what is written meanwhile.
func TestStandingTellsWhatAPeerLacks(t *testing.T) {
	owner, replica := looked(t)
	if _, err := owner.Standing("c"); !errors.Is(err, ErrDetached) {
		t.Errorf("of nobody: %v", err)
	}
	must(t, owner.WriteAt(blockOf(9), 5*Block, false))
	s, err := owner.Standing("b")
	must(t, err)
	must(t, owner.WriteAt(blockOf(9), 6*Block, false))
	if s.Position != replica.Position() {
		t.Errorf("it stands at %s, not %s", s.Position, replica.Position())
	}
	for x := int64(0); x < 300; x++ {
		if got := s.Lacks(x); got != (x == 5) {
			t.Errorf("block %d: %v", x, got)
		}
	}
	if s.Lacks(300) || s.Lacks(1<<40) {
		t.Error("something is lacking beyond the end")
	}
	s.Close()
	s.Close()
	a, err := replica.Apply()
	must(t, err)
	f, err := owner.Attach("b", a.State())
	must(t, err)
	if _, err := owner.Standing("b"); !errors.Is(err, ErrAttached) {
		t.Errorf("of a peer that is fed: %v", err)
	}
	f.Close()
	must(t, a.Close())
	must(t, owner.Fence())
	must(t, owner.Give(4))
	if _, err := owner.Standing("b"); !errors.Is(err, ErrInactive) {
		t.Errorf("on a disk that was given away: %v", err)
	}
}

// recorded gives a disk hashes of all that it has.
func recordAll(t *testing.T, d *Store) {
	t.Helper()
	if _, err := d.Scrub(t.Context(), ScrubOptions{Record: true}); err != nil {
		t.Fatal(err)
	}
}

func unitOf(t *testing.T, d *Store, off int64) []byte {
	t.Helper()
	p := make([]byte, min(MendUnit, d.Size()-off))
	must(t, d.ReadAt(p, off))
	return p
}

// A replica takes right content in the place of damage where it stands, and nothing else.
func TestPatchRepairsAReplicaWhereItIs(t *testing.T) {
	const off = MendUnit // blocks 16 to 31
	for _, c := range []struct {
		name                      string
		recorded, rots, wrong     bool
		doubted, elsewhere, owner bool
		want                      error
		kept                      bool // the record, afterwards
	}{
		{name: "without a record", rots: true},
		{name: "with a record", recorded: true, rots: true, kept: true},
		{name: "something else than was recorded, over what is bad", recorded: true, rots: true, wrong: true},
		{name: "something else than was recorded", recorded: true, wrong: true, want: ErrNotRecorded, kept: true},
		{name: "a record that is doubted", recorded: true, wrong: true, doubted: true},
		{name: "of another position", rots: true, elsewhere: true, want: ErrOldPosition},
		{name: "an owner", rots: true, owner: true, want: ErrActive},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, replica := looked(t)
			right := unitOf(t, replica, off)
			if c.recorded {
				recordAll(t, replica)
			}
			if c.rots {
				_, err := replica.stack.base.WriteAt([]byte("WRONG"), off+3*Block)
				must(t, err)
			}
			was, content := unitOf(t, replica, off), bytes.Clone(right)
			if c.wrong {
				content[3*Block] ^= 1
			}
			content[5*Block]++ // not one of those that are to be replaced
			at := replica.Position()
			if c.elsewhere {
				at.Barrier++
			}
			if c.owner {
				must(t, replica.Activate(9))
			}
			err := replica.Patch(Patch{At: at, Off: off, Content: content, Blocks: 1<<3 | 1<<4, Doubted: c.doubted})
			if !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			want := bytes.Clone(right)
			copy(want[3*Block:5*Block], content[3*Block:])
			if c.want != nil {
				want = was
			}
			if !bytes.Equal(unitOf(t, replica, off), want) {
				t.Error("the replica has something else")
			}
			if !c.owner && replica.Position() != at && !c.elsewhere {
				t.Error("it has moved")
			}
			sum, ok, err := replica.Recorded(off)
			must(t, err)
			if full := blake3.Sum256(right); ok != c.kept || ok && sum != [16]byte(full[:16]) {
				t.Errorf("recorded: %v", ok)
			}
		})
	}
}

func TestPatchRefusesNonsense(t *testing.T) {
	_, replica := looked(t)
	good := Patch{At: replica.Position(), Off: 0, Content: make([]byte, MendUnit), Blocks: 1}
	for name, change := range map[string]func(*Patch){
		"no blocks":             func(p *Patch) { p.Blocks = 0 },
		"not all of the unit":   func(p *Patch) { p.Content = p.Content[Block:] },
		"beside a unit":         func(p *Patch) { p.Off = Block },
		"beyond the end":        func(p *Patch) { p.Off = forkSize / MendUnit * MendUnit * 2 },
		"blocks beyond the end": func(p *Patch) { p.Off, p.Content, p.Blocks = 288*Block, make([]byte, 12*Block), 1<<12 },
	} {
		p := good
		change(&p)
		if err := replica.Patch(p); !errors.Is(err, ErrRange) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What is patched while epochs wait in the log, and then the power goes, is the same as before, and so is the position.
func TestAPatchSurvives(t *testing.T) {
	for _, how := range []vfs.Loss{vfs.LoseUnsynced, vfs.LoseSome} {
		m := vfs.NewMem()
		owner := newDisk(t, forkSize, Options{FS: vfs.NewMem(), BarrierEvery: -1, MirrorEvery: -1, SaveEvery: -1})
		replica := newReplica(t, forkSize, Options{FS: m, BarrierEvery: -1, SaveEvery: -1})
		must(t, owner.Activate(4))
		for x := int64(0); x < 100; x++ {
			must(t, owner.WriteAt(blockOf(byte(1+x)), x*Block, false))
		}
		connect(t, owner, replica, "b")()
		want, at := content(t, owner), replica.Position()
		_, err := replica.stack.base.WriteAt([]byte("WRONG"), 20*Block)
		must(t, err)
		must(t, replica.Patch(Patch{At: at, Off: MendUnit, Content: want[MendUnit : 2*MendUnit], Blocks: 1 << 4}))
		again := reopen(t, Options{FS: m.Crash(how, 3), BarrierEvery: -1, SaveEvery: -1})
		if again.Position() != at {
			t.Errorf("after the crash it is at %s, not %s", again.Position(), at)
		}
		got := content(t, again)
		if !bytes.Equal(got[20*Block:21*Block], want[20*Block:21*Block]) {
			t.Error("the patch is lost")
		}
	}
}

// wantRecords says of each unit whether a record counts, and that what counts is of what is read.
func wantRecords(t *testing.T, d *Store, counts func(off, n int64) bool) {
	t.Helper()
	for off := int64(0); off < d.Size(); off += MendUnit {
		n := min(MendUnit, d.Size()-off)
		sum, ok, err := d.Recorded(off)
		must(t, err)
		if want := counts(off, n); ok != want {
			t.Errorf("unit at %d: a record counts: %v, want %v", off, ok, want)
		}
		if !ok {
			continue
		}
		if is := blake3.Sum256(unitOf(t, d, off)); [16]byte(is[:16]) != sum {
			t.Errorf("unit at %d: the record is of something else", off)
		}
	}
}

// A record is of base.raw: where a layer has something, or a block is stale, none counts. What is read here of a disk that hydrates isn't waited for, and the
// rest of it can be mended and looked at.
func TestLayersAndRecords(t *testing.T) {
	g := newLagging(t, 3)
	recordAll(t, g.d)
	had := func(off, n int64) bool {
		r, _, err := g.d.hashes.read(uint32(off / regionSize))
		must(t, err)
		return r != nil
	}
	clean := func(set func(x int64) bool) func(off, n int64) bool {
		return func(off, n int64) bool {
			for x := off / Block; x < (off+n)/Block; x++ {
				if set(x) {
					return false
				}
			}
			return had(off, n)
		}
	}
	wantRecords(t, g.d, had)
	g.lack(t)
	must(t, g.d.Activate(2))
	wantRecords(t, g.d, clean(g.stale.Has))
	got := make([]byte, hydraSize)
	must(t, g.d.ReadHere(got, 0))
	for x := int64(0); x < hydraSize/Block; x++ {
		want := g.newest[x*Block : (x+1)*Block]
		if g.stale.Has(x) {
			want = make([]byte, Block)
		}
		if !bytes.Equal(got[x*Block:(x+1)*Block], want) {
			t.Fatalf("block %d reads as something else", x)
		}
	}
	look, err := g.d.Look()
	must(t, err)
	defer look.Close()
	// What isn't stale can be mended.
	mended := int64(0)
	for off := int64(0); off < hydraSize; off += MendUnit {
		n := min(MendUnit, hydraSize-off)
		if !clean(g.stale.Has)(off, n) || !bytes.Equal(unitOf(t, g.d, off), g.old[off:off+n]) {
			continue
		}
		right := unitOf(t, g.d, off)
		_, err := g.d.stack.base.WriteAt([]byte("WRONG"), off)
		must(t, err)
		must(t, g.d.Mend(right, off))
		if !bytes.Equal(unitOf(t, g.d, off), right) {
			t.Fatal("it wasn't mended")
		}
		mended++
	}
	if mended == 0 {
		t.Error("nothing could be mended")
	}
	if w, err := look.Written(0, hydraSize); w || err != nil {
		t.Errorf("mending counts as writing: %v, %v", w, err)
	}
	must(t, g.d.Hydrate(t.Context(), g.src))
	has := g.d.stack.layers
	if len(has) == 0 {
		t.Fatal("the layers are merged already")
	}
	wantRecords(t, g.d, clean(func(x int64) bool { return has[0].Has(x) || has[1].Has(x) }))
	mergeAll(t, g.d)
	same(t, g.d, g.newest)
	wantRecords(t, g.d, had)
}
