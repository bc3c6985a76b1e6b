package hydrating

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"tagalong.org/tagalong/app/holders"
	"tagalong.org/tagalong/p2p/fetch"
	"tagalong.org/tagalong/p2p/wire/wiretest"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/disktest"
	"tagalong.org/tagalong/vmdisk/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var seeds = flag.Int("hydrating.seeds", 12, "how many lives TestLives lives")

const (
	size  = 4 << 20
	block = vmdisk.Block
)

func must(t testing.TB, err error, or ...error) {
	t.Helper()
	if err != nil && !slices.ContainsFunc(or, func(o error) bool { return errors.Is(err, o) }) {
		t.Fatal(err)
	}
}

// device lends its disk while it is there.
type device struct {
	t     *testing.T
	d     *vmdisk.Store
	stats fetch.Stats
	wg    sync.WaitGroup

	mu   sync.Mutex
	ends []fetch.Stream
	here bool
}

func (v *device) open() (fetch.Stream, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.here {
		return nil, errors.New("away")
	}
	a, b := wiretest.Pipe(v.t)
	v.ends = append(v.ends, b)
	v.wg.Go(func() {
		var lent *holders.Lent
		_ = fetch.Serve(context.Background(), b, func(fetch.Hello) (_ fetch.Reader, st fetch.State, err error) {
			lent, st, err = holders.Lend(context.Background(), v.d)
			return lent, st, err
		}, &v.stats)
		if lent != nil {
			must(v.t, lent.Close())
		}
	})
	return a, nil
}

func (v *device) gave() int64 { return v.stats.Data.Load() + v.stats.Zeroed.Load() }

// world is an owner whose disk lacks blocks, and who else there is. The disk held 1 everywhere; then "old" left, the first half of stale was written,
// "mid" left, the second half was written, and the owner, as old as "old", was given it by "giver".
type world struct {
	t       *testing.T
	d       *vmdisk.Store
	at      vmdisk.Position
	devices map[string]*device
	want    []byte

	mu      sync.Mutex
	changed []chan struct{}
	allow   map[string]bool // not allowed if false

	run    *Run
	cancel context.CancelCauseFunc
	ended  chan error
	told   chan []string
	term   uint64
}

const (
	firstHalf, secondHalf, staleEnd = 100, 200, 300 // blocks
)

func newWorld(t *testing.T) *world {
	o := func() vmdisk.Options { return vmdisk.Options{FS: vfs.NewMem(), BarrierEvery: -1} }
	w := &world{t: t, devices: map[string]*device{}, want: make([]byte, size), allow: map[string]bool{}, told: make(chan []string, 100), term: 2}
	g, err := vmdisk.Create("", vmdisk.ID{1}, size, o())
	must(t, err)
	must(t, g.Activate(1))
	w.devices["giver"] = &device{t: t, d: g}
	for _, name := range []string{"old", "mid", "me"} {
		d, err := vmdisk.CreateReplica("", vmdisk.ID{1}, size, o())
		must(t, err)
		w.devices[name] = &device{t: t, d: d}
	}
	write := func(from, to int64, v byte) {
		p := w.want[from*block : to*block]
		for i := range p {
			p[i] = v
		}
		must(t, g.WriteAt(p, from*block, false))
	}
	write(0, size/block, 1)
	follow(t, g, w.devices["old"].d, "old")
	follow(t, g, w.devices["me"].d, "me")
	write(firstHalf, secondHalf, 2)
	follow(t, g, w.devices["mid"].d, "mid")
	write(secondHalf, staleEnd, 3)
	must(t, g.Flush())
	must(t, g.Fence())
	w.at = g.Position()
	sets, err := g.ExportDirty()
	must(t, err)
	must(t, g.Give(1))
	w.d = w.devices["me"].d
	delete(w.devices, "me")
	stale, pos, err := w.d.StaleIn(sets, "me")
	must(t, err)
	must(t, w.d.SetStale(stale, pos))
	must(t, w.d.ImportDirty(sets, "me"))
	must(t, w.d.Activate(2))
	must(t, w.d.SetClean("giver", w.at))
	if p, ok := w.d.Hydration(); !ok || p.Left != 200*block {
		t.Fatalf("it lacks %+v", p)
	}
	return w
}

// follow brings a replica to where its owner is.
func follow(t testing.TB, d, r *vmdisk.Store, name string) {
	t.Helper()
	must(t, disktest.Follow(t.Context(), d, r, name))
}

// Connected implements Net, as do the next two.
func (w *world) Connected() (out []string) {
	for name, v := range w.devices {
		v.mu.Lock()
		if v.here {
			out = append(out, name)
		}
		v.mu.Unlock()
	}
	return out
}

func (w *world) Watch() (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changed = append(w.changed, c)
	return c, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.changed = slices.DeleteFunc(w.changed, func(o chan struct{}) bool { return o == c })
	}
}

func (w *world) Open(_ context.Context, name string) (fetch.Stream, error) {
	return w.devices[name].open()
}

// set lets a device be there, or not.
func (w *world) set(name string, here bool) {
	v := w.devices[name]
	v.mu.Lock()
	v.here = here
	if !here {
		for _, s := range v.ends {
			_ = s.Reset()
		}
		v.ends = nil
	}
	v.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.changed {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

func (w *world) permit(name string, on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.allow[name] = on
}

func (w *world) begin() {
	var err error
	w.run, err = New(Options{
		Disk: w.d, Net: w, Hello: fetch.Hello{Target: fetch.Target{VM: "vm", Disk: fetch.ID(w.d.ID()), Size: size, Term: w.term}, At: fetch.Position(w.at)},
		Allow: func(name string) fetch.Allowance {
			w.mu.Lock()
			defer w.mu.Unlock()
			on, said := w.allow[name]
			return fetch.Allowance{Pull: on || !said}
		},
		Waits: func(could []string) { w.told <- could },
	})
	must(w.t, err)
	var ctx context.Context
	ctx, w.cancel = context.WithCancelCause(context.Background())
	w.ended = make(chan error, 1)
	run, ended := w.run, w.ended
	go func() { ended <- run.Serve(ctx) }()
}

// end ends the Run, and says what it said.
func (w *world) end(why error) error {
	w.cancel(why)
	return <-w.ended
}

// close ends everything, and compares the disk if it should be whole.
func (w *world) close(whole bool) {
	w.t.Helper()
	if _, lacks := w.d.Hydration(); lacks == whole {
		w.t.Errorf("lacks something: %v", lacks)
	}
	if whole {
		got := make([]byte, size)
		must(w.t, w.d.ReadAt(got, 0))
		if !bytes.Equal(got, w.want) {
			w.t.Error("the disk isn't what it must be")
		}
	}
	for name, v := range w.devices {
		w.set(name, false)
		v.wg.Wait()
		must(w.t, v.d.Close())
	}
	w.d.EndWaiting()
	must(w.t, w.d.Close())
}

func (w *world) read(at int64) {
	w.t.Helper()
	b := make([]byte, block)
	must(w.t, w.d.ReadAt(b, at*block))
	if !bytes.Equal(b, w.want[at*block:(at+1)*block]) {
		w.t.Errorf("block %d is %d, not %d", at, b[0], w.want[at*block])
	}
}

// settle lets time pass in which all that can come does, with who there is by then.
func settle() {
	time.Sleep(10 * time.Second)
	synctest.Wait()
}

func TestWhole(t *testing.T) {
	for _, c := range []struct {
		name string
		here []string
		left int64    // bytes, in the end
		told []string // who could help; nil is that nothing is said
		gave []string // who must have given something
	}{
		{"the giver has it all", []string{"giver"}, 0, nil, []string{"giver"}},
		{"two together", []string{"giver", "mid"}, 0, nil, []string{"giver"}},
		{"one who has a half", []string{"mid"}, 100 * block, []string{"giver"}, []string{"mid"}},
		{"one who has nothing of it", []string{"old"}, 200 * block, []string{"giver", "mid"}, nil},
		{"a half, and nothing", []string{"mid", "old"}, 100 * block, []string{"giver"}, []string{"mid"}},
		{"nobody", nil, 200 * block, []string{"giver", "mid"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				for _, name := range c.here {
					w.set(name, true)
				}
				w.begin()
				settle()
				p, _ := w.d.Hydration()
				if p.Left != c.left || w.run.Waiting() != (c.told != nil) {
					t.Errorf("%d bytes are left, waiting: %v", p.Left, w.run.Waiting())
				}
				if s := w.run.Survey(); s.Left != c.left || s.Nobodys != c.left || !slices.Equal(s.Helpers, c.told) {
					t.Errorf("%+v", s)
				}
				for _, name := range c.gave {
					if w.devices[name].gave() == 0 {
						t.Errorf("%s gave nothing", name)
					}
				}
				gave := int64(0)
				for _, v := range w.devices {
					gave += v.gave()
				}
				// What was asked for together with what nobody has comes twice.
				if n := 200*block - c.left; gave < n || gave > n+64<<10 {
					t.Errorf("%d bytes were given of %d", gave, 200*block-c.left)
				}
				if c.told == nil {
					must(t, <-w.ended)
					if len(w.told) != 0 {
						t.Errorf("said: %v", <-w.told)
					}
					w.close(true)
					return
				}
				if could := <-w.told; !slices.Equal(could, c.told) || len(w.told) != 0 {
					t.Errorf("%v could help, and %d more were said", could, len(w.told))
				}
				// Who could help comes: all goes on, and that is said.
				w.set(c.told[0], true)
				settle()
				if could := <-w.told; could != nil {
					t.Errorf("said: %v", could)
				}
				must(t, <-w.ended)
				w.close(true)
			})
		})
	}
}

// While the pull is held back what is read comes all the same, with what follows it; and that a read waits for what nobody has is said, though others
// are there.
func TestHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.permit("mid", false)
		w.permit("giver", false)
		w.set("mid", true)
		w.begin()
		settle()
		if p, _ := w.d.Hydration(); p.Left != 200*block || len(w.told) != 0 {
			t.Fatalf("%d bytes are left", p.Left)
		}
		if s := w.run.Survey(); s.Held != s.Left || s.Nobodys != 100*block {
			t.Errorf("%+v", s)
		}
		w.read(firstHalf + 3)
		settle()
		p, _ := w.d.Hydration()
		if came := 200*block - p.Left; came < block || came > 40*block {
			t.Errorf("%d bytes came", came)
		}
		read := make(chan struct{})
		go func() {
			w.read(secondHalf + 3)
			close(read)
		}()
		if could := <-w.told; !slices.Equal(could, []string{"giver"}) || !w.run.Waiting() {
			t.Errorf("said: %v", could)
		}
		w.set("giver", true)
		<-read
		if could := <-w.told; could != nil {
			t.Errorf("said: %v", could)
		}
		settle()
		if p, lacks := w.d.Hydration(); !lacks || p.Left < 100*block {
			t.Errorf("it was pulled: %+v", p)
		}
		w.permit("giver", true)
		must(t, <-w.ended)
		if n := w.devices["mid"].gave(); n > 40*block {
			t.Errorf("%d bytes were pulled from who may not be", n)
		}
		w.close(true)
	})
}

func TestEnds(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(w *world) error
		want error
	}{
		{"by the person", func(w *world) error { return w.end(context.DeadlineExceeded) }, context.DeadlineExceeded},
		{"another term", func(w *world) error {
			must(w.t, w.end(nil), context.Canceled)
			w.term = 3
			w.begin()
			return <-w.ended
		}, ErrElsewhere},
		{"the disk is closed", func(w *world) error { w.d.EndWaiting(); return <-w.ended }, vmdisk.ErrClosed},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.set("mid", true)
				w.begin()
				settle()
				if err := c.do(w); !errors.Is(err, c.want) {
					t.Errorf("%v", err)
				}
				w.close(false)
			})
		})
	}
}

// TestLives: holders come, go and may be pulled from or not, the guest reads and writes, the engine starts anew. Whatever happens every read is right, what
// nobody has waits and is said, never for what somebody has who is there, and in the end the disk is whole.
func TestLives(t *testing.T) {
	for seed := range uint64(*seeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { live(t, seed) })
		})
	}
}

func live(t *testing.T, seed uint64) {
	w, r := newWorld(t), rand.New(rand.NewPCG(seed, 4))
	names := []string{"giver", "mid", "old"}
	w.begin()
	var reads sync.WaitGroup
	var open atomic.Int64
	written := map[int64]bool{}
	done := false
	for step := range 60 {
		name := names[r.IntN(len(names))]
		switch r.IntN(8) {
		case 0, 1:
			w.set(name, r.IntN(3) > 0)
		case 2:
			w.permit(name, r.IntN(2) == 0)
		case 3:
			at := r.Int64N(size / block)
			p := w.want[at*block : (at+1)*block]
			if open.Load() == 0 { // nobody may be comparing it
				reads.Wait()
				for i := range p {
					p[i] = byte(100 + step)
				}
				must(t, w.d.WriteAt(p, at*block, false))
				written[at] = true
			}
		case 4:
			if !done {
				if err := w.end(nil); err != nil && !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
				for len(w.told) > 0 {
					<-w.told
				}
				if _, lacks := w.d.Hydration(); lacks {
					w.begin()
				} else {
					done = true
				}
			}
		default:
			at := r.Int64N(size / block)
			open.Add(1)
			reads.Go(func() {
				defer open.Add(-1)
				w.read(at)
			})
		}
		time.Sleep(time.Duration(r.IntN(3000)) * time.Millisecond)
		synctest.Wait()
		here := w.Connected()
		if p, lacks := w.d.Hydration(); lacks && !done && slices.Contains(here, "giver") && step%5 == 4 {
			time.Sleep(6 * time.Second) // it may have to be dialled again
			synctest.Wait()
			if p, _ = w.d.Hydration(); p.Waiting > 0 || w.run.Waiting() {
				t.Fatalf("seed %d, step %d: the giver is there, and somebody waits: %+v, %+v", seed, step, p, w.run.Holders())
			}
		}
	}
	for _, name := range names {
		w.set(name, true)
		w.permit(name, true)
	}
	if !done {
		must(t, <-w.ended)
	}
	reads.Wait()
	w.close(true)
}
