package export

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/throttle"
	"tagalong.org/tagalong/vmdisk/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a disk of which few blocks hold anything. It counts what is read, and refuses what was released.
type fake struct {
	size   int64
	blocks map[int64]byte // filled with that; 0: zeros that take space
	err    error          // of reads

	mu       sync.Mutex
	read     int64
	released map[int64]bool
}

func (f *fake) Size() int64 { return f.size }

func (f *fake) ReadAt(p []byte, off int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.read += int64(len(p))
	if f.err != nil {
		return f.err
	}
	for i := 0; i < len(p); i += vmdisk.Block {
		b := (off + int64(i)) / vmdisk.Block
		if f.released[b] {
			return vmdisk.ErrReleased
		}
		fill := p[i:min(i+vmdisk.Block, len(p))]
		copy(fill, bytes.Repeat([]byte{f.blocks[b]}, len(fill)))
	}
	return nil
}

func (f *fake) Extents(off, n int64) (out []vmdisk.Extent, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n > 1<<28 { // a big range is looked at by what is there
		next := off + n
		for b := range f.blocks {
			if at := b * vmdisk.Block; at >= off && at < next {
				next = at
			}
		}
		if next > off {
			return []vmdisk.Extent{{Len: next - off, Hole: true}}, nil
		}
		n = 1 << 20
	}
	for at := off; at < off+n && len(out) < 7; { // few at a time
		_, there := f.blocks[at/vmdisk.Block]
		end := at
		for end < off+n {
			if _, is := f.blocks[end/vmdisk.Block]; is != there {
				break
			}
			end += vmdisk.Block
		}
		out = append(out, vmdisk.Extent{Len: min(end, off+n) - at, Hole: !there})
		at = end
	}
	return out, nil
}

func (f *fake) release(off, n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for b := off / vmdisk.Block; b < (off+n)/vmdisk.Block && n < 1<<28; b++ {
		f.released[b] = true
	}
}

// scattered is a disk with blocks here and there, in runs.
func scattered(seed uint64, size int64) *fake {
	r := rand.New(rand.NewPCG(seed, 21))
	f := &fake{size: size, blocks: map[int64]byte{}, released: map[int64]bool{}}
	for range 60 {
		a := r.Int64N(size / vmdisk.Block)
		for b := a; b < min(a+1+r.Int64N(60), size/vmdisk.Block); b++ {
			f.blocks[b] = byte(r.IntN(5))
		}
	}
	f.blocks[0], f.blocks[size/vmdisk.Block-1] = 7, 8
	return f
}

func open(t *testing.T, m *vfs.Mem, name string) vfs.File {
	t.Helper()
	f, err := m.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// fileBlock reads a block of the disk out of an exported file. It reads qcow2 as its specification says, and nothing that the
// writer of this package says.
func fileBlock(t *testing.T, f vfs.File, format string, block int64) []byte {
	t.Helper()
	p := make([]byte, vmdisk.Block)
	at := block * vmdisk.Block
	word := func(off int64) int64 {
		var b [8]byte
		if _, err := f.ReadAt(b[:], off); err != nil {
			t.Fatal(err)
		}
		return int64(binary.BigEndian.Uint64(b[:]))
	}
	const offset = 0x00fffffffffffe00
	if format == Qcow2 {
		const bits = 16
		l2 := word(word(40)+(at>>(bits+bits-3))*8) & offset
		if l2 == 0 {
			return p
		}
		data := word(l2+(at>>bits)%(1<<(bits-3))*8) & offset
		if data == 0 {
			return p
		}
		at = data + at%(1<<bits)
	}
	if _, err := f.ReadAt(p, at); err != nil {
		t.Fatalf("block %d at %d: %v", block, at, err)
	}
	return p
}

func TestContent(t *testing.T) {
	for _, format := range []string{Raw, Qcow2} {
		for seed := range uint64(5) {
			size := (1 + int64(seed)*9000) * 5 * vmdisk.Block
			d, m := scattered(seed, size), vfs.NewMem()
			last := int64(0)
			o := Options{Format: format, Read: d.release, Progress: func(done, total int64) {
				if done <= last || done > total || total != size {
					t.Errorf("progress %d after %d of %d", done, last, total)
				}
				last = done
			}}
			if err := To(t.Context(), m, "out", d, o); err != nil {
				t.Fatalf("%s, seed %d: %v", format, seed, err)
			}
			if last != size {
				t.Errorf("progress ended at %d of %d", last, size)
			}
			f := open(t, m, "out")
			look := func(b int64) {
				if b < 0 || b >= size/vmdisk.Block {
					return
				}
				if got := fileBlock(t, f, format, b); !bytes.Equal(got, bytes.Repeat([]byte{d.blocks[b]}, vmdisk.Block)) {
					t.Fatalf("%s, seed %d: block %d is %d instead of %d", format, seed, b, got[0], d.blocks[b])
				}
			}
			for b := range d.blocks {
				for near := b - 1; near <= b+1; near++ {
					look(near)
				}
			}
			for b := int64(0); b < size/vmdisk.Block; b += 997 {
				look(b)
			}
		}
	}
}

// An almost empty disk of the largest size costs what is in it.
func TestAlmostEmpty(t *testing.T) {
	for _, format := range []string{Raw, Qcow2} {
		d := &fake{size: vmdisk.MaxSize, blocks: map[int64]byte{3: 1, 7 << 20: 2, vmdisk.MaxSize/vmdisk.Block - 1: 3, 9 << 20: 0}}
		m := vfs.NewMem()
		if err := To(t.Context(), m, "out", d, Options{Format: format}); err != nil {
			t.Fatal(err)
		}
		if d.read > 4*cluster {
			t.Errorf("%s: %d bytes were read", format, d.read)
		}
		f := open(t, m, "out")
		n, err := f.Allocated()
		if err != nil || format == Raw && n != 3*vmdisk.Block || n > 2<<20 {
			t.Errorf("%s: the file takes %d, %v", format, n, err)
		}
		for b, v := range d.blocks {
			if got := fileBlock(t, f, format, b); got[0] != v || got[vmdisk.Block-1] != v {
				t.Errorf("%s: block %d is %d", format, b, got[0])
			}
		}
	}
}

func names(t *testing.T, m *vfs.Mem) []string {
	t.Helper()
	l, err := m.List()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Whatever call fails, nothing is under the name, nor anything else; and what was there before stays. A failing removal leaves
// the unfinished file only.
func TestEveryCallFails(t *testing.T) {
	for _, format := range []string{Raw, Qcow2} {
		for _, force := range []bool{false, true} {
			for n := 1; ; n++ {
				d, m := scattered(1, 2<<20), vfs.NewMem()
				if force {
					f, err := m.Create("out")
					if err != nil {
						t.Fatal(err)
					}
					if _, err := f.WriteAt([]byte("old"), 0); err != nil {
						t.Fatal(err)
					}
				}
				m.FailAt(n, syscall.ENOSPC, false)
				err := To(t.Context(), m, "out", d, Options{Format: format, Force: force})
				if err == nil && m.Calls() < n {
					break // there are no more
				}
				whole := false
				for _, name := range names(t, m) {
					if name != "out" {
						t.Fatalf("call %d: %s is left", n, name)
					}
					size, serr := open(t, m, name).Size()
					whole = serr == nil && size > 3
				}
				if !errors.Is(err, syscall.ENOSPC) {
					t.Fatalf("call %d failed, and the export said %v", n, err)
				}
				// Only the very last call, which makes the name durable, may fail with the file in place.
				if whole && m.Calls() > n {
					t.Fatalf("call %d: the file is there", n)
				}
				if force && len(names(t, m)) != 1 {
					t.Fatalf("call %d: what was there is gone", n)
				}
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	d, m := scattered(1, 1<<20), vfs.NewMem()
	if err := To(t.Context(), m, "out", d, Options{Format: "vmdk"}); !errors.Is(err, ErrFormat) {
		t.Errorf("format: %v", err)
	}
	if err := To(t.Context(), m, "out", d, Options{Format: Raw}); err != nil {
		t.Fatal(err)
	}
	read := d.read
	if err := To(t.Context(), m, "out", d, Options{Format: Qcow2}); !errors.Is(err, ErrExists) || d.read != read {
		t.Errorf("there is one already: %v", err)
	}
	// One that comes while it is written isn't replaced either.
	o := Options{Format: Raw, Progress: func(done, total int64) {
		if done == total {
			if _, err := m.Create("late"); err != nil {
				t.Error(err)
			}
		}
	}}
	if err := To(t.Context(), m, "late", d, o); !errors.Is(err, ErrExists) || len(names(t, m)) != 2 {
		t.Errorf("a late one: %v, %v", err, names(t, m))
	}
	d.err = syscall.EIO
	if err := To(t.Context(), m, "out", d, Options{Format: Raw, Force: true}); !errors.Is(err, syscall.EIO) || len(names(t, m)) != 2 {
		t.Errorf("unreadable: %v, %v", err, names(t, m))
	}
}

func TestCancel(t *testing.T) {
	d, m := scattered(1, 64<<20), vfs.NewMem()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	// It stands still at the limit until it is cancelled.
	o := Options{Format: Qcow2, Limit: throttle.New(1), Progress: func(int64, int64) { cancel() }}
	if err := To(ctx, m, "out", d, o); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if l := names(t, m); len(l) != 0 {
		t.Errorf("left: %v", l)
	}
}

// When it has returned, a power cut takes nothing.
func TestDurable(t *testing.T) {
	for _, format := range []string{Raw, Qcow2} {
		d, m := scattered(3, 4<<20), vfs.NewMem()
		if err := To(t.Context(), m, "out", d, Options{Format: format}); err != nil {
			t.Fatal(err)
		}
		m = m.Crash(vfs.LoseUnsynced, 0)
		if l := names(t, m); len(l) != 1 || l[0] != "out" {
			t.Fatalf("%s: there is %v", format, l)
		}
		f := open(t, m, "out")
		for b, v := range d.blocks {
			if got := fileBlock(t, f, format, b); got[0] != v {
				t.Fatalf("%s: block %d is %d instead of %d", format, b, got[0], v)
			}
		}
	}
}

// Every cluster of a file is counted once, and nothing beyond it, whatever their number.
func TestRefcounts(t *testing.T) {
	for _, around := range []int64{1, refcounts, 2 * refcounts, 8192 * refcounts, vmdisk.MaxSize / cluster} {
		for used := max(1, around-10); used < around+10; used++ {
			table, blocks := refcountSize(used)
			total := used + table + blocks
			if blocks*refcounts < total || (blocks-1)*refcounts >= total || table != clusters(blocks*8) {
				t.Errorf("%d clusters: %d refcount blocks, %d clusters of table", used, blocks, table)
			}
		}
	}
	m := vfs.NewMem()
	if err := To(t.Context(), m, "out", scattered(4, 40<<20), Options{Format: Qcow2}); err != nil {
		t.Fatal(err)
	}
	f := open(t, m, "out")
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	var p [8]byte
	if _, err := f.ReadAt(p[:], 48); err != nil { // the refcount table
		t.Fatal(err)
	}
	if _, err := f.ReadAt(p[:], int64(binary.BigEndian.Uint64(p[:]))); err != nil {
		t.Fatal(err)
	}
	counts := make([]byte, cluster)
	if _, err := f.ReadAt(counts, int64(binary.BigEndian.Uint64(p[:]))); err != nil {
		t.Fatal(err)
	}
	for i := range int64(refcounts) {
		want := uint16(0)
		if i < size/cluster {
			want = 1
		}
		if got := binary.BigEndian.Uint16(counts[i*2:]); got != want {
			t.Fatalf("cluster %d of %d is counted %d times", i, size/cluster, got)
		}
	}
}
