package holders

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"tagalong.org/tagalong/p2p/fetch"
	"tagalong.org/tagalong/p2p/wire/wiretest"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/disktest"
	"tagalong.org/tagalong/vmdisk/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var seeds = flag.Int("holders.seeds", 2, "how many switches TestHydrate makes")

const (
	size  = 16 << 20
	block = vmdisk.Block
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// follow brings a replica to where its owner is.
func follow(t testing.TB, d, r *vmdisk.Store, name string) {
	t.Helper()
	must(t, disktest.Follow(t.Context(), d, r, name))
}

// scribble writes random blocks into a part of the disk, and into what it should be.
func scribble(t testing.TB, r *rand.Rand, d *vmdisk.Store, want []byte, times int) {
	t.Helper()
	for range times {
		n := (1 + r.IntN(16)) * block
		off := r.IntN((size-n)/block+1) * block
		p := want[off : off+n]
		for i := range p {
			p[i] = byte(r.Uint32())
		}
		if r.IntN(4) == 0 {
			clear(p)
		}
		must(t, d.WriteAt(p, int64(off), false))
	}
	must(t, d.Flush())
}

// far is a stream whose bytes take 25 ms each way.
func far(t testing.TB, wg *sync.WaitGroup) (a, b fetch.Stream) {
	a, x := wiretest.Pipe(t)
	y, b := wiretest.Pipe(t)
	carry := func(to, from fetch.Stream) {
		type part struct {
			at time.Time
			p  []byte
		}
		parts := make(chan part, 1<<10)
		wg.Go(func() {
			defer close(parts)
			for {
				p := make([]byte, 64<<10)
				n, err := from.Read(p)
				if err != nil {
					return
				}
				parts <- part{time.Now().Add(25 * time.Millisecond), p[:n]}
			}
		})
		wg.Go(func() {
			for c := range parts {
				time.Sleep(time.Until(c.at))
				_, _ = to.Write(c.p) // who has hung up reads no more
			}
			_ = to.Reset()
			_ = from.Reset()
		})
	}
	carry(x, y)
	carry(y, x)
	return a, b
}

// device is a device that lends its disk.
type device struct {
	t    testing.TB
	d    *vmdisk.Store
	wg   sync.WaitGroup
	mu   sync.Mutex
	ends []fetch.Stream
	away bool
}

var errAway = errors.New("away")

func (v *device) dial(context.Context) (fetch.Stream, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.away {
		return nil, errAway
	}
	a, b := far(v.t, &v.wg)
	v.ends = append(v.ends, b)
	v.wg.Go(func() {
		var lent *Lent
		_ = fetch.Serve(context.Background(), b, func(fetch.Hello) (_ fetch.Reader, st fetch.State, err error) {
			lent, st, err = Lend(context.Background(), v.d)
			return lent, st, err
		}, nil)
		if lent != nil {
			must(v.t, lent.Close())
		}
	})
	return a, nil
}

func (v *device) leave(away bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, s := range v.ends {
		_ = s.Reset()
	}
	v.ends, v.away = nil, away
}

// TestHydrate switches to a replica that lacks much, while the giver and a replica of a position between are 50 ms away: the guest reads what it
// must, through the departure of either, and of the new owner itself.
func TestHydrate(t *testing.T) {
	for seed := range uint64(*seeds) {
		synctest.Test(t, func(t *testing.T) { lives(t, seed) })
	}
}

func lives(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	o := func() vmdisk.Options { return vmdisk.Options{FS: vfs.NewMem(), BarrierEvery: -1} }
	want := make([]byte, size)
	g, err := vmdisk.Create("", vmdisk.ID{1}, size, o())
	must(t, err)
	must(t, g.Activate(1))
	other, err := vmdisk.CreateReplica("", vmdisk.ID{1}, size, o())
	must(t, err)
	mine := o()
	d, err := vmdisk.CreateReplica("", vmdisk.ID{1}, size, mine)
	must(t, err)
	scribble(t, r, g, want, 200)
	follow(t, g, d, "d")
	follow(t, g, other, "other")
	scribble(t, r, g, want, 200)
	follow(t, g, other, "other")
	scribble(t, r, g, want, 60)

	must(t, g.Fence())
	at := g.Position()
	sets, err := g.ExportDirty()
	must(t, err)
	must(t, g.Give(1))
	stale, pos, err := d.StaleIn(sets, "d")
	must(t, err)
	if pos != at || len(stale) == 0 {
		t.Fatalf("it lacks %d bytes of set at %s, and %s was given", len(stale), pos, at)
	}
	must(t, d.SetStale(stale, pos))
	must(t, d.ImportDirty(sets, "d"))
	must(t, d.Activate(2))
	must(t, d.SetClean("g", at))

	devices := map[string]*device{"g": {t: t, d: g}, "other": {t: t, d: other}}
	var pool *fetch.Pool
	ended := make(chan error, 1)
	var stop context.CancelFunc
	given := map[string]int64{}
	begin := func() {
		var err error
		pool, err = fetch.NewPool(fetch.Hello{
			Target: fetch.Target{VM: "vm", Disk: fetch.ID(d.ID()), Size: size, Term: 2}, At: fetch.Position(at),
		}, fetch.Options{})
		must(t, err)
		for name, v := range devices {
			pool.Add(fetch.Holder{Name: name, Dial: v.dial, Judge: Judge(d, name)})
		}
		var ctx context.Context
		ctx, stop = context.WithCancel(context.Background())
		run, p := d, pool
		go func() { ended <- run.Hydrate(ctx, Source{p}) }()
	}
	end := func() error {
		stop()
		err := <-ended
		for _, h := range pool.Holders() {
			given[h.Name] += h.Fetched
		}
		pool.Close()
		return err
	}
	begin()
	for step := range 60 {
		n := (1 + r.IntN(8)) * block
		off := r.IntN((size-n)/block+1) * block
		switch r.IntN(6) {
		case 0:
			for i := range want[off : off+n/2] {
				want[off+i] = byte(step)
			}
			must(t, d.WriteAt(want[off:off+n/2], int64(off), false)) // the last block may be half of one
		case 1:
			devices["g"].leave(r.IntN(2) == 0)
			time.AfterFunc(3*time.Second, func() { devices["g"].leave(false) })
		case 2:
			devices["other"].leave(r.IntN(2) == 0)
		}
		got := make([]byte, n)
		must(t, d.ReadAt(got, int64(off)))
		if !bytes.Equal(got, want[off:off+n]) {
			t.Fatalf("seed %d, step %d: %d bytes at %d aren't what the guest wrote", seed, step, n, off)
		}
		if step == 15 {
			// The new owner starts again.
			if err := end(); err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			must(t, d.Close())
			d, err = vmdisk.Open("", mine)
			must(t, err)
			must(t, d.Activate(2))
			begin()
		}
	}
	for {
		if _, lacks := d.Hydration(); !lacks {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err := end(); err != nil {
		t.Error(err)
	}
	got := make([]byte, size)
	must(t, d.ReadAt(got, 0))
	if !bytes.Equal(got, want) {
		t.Errorf("seed %d: the whole disk isn't what the guest wrote", seed)
	}
	t.Logf("seed %d: %v bytes came", seed, given)
	if given["g"] == 0 || given["other"] == 0 {
		t.Errorf("not both gave something: %v", given)
	}
	for _, v := range devices {
		v.leave(true)
		v.wg.Wait()
		must(t, v.d.Close())
	}
	must(t, d.Close())
}

func TestJudge(t *testing.T) {
	d, err := vmdisk.Create("", vmdisk.ID{1}, size, vmdisk.Options{FS: vfs.NewMem(), BarrierEvery: -1})
	must(t, err)
	defer func() { must(t, d.Close()) }()
	r, err := vmdisk.CreateReplica("", vmdisk.ID{1}, size, vmdisk.Options{FS: vfs.NewMem()})
	must(t, err)
	defer func() { must(t, r.Close()) }()
	must(t, d.Activate(1))
	if _, err := Judge(d, "r")(fetch.State{}); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
	must(t, d.WriteAt(make([]byte, block), 0, true))
	follow(t, d, r, "r")
	at := fetch.State{Complete: true, Position: fetch.Position(r.Position())}
	if lacks, err := Judge(d, "r")(at); err != nil || lacks != nil {
		t.Errorf("it lacks something: %v", err)
	}
	must(t, d.WriteAt(make([]byte, 2*block), 5*block, true))
	lacks, err := Judge(d, "r")(at)
	must(t, err)
	for off, c := range map[int64]struct {
		no  bool
		end int64
	}{0: {false, 5 * block}, 5 * block: {true, 7 * block}, 6 * block: {true, 7 * block}, 7 * block: {false, size}} {
		if no, end := lacks(off); no != c.no || end != c.end {
			t.Errorf("at %d: %v to %d", off, no, end)
		}
	}
	at.Position = fetch.Position(d.Position())
	if _, err := Judge(d, "r")(at); !errors.Is(err, ErrUnknown) {
		t.Errorf("a replica that is elsewhere: %v", err)
	}
}

// A replica that follows on is lent as it was; one that is closed isn't lent any more.
func TestLend(t *testing.T) {
	d, err := vmdisk.Create("", vmdisk.ID{1}, size, vmdisk.Options{FS: vfs.NewMem(), BarrierEvery: -1})
	must(t, err)
	must(t, d.Activate(1))
	must(t, d.WriteAt(bytes.Repeat([]byte{1}, block), 0, true))
	l, st, err := Lend(t.Context(), d)
	must(t, err)
	if !st.Complete || st.Position != fetch.Position(d.Position()) {
		t.Errorf("%+v", st)
	}
	must(t, d.WriteAt(bytes.Repeat([]byte{2}, block), 0, true))
	p := make([]byte, block)
	must(t, l.ReadAt(p, 0))
	if p[0] != 1 {
		t.Error("what was lent has changed")
	}
	must(t, d.Close())
	if err := l.ReadAt(p, 0); !errors.Is(err, fetch.ErrOver) {
		t.Error(err)
	}
	must(t, l.Close())
}
