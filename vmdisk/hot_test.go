package vmdisk

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// A write that entered the activity log under one term, and goes on under the next, is logged under the next.
func TestWriteAcrossTerms(t *testing.T) {
	d := newDisk(t, 16<<20, quiet(vfs.NewMem()))
	must(t, d.Activate(1))
	d.gate.Lock()
	wrote := make(chan error, 1)
	go func() { wrote <- d.WriteAt(blockOf(1), 2*regionSize, false) }()
	for !d.al.has(2) || d.gate.TryRLock() { // until the write waits at the gate
	}
	// What Fence, Give and Activate do, which would wait for the gate that is held here.
	must(t, d.j.commit(func(st *state) { clear(st.regions) }))
	d.al.forget()
	d.gate.Unlock()
	must(t, <-wrote)
	if _, logged := d.j.snapshot().regions[2]; !logged || !d.al.has(2) {
		t.Fatal("written into a region that isn't logged")
	}
	if got := d.al.region(2).Load(); got >= regionPin {
		t.Fatalf("the region is still pinned: %#x", got)
	}
}

// A region whose write was under way at the mark stays logged: its dirty bit may be missing from the sets that were stored since.
func TestMarkSeesWritesUnderWay(t *testing.T) {
	d := newDisk(t, 16<<20, quiet(vfs.NewMem()))
	must(t, d.al.enter(regionSize, Block))
	d.al.mark()
	d.al.leave(regionSize, Block)
	never := func() (Position, bool) { return Position{}, false }
	must(t, d.al.retire(never))
	if !d.al.has(1) {
		t.Fatal("retired")
	}
	d.al.mark()
	must(t, d.al.retire(never))
	if d.al.has(1) {
		t.Fatal("never retired")
	}
}

// No state in which writes or reads aren't accepted is missed by those who look only at the atomics.
func TestStatesAreSeen(t *testing.T) {
	h := newHoldFS()
	o := quiet(nil)
	o.FS = h
	d := newDisk(t, 1<<20, o)
	p := blockOf(1)
	write := func() error { return d.WriteAt(p, 0, false) }
	expect := func(step string, got, want error) {
		t.Helper()
		if !errors.Is(got, want) || want == nil && got != nil {
			t.Fatalf("%s: %v, want %v", step, got, want)
		}
	}
	expect("new", write(), ErrInactive)
	must(t, d.Activate(1))
	expect("active", write(), nil)
	must(t, d.Fence())
	expect("fenced", write(), ErrFenced)
	must(t, d.Unfence())
	expect("unfenced", write(), nil)
	must(t, d.Fence())
	must(t, d.Give(1))
	expect("given", write(), ErrInactive)
	must(t, d.Activate(2))
	expect("active again", write(), nil)
	h.arm(t)
	flushed := make(chan error, 1)
	go func() { flushed <- d.Flush() }()
	<-h.started
	h.hold <- errors.New("no such luck")
	expect("flush", <-flushed, ErrFailed)
	expect("failed", write(), ErrFailed)
	must(t, d.ReadAt(p, 0))
	h.release()
	must(t, d.Close())
	expect("closed", write(), ErrClosed)
	expect("read when closed", d.ReadAt(p, 0), ErrClosed)

	r := newReplica(t, 1<<20, quiet(vfs.NewMem()))
	expect("read an incomplete one", r.ReadAt(p, 0), ErrIncomplete)
}

// A feed that sleeps is woken by a write alone, also by one of several operations, and by the barrier.
func TestNextWakes(t *testing.T) {
	o := quiet(vfs.NewMem())
	o.QueueBytes = 8 << 20
	d := newDisk(t, 8<<20, o)
	must(t, d.Activate(1))
	must(t, d.SetClean("p", d.Position()))
	f, err := d.Attach("p", d.ReplicaState())
	must(t, err)
	next := func(kind OpKind) {
		t.Helper()
		op, err := f.Next(t.Context())
		must(t, err)
		if op.Kind != kind {
			t.Fatalf("got kind %d, want %d", op.Kind, kind)
		}
		op.Release()
	}
	must(t, d.Flush())
	next(OpBarrier)
	for _, n := range []int{0, 0, 0, 2} {
		select {
		case <-f.wake:
		default:
		}
		must(t, d.WriteAt(benchBytes(Block+n<<20), 0, false))
		<-f.wake
		for range n + 1 {
			next(OpWrite)
		}
	}
	must(t, d.Flush())
	next(OpBarrier)
}

// poolLoss is how much of what is put into a sync.Pool and taken again is made anew. The race detector has it drop a part at random.
var poolLoss = func() float64 {
	made := 0
	p := sync.Pool{New: func() any { made++; return new(int) }}
	for range 1000 {
		p.Put(p.Get())
	}
	if made > 100 {
		return 3 // per request: the system call's, the operation's and the buffer's
	}
	return 0
}()

// Requests take no memory, whatever is on: peers that are away, those that follow, the log, the claims.
func TestHotPathTakesNoMemory(t *testing.T) {
	for _, peers := range []string{"alone", "away", "following"} {
		t.Run(peers, func(t *testing.T) {
			o := quiet(nil)
			o.FS, o.QueueBytes = vfs.OS(t.TempDir()), 64<<20
			d := newDisk(t, 16<<20, o)
			must(t, d.Activate(1))
			var feeds []*Feed
			for i := 0; i < 3 && peers != "alone"; i++ {
				name := fmt.Sprint("peer ", i)
				must(t, d.SetClean(name, d.Position()))
				f, err := d.Attach(name, d.ReplicaState())
				must(t, err)
				if feeds = append(feeds, f); peers == "away" {
					f.Close()
				}
			}
			take := func() {
				for _, f := range feeds {
					for peers == "following" {
						op, err := f.poll()
						must(t, err)
						if op == nil {
							break
						}
						op.Release()
					}
				}
			}
			p := benchBytes(64 << 10)
			off := int64(0)
			for name, fn := range map[string]func() error{
				"write": func() error { return d.WriteAt(p[len(p)-Block:], off, false) },
				"zeros": func() error { return d.WriteAt(p[:Block], off, false) },
				"big":   func() error { return d.WriteAt(p, off, false) },
				"read":  func() error { return d.ReadAt(p, off) },
				"zero":  func() error { return d.Zero(off, Block, false, false) },
				"trim":  func() error { return d.Trim(off, Block, false) },
			} {
				got := testing.AllocsPerRun(200, func() {
					off = (off + 128<<10) % (16 << 20)
					must(t, fn())
					take()
				})
				if got > poolLoss {
					t.Errorf("%s takes memory %v times", name, got)
				}
			}
		})
	}
}
