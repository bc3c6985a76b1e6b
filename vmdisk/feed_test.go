package vmdisk

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// pair is an owner with size bytes and a replica that follows it live.
func pair(t *testing.T, size int64, o Options) (d, r *Store, f *Feed, a *Applier) {
	t.Helper()
	return pairOf(t, size, o, quiet(vfs.NewMem()))
}

// pairOf is pair with options for the replica.
func pairOf(t *testing.T, size int64, o, ro Options) (d, r *Store, f *Feed, a *Applier) {
	t.Helper()
	d = newDisk(t, size, o)
	must(t, d.Activate(1))
	r = newReplica(t, size, ro)
	a, err := r.Apply()
	must(t, err)
	f, err = d.Attach("r", a.State())
	must(t, err)
	pump(t, f, a)
	if g := f.Progress(); g.Phase != Live || !g.Complete || g.Remaining != 0 {
		t.Fatalf("not live: %+v", g)
	}
	return d, r, f, a
}

func blockOf(b byte) []byte { return bytes.Repeat([]byte{b}, Block) }

// take drains what the feed has, and lists it.
func take(t *testing.T, f *Feed) (kinds []OpKind, ops []*Op) {
	t.Helper()
	for {
		op, err := f.poll()
		must(t, err)
		if op == nil {
			return kinds, ops
		}
		kinds, ops = append(kinds, op.Kind), append(ops, op)
	}
}

// TestBarrierOrder fails if a barrier leaves before the writes it covers, with a write it doesn't cover, or before
// those are durable here.
func TestBarrierOrder(t *testing.T) {
	h := newHoldFS()
	o := quiet(nil)
	o.FS = h
	d, _, f, _ := pair(t, 1<<20, o)
	h.arm(t)
	must(t, d.WriteAt(blockOf(1), 0, false))
	must(t, d.WriteAt(blockOf(2), Block, false))
	flushed := make(chan error, 1)
	go func() { flushed <- d.Flush() }()
	<-h.started // the cut was made, and the sync is under way
	must(t, d.WriteAt(blockOf(3), 2*Block, false))
	for want := byte(1); want <= 2; want++ {
		op, _, _, err := f.decide(false)
		must(t, err)
		if op == nil || op.Kind != OpWrite || !bytes.Equal(op.Data, blockOf(want)) {
			t.Fatalf("got %+v, want write %d", op, want)
		}
		op.Release()
	}
	// The barrier is next, but its epoch isn't durable here yet; nor may the write after it overtake.
	_, _, wait, err := f.decide(false)
	must(t, err)
	if wait == nil {
		t.Fatal("nothing holds the barrier back")
	}
	select {
	case <-wait:
		t.Fatal("the barrier may leave before the sync ended")
	case err := <-flushed:
		t.Fatalf("flush returned before the sync ended: %v", err)
	default:
	}
	got := make(chan *Op, 1)
	go func() {
		op, err := f.Next(context.Background())
		if err != nil {
			op = &Op{}
		}
		got <- op
	}()
	h.hold <- nil
	must(t, <-flushed)
	op := <-got
	if op.Kind != OpBarrier || op.Pos != d.Position() {
		t.Fatalf("got kind %d %s, want the barrier %s", op.Kind, op.Pos, d.Position())
	}
	h.release()
	kinds, ops := take(t, f)
	if len(kinds) != 1 || kinds[0] != OpWrite || !bytes.Equal(ops[0].Data, blockOf(3)) {
		t.Fatalf("after the barrier: %v", kinds)
	}
	ops[0].Release()
}

// A write that returned before a flush began is in that flush's epoch: the replica has it at that barrier.
func TestFlushCoversWrites(t *testing.T) {
	m := vfs.NewMem()
	d, r, f, a := pair(t, 1<<20, quiet(m))
	for i := range byte(20) {
		must(t, d.WriteAt(blockOf(i+1), int64(i)*Block, i%3 == 0))
		must(t, d.Flush())
		want := content(t, d)
		pump(t, f, a)
		if !bytes.Equal(content(t, r), want) || r.Position() != d.Position() {
			t.Fatalf("round %d: replica at %s, disk at %s", i, r.Position(), d.Position())
		}
		if got := file(t, m.After(vfs.LoseUnsynced, 0), baseName); !bytes.Equal(got, want) {
			t.Fatalf("round %d: a power cut after the flush loses", i)
		}
	}
}

// An acknowledgement clears what it covers, and not what was written again since.
func TestAckGenerations(t *testing.T) {
	d, _, f, _ := pair(t, 1<<20, quiet(vfs.NewMem()))
	must(t, d.WriteAt(blockOf(1), 0, false))
	must(t, d.Flush())
	first := d.Position()
	must(t, d.WriteAt(blockOf(2), 0, false)) // the same block again
	must(t, d.WriteAt(blockOf(2), Block, false))
	f.Acked(first)
	if g := f.Progress(); g.Remaining != 2*Block || g.Acked.Compare(first) == 0 {
		t.Fatalf("an acknowledgement of what was never sent counted: %+v", g)
	}
	_, ops := take(t, f)
	f.Acked(Position{9, 9})
	if g := f.Progress(); g.Acked.Term == 9 {
		t.Fatalf("an acknowledgement from the future counted: %+v", g)
	}
	f.Acked(first)
	if g := f.Progress(); g.Remaining != 2*Block || g.Complete || g.Acked != first {
		t.Fatalf("%+v", g)
	}
	must(t, d.Flush())
	_, more := take(t, f)
	f.Acked(d.Position())
	if g := f.Progress(); g.Remaining != 0 || !g.Complete {
		t.Fatalf("%+v", g)
	}
	for _, op := range append(ops, more...) {
		op.Release()
	}
}

// Of a peer that can't keep up the queue is dropped; no barrier leaves before it has everything again.
func TestOverflow(t *testing.T) {
	o := quiet(vfs.NewMem())
	o.QueueBytes = 300 << 10
	d, r, f, a := pair(t, 4<<20, o)
	before := content(t, r)
	for i := range int64(1024) {
		must(t, d.WriteAt(blockOf(byte(i)+1), i*Block, false))
		if i%100 == 99 {
			must(t, d.Flush())
		}
		if g := f.Progress(); g.Queued > o.QueueBytes+1024*opCost {
			t.Fatalf("%d bytes queued", g.Queued)
		}
	}
	if g := f.Progress(); g.Phase != Behind || g.Remaining != 4<<20 {
		t.Fatalf("%+v", g)
	}
	for {
		op, err := f.poll()
		must(t, err)
		if op == nil {
			break
		}
		last := op.Kind == OpBarrier
		ack, err := feedTo(a, op)
		must(t, err)
		if f.Acked(ack); !last {
			if !bytes.Equal(content(t, r), before) {
				t.Fatal("the replica changed before the barrier")
			}
			continue
		}
		if !bytes.Equal(content(t, r), content(t, d)) {
			t.Fatal("a barrier left before everything was sent")
		}
	}
	if g := f.Progress(); g.Phase != Live || !g.Complete {
		t.Fatalf("%+v", g)
	}
}

// A first copy of an almost empty disk never reads or sends holes, and goes on from its last checkpoint.
func TestFirstCopyResumes(t *testing.T) {
	o := quiet(nil)
	o.FS = vfs.OS(t.TempDir())
	d := newDisk(t, 1<<40, o)
	must(t, d.Activate(1))
	for i := range int64(64) {
		must(t, d.WriteAt(bytes.Repeat([]byte{byte(i + 1)}, 16<<10), i<<34, false))
	}
	ro := quiet(nil)
	ro.FS = vfs.OS(t.TempDir())
	r := newReplica(t, 1<<40, ro)
	if err := r.ReadAt(make([]byte, 1), 0); !errors.Is(err, ErrIncomplete) {
		t.Fatal(err)
	}
	if err := r.Activate(1); !errors.Is(err, ErrIncomplete) {
		t.Fatal(err)
	}
	a, err := r.Apply()
	must(t, err)
	if err := a.Write(0, make([]byte, Block)); !errors.Is(err, ErrNoCopy) {
		t.Fatal(err)
	}
	must(t, a.Close())
	a, err = r.Apply()
	must(t, err)
	f, err := d.Attach("r", a.State())
	must(t, err)
	var sent, checkpoints int64
	for checkpoints < 3 {
		op, err := f.poll()
		must(t, err)
		if op.Kind == OpCheckpoint {
			checkpoints++
		}
		sent += int64(len(op.Data))
		ack, err := feedTo(a, op)
		must(t, err)
		f.Acked(ack)
	}
	acked := f.Progress().Remaining
	if acked > 1<<40-(2<<30) {
		t.Fatalf("%d bytes remain after three checkpoints", acked)
	}
	f.Close()
	must(t, a.Close())
	must(t, r.Close())
	must(t, d.Close())
	d, r = reopen(t, o), reopen(t, ro)
	must(t, d.Activate(1))
	a, err = r.Apply()
	must(t, err)
	f, err = d.Attach("r", a.State())
	must(t, err)
	if n := f.Progress().Remaining; n > acked {
		t.Fatalf("%d bytes remain after the restart, %d before", n, acked)
	}
	for f.Progress().Phase != Live {
		op, err := f.poll()
		must(t, err)
		if op.Kind == OpBegin {
			t.Fatal("started over")
		}
		sent += int64(len(op.Data))
		ack, err := feedTo(a, op)
		must(t, err)
		f.Acked(ack)
	}
	if sent > 64*(256<<10)+(2<<20) {
		t.Fatalf("%d bytes sent", sent)
	}
	got := make([]byte, 16<<10)
	for i := range int64(64) {
		must(t, r.ReadAt(got, i<<34))
		if !bytes.Equal(got, bytes.Repeat([]byte{byte(i + 1)}, 16<<10)) {
			t.Fatalf("piece %d differs", i)
		}
	}
	if i := r.Info(); i.Allocated > 64<<20 || !i.Complete {
		t.Fatalf("%+v", i)
	}
	must(t, a.Close())
}

func TestAttachRefusals(t *testing.T) {
	d := newDisk(t, 1<<20, quiet(vfs.NewMem()))
	whole := func(term, barrier uint64) ReplicaState {
		return ReplicaState{Disk: ID{1}, Complete: true, Position: Position{term, barrier}}
	}
	if _, err := d.Attach("p", whole(0, 0)); !errors.Is(err, ErrInactive) {
		t.Fatal(err)
	}
	must(t, d.Activate(3))
	must(t, d.WriteAt(blockOf(1), 0, true))
	for name, c := range map[string]struct {
		r    ReplicaState
		want error
	}{
		"other disk":        {ReplicaState{Disk: ID{2}}, ErrWrongDisk},
		"higher term":       {whole(4, 0), ErrDiverged},
		"higher barrier":    {whole(3, 2), ErrDiverged},
		"unknown old term":  {whole(2, 0), ErrDiverged},
		"end of first term": {whole(0, 1), ErrDiverged},
	} {
		if _, err := d.Attach("p", c.r); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := d.Attach("", whole(3, 1)); !errors.Is(err, ErrRange) {
		t.Error(err)
	}
	must(t, d.LearnEnds([]Position{{2, 7}}))
	f, err := d.Attach("p", whole(2, 7))
	must(t, err)
	if _, err := d.Attach("p", whole(3, 1)); !errors.Is(err, ErrAttached) {
		t.Fatal(err)
	}
	f.Close()
	f.Close()
	if _, err := f.Next(t.Context()); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	// Known at 2/7, then at an older position: it lost something, so it gets everything.
	f, err = d.Attach("p", whole(3, 1))
	must(t, err)
	f.Close()
	f, err = d.Attach("p", whole(2, 7))
	must(t, err)
	if g := f.Progress(); g.Remaining != 1<<20 || g.Phase != CatchingUp {
		t.Fatalf("%+v", g)
	}
	must(t, d.Forget("p"))
	if len(d.Peers()) != 0 {
		t.Fatal("not forgotten")
	}
}

// A reconnected replica gets what changed, and no more.
func TestReconnectSendsTheDifference(t *testing.T) {
	m := vfs.NewMem()
	d, r, f, a := pair(t, 4<<20, quiet(m))
	f.Close()
	must(t, a.Close())
	must(t, d.WriteAt(blockOf(7), 9*Block, false))
	must(t, d.Close())
	d = reopen(t, quiet(m))
	must(t, d.Activate(1))
	must(t, d.WriteAt(blockOf(8), 11*Block, false))
	a, err := r.Apply()
	must(t, err)
	f, err = d.Attach("r", a.State())
	must(t, err)
	if g := f.Progress(); g.Remaining != 2*Block {
		t.Fatalf("%+v", g)
	}
	pump(t, f, a)
	if !bytes.Equal(content(t, d), content(t, r)) {
		t.Fatal("differs")
	}
}

func TestNextWaits(t *testing.T) {
	d, _, f, _ := pair(t, 1<<20, quiet(vfs.NewMem()))
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error, 1)
	go func() {
		_, err := f.Next(ctx)
		errs <- err
	}()
	cancel()
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	ops := make(chan *Op, 1)
	go func() {
		op, err := f.Next(t.Context())
		if err == nil {
			ops <- op
		}
		errs <- err
	}()
	must(t, d.WriteAt(blockOf(1), 0, false))
	must(t, <-errs)
	if op := <-ops; op.Kind != OpWrite {
		t.Fatalf("kind %d", op.Kind)
	}
	go func() {
		_, err := f.Next(t.Context())
		errs <- err
	}()
	f.Close()
	if err := <-errs; !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

func TestDrain(t *testing.T) {
	d, _, f, _ := pair(t, 1<<20, quiet(vfs.NewMem()))
	if _, err := d.Drain(t.Context(), "nobody"); !errors.Is(err, ErrDetached) {
		t.Fatal(err)
	}
	must(t, d.WriteAt(blockOf(1), 0, false))
	must(t, d.Fence())
	errs := make(chan error, 1)
	go func() {
		_, err := d.Drain(context.Background(), "r")
		errs <- err
	}()
	changed, stop := d.Watch("r")
	defer stop()
	for f.Progress().Queued == 0 {
		<-changed
	}
	f.Close()
	if err := <-errs; !errors.Is(err, ErrDetached) {
		t.Fatal(err)
	}
}
