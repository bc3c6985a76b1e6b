package vmdisk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"tagalong.org/tagalong/vmdisk/blockset"
	"tagalong.org/tagalong/vmdisk/hydrate"
	"tagalong.org/tagalong/vmdisk/vfs"
)

const hydraSize = 3 << 20

// holder is a source: the disk of the owner before.
type holder struct {
	content []byte
	// fetch, if not nil, is asked first; it may wait or fail.
	fetch func(ctx context.Context, off int64, n int) error
}

func (h *holder) Room() hydrate.Room {
	return hydrate.Room{Pull: 8 * hydrate.MaxFetch, Ahead: hydrate.MaxFetch, Piece: hydrate.MaxFetch}
}

func (h *holder) Fetch(ctx context.Context, w hydrate.Want) error {
	off, p := w.Off, w.P
	if h.fetch != nil {
		if err := h.fetch(ctx, off, len(p)); err != nil {
			return err
		}
	}
	copy(p, h.content[off:])
	return nil
}

func fillRandom(r *rand.Rand, p []byte) {
	for i := 0; i < len(p); i += 8 {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], r.Uint64()|1)
		copy(p[i:], b[:])
	}
}

// lagging is a replica that is at before, and its owner's disk at a later position: what they contain, and what the replica
// lacks.
type lagging struct {
	mem         *vfs.Mem
	d           *Store
	before, at  Position
	old, newest []byte
	stale       *blockset.Set
	src         *holder
}

func hydraOptions(m *vfs.Mem) Options {
	o := quiet(m)
	o.Patience = -1
	o.mergeByHand = true
	return o
}

func newLagging(t *testing.T, seed uint64) *lagging {
	t.Helper()
	return newLaggingOf(t, seed, hydraSize)
}

func newLaggingOf(t *testing.T, seed uint64, size int64) *lagging {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 7))
	g := &lagging{mem: vfs.NewMem(), at: Position{1, 9}}
	g.d = newReplica(t, size, hydraOptions(g.mem))
	a, err := g.d.Apply()
	must(t, err)
	must(t, a.Begin([16]byte{1}))
	g.old = make([]byte, size)
	for range 20 {
		off := r.Int64N(size/Block-16) * Block
		p := g.old[off : off+(1+r.Int64N(16))*Block]
		fillRandom(r, p)
		must(t, a.Write(off, p))
	}
	must(t, a.Barrier(Position{1, 2}))
	must(t, a.Close())
	g.before = Position{1, 2}
	g.newest = bytes.Clone(g.old)
	g.stale = blockset.New(size / Block)
	for range 30 {
		x := r.Int64N(size/Block - 16)
		y := x + 1 + r.Int64N(16)
		g.stale.Add(x, y)
		if r.IntN(4) == 0 {
			clear(g.newest[x*Block : y*Block])
		} else {
			fillRandom(r, g.newest[x*Block:y*Block])
		}
	}
	g.src = &holder{content: bytes.Clone(g.newest)}
	return g
}

// lack tells the replica.
func (g *lagging) lack(t *testing.T) {
	t.Helper()
	must(t, g.d.SetStale(g.stale.AppendTo(nil), g.at))
}

// mergeAll does what a disk does by itself.
func mergeAll(t *testing.T, d *Store) {
	t.Helper()
	for more := true; more; {
		var err error
		more, err = d.mergeBottom(t.Context())
		must(t, err)
	}
}

func same(t *testing.T, d *Store, want []byte) {
	t.Helper()
	if got := content(t, d); !bytes.Equal(got, want) {
		for x := 0; x < len(want); x += Block {
			if !bytes.Equal(got[x:x+Block], want[x:x+Block]) {
				t.Fatalf("block %d differs", x/Block)
			}
		}
	}
}

func TestHydrateOwner(t *testing.T) {
	g := newLagging(t, 1)
	g.lack(t)
	if i := g.d.Info(); !i.Hydrating || i.Stale != g.stale.Count()*Block || i.Position != g.at || i.Before != g.before || !i.Complete {
		t.Fatalf("%+v", i)
	}
	if st := g.d.ReplicaState(); st.Position != g.before {
		t.Errorf("%+v", st)
	}
	must(t, g.d.Activate(2))
	// A whole stale block is written without a source; a part of one, or a read, isn't.
	x := g.stale.Next(0, true)
	p := bytes.Repeat([]byte{7}, Block)
	must(t, g.d.WriteAt(p, x*Block, true))
	copy(g.newest[x*Block:], p)
	g.stale.Remove(x, x+1)
	x = g.stale.Next(0, true)
	for _, err := range []error{
		g.d.WriteAt(p[:10], x*Block+5, false), g.d.ReadAt(make([]byte, 1), x*Block), g.d.Zero(x*Block-10, 20, true, false), g.d.Prefetch(x*Block, 1),
	} {
		if !errors.Is(err, ErrStale) {
			t.Fatal(err)
		}
	}
	if !g.d.Stale(x*Block-1, 2) || g.d.Stale(x*Block-1, 1) && g.d.Stale(0, hydraSize+1) {
		t.Error("what is stale isn't known")
	}
	must(t, g.d.Zero(x*Block, Block, true, false))
	clear(g.newest[x*Block : (x+1)*Block])
	g.stale.Remove(x, x+1)
	if i := g.d.Info(); i.Stale != g.stale.Count()*Block {
		t.Errorf("%d bytes are stale, not %d", i.Stale, g.stale.Count()*Block)
	}
	must(t, g.d.Hydrate(t.Context(), g.src))
	if i := g.d.Info(); i.Hydrating || i.Stale != 0 {
		t.Errorf("%+v", i)
	}
	same(t, g.d, g.newest)
	must(t, g.d.WriteAt(p[:10], x*Block+5, false))
	copy(g.newest[x*Block+5:], p[:10])
	same(t, g.d, g.newest)
	mergeAll(t, g.d)
	same(t, g.d, g.newest)
	if n := len(g.d.stack.layers); n != 0 {
		t.Errorf("%d layers", n)
	}
	must(t, g.d.Flush())
	must(t, g.d.Close())
	names, err := g.mem.List()
	must(t, err)
	for _, n := range names {
		if len(n) > 6 && (n[:6] == "layer-" || n[:6] == "stale-") {
			t.Errorf("%s is left", n)
		}
	}
	g.d = reopen(t, hydraOptions(g.mem))
	same(t, g.d, g.newest)
	must(t, g.d.Hydrate(t.Context(), g.src))
}

// Reads wait for their blocks only, and get them while the rest is under way.
func TestReadWhileHydrating(t *testing.T) {
	g := newLagging(t, 2)
	g.lack(t)
	must(t, g.d.Activate(2))
	x := g.stale.Next(600, true)
	gate := make(chan struct{})
	g.src.fetch = func(ctx context.Context, off int64, n int) error {
		if off <= x*Block && x*Block < off+int64(n) {
			return nil
		}
		select {
		case <-gate:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	end := make(chan error, 1)
	go func() { end <- g.d.Hydrate(t.Context(), g.src) }()
	p := make([]byte, Block)
	for {
		// Until the source is there.
		err := g.d.ReadAt(p, x*Block)
		if err == nil {
			break
		}
		if !errors.Is(err, ErrStale) {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(p, g.newest[x*Block:(x+1)*Block]) {
		t.Fatal("wrong content")
	}
	if err := g.d.Hydrate(t.Context(), g.src); !errors.Is(err, hydrate.ErrRunning) {
		t.Error(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { same(t, g.d, g.newest) })
	}
	close(gate)
	wg.Wait()
	must(t, <-end)
}

func TestHydrationRefusals(t *testing.T) {
	g := newLagging(t, 3)
	set := g.stale.AppendTo(nil)
	for _, c := range []struct {
		set  []byte
		at   Position
		want error
	}{
		{set[:len(set)-1], g.at, ErrMalformed}, {set, Position{1, 1}, ErrOldPosition},
	} {
		if err := g.d.SetStale(c.set, c.at); !errors.Is(err, c.want) {
			t.Errorf("%v instead of %v", err, c.want)
		}
	}
	if _, err := g.d.Rollback(); !errors.Is(err, ErrWhole) {
		t.Error(err)
	}
	a, err := g.d.Apply()
	must(t, err)
	if err := g.d.SetStale(set, g.at); !errors.Is(err, ErrApplying) {
		t.Error(err)
	}
	must(t, a.Close())
	g.lack(t)
	_, aerr := g.d.Apply()
	_, herr := g.d.Hash(t.Context(), nil)
	_, xerr := g.d.ExportDirty()
	for _, err := range []error{g.d.SetStale(set, g.at), g.d.Give(1), aerr, herr, xerr} {
		if !errors.Is(err, ErrHydrating) {
			t.Error(err)
		}
	}
	must(t, g.d.Activate(2))
	_, ferr := g.d.Attach("p", ReplicaState{Disk: ID{1}})
	must(t, g.d.Fence())
	_, xerr = g.d.ExportDirty()
	for _, err := range []error{ferr, g.d.Give(2), xerr} {
		if !errors.Is(err, ErrHydrating) {
			t.Error(err)
		}
	}
	must(t, g.d.Unfence())
	if _, err := g.d.Rollback(); !errors.Is(err, ErrNotFenced) {
		t.Error(err)
	}
	e, err := g.d.Extents(0, hydraSize)
	must(t, err)
	at := int64(0)
	for _, x := range e {
		if first := g.stale.Next(at/Block, true); x.Hole && first*Block < at+x.Len {
			t.Errorf("stale block %d is called a hole", first)
		}
		at += x.Len
	}
	if at != hydraSize {
		t.Errorf("extents of %d bytes", at)
	}
	// Ended, it goes on from where it was.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.d.Hydrate(ctx, g.src); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	g.src.fetch = func(context.Context, int64, int) error { return hydrate.ErrGone }
	if err := g.d.Hydrate(t.Context(), g.src); !errors.Is(err, hydrate.ErrGone) {
		t.Error(err)
	}
}

func TestNothingStale(t *testing.T) {
	g := newLagging(t, 4)
	must(t, g.d.SetStale(nil, g.at))
	must(t, g.d.Close())
	g.d = reopen(t, hydraOptions(g.mem))
	if i := g.d.Info(); i.Hydrating || i.Position != g.at {
		t.Errorf("%+v", i)
	}
	same(t, g.d, g.old)
}

// Close ends a Hydrate and the reads that wait for it; both go on after a restart.
func TestCloseWhileHydrating(t *testing.T) {
	g := newLagging(t, 5)
	g.lack(t)
	must(t, g.d.Activate(2))
	begun := make(chan struct{}, 1000)
	g.src.fetch = func(ctx context.Context, _ int64, _ int) error {
		begun <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	end := make(chan error, 1)
	go func() { end <- g.d.Hydrate(t.Context(), g.src) }()
	<-begun
	read := make(chan error, 1)
	go func() { read <- g.d.ReadAt(make([]byte, hydraSize), 0) }()
	for {
		if p, ok := g.d.Hydration(); ok && p.Waiting > 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	must(t, g.d.Close())
	if err := <-end; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if err := <-read; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	r, err := Check(t.Context(), "", CheckOptions{FS: g.mem})
	must(t, err)
	if !r.OK() || len(r.Notes) == 0 {
		t.Errorf("%+v", r)
	}
	g.d = reopen(t, hydraOptions(g.mem))
	if i := g.d.Info(); i.Stale != g.stale.Count()*Block {
		t.Errorf("%d bytes are stale", i.Stale)
	}
	must(t, g.d.Activate(2))
	g.src.fetch = nil
	must(t, g.d.Hydrate(t.Context(), g.src))
	same(t, g.d, g.newest)
}

func TestRollback(t *testing.T) {
	for _, how := range []string{"never active", "fenced", "reopened", "while fetching"} {
		t.Run(how, func(t *testing.T) {
			g := newLagging(t, 6)
			g.lack(t)
			var lost int64
			if how != "never active" {
				must(t, g.d.SetClean("p", g.at))
				must(t, g.d.Activate(2))
				lost = 3 * Block
				must(t, g.d.WriteAt(bytes.Repeat([]byte{9}, int(lost)), 0, true))
				must(t, g.d.Fence())
			}
			end := make(chan error, 1)
			end <- nil
			switch how {
			case "reopened":
				must(t, g.d.Close())
				g.d = reopen(t, hydraOptions(g.mem))
			case "while fetching":
				<-end
				begun := make(chan struct{}, 1000)
				g.src.fetch = func(ctx context.Context, _ int64, _ int) error {
					begun <- struct{}{}
					<-ctx.Done()
					return ctx.Err()
				}
				go func() {
					if err := g.d.Hydrate(t.Context(), g.src); !errors.Is(err, ErrClosed) {
						end <- err
					}
					end <- nil
				}()
				<-begun
			}
			got, err := g.d.Rollback()
			must(t, err)
			must(t, <-end)
			if got != lost {
				t.Errorf("%d bytes lost, not %d", got, lost)
			}
			check := func() {
				t.Helper()
				i := g.d.Info()
				if i.Hydrating || i.Active || i.Fenced || i.Position != g.before || i.Owned || len(i.Peers) > 0 || i.Unflushed {
					t.Errorf("%+v", i)
				}
				same(t, g.d, g.old)
				for _, e := range g.d.Ends() {
					if e.Term >= g.before.Term {
						t.Errorf("term %d ended at %d", e.Term, e.Barrier)
					}
				}
			}
			check()
			if _, err := g.d.Rollback(); !errors.Is(err, ErrWhole) {
				t.Error(err)
			}
			must(t, g.d.Close())
			g.d = reopen(t, hydraOptions(g.mem))
			check()
			if how != "never active" {
				if err := g.d.Activate(2); !errors.Is(err, ErrFenced) {
					t.Errorf("the term again: %v", err)
				}
			}
			must(t, g.d.Activate(3))
			must(t, g.d.WriteAt([]byte{1}, 0, true))
		})
	}
}

// After a power cut all of a region that was being written counts as lacking at every peer, but for what is still stale: that was never written, and who
// had it has it. An owner that took its holder for lacking what it lacks itself would wait for ever.
func TestAPowerCutLeavesTheHolder(t *testing.T) {
	g := newLagging(t, 4)
	g.lack(t)
	must(t, g.d.SetClean("giver", g.at))
	must(t, g.d.Activate(2))
	fresh := g.stale.Next(0, false)
	must(t, g.d.WriteAt(blockOf(7), fresh*Block, true))
	g.mem = g.mem.Crash(vfs.LoseUnsynced, 1)
	_ = g.d.Close()
	d, err := Open("", hydraOptions(g.mem))
	must(t, err)
	defer d.Close()
	must(t, d.Activate(2))
	lag, ok := d.Lag("giver")
	if !ok {
		t.Fatal("nothing is known of the giver")
	}
	defer lag.Release()
	wrote := false
	for first, n := range lag.Runs() {
		for x := int64(first); x < int64(first+n); x++ {
			wrote = wrote || x == fresh
			if d.Stale(x*Block, Block) {
				t.Fatalf("the giver is said to lack block %d, which nobody has written", x)
			}
		}
	}
	if !wrote {
		t.Error("the giver isn't said to lack what was written")
	}
}
