package vmdisk

import (
	"bytes"
	"errors"
	"maps"
	"sync"
	"sync/atomic"
	"testing"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// slowFS lets a test hold the first write to base.raw after arming, and counts those that got that far.
type slowFS struct {
	*vfs.Mem
	armed   atomic.Bool
	arrived atomic.Int64
	started chan struct{}
	free    chan struct{}
	once    sync.Once
}

// newSlowFS is let go at the end of the test, however that comes.
func newSlowFS() *slowFS {
	return &slowFS{Mem: vfs.NewMem(), started: make(chan struct{}), free: make(chan struct{})}
}

func (s *slowFS) release() { s.once.Do(func() { close(s.free) }) }

func (s *slowFS) Open(name string) (vfs.File, error) {
	file, err := s.Mem.Open(name)
	if name == baseName && err == nil {
		file = slowFile{file, s}
	}
	return file, err
}

type slowFile struct {
	vfs.File
	fs *slowFS
}

func (f slowFile) WriteAt(p []byte, off int64) (int, error) {
	f.fs.arrived.Add(1)
	if f.fs.armed.Swap(false) {
		close(f.fs.started)
		<-f.fs.free
	}
	return f.File.WriteAt(p, off)
}

// A write waits for an earlier one that it overlaps, and comes after it; others go on.
func TestClaimsOrderWrites(t *testing.T) {
	s := newSlowFS()
	o := quiet(nil)
	o.FS = s
	d := newDisk(t, 1<<20, o)
	t.Cleanup(s.release)
	must(t, d.Activate(1))
	s.armed.Store(true)
	errs := make(chan error, 2)
	go func() { errs <- d.WriteAt(bytes.Repeat([]byte{1}, 2*Block), 0, false) }()
	<-s.started
	go func() { errs <- d.WriteAt(bytes.Repeat([]byte{2}, Block), Block, false) }()
	for d.claims.held() < 2 && s.arrived.Load() < 2 {
	}
	must(t, d.WriteAt(blockOf(3), 5*Block, false)) // elsewhere
	if n := s.arrived.Load(); n != 2 {
		t.Fatalf("%d writes arrived, the overlapping one among them", n)
	}
	s.release()
	must(t, <-errs)
	must(t, <-errs)
	if got := content(t, d); !bytes.Equal(got[:2*Block], append(blockOf(1), blockOf(2)...)) {
		t.Fatal("the later write isn't the one that is left")
	}
}

// Fence and flush wait for the writes under way.
func TestFenceWaits(t *testing.T) {
	for name, call := range map[string]func(*Store) error{"fence": (*Store).Fence, "flush": (*Store).Flush} {
		t.Run(name, func(t *testing.T) {
			s := newSlowFS()
			o := quiet(nil)
			o.FS = s
			d := newDisk(t, 1<<20, o)
			t.Cleanup(s.release)
			must(t, d.Activate(1))
			must(t, d.WriteAt(blockOf(1), 0, false))
			s.armed.Store(true)
			wrote, called := make(chan error, 1), make(chan error, 1)
			go func() { wrote <- d.WriteAt(blockOf(2), 0, false) }()
			<-s.started
			go func() { called <- call(d) }()
			for waits := false; !waits; {
				select {
				case err := <-called:
					t.Fatalf("returned before the write ended: %v", err)
				default:
				}
				if waits = !d.gate.TryRLock(); !waits {
					d.gate.RUnlock()
				}
			}
			s.release()
			must(t, <-wrote)
			must(t, <-called)
		})
	}
}

// A barrier that gave old content a new name is remembered: a killed owner still knows its replica.
func TestNameOfBarrierIsKept(t *testing.T) {
	m := vfs.NewMem()
	d, r, _, _ := pair(t, 1<<20, quiet(m))
	if r.Position() != (Position{1, 1}) || d.Position() != r.Position() {
		t.Fatalf("replica at %s, disk at %s", r.Position(), d.Position())
	}
	for _, loss := range []vfs.Loss{vfs.LoseNothing, vfs.LoseUnsynced} {
		d := reopen(t, quiet(m.After(loss, 0)))
		must(t, d.Activate(1))
		f, err := d.Attach("r", r.ReplicaState())
		must(t, err)
		f.Close()
	}
}

// What a checkpoint acknowledged survives a power cut of the replica.
func TestCheckpointIsDurable(t *testing.T) {
	m := vfs.NewMem()
	r := newReplica(t, 1<<20, quiet(m))
	a, err := r.Apply()
	must(t, err)
	must(t, a.Begin([16]byte{5}))
	must(t, a.Write(Block, blockOf(9)))
	must(t, a.Checkpoint(Position{1, 4}))
	m = m.Crash(vfs.LoseUnsynced, 0)
	r = reopen(t, quiet(m))
	if st := r.ReplicaState(); st.Complete || st.Copy != [16]byte{5} || st.Position != (Position{1, 4}) {
		t.Fatalf("%+v", st)
	}
	if got := file(t, m, baseName); !bytes.Equal(got[Block:2*Block], blockOf(9)) {
		t.Fatal("the block is lost")
	}
}

// A copy of a cut is checkpointed at the cut's position, and ends there: the first one, which goes straight into the disk, as a later one.
func TestACopyEndsWhereItWasCheckpointed(t *testing.T) {
	m := vfs.NewMem()
	r := newReplica(t, 1<<20, quiet(m))
	a, err := r.Apply()
	must(t, err)
	for i, at := range []Position{{1, 4}, {1, 9}} {
		must(t, a.Begin([16]byte{byte(i + 1)}))
		must(t, a.Write(Block, blockOf(byte(i+5))))
		must(t, a.Checkpoint(at))
		must(t, a.Write(2*Block, blockOf(byte(i+6))))
		if err := a.Barrier(Position{1, at.Barrier - 1}); !errors.Is(err, ErrOldPosition) {
			t.Fatalf("a barrier before the checkpoint: %v", err)
		}
		must(t, a.Close()) // the refusal was final
		a, err = r.Apply()
		must(t, err)
		must(t, a.Begin([16]byte{byte(i + 1)}))
		must(t, a.Write(2*Block, blockOf(byte(i+6))))
		must(t, a.Barrier(at))
		if st := r.ReplicaState(); !st.Complete || st.Position != at {
			t.Fatalf("after the copy: %+v", st)
		}
	}
	if err := a.Barrier(Position{1, 8}); !errors.Is(err, ErrOldPosition) {
		t.Errorf("an older barrier: %v", err)
	}
	got := make([]byte, 2*Block)
	must(t, r.ReadAt(got, Block))
	if !bytes.Equal(got, append(blockOf(6), blockOf(7)...)) {
		t.Error("the disk is something else")
	}
}

// Saving leaves the regions in the activity log that were written meanwhile: their dirty bits may have missed the set that
// was stored, and their content the sync.
func TestSaveKeepsWhatIsWritten(t *testing.T) {
	h := newHoldFS()
	o := quiet(nil)
	o.FS = h
	d := newDisk(t, 16<<20, o)
	must(t, d.Activate(1))
	for i := range int64(3) {
		must(t, d.WriteAt(blockOf(1), i*regionSize, false))
	}
	h.arm(t)
	saved := make(chan error, 1)
	go func() { saved <- d.save() }()
	<-h.started
	must(t, d.WriteAt(blockOf(2), regionSize+Block, false))
	must(t, d.WriteAt(blockOf(2), 3*regionSize, false))
	h.release()
	must(t, <-saved)
	got := d.j.snapshot()
	want := map[uint32]struct{}{1: {}, 3: {}}
	if !maps.Equal(got.regions, want) || got.exact {
		t.Fatalf("logged regions %v, exact %v", got.regions, got.exact)
	}
	must(t, d.save())
	if got := d.j.snapshot(); len(got.regions) > 0 || !got.exact || got.position != d.Position() {
		t.Fatalf("after a quiet save: %+v", got)
	}
}

// A region whose write is still under way stays logged.
func TestSaveKeepsWritesUnderWay(t *testing.T) {
	d := newDisk(t, 16<<20, quiet(vfs.NewMem()))
	must(t, d.Activate(1))
	must(t, d.al.enter(0, Block))
	must(t, d.save())
	if got := d.j.snapshot(); len(got.regions) != 1 || got.exact {
		t.Fatalf("%+v", got)
	}
	d.al.leave(0, Block)
	must(t, d.save())
	if got := d.j.snapshot(); len(got.regions) != 0 {
		t.Fatalf("%+v", got)
	}
}
