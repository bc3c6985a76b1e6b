package vmdisk

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// sampleEpochs is a replica with three epochs in its log: the log, where each commit ends, and the content at each.
func sampleEpochs(t *testing.T) (m *vfs.Mem, log []byte, ends []int, contents [][]byte) {
	t.Helper()
	m = vfs.NewMem()
	d, a := completeReplica(t, m)
	contents = append(contents, content(t, d))
	for i := range byte(3) {
		must(t, a.Write(int64(i)*Block, bytes.Repeat([]byte{i + 1}, 2*Block)))
		must(t, a.Zero(8*Block, Block))
		must(t, a.Barrier(Position{1, uint64(i) + 2}))
		ends = append(ends, int(d.epochs.committed.at))
		contents = append(contents, content(t, d))
	}
	must(t, a.Write(9*Block, bytes.Repeat([]byte{9}, Block)))
	must(t, d.epochs.flush()) // an epoch without its barrier
	log = file(t, m, epochsName)
	return m.Crash(vfs.LoseNothing, 0), log, ends, contents
}

// completeReplica has position 1/1 and an open applier.
func completeReplica(t *testing.T, m *vfs.Mem) (*Store, *Applier) {
	t.Helper()
	d := newReplica(t, 64<<10, quiet(m))
	a, err := d.Apply()
	must(t, err)
	must(t, a.Begin([16]byte{7}))
	must(t, a.Write(8*Block, bytes.Repeat([]byte{8}, Block)))
	must(t, a.Barrier(Position{1, 1}))
	return d, a
}

func TestEpochsTornAnywhere(t *testing.T) {
	m, log, ends, contents := sampleEpochs(t)
	for n := epochsHeader; n <= len(log); n += 41 {
		m := m.Crash(vfs.LoseNothing, 0)
		replaceFile(t, m, epochsName, log[:n])
		// What base.raw has of epochs that were not durable can't be there: put it back.
		replaceFile(t, m, baseName, contents[0])
		d := reopen(t, quiet(m))
		whole := 0
		for whole < len(ends) && ends[whole] <= n {
			whole++
		}
		if p := d.Position(); p != (Position{1, uint64(whole) + 1}) {
			t.Fatalf("%d bytes: position %s, want 1/%d", n, p, whole+1)
		}
		if !bytes.Equal(content(t, d), contents[whole]) {
			t.Fatalf("%d bytes: content isn't that of epoch %d", n, whole)
		}
		must(t, d.Close())
	}
}

func TestEpochsDamage(t *testing.T) {
	m, log, ends, contents := sampleEpochs(t)
	for i := 0; i < len(log); i += 53 {
		m := m.Crash(vfs.LoseNothing, 0)
		c := slices.Clone(log)
		c[i] ^= 1
		replaceFile(t, m, epochsName, c)
		replaceFile(t, m, baseName, contents[0])
		d, err := Open("", quiet(m))
		// The frame after the third epoch proves that this was durable.
		if i < ends[2] {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
				t.Fatalf("flip of byte %d (epochs end at %v): %v", i, ends, err)
			}
			continue
		}
		must(t, err)
		if d.Position() != (Position{1, 4}) || !bytes.Equal(content(t, d), contents[3]) {
			t.Fatalf("flip of byte %d: position %s", i, d.Position())
		}
		must(t, d.Close())
	}
}

// A full disk while an epoch is applied: nothing wrong is read, and it goes on when there is space again.
func TestEpochsFullDisk(t *testing.T) {
	m, _, _, contents := sampleEpochs(t)
	replaceFile(t, m, baseName, contents[0])
	full := &fullFS{Mem: m, full: true}
	o := quiet(m)
	o.FS = full
	d := reopen(t, o)
	if err := d.ReadAt(make([]byte, Block), 0); !outOfSpace(err) {
		t.Fatalf("read of a mixture: %v", err)
	}
	if _, err := d.Apply(); !outOfSpace(err) {
		t.Fatalf("apply: %v", err)
	}
	full.full = false
	a, err := d.Apply()
	must(t, err)
	must(t, a.Close())
	if !bytes.Equal(content(t, d), contents[3]) || d.Position() != (Position{1, 4}) {
		t.Fatalf("after that: position %s", d.Position())
	}
}

func FuzzEpochs(f *testing.F) {
	e := func(b []byte) (*epochLog, error) {
		m := vfs.NewMem()
		file, err := m.Create(epochsName)
		if err != nil {
			return nil, err
		}
		if len(b) > 0 {
			if _, err := file.WriteAt(b, 0); err != nil {
				return nil, err
			}
		}
		return readEpochs(file)
	}
	h := newEpochsHeader()
	l, err := e(h)
	if err != nil {
		f.Fatal(err)
	}
	b := l.appendFrame(slices.Clone(h), frame{frameWrite, 0, 4096, 8}, l.chain, []byte("12345678"))
	f.Add(b, uint64(1), uint64(1))
	b = l.appendFrame(b, frame{frameCommit, 0, 1, 1}, [sumSize]byte(b[len(h)+40:]), nil)
	f.Add(b, uint64(1), uint64(0))
	f.Add(b[:len(b)-1], uint64(1), uint64(0))
	f.Fuzz(func(t *testing.T, b []byte, term, barrier uint64) {
		l, err := e(b)
		if err == nil {
			err = l.scan(Position{term, barrier}, 1<<20)
		}
		if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
			t.Fatal(err)
		}
		if err == nil && l.committed.at > int64(max(len(b), epochsHeader)) {
			t.Fatal("committed more than there is")
		}
	})
}
