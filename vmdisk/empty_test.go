package vmdisk

import (
	"bytes"
	"errors"
	"sync/atomic"
	"testing"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// punchFS tells before each hole that is made in the base file.
type punchFS struct {
	vfs.FS
	before func(n int64)
}

func (f *punchFS) Open(name string) (vfs.File, error) {
	file, err := f.FS.Open(name)
	return f.wrap(name, file, err)
}

func (f *punchFS) Create(name string) (vfs.File, error) {
	file, err := f.FS.Create(name)
	return f.wrap(name, file, err)
}

func (f *punchFS) wrap(name string, file vfs.File, err error) (vfs.File, error) {
	if err != nil || name != baseName {
		return file, err
	}
	return punchFile{file, f}, nil
}

type punchFile struct {
	vfs.File
	fs *punchFS
}

func (f punchFile) Punch(off, n int64) error {
	if f.fs.before != nil {
		f.fs.before(n)
	}
	return f.File.Punch(off, n)
}

// A guest that gives gigabytes back in one request keeps nobody from writing meanwhile: flushes and writes of others pass between its pieces, and what isn't
// emptied yet is read as it was.
func TestOthersPassALargeTrim(t *testing.T) {
	fs := &punchFS{FS: vfs.OS(t.TempDir())}
	const pieces = 8
	d, err := Create("", ID{1}, (pieces+1)*emptyPiece, Options{FS: fs, BarrierEvery: -1, SaveEvery: -1})
	must(t, err)
	must(t, d.Activate(1))
	last := int64(pieces*emptyPiece - Block)
	for i := range int64(pieces + 1) { // each piece has something that must be given back
		must(t, d.WriteAt(blockOf(7), i*emptyPiece, false))
	}
	must(t, d.WriteAt(blockOf(7), last, false))
	must(t, d.Flush())
	var n atomic.Int64
	passed := make(chan struct{})
	fs.before = func(size int64) {
		if size > emptyPiece {
			t.Errorf("%d bytes at once", size)
		}
		k := n.Add(1)
		if k == 3 {
			go func() {
				defer close(passed)
				if err := errors.Join(d.Flush(), d.WriteAt(blockOf(8), pieces*emptyPiece, true)); err != nil {
					t.Error(err)
				}
			}()
		}
		// A piece goes on when they wait for it to end, or have passed: however slow they are, they can pass before the next.
		for waits := k < 3; !waits; {
			select {
			case <-passed:
				waits = true
			default:
				if waits = !d.gate.TryRLock(); !waits {
					d.gate.RUnlock()
				}
			}
		}
		if k == pieces {
			select {
			case <-passed:
			default:
				t.Error("a flush and a write wait for all of the trim")
			}
			b := make([]byte, Block)
			if err := d.ReadAt(b, last); err != nil || !bytes.Equal(b, blockOf(7)) {
				t.Errorf("what isn't emptied yet holds %d, %v", b[0], err)
			}
		}
	}
	must(t, d.Trim(Block/2, pieces*emptyPiece-Block/2, true))
	if n.Load() < pieces {
		t.Errorf("it was emptied in %d pieces", n.Load())
	}
	b := make([]byte, Block)
	must(t, d.ReadAt(b, 0))
	if want := append(bytes.Repeat([]byte{7}, Block/2), make([]byte, Block/2)...); !bytes.Equal(b, want) {
		t.Error("the first block isn't emptied by half")
	}
	must(t, d.ReadAt(b, last))
	if !bytes.Equal(b, make([]byte, Block)) {
		t.Error("the last block isn't empty")
	}
	must(t, d.ReadAt(b, pieces*emptyPiece))
	if !bytes.Equal(b, blockOf(8)) {
		t.Error("the block behind it isn't what was written")
	}
	must(t, d.Close())
}
