package vmdisk

import (
	"errors"
	"strings"
	"sync"
	"syscall"
	"testing"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// badFS fails reads, writes and syncs of one file, in a range of it.
type badFS struct {
	vfs.FS
	name string

	mu                 sync.Mutex
	read, write, synch error
	from, to           int64
}

// bad makes the reads, writes and syncs of a file fail; nil lets them be.
func (b *badFS) bad(read, write, synch error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.read, b.write, b.synch, b.from, b.to = read, write, synch, 0, 1<<62
}

func (b *badFS) fault(err *error, off, n int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if off < b.to && off+n > b.from {
		return *err
	}
	return nil
}

func (b *badFS) Open(name string) (vfs.File, error) {
	f, err := b.FS.Open(name)
	if err == nil && name == b.name {
		f = badFile{f, b}
	}
	return f, err
}

type badFile struct {
	vfs.File
	b *badFS
}

func (f badFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.b.fault(&f.b.read, off, int64(len(p))); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, off)
}

func (f badFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.b.fault(&f.b.write, off, int64(len(p))); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, off)
}

func (f badFile) Punch(off, n int64) error {
	if err := f.b.fault(&f.b.write, off, n); err != nil {
		return err
	}
	return f.File.Punch(off, n)
}

func (f badFile) Sync() error {
	if err := f.b.fault(&f.b.synch, 0, 1); err != nil {
		return err
	}
	return f.File.Sync()
}

// An I/O error of any of the disk's calls reaches the caller as it is, and is remembered across a restart; a full disk is
// no reason for doubt.
func TestTroubleIsMarked(t *testing.T) {
	block := make([]byte, Block)
	block[0] = 1
	for name, c := range map[string]struct {
		read, write, synch error
		do                 func(d *Store) error
		final              bool
	}{
		"read":      {read: syscall.EIO, do: func(d *Store) error { return d.ReadAt(make([]byte, Block), 0) }},
		"write":     {write: syscall.EIO, do: func(d *Store) error { return d.WriteAt(block, 0, false) }},
		"zero":      {write: syscall.EIO, do: func(d *Store) error { return d.Trim(0, Block, false) }},
		"read-only": {write: syscall.EROFS, do: func(d *Store) error { return d.WriteAt(block, 0, false) }},
		"sync":      {synch: syscall.EIO, do: func(d *Store) error { return d.WriteAt(block, 0, true) }, final: true},
		"full":      {write: syscall.ENOSPC, do: func(d *Store) error { return d.WriteAt(block, 0, false) }},
		"full sync": {synch: syscall.ENOSPC, do: func(d *Store) error { return d.WriteAt(block, 0, true) }, final: true},
	} {
		t.Run(name, func(t *testing.T) {
			m := vfs.NewMem()
			fsys := &badFS{FS: m, name: baseName}
			told := make(chan string, 2)
			o := quiet(m)
			o.FS, o.Troubled = fsys, func(reason string) { told <- reason }
			d := newDisk(t, 1<<20, o)
			must(t, d.Activate(1))
			fsys.bad(c.read, c.write, c.synch)
			want := errors.Join(c.read, c.write, c.synch)
			for range 2 {
				err := c.do(d)
				if errno := want.(interface{ Unwrap() []error }).Unwrap()[0]; !errors.Is(err, errno) || errors.Is(err, ErrFailed) != c.final {
					t.Fatalf("the caller got %v", err)
				}
			}
			doubt := !outOfSpace(want)
			if why := d.Info().NeedsCheck; (why != "") != doubt || doubt && !strings.Contains(why, want.Error()) {
				t.Fatalf("needs checking: %q", why)
			}
			if doubt && <-told != d.Info().NeedsCheck {
				t.Fatal("told something else")
			}
			if len(told) > 0 {
				t.Fatalf("told of %q too", <-told)
			}
			d = reopen(t, quiet(m.Crash(vfs.LoseUnsynced, 1)))
			if why := d.Info().NeedsCheck; (why != "") != doubt {
				t.Fatalf("after a power cut it needs checking: %q", why)
			}
		})
	}
}

// A replica's trouble is marked too.
func TestReplicasTroubleIsMarked(t *testing.T) {
	fsys := &badFS{FS: vfs.NewMem(), name: baseName}
	o := quiet(vfs.NewMem())
	o.FS = fsys
	r := newDisk(t, 1<<20, o)
	a, err := r.Apply()
	must(t, err)
	fsys.bad(nil, syscall.EIO, nil)
	must(t, a.Write(0, make([]byte, Block)))
	if err := a.Barrier(Position{1, 1}); !errors.Is(err, syscall.EIO) || r.Info().NeedsCheck == "" {
		t.Fatalf("barrier: %v, needs checking: %q", err, r.Info().NeedsCheck)
	}
}

// A journal that can't be written doesn't keep the mark from being seen, nor from being stored when it can again.
func TestMarkIsTriedAgain(t *testing.T) {
	m := vfs.NewMem()
	base := &badFS{FS: m, name: baseName}
	both := &badFS{FS: base, name: journalName}
	o := quiet(m)
	o.FS = both
	d := newDisk(t, 1<<20, o)
	base.bad(syscall.EIO, nil, nil)
	both.bad(nil, syscall.EIO, nil)
	if err := d.ReadAt(make([]byte, 1), 0); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	if d.Info().NeedsCheck == "" {
		t.Fatal("not marked in memory")
	}
	both.bad(nil, nil, nil)
	must(t, d.mark())
	m = m.Crash(vfs.LoseUnsynced, 1)
	d = reopen(t, quiet(m))
	if d.Info().NeedsCheck == "" {
		t.Fatal("not marked after a restart")
	}
	if err := d.unmark(d.troubles + 1); err == nil || d.Info().NeedsCheck == "" {
		t.Fatal("the mark was cleared in spite of new trouble")
	}
	must(t, d.unmark(d.troubles))
	if d = reopen(t, quiet(m.Crash(vfs.LoseUnsynced, 1))); d.Info().NeedsCheck != "" {
		t.Fatal("the cleared mark came back")
	}
}
