package vmdisk

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"

	"tagalong.org/tagalong/vmdisk/vfs"
)

var compareSeeds = flag.Uint64("compare.seeds", 20, "how many seeds TestCompareCrashes tries")

// fork is two disks whose histories parted: a, the owner of term 4, wrote on after b had taken over as term 200000.
type fork struct {
	t      *testing.T
	am, bm *vfs.Mem
	a, b   *Store
}

const (
	forkSize = 300 * Block
	forkTerm = 200000
)

func newFork(t *testing.T) *fork {
	t.Helper()
	k := &fork{t: t, am: vfs.NewMem(), bm: vfs.NewMem()}
	k.a = newDisk(t, forkSize, behindOptions(k.am))
	k.b = newReplica(t, forkSize, behindOptions(k.bm))
	must(t, k.a.Activate(4))
	for x := int64(0); x < 200; x++ {
		must(t, k.a.WriteAt(bytes.Repeat([]byte{byte(1 + x)}, Block), x*Block, false))
	}
	connect(t, k.a, k.b, "b")()
	if !bytes.Equal(content(t, k.a), content(t, k.b)) {
		t.Fatal("the disks aren't equal before they part")
	}
	must(t, k.b.Activate(forkTerm))
	must(t, k.a.WriteAt(blockOf(0xa1), 10*Block, false))
	must(t, k.a.WriteAt(blockOf(0xa2), 250*Block, false))
	must(t, k.a.Zero(20*Block, 2*Block, true, false))
	must(t, k.b.WriteAt(blockOf(0xb1), 11*Block, false))
	must(t, k.b.WriteAt(blockOf(0xb2), 260*Block, false))
	must(t, k.b.Flush())
	must(t, k.a.Fence())
	must(t, k.a.Give(4))
	return k
}

// forked are the blocks that newFork makes differ.
var forked = []int64{10, 11, 20, 21, 250, 260}

// connect moves all that the replica r, called name, lacks; it returns what ends that.
func connect(t *testing.T, owner, r *Store, name string) (end func()) {
	t.Helper()
	a, err := r.Apply()
	must(t, err)
	f, err := owner.Attach(name, a.State())
	if err != nil {
		_ = a.Close()
		t.Fatal(err)
	}
	pump(t, f, a)
	return func() {
		f.Close()
		must(t, a.Close())
	}
}

// compareAll finds out, block by block, what r lacks.
func compareAll(c *Comparison, r Reader) error {
	mine, theirs := make([]byte, Block), make([]byte, Block)
	for off, n := c.Next(0); n > 0; off, n = c.Next(off + Block) {
		if err := errors.Join(c.ReadAt(mine, off), r.ReadAt(theirs, off)); err != nil {
			return err
		}
		if bytes.Equal(mine, theirs) {
			if err := c.Equal(off, Block); err != nil {
				return err
			}
		}
	}
	return nil
}

// lacks are the blocks that the owner takes for missing at a peer.
func lacks(d *Store, peer string) (out []int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	set := d.peers[peer].dirty()
	for x := set.Next(0, true); x < d.blocks(); x = set.Next(x+1, true) {
		out = append(out, x)
	}
	return out
}

// After a fork a comparison finds exactly what differs; that comes to the loser in one step, and nothing else.
func TestCompareFork(t *testing.T) {
	k := newFork(t)
	state := k.a.ReplicaState()
	if _, err := k.b.Attach("a", state); !errors.Is(err, ErrDiverged) {
		t.Fatalf("the loser may attach before it was compared: %v", err)
	}
	if !k.b.WorthComparing("a", state) {
		t.Fatal("not worth comparing")
	}
	c, err := k.b.Compare("a", state)
	must(t, err)
	if _, err := k.b.Attach("a", state); !errors.Is(err, ErrAttached) {
		t.Fatalf("attached during the comparison: %v", err)
	}
	if _, err := k.b.Compare("a", state); !errors.Is(err, ErrAttached) {
		t.Fatalf("two comparisons at once: %v", err)
	}
	if p := k.b.Peers()[0]; p.Phase != Comparing || p.Remaining != forkSize {
		t.Fatalf("%+v", p)
	}
	must(t, compareAll(c, k.a))
	must(t, c.Finish())
	if got := lacks(k.b, "a"); fmt.Sprint(got) != fmt.Sprint(forked) {
		t.Fatalf("differ: %v, want %v", got, forked)
	}
	if k.b.WorthComparing("a", state) {
		t.Fatal("worth comparing again")
	}
	old := content(t, k.a)
	a, err := k.a.Apply()
	must(t, err)
	f, err := k.b.Attach("a", a.State())
	must(t, err)
	sent := int64(0)
	for {
		op, err := f.poll()
		must(t, err)
		if op == nil {
			break
		}
		if op.Kind == OpWrite || op.Kind == OpZero {
			sent += op.Len
		}
		barrier := op.Kind == OpBarrier
		ack, err := feedTo(a, op)
		must(t, err)
		f.Acked(ack)
		if !barrier && !bytes.Equal(content(t, k.a), old) {
			t.Fatal("the loser's disk changed before the barrier")
		}
	}
	if want := int64(len(forked)) * Block; sent != want {
		t.Fatalf("%d bytes sent, want %d", sent, want)
	}
	if !bytes.Equal(content(t, k.a), content(t, k.b)) || k.a.Position() != k.b.Position() {
		t.Fatalf("loser at %s, winner at %s", k.a.Position(), k.b.Position())
	}
}

// What is written during a comparison is sent, also if it was found equal before or after.
func TestCompareWhileWriting(t *testing.T) {
	k := newFork(t)
	c, err := k.b.Compare("a", k.a.ReplicaState())
	must(t, err)
	must(t, k.b.WriteAt(blockOf(0xc1), 5*Block, false))
	must(t, compareAll(c, k.a))
	must(t, k.b.WriteAt(blockOf(0xc2), 6*Block, false))
	// The reader is late: what it read of these blocks is older than the writes.
	must(t, c.Equal(5*Block, Block))
	must(t, c.Equal(0, 8*Block))
	must(t, c.Finish())
	want := "[5 6 10 11 20 21 250 260]"
	if got := fmt.Sprint(lacks(k.b, "a")); got != want {
		t.Fatalf("differ: %s, want %s", got, want)
	}
	if err := c.Equal(0, Block); !errors.Is(err, ErrDetached) {
		t.Fatalf("after its end: %v", err)
	}
	connect(t, k.b, k.a, "a")()
	if !bytes.Equal(content(t, k.a), content(t, k.b)) {
		t.Fatal("not equal")
	}
}

// A foreign position is accepted only where it was compared, and nowhere else.
func TestCompareAcceptsOnlyWhatItSaw(t *testing.T) {
	k := newFork(t)
	state := k.a.ReplicaState()
	c, err := k.b.Compare("a", state)
	must(t, err)
	must(t, compareAll(c, k.a))
	must(t, c.Finish())
	for _, bad := range []ReplicaState{
		{Disk: state.Disk, Complete: true, Position: Position{state.Position.Term, state.Position.Barrier + 1}},
		{Disk: state.Disk, Complete: true, Position: Position{state.Position.Term + 1, 1}},
		{Disk: state.Disk, Complete: true, Position: Position{forkTerm, 1 << 40}},
		{Disk: state.Disk, Complete: true, Position: Position{forkTerm + 1, 1}},
	} {
		if _, err := k.b.Attach("a", bad); !errors.Is(err, ErrDiverged) {
			t.Fatalf("%s: %v", bad.Position, err)
		}
		if _, err := k.b.Attach("other", bad); !errors.Is(err, ErrDiverged) {
			t.Fatalf("%s as another: %v", bad.Position, err)
		}
	}
	if _, err := k.b.Attach("other", state); !errors.Is(err, ErrDiverged) {
		t.Fatalf("another peer at that position: %v", err)
	}
	// Barriers of this term couldn't lead on from these.
	for _, bad := range []Position{{forkTerm, 1 << 40}, {forkTerm + 1, 1}} {
		if _, err := k.b.Compare("a", ReplicaState{Disk: state.Disk, Complete: true, Position: bad}); !errors.Is(err, ErrDiverged) {
			t.Fatalf("compared at %s: %v", bad, err)
		}
	}
	if _, err := k.b.Compare("a", ReplicaState{Disk: state.Disk}); !errors.Is(err, ErrIncomplete) {
		t.Fatalf("a part: %v", err)
	}
	if _, err := k.b.Compare("a", ReplicaState{Disk: ID{9}, Complete: true}); !errors.Is(err, ErrWrongDisk) {
		t.Fatalf("another disk: %v", err)
	}
}

// A peer that moves during or after the comparison is compared again, not taken for what it was.
func TestComparePeerMoves(t *testing.T) {
	k := newFork(t)
	c, err := k.b.Compare("a", k.a.ReplicaState())
	must(t, err)
	must(t, compareAll(c, k.a))
	must(t, c.Finish())
	// The loser becomes something else: it writes under a term of its own.
	must(t, k.a.Activate(5))
	must(t, k.a.WriteAt(blockOf(0xdd), 30*Block, true))
	must(t, k.a.Fence())
	must(t, k.a.Give(5))
	if _, err := k.b.Attach("a", k.a.ReplicaState()); !errors.Is(err, ErrDiverged) {
		t.Fatalf("attached: %v", err)
	}
	c, err = k.b.Compare("a", k.a.ReplicaState())
	must(t, err)
	if n := c.Remaining(); n != forkSize {
		t.Fatalf("%d bytes are to be compared again", n)
	}
	must(t, compareAll(c, k.a))
	must(t, c.Finish())
	connect(t, k.b, k.a, "a")()
	if !bytes.Equal(content(t, k.a), content(t, k.b)) {
		t.Fatal("not equal")
	}
}

// What was found out before a comparison was cut short counts, also after a restart; so does all of it after Finish.
func TestCompareGoesOn(t *testing.T) {
	k := newFork(t)
	c, err := k.b.Compare("a", k.a.ReplicaState())
	must(t, err)
	must(t, c.Equal(100*Block, 100*Block))
	c.Close()
	must(t, k.b.Save())
	must(t, k.b.Close())
	k.b = reopen(t, behindOptions(k.bm))
	must(t, k.b.Activate(forkTerm))
	if got := len(lacks(k.b, "a")); got != 200 || !k.b.peers["a"].guessed {
		t.Fatalf("after a restart %d blocks are left, as a guess: %t", got, k.b.peers["a"].guessed)
	}
	must(t, k.b.WriteAt(blockOf(0xee), 150*Block, false))
	k.restart(vfs.LoseUnsynced, 1)
	must(t, k.b.Activate(forkTerm))
	c, err = k.b.Compare("a", k.a.ReplicaState())
	must(t, err)
	// The activity log has its region, which is the whole disk here: all counts as written.
	if n := c.Remaining(); n != forkSize {
		t.Fatalf("%d bytes are to be compared after a crash", n)
	}
	must(t, compareAll(c, k.a))
	must(t, c.Finish())
	want := lacks(k.b, "a")
	must(t, k.b.Close())
	k.b = reopen(t, behindOptions(k.bm))
	must(t, k.b.Activate(forkTerm))
	if k.b.peers["a"].guessed {
		t.Fatal("what was compared is a guess after a restart")
	}
	if got := lacks(k.b, "a"); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("after a restart: %v, want %v", got, want)
	}
	connect(t, k.b, k.a, "a")()
	if !bytes.Equal(content(t, k.a), content(t, k.b)) {
		t.Fatal("not equal")
	}
}

// restart crashes the winner.
func (k *fork) restart(loss vfs.Loss, seed uint64) {
	k.t.Helper()
	k.bm = k.bm.Crash(loss, seed)
	_ = k.b.Close()
	k.b = reopen(k.t, behindOptions(k.bm))
}

// What was compared goes with a hand-off: the next owner accepts the loser where it is, and the loser itself knows what it lacks.
func TestCompareTravels(t *testing.T) {
	k := newFork(t)
	nm := vfs.NewMem()
	next := newReplica(t, forkSize, behindOptions(nm))
	connect(t, k.b, next, "next")()
	c, err := k.b.Compare("a", k.a.ReplicaState())
	must(t, err)
	must(t, compareAll(c, k.a))
	must(t, c.Finish())
	must(t, k.b.Fence())
	must(t, k.b.Give(forkTerm))
	sets, err := k.b.ExportDirty()
	must(t, err)
	stale, at, err := k.a.StaleIn(sets, "a")
	must(t, err)
	if at != k.b.Position() || len(stale) == 0 {
		t.Fatalf("the loser lacks %d bytes of set at %s", len(stale), at)
	}
	must(t, next.ImportDirty(sets, "next"))
	must(t, next.Activate(forkTerm+1))
	if got := lacks(next, "a"); fmt.Sprint(got) != fmt.Sprint(forked) {
		t.Fatalf("the next owner thinks that it lacks %v", got)
	}
	connect(t, next, k.a, "a")()
	if !bytes.Equal(content(t, k.a), content(t, next)) {
		t.Fatal("not equal")
	}
}

// TestCompareCrashes cuts the power of both at any call from the comparison to the last barrier, with writes between: the
// loser is its old disk or the winner's at a barrier, never a mixture, and both come together in the end.
func TestCompareCrashes(t *testing.T) {
	for seed := range *compareSeeds {
		r := rand.New(rand.NewPCG(seed, 7))
		k := newFork(t)
		was := map[Position][]byte{k.a.Position(): content(t, k.a)}
		stop := r.IntN(90)
		strike := func(loss vfs.Loss) {
			k.restart(loss, seed)
			must(t, k.b.Activate(forkTerm))
			k.record(was)
		}
		for round := range 12 {
			if round%3 == 2 {
				strike(vfs.Loss(1 + r.IntN(2)))
			}
			k.am.FailAt(0, nil, false)
			if stop -= k.attempt(r, stop, was); stop <= 0 {
				stop = r.IntN(90)
				k.am = k.am.Crash(vfs.LoseSome, seed)
				_ = k.a.Close()
				k.a = reopen(t, behindOptions(k.am))
				want, known := was[k.a.Position()]
				if got := content(t, k.a); !known || !bytes.Equal(got, want) {
					t.Fatalf("seed %d, round %d: the loser at %s is neither disk", seed, round, k.a.Position())
				}
			}
		}
		if _, err := k.run(nil, -1, was); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if !bytes.Equal(content(t, k.a), content(t, k.b)) {
			t.Fatalf("seed %d: not equal", seed)
		}
		_ = k.a.Close()
		_ = k.b.Close()
	}
}

// record notes what the winner is at its position, if that is new: nothing was written since.
func (k *fork) record(was map[Position][]byte) {
	if pos := k.b.Position(); was[pos] == nil {
		was[pos] = content(k.t, k.b)
	}
}

// attempt brings the loser up to date, for at most n operations; it says how many there were.
func (k *fork) attempt(r *rand.Rand, n int, was map[Position][]byte) int {
	k.t.Helper()
	done, err := k.run(r, n, was)
	if err != nil {
		k.t.Fatal(err)
	}
	return done
}

// run compares if that is worth it, then moves up to n operations, or all if n is negative. With r the winner writes at random meanwhile.
func (k *fork) run(r *rand.Rand, n int, was map[Position][]byte) (int, error) {
	write := func() {
		if r != nil && r.IntN(4) == 0 {
			must(k.t, k.b.WriteAt(blockOf(byte(r.IntN(256))), r.Int64N(forkSize/Block)*Block, r.IntN(3) == 0))
			k.record(was)
		}
	}
	done := 0
	if k.b.WorthComparing("a", k.a.ReplicaState()) {
		c, err := k.b.Compare("a", k.a.ReplicaState())
		if err != nil {
			return done, err
		}
		mine, theirs := make([]byte, Block), make([]byte, Block)
		for off, left := c.Next(0); left > 0; off, left = c.Next(off + Block) {
			must(k.t, errors.Join(c.ReadAt(mine, off), k.a.ReadAt(theirs, off)))
			write()
			if bytes.Equal(mine, theirs) {
				must(k.t, c.Equal(off, Block))
			}
			if r != nil && r.IntN(500) == 0 {
				c.Close()
				return 1, nil
			}
		}
		if err := c.Finish(); err != nil {
			return done, err
		}
	}
	a, err := k.a.Apply()
	if err != nil {
		return done, err
	}
	f, err := k.b.Attach("a", a.State())
	if err != nil {
		return done, errors.Join(err, a.Close())
	}
	defer f.Close()
	for ; done != n; done++ {
		op, err := f.poll()
		k.record(was)
		if err != nil || op == nil {
			return done, errors.Join(err, a.Close())
		}
		write()
		ack, err := feedTo(a, op)
		if err != nil {
			return done, err
		}
		f.Acked(ack)
	}
	return done, nil // the applier stays open: this is the crash
}
