package app

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync"
	"testing"

	"tagalong.org/tagalong/app/diskpush"
	"tagalong.org/tagalong/p2p/push"
	"tagalong.org/tagalong/p2p/wire/wiretest"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/blockset"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// sometimes is a sink that checkpoints now and then by itself, as real time would make a receiver do.
type sometimes struct {
	*diskpush.Sink
	cut push.Position
	r   *rand.Rand
}

func (s sometimes) Write(off int64, p []byte) error {
	err := s.Sink.Write(off, p)
	if err == nil && s.r.IntN(8) == 0 {
		err = s.Checkpoint(s.cut)
	}
	return err
}

// pushTest is an owner's disk, a replica whose power may go, and what the owner's disk was at each of its cuts.
type pushTest struct {
	t       *testing.T
	r       *rand.Rand
	owner   *vmdisk.Store
	fs      *vfs.Mem
	replica *vmdisk.Store
	was     map[vmdisk.Position][]byte
	// writes since a position that the replica may be at: by block, how many writes there were before its last.
	writes  int
	last    map[int64]int
	upTo    map[vmdisk.Position]int
	content int64
	bytes   int64 // both ways
}

const pushDisk = 5<<20 + 3*vmdisk.Block

func pushOptions(fs vfs.FS) vmdisk.Options {
	return vmdisk.Options{FS: fs, BarrierEvery: -1, SaveEvery: -1}
}

func (p *pushTest) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *pushTest) write(n int) {
	b := make([]byte, 3*vmdisk.Block)
	for range n {
		p.writes++
		for i := range b {
			b[i] = byte(p.r.IntN(256))
		}
		x, n := p.r.Int64N(pushDisk/vmdisk.Block-3), 1+p.r.Int64N(3)
		if p.r.IntN(3) > 0 {
			x %= 100
		}
		if p.r.IntN(4) == 0 {
			p.must(p.owner.Zero(x*vmdisk.Block, n*vmdisk.Block, true, false))
		} else {
			p.must(p.owner.WriteAt(b[:n*vmdisk.Block], x*vmdisk.Block, false))
		}
		for i := range n {
			p.last[x+i] = p.writes
		}
	}
}

func (p *pushTest) cut() *vmdisk.Cut {
	c, err := p.owner.Cut(p.t.Context())
	p.must(err)
	b := make([]byte, pushDisk)
	p.must(c.ReadAt(b, 0))
	p.was[c.Position()], p.upTo[c.Position()] = b, p.writes
	return c
}

// check makes sure that the replica is the owner's disk as it was at one of the cuts.
func (p *pushTest) check() {
	p.t.Helper()
	info := p.replica.Info()
	if !info.Complete {
		return
	}
	want, ok := p.was[info.Position]
	if !ok {
		p.t.Fatalf("the replica is at %v, which was never a cut", info.Position)
	}
	got := make([]byte, pushDisk)
	p.must(p.replica.ReadAt(got, 0))
	if !bytes.Equal(got, want) {
		p.t.Fatalf("the replica at %v isn't what the disk was there", info.Position)
	}
}

// push pushes a cut; the receiver's power goes at its at-th change of a file, or not at all.
func (p *pushTest) push(c *vmdisk.Cut, at int) error {
	st := p.replica.ReplicaState()
	lacks := blockset.New(pushDisk / vmdisk.Block)
	for x := range int64(pushDisk / vmdisk.Block) {
		if !st.Complete || p.last[x] > p.upTo[st.Position] {
			lacks.Add(x, x+1)
		}
	}
	defer c.Close()
	p.fs.FailAt(at, errors.New("power cut"), true)
	applier, err := p.replica.Apply()
	if err != nil {
		return err
	}
	defer applier.Close()
	sink, err := diskpush.NewSink(applier)
	if err != nil {
		return err
	}
	cut := push.Position(c.Position())
	a, b := wiretest.Pipe(p.t)
	state := push.State{Complete: st.Complete, Position: push.Position(st.Position), Copy: st.Copy, Checkpoint: push.Position(st.Checkpoint)}
	var wg sync.WaitGroup
	var received error
	wg.Go(func() {
		received = push.Receive(p.t.Context(), b, func(push.Hello) (push.Replica, push.State, error) {
			return push.Replica{Sink: sometimes{sink, cut, rand.New(rand.NewPCG(p.r.Uint64(), 1))}}, state, nil
		}, nil)
	})
	var stats push.Stats
	h := push.Hello{Target: push.Target{VM: "work", Disk: push.ID(p.owner.ID()), Size: pushDisk, Term: 1}, Cut: cut}
	err = push.Send(p.t.Context(), a, h, func(_ push.State, holds iter.Seq2[int64, int64]) (push.Work, error) {
		return diskpush.Work(p.owner, c, c.Size(), lacks, st.Complete, holds), nil
	}, push.Options{Stats: &stats})
	wg.Wait()
	p.content, p.bytes = stats.Content.Load(), stats.Sent.Load()+stats.Received.Load()
	return errors.Join(err, received)
}

// newPushTest is an owner and a replica that has nothing yet.
func newPushTest(t *testing.T, source rand.Source) *pushTest {
	p := &pushTest{t: t, r: rand.New(source), fs: vfs.NewMem(), was: map[vmdisk.Position][]byte{}, last: map[int64]int{}, upTo: map[vmdisk.Position]int{}}
	id := vmdisk.NewID()
	var err error
	p.owner, err = vmdisk.Create("owner", id, pushDisk, pushOptions(vfs.NewMem()))
	p.must(err)
	t.Cleanup(func() { p.must(p.owner.Close()) })
	p.must(p.owner.Activate(1))
	p.replica, err = vmdisk.CreateReplica("replica", id, pushDisk, pushOptions(p.fs))
	p.must(err)
	t.Cleanup(func() { _ = p.replica.Close() })
	return p
}

// A cut of a real disk, pushed into a real replica whose power goes at any moment: it is at every moment what the owner's disk was at a
// cut, and in the end bit-identical.
func TestPushThroughPowerCuts(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			p := newPushTest(t, rand.NewPCG(seed, 3))
			p.write(60)
			cuts := 0
			for range 14 {
				p.write(p.r.IntN(15))
				if p.push(p.cut(), 1+p.r.IntN(120)) != nil {
					cuts++
				}
				_ = p.replica.Close()
				p.fs = p.fs.Crash(vfs.Loss(p.r.IntN(3)), p.r.Uint64())
				var err error
				p.replica, err = vmdisk.Open("replica", pushOptions(p.fs))
				p.must(err)
				p.check()
			}
			if cuts == 0 {
				t.Error("the power never went during a push")
			}
			last := p.cut()
			if p.replica.Position() == last.Position() {
				p.must(last.Close())
				return
			}
			p.must(p.push(last, 0))
			p.check()
		})
	}
}

// What came before the line was cut is gone on with, under the same copy, also by a later cut.
func TestPushGoesOn(t *testing.T) {
	p := newPushTest(t, rand.NewPCG(1, 4))
	p.write(10)
	p.must(p.push(p.cut(), 0))
	p.check()
	p.write(400)
	need := int64(0)
	for _, n := range p.last {
		if n > 10 {
			need += vmdisk.Block
		}
	}
	sent, tries := int64(0), int64(0)
	for ; ; tries++ {
		err := p.push(p.cut(), 90)
		sent += p.content
		if err == nil {
			break
		}
		_ = p.replica.Close()
		p.fs = p.fs.Crash(vfs.LoseNothing, 1)
		p.replica, err = vmdisk.Open("replica", pushOptions(p.fs))
		p.must(err)
		p.check()
		if st := p.replica.ReplicaState(); st.Copy == [16]byte{} {
			t.Fatal("no copy is left of a push that was cut short")
		}
	}
	p.check()
	// What was under way when the disk failed comes again: a batch, and what waited behind it.
	if tries < 2 || sent > need+tries*2*push.MaxBatch {
		t.Errorf("%d bytes of content in %d tries, for %d that were needed", sent, tries, need)
	}
	t.Logf("%d bytes of content in %d tries, for at most %d that were needed", sent, tries, need)
}
