package vmdisk

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// scratchFault is a directory in which the n-th call that concerns a cut's scratch file fails.
type scratchFault struct {
	vfs.FS
	fault error
	left  atomic.Int64
	calls atomic.Int64
	// full, if not nil, says how much is free beside the scratch files.
	full *atomic.Int64
}

func (s *scratchFault) hit() error {
	s.calls.Add(1)
	if s.left.Add(-1) == 0 {
		return s.fault
	}
	return nil
}

func (s *scratchFault) Create(name string) (vfs.File, error) {
	if !strings.HasPrefix(name, "cut-") {
		return s.FS.Create(name)
	}
	if err := s.hit(); err != nil {
		return nil, err
	}
	f, err := s.FS.Create(name)
	return faultFile{f, s}, err
}

func (s *scratchFault) Remove(name string) error {
	if strings.HasPrefix(name, "cut-") {
		if err := s.hit(); err != nil {
			return err
		}
	}
	return s.FS.Remove(name)
}

func (s *scratchFault) Free() (int64, error) {
	if s.full == nil {
		return s.FS.Free()
	}
	return s.full.Load(), nil
}

type faultFile struct {
	vfs.File
	s *scratchFault
}

func (f faultFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.s.hit(); err != nil {
		return 0, err
	}
	if f.s.full != nil {
		f.s.full.Add(-int64(len(p)))
	}
	return f.File.WriteAt(p, off)
}

func (f faultFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.s.hit(); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, off)
}

func (f faultFile) Truncate(n int64) error {
	if err := f.s.hit(); err != nil {
		return err
	}
	if f.s.full != nil {
		held, err := f.File.Allocated()
		if err != nil {
			return err
		}
		f.s.full.Add(held)
	}
	return f.File.Truncate(n)
}

func (f faultFile) Punch(off, n int64) error {
	if err := f.s.hit(); err != nil {
		return err
	}
	return f.File.Punch(off, n)
}

// TestScratchFails fails every single call that concerns scratch files. The guest never notices, and a cut is right or says that it
// is lost, for good; another one can be taken.
func TestScratchFails(t *testing.T) {
	const size = 24 * Block
	run := func(t *testing.T, n int64, fault error) (lost bool, calls int64) {
		r := rand.New(rand.NewPCG(uint64(n), 15))
		s := &scratchFault{FS: vfs.NewMem(), fault: fault}
		s.left.Store(n)
		o := quiet(nil)
		o.FS = s
		d := newDisk(t, size, o)
		must(t, d.Activate(1))
		now := make([]byte, size)
		for range 2 {
			must(t, d.WriteAt(bytes.Repeat([]byte{9}, size), 0, false))
			copy(now, bytes.Repeat([]byte{9}, size))
			c := newCut(t, d)
			want, gone := bytes.Clone(now), false
			look := func() {
				got := make([]byte, size)
				switch err := c.ReadAt(got, 0); {
				case errors.Is(err, ErrCutLost):
					gone = true
				case gone:
					t.Fatalf("a lost cut is back: %v", err)
				case err != nil && !errors.Is(err, fault):
					t.Fatal(err)
				case err == nil && !bytes.Equal(got, want):
					t.Fatal("the cut is wrong")
				}
			}
			for range 4 {
				changeAny(t, d, now, r)
				look()
			}
			c.Release(size/2, size/4)
			must(t, c.ReadAt(make([]byte, 0), 0))
			must(t, c.Close())
			lost = lost || gone
		}
		if !bytes.Equal(content(t, d), now) {
			t.Fatal("the disk is wrong")
		}
		if d.Info().NeedsCheck != "" {
			t.Fatal("the disk is suspected")
		}
		must(t, d.Close())
		return lost, s.calls.Load()
	}
	_, calls := run(t, 0, errors.New("boom"))
	losses := 0
	for n := int64(1); n <= calls; n++ {
		for _, fault := range []error{errors.New("boom"), syscall.ENOSPC} {
			if lost, _ := run(t, n, fault); lost {
				losses++
			}
		}
	}
	if losses == 0 {
		t.Fatal("no fault ever struck")
	}
}

// When the device is full the guest gets the space that cuts take, and the reserve isn't touched for a cut.
func TestCutYieldsSpace(t *testing.T) {
	const size, reserve = 64 * Block, 10 * Block
	s := &scratchFault{FS: vfs.NewMem(), full: &atomic.Int64{}}
	s.full.Store(1 << 30)
	o := quiet(nil)
	o.FS, o.Reserve = s, reserve
	d := newDisk(t, size, o)
	must(t, d.Activate(1))
	must(t, d.WriteAt(bytes.Repeat([]byte{1}, size/2), 0, false))
	c, other := newCut(t, d), newCut(t, d)
	// Other needs nothing of what comes.
	other.Release(0, size)
	room := func(n int64) {
		s.full.Store(reserve + n)
		d.space.mu.Lock()
		d.space.left = 0
		d.space.mu.Unlock()
	}
	room(4 * Block)
	for i := range int64(8) { // into memory
		must(t, d.WriteAt(blockOf(2), i*Block, false))
	}
	room(4 * Block)
	// The old content of three blocks goes into the file, and takes the space (the block itself has its space already).
	for i := range int64(2) {
		must(t, d.WriteAt(blockOf(2), (8+i)*Block, false))
	}
	p := make([]byte, size)
	must(t, c.ReadAt(p, 0))
	if s.full.Load() < reserve {
		t.Fatal("a cut took from the reserve")
	}
	// Now the guest wants a new block, and there is none left.
	s.full.Store(reserve)
	d.space.mu.Lock()
	d.space.left = 0
	d.space.mu.Unlock()
	must(t, d.WriteAt(blockOf(3), size-Block, false))
	if err := c.ReadAt(p, 0); !errors.Is(err, ErrCutLost) || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the guest got its space, the cut says %v", err)
	}
	if _, err := c.Extents(0, size); !errors.Is(err, ErrCutLost) {
		t.Fatalf("extents: %v", err)
	}
	if n := scratchFiles(t, s.FS); len(n) != 0 {
		t.Fatalf("left: %v", n)
	}
	// A cut without a file had nothing to give.
	if err := other.ReadAt(p[:1], 0); !errors.Is(err, ErrReleased) {
		t.Fatalf("the other cut: %v", err)
	}
	// Nothing more to give: now the guest is told.
	room(0)
	if err := d.WriteAt(blockOf(3), size-2*Block, false); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("write to a full device: %v", err)
	}
	// A cut that can't keep what is overwritten is lost before the reserve is touched.
	c = newCut(t, d)
	for i := range int64(20) {
		must(t, d.WriteAt(blockOf(4), i*Block, false))
	}
	if err := c.ReadAt(p, 0); !errors.Is(err, ErrCutLost) || s.full.Load() < reserve {
		t.Fatalf("with nothing free: %v, %d free", err, s.full.Load())
	}
}

// interrupted is a directory in which something happens before a look at base.raw.
type interrupted struct {
	vfs.FS
	before func()
}

func (i *interrupted) Open(name string) (vfs.File, error) {
	f, err := i.FS.Open(name)
	if name == baseName && err == nil {
		f = interruptedFile{f, i}
	}
	return f, err
}

type interruptedFile struct {
	vfs.File
	i *interrupted
}

func (f interruptedFile) look() {
	if do := f.i.before; do != nil {
		f.i.before = nil
		do()
	}
}

func (f interruptedFile) ReadAt(p []byte, off int64) (int, error) {
	f.look()
	return f.File.ReadAt(p, off)
}

func (f interruptedFile) NextData(off int64) (int64, error) {
	f.look()
	return f.File.NextData(off)
}

// What changes between a cut's look at its sets and its look at the disk isn't taken for the cut's.
func TestCutLooksTwice(t *testing.T) {
	i := &interrupted{FS: vfs.NewMem()}
	o := quiet(nil)
	o.FS = i
	d := newDisk(t, 16*Block, o)
	must(t, d.Activate(1))
	want := bytes.Repeat([]byte{5}, 16*Block)
	must(t, d.WriteAt(want, 0, false))
	trim := func(at int64) func() {
		return func() {
			if err := d.Trim(at*Block, 2*Block, false); err != nil {
				t.Error(err)
			}
		}
	}
	c := newCut(t, d)
	for at := int64(0); at < 16; at += 4 {
		i.before, c.solid = trim(at), [2]int64{} // what it has found before isn't looked for again
		es, err := c.Extents(0, 16*Block)
		if must(t, err); i.before != nil || len(es) != 1 || es[0] != (Extent{16 * Block, false}) {
			t.Fatalf("extents %v", es)
		}
		i.before = trim(at + 2)
		if got := whatCut(t, c); i.before != nil || !bytes.Equal(got, want) {
			t.Fatal("the cut has what was written after it")
		}
	}
}

// A disk that is filled from a file becomes another one.
func TestImportLosesCuts(t *testing.T) {
	d := newDisk(t, 4*Block, quiet(vfs.NewMem()))
	c := newCut(t, d)
	raw := filepath.Join(t.TempDir(), "raw")
	must(t, os.WriteFile(raw, bytes.Repeat([]byte{1}, 2*Block), 0o600))
	must(t, d.ImportRaw(t.Context(), raw, nil))
	if err := c.ReadAt(make([]byte, Block), 0); !errors.Is(err, ErrCutLost) {
		t.Fatalf("the cut of what the disk was before says %v", err)
	}
}
