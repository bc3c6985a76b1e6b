package vmdisk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"

	"tagalong.org/tagalong/vmdisk/layer"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// addLayer puts a layer on top of the disk, as if a catch-up had brought it.
func addLayer(t *testing.T, d *Store, fill func(l *layer.Layer)) {
	t.Helper()
	r := newLayerRef(rolePart, layer.Incoming)
	l, err := layer.Create(d.layerConfig(r))
	must(t, err)
	fill(l)
	must(t, l.Sync())
	must(t, d.j.commit(func(st *state) { st.layers = append([]layerRef{r}, st.layers...) }))
	d.stack.layers = append([]*layer.Layer{l}, d.stack.layers...)
}

// layered is a disk with random content in base.raw and two layers, and that content.
func layered(t *testing.T, r *rand.Rand, o Options) (*Store, []byte) {
	t.Helper()
	const blocks = 64
	d := newDisk(t, blocks*Block, o)
	must(t, d.Activate(1))
	want := make([]byte, blocks*Block)
	put := func(write func(p []byte, off int64) error) {
		for range 12 {
			x, n := r.Int64N(blocks), 1+r.Int64N(5)
			n = min(n, blocks-x)
			p := bytes.Repeat([]byte{byte(1 + r.IntN(250))}, int(n*Block))
			if r.IntN(4) == 0 {
				clear(p)
			}
			must(t, write(p, x*Block))
			copy(want[x*Block:], p)
		}
	}
	put(func(p []byte, off int64) error { return d.WriteAt(p, off, false) })
	must(t, d.Flush())
	for range 2 {
		addLayer(t, d, func(l *layer.Layer) {
			put(func(p []byte, off int64) error {
				if isZero(p) {
					return l.ZeroAt(off, int64(len(p)), r.IntN(2) == 0)
				}
				return l.WriteAt(p, off)
			})
		})
	}
	return d, want
}

// scribble does random changes, of any alignment, to the disk and to want.
func scribble(t *testing.T, r *rand.Rand, d *Store, want []byte, n int) {
	t.Helper()
	for range n {
		off := r.Int64N(int64(len(want)))
		n := 1 + r.Int64N(min(20000, int64(len(want))-off))
		p := make([]byte, n)
		switch r.IntN(4) {
		case 0:
			must(t, d.Zero(off, n, r.IntN(2) == 0, false))
		case 1:
			must(t, d.Trim(off, n, false))
		default:
			for i := range p {
				p[i] = byte(r.Uint32())
			}
			must(t, d.WriteAt(p, off, false))
		}
		copy(want[off:], p)
	}
}

// checkHoles says that what is called a hole reads as zeros, and that the extents cover the disk.
func checkHoles(t *testing.T, d *Store, want []byte) {
	t.Helper()
	var at int64
	for at < d.Size() {
		es, err := d.Extents(at, d.Size()-at)
		must(t, err)
		for _, e := range es {
			if e.Hole && !isZero(want[at:at+e.Len]) {
				t.Fatalf("%d bytes at %d aren't a hole", e.Len, at)
			}
			at += e.Len
		}
	}
	for a := range d.blocks() {
		if end := d.holeEnd(a, d.blocks()); end > a && !isZero(want[a*Block:end*Block]) {
			t.Fatalf("blocks %d to %d aren't a hole", a, end)
		}
	}
}

// A disk with layers is written and read like any other, its layers can be merged at any moment, and
// it is the same after a restart.
func TestStack(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 5))
		m := vfs.NewMem()
		d, want := layered(t, r, quiet(m))
		for step := 0; ; step++ {
			if got := content(t, d); !bytes.Equal(got, want) {
				t.Fatalf("seed %d, step %d: %s", seed, step, differ(got, want))
			}
			checkHoles(t, d, want)
			if step == 6 {
				break
			}
			scribble(t, r, d, want, 10)
			switch r.IntN(4) {
			case 0:
				_, err := d.mergeBottom(t.Context())
				must(t, err)
			case 1:
				must(t, d.Flush())
				loss := vfs.Loss(r.IntN(3))
				m = m.Crash(loss, seed)
				_ = d.Close()
				d = reopen(t, quiet(m))
				must(t, d.Activate(1))
			case 2:
				must(t, d.Close())
				d = reopen(t, quiet(m))
				must(t, d.Activate(1))
			}
		}
		for {
			more, err := d.mergeBottom(t.Context())
			must(t, err)
			if !more {
				break
			}
		}
		if got := content(t, d); !bytes.Equal(got, want) {
			t.Fatalf("seed %d, merged: %s", seed, differ(got, want))
		}
		must(t, d.Close())
		names, err := m.List()
		must(t, err)
		if slices.ContainsFunc(names, func(n string) bool { return len(n) > 6 && n[:6] == layerPrefix }) {
			t.Fatalf("seed %d: layers are left: %v", seed, names)
		}
	}
}

// While a layer is merged the guest goes on writing and reading. Nothing is lost, and the merge ends.
func TestMergeUnderWrites(t *testing.T) {
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 6))
		o := quiet(vfs.NewMem())
		d, want := layered(t, r, o)
		const writers = 4
		stop := make(chan struct{})
		var wg sync.WaitGroup
		share := len(want) / writers
		for w := range writers {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(seed, uint64(w)))
				mine := want[w*share : (w+1)*share]
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					off := r.IntN(share)
					p := bytes.Repeat([]byte{byte(n)}, 1+r.IntN(min(9000, share-off)))
					if err := d.WriteAt(p, int64(w*share+off), r.IntN(50) == 0); err != nil {
						t.Error(err)
						return
					}
					copy(mine[off:], p)
					got := make([]byte, len(p))
					if err := d.ReadAt(got, int64(w*share+off)); err != nil || !bytes.Equal(got, p) {
						t.Errorf("read back: %v", err)
						return
					}
				}
			})
		}
		for range 2 {
			if more, err := d.mergeBottom(t.Context()); err != nil || !more {
				t.Errorf("merge: %v, %v", more, err)
			}
		}
		close(stop)
		wg.Wait()
		if len(d.stack.layers) != 0 {
			t.Fatal("layers are left")
		}
		if got := content(t, d); !bytes.Equal(got, want) {
			t.Fatalf("seed %d: %s", seed, differ(got, want))
		}
	}
}

// Whatever call of a merge fails, and whatever a crash there takes: the disk is what it was, and the merge can be done again.
func TestMergeFails(t *testing.T) {
	for _, why := range []error{syscall.ENOSPC, syscall.EIO} {
		for n := 1; ; n++ {
			r := rand.New(rand.NewPCG(uint64(n), 7))
			m := vfs.NewMem()
			d, want := layered(t, r, quiet(m))
			scribble(t, r, d, want, 10)
			must(t, d.Flush())
			m.FailAt(n, why, n%2 == 0)
			_, err := d.mergeBottom(t.Context())
			reached := m.Calls() >= n
			m.FailAt(0, nil, false)
			what := fmt.Sprintf("call %d fails (%v): %v", n, why, err)
			if err != nil && !errors.Is(err, why) {
				t.Fatal(what)
			}
			if got := content(t, d); !bytes.Equal(got, want) {
				t.Fatalf("%s: %s", what, differ(got, want))
			}
			m = m.Crash(vfs.Loss(n%3), uint64(n))
			_ = d.Close()
			d = reopen(t, quiet(m))
			for range 2 {
				if got := content(t, d); !bytes.Equal(got, want) {
					t.Fatalf("%s, opened again: %s", what, differ(got, want))
				}
				_, err := d.mergeBottom(t.Context())
				must(t, err)
			}
			if got := content(t, d); !bytes.Equal(got, want) || len(d.stack.layers) != 0 {
				t.Fatalf("%s, merged: %s", what, differ(got, want))
			}
			must(t, d.Close())
			if !reached {
				break
			}
		}
	}
}

// A merge ends when the disk is closed, wherever it is, and a disk opens without waiting for it.
func TestMergeEndsAtClose(t *testing.T) {
	m := vfs.NewMem()
	d, want := layered(t, rand.New(rand.NewPCG(1, 1)), quiet(m))
	must(t, d.Close())
	o := quiet(m)
	o.mergeByHand = false
	d = reopen(t, o)
	must(t, d.Close())
	d = reopen(t, quiet(m))
	for {
		more, err := d.mergeBottom(context.Background())
		must(t, err)
		if !more {
			break
		}
	}
	if got := content(t, d); !bytes.Equal(got, want) {
		t.Fatal(differ(got, want))
	}
}
