package vmdisk

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// overOld is a replica whose log was begun anew over old epochs, and has three more since: the log, what it was before that, where each commit ends (first
// the one that it begins with), and the content and position at each.
func overOld(t *testing.T) (m *vfs.Mem, log, old []byte, ends []int, contents [][]byte, at []Position) {
	t.Helper()
	m = vfs.NewMem()
	d, a := completeReplica(t, m)
	e := d.epochs
	pos := Position{1, 1}
	epoch := func(fill byte) {
		pos.Barrier++
		must(t, a.Write(int64(fill%8)*Block, bytes.Repeat([]byte{fill}, 2*Block)))
		must(t, a.Barrier(pos))
	}
	note := func() {
		ends, contents, at = append(ends, int(e.committed.at)), append(contents, content(t, d)), append(at, pos)
	}
	for fill := byte(1); ; fill++ {
		before := e.committed.at
		old = file(t, m, epochsName)
		if epoch(fill); e.committed.at < before {
			break
		}
	}
	if want := int64(epochsHeader + frameHeader); e.committed.at != want || e.applied != e.committed {
		t.Fatalf("the log begins anew at %+v, applied %+v, want byte %d", e.committed, e.applied, want)
	}
	note()
	for i := range byte(3) {
		epoch(100 + i)
		note()
	}
	must(t, a.Write(9*Block, bytes.Repeat([]byte{9}, Block)))
	must(t, e.flush()) // an epoch without its barrier
	log = file(t, m, epochsName)
	if len(log) < ends[3]+4*Block || len(old) < ends[3] {
		t.Fatalf("nothing of the old log is left: %d bytes, the epochs end at %v", len(log), ends)
	}
	return m.Crash(vfs.LoseNothing, 0), log, old, ends, contents, at
}

func TestEpochsOverOldTornAnywhere(t *testing.T) {
	m, log, old, ends, contents, at := overOld(t)
	for n := epochsHeader; n <= ends[3]+Block; n++ {
		if n > epochsHeader+frameHeader && n%41 > 0 {
			continue
		}
		m := m.Crash(vfs.LoseNothing, 0)
		replaceFile(t, m, epochsName, slices.Concat(log[:n], old[n:]))
		replaceFile(t, m, baseName, contents[0])
		d := reopen(t, quiet(m))
		whole := 0
		for whole < 3 && ends[whole+1] <= n {
			whole++
		}
		if p := d.Position(); p != at[whole] || !bytes.Equal(content(t, d), contents[whole]) {
			t.Fatalf("%d bytes, epochs end at %v: position %s, want %s with its content", n, ends, p, at[whole])
		}
		if size := len(file(t, m, epochsName)); size != epochsHeader {
			t.Fatalf("%d bytes: the log of a replica that nobody writes has %d bytes", n, size)
		}
		must(t, d.Close())
	}
}

func TestEpochsOverOldDamage(t *testing.T) {
	m, log, _, ends, contents, _ := overOld(t)
	for i := epochsHeader; i < ends[3]; i += 53 {
		m := m.Crash(vfs.LoseNothing, 0)
		c := slices.Clone(log)
		c[i] ^= 1
		replaceFile(t, m, epochsName, c)
		replaceFile(t, m, baseName, contents[0])
		if _, err := Open("", quiet(m)); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("flip of byte %d (epochs end at %v): %v", i, ends, err)
		}
	}
}

// An epoch that is in memory is applied from there, a longer one from the file: both are what the owner wrote.
func TestEpochsApplied(t *testing.T) {
	for _, n := range []int{Block, epochsDirect - Block, epochsDirect, MaxOp} {
		for _, times := range []int{1, 3, 9} {
			m := vfs.NewMem()
			o := quiet(m)
			o.EpochLogBytes = 64 << 20
			d := newReplica(t, 16<<20, o)
			a, err := d.Apply()
			must(t, err)
			must(t, a.Begin([16]byte{7}))
			must(t, a.Barrier(Position{1, 1}))
			want := make([]byte, d.Size())
			for barrier := range 2 {
				for i := range times {
					p := bytes.Repeat([]byte{byte(100*barrier + i + 1)}, n)
					must(t, a.Write(int64(i*n), p))
					copy(want[i*n:], p)
				}
				must(t, a.Zero(Block, Block))
				clear(want[Block : 2*Block])
				must(t, a.Barrier(Position{1, uint64(barrier) + 2}))
				if !bytes.Equal(content(t, d), want) {
					t.Fatalf("%d writes of %d bytes: the content is another", times, n)
				}
			}
			// What a crash leaves is the same: it is applied from the file.
			again := m.Crash(vfs.LoseUnsynced, 0)
			r := reopen(t, quiet(again))
			if !bytes.Equal(content(t, r), want) || r.Position() != (Position{1, 3}) {
				t.Fatalf("%d writes of %d bytes: after a power cut it is another, at %s", times, n, r.Position())
			}
			must(t, r.Close())
		}
	}
}
