package vmdisk

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"tagalong.org/tagalong/vmdisk/blockset"
	"tagalong.org/tagalong/vmdisk/vfs"
)

const trailBlocks = 64

// trailRun is an owner and a replica that follows it live, and what the disk was at positions at which something looked.
type trailRun struct {
	t      *testing.T
	r      *rand.Rand
	owner  *Store
	rep    *Store
	feed   *Feed
	app    *Applier
	now    time.Time
	was    map[Position][]byte
	places []Position
	// after has the blocks that were written after each of the places.
	after map[Position]*blockset.Set
}

func newTrailRun(t *testing.T, seed uint64) *trailRun {
	x := &trailRun{t: t, r: rand.New(rand.NewPCG(seed, 8)), now: time.Unix(1e9, 0), was: map[Position][]byte{}, after: map[Position]*blockset.Set{}}
	o, ro := quiet(vfs.NewMem()), quiet(vfs.NewMem())
	o.now = func() time.Time { return x.now }
	ro.now = o.now
	x.owner, x.rep, x.feed, x.app = pairOf(t, trailBlocks*Block, o, ro)
	return x
}

func (x *trailRun) write() {
	a := x.r.Int64N(trailBlocks)
	if x.r.IntN(3) > 0 {
		a %= 8
	}
	must(x.t, x.owner.WriteAt(blockOf(byte(x.r.Uint32())), a*Block, false))
	for _, s := range x.after {
		s.Add(a, a+1)
	}
	x.now = x.now.Add(time.Duration(x.r.IntN(20)) * time.Second)
}

// cut takes a cut and remembers it.
func (x *trailRun) cut(d *Store) *Cut {
	c, err := d.Cut(x.t.Context())
	must(x.t, err)
	b := make([]byte, d.Size())
	must(x.t, c.ReadAt(b, 0))
	if _, ok := x.was[c.Position()]; !ok {
		x.was[c.Position()] = b
		x.places = append(x.places, c.Position())
	} else if !bytes.Equal(b, x.was[c.Position()]) {
		x.t.Fatalf("two disks at %v differ", c.Position())
	}
	return c
}

// covers makes sure that where the disk differs from what it was at pos is in the set.
func (x *trailRun) covers(what string, set *blockset.Set, pos Position, content []byte) {
	x.t.Helper()
	for b := range int64(trailBlocks) {
		if !bytes.Equal(content[b*Block:(b+1)*Block], x.was[pos][b*Block:(b+1)*Block]) && !set.Has(b) {
			x.t.Fatalf("%s: block %d was written after %v, and isn't told", what, b, pos)
		}
	}
}

// What a trail says was written since a position has all that was, on an owner and on a replica, through marks that are joined; and between two cuts that
// are remembered it has nothing else.
func TestTrail(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			x := newTrailRun(t, seed)
			known, exact := 0, 0
			for range 400 {
				switch x.r.IntN(12) {
				case 0, 1:
					pump(t, x.feed, x.app)
				case 2:
					must(t, x.owner.Flush())
				case 3, 4:
					d, name := x.owner, "owner"
					if x.r.IntN(2) == 0 {
						d, name = x.rep, "replica"
						pump(t, x.feed, x.app)
					}
					c := x.cut(d)
					x.after[c.Position()] = blockset.New(trailBlocks)
					x.write() // isn't of the cut
					for range 3 {
						from := x.places[x.r.IntN(len(x.places))]
						if from.Compare(c.Position()) > 0 {
							continue
						}
						if set, ok := c.Since(from); ok {
							known++
							x.covers(name, set, from, x.was[c.Position()])
							if set.Count() <= x.after[from].Count() {
								exact++
							}
						}
					}
					if _, ok := c.Since(Position{}); ok {
						t.Fatal("it is known what was written since nobody knows when")
					}
					must(t, c.Close())
				default:
					x.write()
				}
				if n := len(x.owner.trail.marks); n > trailMarks {
					t.Fatalf("%d marks", n)
				}
			}
			if known < 50 || exact < known/3 {
				t.Errorf("known %d times, exactly %d times", known, exact)
			}
		})
	}
}

// Straight from one cut to the next, what is told is what was written between them.
func TestTrailBetweenCutsIsExact(t *testing.T) {
	x := newTrailRun(t, 1)
	var last *Cut
	for i := range int64(20) {
		must(t, x.owner.WriteAt(blockOf(byte(i)), i*Block, false))
		x.now = x.now.Add(time.Hour)
		must(t, x.owner.Flush())
		pump(t, x.feed, x.app)
		d := []*Store{x.owner, x.rep}[i%2]
		c, err := d.Cut(t.Context())
		must(t, err)
		must(t, x.owner.WriteAt(blockOf(77), 60*Block, false))
		if last != nil && last.d == d {
			set, ok := c.Since(last.Position())
			if !ok || set.Count() > 4 || !set.Has(i) || !set.Has(i-1) {
				t.Fatalf("%d: %v, %d blocks", i, ok, set.Count())
			}
		}
		must(t, c.Close())
		if i%3 == 0 {
			last = c
		}
	}
}

// A peer to which others brought cuts: what is known to be lacking there gets less, never too little.
func TestReached(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			x := newTrailRun(t, seed)
			disk := ReplicaState{Disk: x.owner.ID(), Complete: true}
			shrunk := 0
			for range 120 {
				for range x.r.IntN(5) {
					x.write()
				}
				pump(t, x.feed, x.app)
				d := []*Store{x.owner, x.rep}[x.r.IntN(2)]
				c := x.cut(d)
				must(t, c.Close())
				for range x.r.IntN(9) {
					x.write()
				}
				// Now and then it has lost what it had.
				disk.Position = x.places[max(0, len(x.places)-1-x.r.IntN(3))]
				must(t, x.owner.Reached("far", disk))
				lag, ok := x.owner.Lag("far")
				if !ok || lag.Acked != disk.Position {
					t.Fatalf("known to be at %v, it is at %v", lag.Acked, disk.Position)
				}
				set := blockset.New(trailBlocks)
				for a, n := range lag.Runs() {
					set.Add(int64(a), int64(a+n))
				}
				if set.Count() < trailBlocks {
					shrunk++
				}
				now := make([]byte, trailBlocks*Block)
				must(t, x.owner.ReadAt(now, 0))
				x.covers("lag", set, disk.Position, now)
				lag.Release()
			}
			if shrunk < 60 {
				t.Errorf("only %d times less than everything was known to be lacking", shrunk)
			}
		})
	}
}

func TestReachedRefuses(t *testing.T) {
	x := newTrailRun(t, 1)
	at := ReplicaState{Disk: x.owner.ID(), Complete: true, Position: x.owner.Position()}
	for _, c := range []struct {
		peer   string
		change func(*ReplicaState)
		want   error
	}{
		{"r", func(*ReplicaState) {}, ErrAttached},
		{"far", func(r *ReplicaState) { r.Complete = false }, ErrIncomplete},
		{"far", func(r *ReplicaState) { r.Disk = NewID() }, ErrWrongDisk},
		{"far", func(r *ReplicaState) { r.Position.Barrier += 100 }, ErrDiverged},
		{"far", func(r *ReplicaState) { r.Position = Position{9, 1} }, ErrDiverged},
		{"", func(*ReplicaState) {}, ErrRange},
	} {
		r := at
		c.change(&r)
		if err := x.owner.Reached(c.peer, r); !errors.Is(err, c.want) {
			t.Errorf("%q at %v: %v, want %v", c.peer, r.Position, err, c.want)
		}
	}
	if err := x.rep.Reached("far", at); !errors.Is(err, ErrInactive) {
		t.Errorf("on a replica: %v", err)
	}
}

// TestLost: a peer that has lost its copy lacks everything, until it has one again.
func TestLost(t *testing.T) {
	x := newTrailRun(t, 1)
	must(t, x.owner.Reached("far", ReplicaState{Disk: x.owner.ID(), Complete: true, Position: x.owner.Position()}))
	lacks := func(peer string, want int64) {
		t.Helper()
		lag, ok := x.owner.Lag(peer)
		if !ok {
			t.Fatalf("nothing is known of %s", peer)
		}
		defer lag.Release()
		n := int64(0)
		for _, count := range lag.Runs() {
			n += int64(count)
		}
		if n != want || (lag.Acked == Position{}) != (want > 0) {
			t.Errorf("%s is at %s and lacks %d blocks, want %d", peer, lag.Acked, n, want)
		}
	}
	lacks("far", 0)
	must(t, x.owner.Lost("far"))
	lacks("far", trailBlocks)
	must(t, x.owner.Lost("new"))
	lacks("new", trailBlocks)
	must(t, x.owner.Reached("far", ReplicaState{Disk: x.owner.ID(), Complete: true, Position: x.owner.Position()}))
	lacks("far", 0)
	if err := x.owner.Lost("r"); !errors.Is(err, ErrAttached) {
		t.Errorf("with a feed: %v", err)
	}
	if err := x.rep.Lost("far"); !errors.Is(err, ErrInactive) {
		t.Errorf("on a replica: %v", err)
	}
	if err := x.owner.Lost(""); !errors.Is(err, ErrRange) {
		t.Errorf("of nobody: %v", err)
	}
}

// TestAComparisonBeginsAtABarrier: a block that is again as the replica has it, since the last barrier, was lacking as of that one: what is told is of a
// later one.
func TestAComparisonBeginsAtABarrier(t *testing.T) {
	x := newTrailRun(t, 1)
	x.write()
	must(t, x.owner.Flush())
	pump(t, x.feed, x.app)
	must(t, x.app.Close())
	x.feed.Close()
	was, now := make([]byte, Block), bytes.Repeat([]byte{0xab}, Block)
	must(t, x.owner.ReadAt(was, 3*Block))
	must(t, x.owner.WriteAt(now, 3*Block, false))
	must(t, x.owner.Flush())
	before := x.owner.Position()
	must(t, x.owner.WriteAt(was, 3*Block, false))
	c, err := x.owner.Compare("r", x.rep.ReplicaState())
	must(t, err)
	must(t, c.Equal(3*Block, Block))
	must(t, c.Finish())
	lag, ok := x.owner.Lag("r")
	if !ok || lag.Of.Compare(before) <= 0 {
		t.Errorf("it is told as of %s, when it wasn't so", lag.Of)
	}
	lag.Release()
}

// A disk that was away doesn't know what it didn't see, and an unfinished epoch isn't a part of what it is.
func TestTrailBeginsAnew(t *testing.T) {
	x := newTrailRun(t, 1)
	c := x.cut(x.rep)
	must(t, c.Close())
	x.write()
	must(t, x.owner.Flush())
	pump(t, x.feed, x.app)
	x.feed.Close()
	must(t, x.app.Close())
	before := x.rep.Position()
	must(t, x.rep.Close())
	var err error
	x.rep, err = Open("r", Options{FS: x.rep.fs, BarrierEvery: -1, SaveEvery: -1})
	must(t, err)
	defer x.rep.Close()
	now := x.cut(x.rep)
	defer now.Close()
	if _, ok := now.Since(c.Position()); ok {
		t.Error("it knows what was written before it was opened")
	}
	if set, ok := now.Since(before); !ok || !set.Empty() {
		t.Errorf("since it was opened: %v", ok)
	}
}

// The regions that were written last are the hottest.
func TestHeat(t *testing.T) {
	x := newTrailRun(t, 1)
	for i := range int64(3) {
		must(t, x.owner.WriteAt(blockOf(1), i*10*Block, false))
		x.now = x.now.Add(time.Minute)
		must(t, x.owner.Flush())
	}
	a, b, c, none := x.owner.Heat(0, Block), x.owner.Heat(10*Block, Block), x.owner.Heat(20*Block, Block), x.owner.Heat(30*Block, Block)
	if !(none < a && a < b && b < c) || x.owner.Heat(-1, 5) != 0 || x.owner.Heat(0, 1<<40) != 0 {
		t.Errorf("%d, %d, %d and %d where nothing was written", a, b, c, none)
	}
}

// What a replica got may leave out a block that is the same at both ends of a push and wasn't between them: nothing is known of what is between.
func TestBetweenTheMarksOfAReplicaNothingIsKnown(t *testing.T) {
	for _, own := range []bool{true, false} {
		var x trail
		set := func() *blockset.Set { return blockset.New(trailBlocks) }
		x.reset(set(), Position{1, 3}, time.Unix(1, 0), own)
		x.present().Add(5, 6)
		x.mark(set, Position{3, 79}, time.Unix(2, 0), true, own)
		if _, ok := x.between(set(), Position{1, 3}, Position{3, 79}); !ok {
			t.Errorf("own=%v: from a mark on nothing is known", own)
		}
		if _, ok := x.between(set(), Position{3, 73}, Position{3, 79}); ok != own {
			t.Errorf("own=%v: from between two marks on it is known: %v", own, ok)
		}
	}
}

// A copy that somebody else than this owner brought to one of its positions lacks at most what was written since the last mark, also in an owner's first span; and
// nothing, if it is where the disk is.
func TestReachedInTheFirstSpan(t *testing.T) {
	for _, before := range []bool{false, true} {
		d := newDisk(t, forkSize, Options{FS: vfs.NewMem(), BarrierEvery: -1, SaveEvery: -1})
		term := uint64(4)
		must(t, d.Activate(term))
		if before {
			// It was another's for a while.
			must(t, d.WriteAt(blockOf(1), 3*Block, true))
			must(t, d.Fence())
			must(t, d.Give(term))
			term = 6
			must(t, d.Activate(term))
		}
		must(t, d.WriteAt(blockOf(2), 5*Block, true))
		for _, want := range [][]int64{nil, {5, 7}} {
			must(t, d.Reached("b", ReplicaState{Disk: d.ID(), Complete: true, Position: d.Position()}))
			if want != nil {
				at := d.Position()
				must(t, d.WriteAt(blockOf(2), 7*Block, true))
				must(t, d.Reached("c", ReplicaState{Disk: d.ID(), Complete: true, Position: at}))
			}
			name := map[bool]string{true: "b", false: "c"}[want == nil]
			lag, ok := d.Lag(name)
			if !ok || lag.Guessed {
				t.Fatalf("%+v, %v", lag, ok)
			}
			if got := lacks(d, name); !slices.Equal(got, want) {
				t.Errorf("it lacks %v, not %v", got, want)
			}
			lag.Release()
		}
	}
}
